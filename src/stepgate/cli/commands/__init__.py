"""The commands of `stepgate`: names, options and help, a file for each kind of thing they do."""
