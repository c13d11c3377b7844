"""Throw-away views of a workspace that a command may write to, and the reading of what it left there."""
