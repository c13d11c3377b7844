"""A PostgreSQL server of our own for users who have none: shared by all local processes, gone with the last."""

from stepgate.storage.embedded.server import EmbeddedServer, Seen, acquire, look

__all__ = ["EmbeddedServer", "Seen", "acquire", "look"]
