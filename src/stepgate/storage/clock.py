"""The database's time without asking for it each time: hosts disagree about clocks, the database does not."""

import time


class DatabaseClock:
    """Microseconds since the epoch as the database counts them.

    Each answer of the database says that its clock read `server` at some moment between `sent` and `received` on
    our monotonic clock; the offset is moved no further than that demands, so a slow answer does no harm. It begins at
    the earliest that the first answer allows: a run that is due ahead of the database's time would be passed over by
    whoever is woken for it.
    """

    __slots__ = ("_offset",)

    def __init__(self) -> None:
        self._offset: int | None = None

    @property
    def known(self) -> bool:
        return self._offset is not None

    def now(self) -> int:
        """Raises RuntimeError before the first answer was learned."""
        if self._offset is None:
            raise RuntimeError("the database's time is not known yet")
        return time.monotonic_ns() // 1000 + self._offset

    def learn(self, server: int, sent: int, received: int) -> None:
        """`server` in microseconds; `sent` and `received` are `time.monotonic_ns()`."""
        earliest, latest = server - received // 1000, server - sent // 1000
        if self._offset is None:
            self._offset = earliest
        else:
            self._offset = min(max(self._offset, earliest), latest)
