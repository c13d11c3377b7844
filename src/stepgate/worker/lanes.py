"""How many steps of a type run at once in this worker."""

import asyncio
from collections.abc import Mapping

EVERY_OTHER = "*"


class Lanes:
    """A semaphore for each type that has a limit of its own, one for all the others together."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self._slots = {name: asyncio.Semaphore(limit) for name, limit in limits.items()}

    def __getitem__(self, step_type: str) -> asyncio.Semaphore:
        return self._slots.get(step_type) or self._slots[EVERY_OTHER]
