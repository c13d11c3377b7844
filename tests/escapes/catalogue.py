"""Every attack."""

from typing import Final

from tests.escapes.attack import Attack
from tests.escapes.rows import (
    files,
    kernel,
    namespaces,
    network,
    privilege,
    processes,
    protected,
    resources,
    survivors,
    terminals,
)

ATTACKS: Final[tuple[Attack, ...]] = (
    *files.ATTACKS,
    *processes.ATTACKS,
    *namespaces.ATTACKS,
    *kernel.ATTACKS,
    *network.ATTACKS,
    *privilege.ATTACKS,
    *resources.ATTACKS,
    *survivors.ATTACKS,
    *terminals.ATTACKS,
    *protected.ATTACKS,
)
