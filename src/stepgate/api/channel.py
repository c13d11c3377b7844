"""By what a request came: the name that Stepgate's own programs give themselves, believed only with the secret."""

from typing import Final

CHANNEL_HEADER: Final = "Stepgate-Channel"
CLI: Final = "cli"
CHANNELS: Final = frozenset({CLI})
