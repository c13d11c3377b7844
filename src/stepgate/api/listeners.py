"""Lets a request sleep until its run may have moved; a ring that never comes costs the next look, nothing more."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from stepgate.domain.ids import RunId


class Listeners:
    """Requests that wait for a run, by run. For one event loop."""

    def __init__(self) -> None:
        self._waiting: defaultdict[RunId, set[asyncio.Event]] = defaultdict(set)

    def ring(self, run_id: RunId) -> None:
        """The run may have moved."""
        for event in self._waiting.get(run_id, ()):
            event.set()

    @contextmanager
    def listening(self, run_id: RunId) -> Iterator[asyncio.Event]:
        """An event that is set at each ring; the waiter clears it before it looks."""
        event = asyncio.Event()
        self._waiting[run_id].add(event)
        try:
            yield event
        finally:
            self._waiting[run_id].discard(event)
            if not self._waiting[run_id]:
                del self._waiting[run_id]
