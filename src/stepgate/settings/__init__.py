"""Everything a user can set, in one place: names, defaults, checks, and where each value came from."""

from stepgate.settings.model import Listed, Settings, Source, variable_of
from stepgate.settings.reading import ENV_FILE, load
from stepgate.settings.values import MASK, default_state_dir

__all__ = [
    "ENV_FILE",
    "MASK",
    "Listed",
    "Settings",
    "Source",
    "default_state_dir",
    "load",
    "variable_of",
]
