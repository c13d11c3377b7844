"""Measurements: what Stepgate costs, beside what PostgreSQL alone costs, in one interleaved run."""
