"""Queries for people: what the API and the command line show, read without changing or locking anything."""
