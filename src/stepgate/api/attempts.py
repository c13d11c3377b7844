"""Slows down whoever guesses: after some failures an address is not listened to for a while."""

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

FAILURES: Final = 20
WINDOW_S: Final = 60.0
ADDRESSES: Final = 4096
"""How many addresses are remembered; the one that failed longest ago is forgotten first."""


class Attempts:
    """Failed attempts of the last minute, by address, of this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()

    def failed(self, address: str) -> None:
        times = self._failed.setdefault(address, deque(maxlen=FAILURES))
        times.append(self._clock())
        self._failed.move_to_end(address)
        if len(self._failed) > ADDRESSES:
            self._failed.popitem(last=False)

    def wait_s(self, address: str) -> float:
        """How long the address must still wait; 0 where it may try."""
        times = self._failed.get(address)
        if times is None or len(times) < FAILURES:
            return 0.0
        return max(0.0, times[0] + WINDOW_S - self._clock())
