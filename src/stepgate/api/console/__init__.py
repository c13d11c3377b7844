"""The console: pages that a browser shows without any script, to look at runs and to decide."""
