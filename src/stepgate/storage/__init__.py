"""Everything that touches PostgreSQL: tables, the committer, the claim, queries, the embedded server."""
