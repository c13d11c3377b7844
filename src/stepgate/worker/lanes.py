"""How many steps of a type run at once in this worker."""

import asyncio
from collections import deque
from collections.abc import Mapping

EVERY_OTHER = "*"


class Lane:
    """A semaphore that costs nothing while it has room: `try_enter` does not suspend."""

    __slots__ = ("_free", "_waiting")

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: deque[asyncio.Future[None]] = deque()

    def try_enter(self) -> bool:
        """Takes a place if one is free; each place taken is given back by `leave`."""
        if self._free and not self._waiting:
            self._free -= 1
            return True
        return False

    async def __aenter__(self) -> None:
        if self.try_enter():
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()  # the place was already ours
            elif turn in self._waiting:  # unless whoever left meanwhile has passed it over already
                self._waiting.remove(turn)
            raise

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Gives the place to whoever waits longest, or back."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Lanes:
    """A lane for each type that has a limit of its own, one for all the others together."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self._lanes = {name: Lane(limit) for name, limit in limits.items()}

    def __getitem__(self, step_type: str) -> Lane:
        return self._lanes.get(step_type) or self._lanes[EVERY_OTHER]
