"""The command line: a client of the HTTP API, in this process or another, that shows runs and asks about them."""
