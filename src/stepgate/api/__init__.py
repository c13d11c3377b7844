"""The HTTP surface: one module per resource, each endpoint one verb of the engine or one query."""
