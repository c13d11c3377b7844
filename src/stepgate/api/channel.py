"""By what a request came: the name that Stepgate's own programs give themselves, believed only with proof."""

from typing import Final

CHANNEL_HEADER: Final = "Stepgate-Channel"
API: Final = "api"
CLI: Final = "cli"
CHANNELS: Final = frozenset({CLI})
