"""Stepgate: a PostgreSQL-backed deterministic step engine with approval gates."""

__version__ = "0.1.0"
