"""The watch over a running command: what the kernel's limits do not bound for a whole tree of processes."""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from stepgate.workspace.layers.layer import Layer
from stepgate.workspace.sandbox import holdings
from stepgate.workspace.sandbox.command import Killed
from stepgate.workspace.sandbox.limits import Limits
from stepgate.workspace.sandbox.usage import Contents, contents, processes

_PERIOD_S = 0.05
_SHORTEST_S = 0.005
_LEAST_WALK_S = 0.2
_WALK_SHARE = 10


class Watch:
    """Samples a sandbox every 50 ms, more often while its memory grows fast, and its folders the less often the longer
    a walk takes.

    `peak_bytes` and `cpu_s` are the most it has seen: of processes that are killed the kernel tells nobody else.
    """

    def __init__(self, limits: Limits, layer: Layer, kill: Callable[[Killed], None]) -> None:
        self.peak_bytes = 0
        self.cpu_s = 0.0
        self._wait_s = _PERIOD_S
        self._last = (0, 0.0)
        self._limits = limits
        self._kill = kill
        self._written = os.dup(layer.written)
        self._scratch = os.dup(layer.scratch)
        self._walking: asyncio.Future[tuple[Contents, ...]] | None = None
        self._free = _Free.of(self._written)
        self._shared = holdings.shared_pages()
        self._pids: tuple[int, ...] = ()
        self._own_s: dict[tuple[int, int], float] = {}

    async def follow(self, first: int) -> None:
        """Runs until cancelled."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        next_walk = started + _LEAST_WALK_S
        while True:
            await asyncio.sleep(min(self._wait_s, max(0.0, started + self._limits.wall_s - loop.time())))
            self._look(first, loop.time() - started)
            if loop.time() - started >= self._limits.wall_s:
                self._kill(Killed.WALL)
                return
            if loop.time() >= next_walk:
                began = time.monotonic()
                await self._walk()
                next_walk = loop.time() + max(_LEAST_WALK_S, _WALK_SHARE * (time.monotonic() - began))

    def _look(self, first: int, at_s: float) -> None:
        used = processes(first)
        self._pids = used.pids
        self.peak_bytes = max(self.peak_bytes, used.memory_bytes)
        # What a child used shows here, if it lives long enough to be seen, or with who waited for it, if anybody did.
        self._own_s.update(used.own_s)
        self.cpu_s = max(self.cpu_s, used.cpu_s, sum(self._own_s.values()))
        limits = self._limits
        held = max(used.memory_bytes, self._unmapped(), holdings.buffers(used.pids, limits.memory_bytes))
        self._wait_s = self._until_next(held, at_s)
        if held > limits.memory_bytes:
            self._kill(Killed.MEMORY)
        elif self.cpu_s > limits.cpu_s:
            self._kill(Killed.CPU)
        elif len(used.pids) > limits.pids:
            self._kill(Killed.PIDS)

    def _until_next(self, memory_bytes: int, at_s: float) -> float:
        """Half of the time after which the memory is used up if it grows on as it does."""
        before_bytes, before_s = self._last
        self._last = (memory_bytes, at_s)
        grown = memory_bytes - before_bytes
        if grown <= 0:
            return _PERIOD_S
        left_s = (self._limits.memory_bytes - memory_bytes) / grown * (at_s - before_s)
        return min(_PERIOD_S, max(_SHORTEST_S, left_s / 2))

    def _unmapped(self) -> int:
        grown = holdings.shared_pages() - self._shared
        return holdings.unmapped(self._pids, grown) if grown > self._limits.memory_bytes else 0

    async def _walk(self) -> None:
        self._walking = asyncio.get_running_loop().run_in_executor(None, self._measure)
        written, scratch, nameless = await asyncio.shield(self._walking)
        limits = self._limits
        unseen = any(found.closed for found in (written, scratch, nameless))
        used = self._free.less(_Free.of(self._written)) if unseen else _Free(0, 0)
        if written.bytes > limits.written_bytes or nameless.bytes > limits.written_bytes + limits.tmp_bytes:
            self._kill(Killed.DISK)
        elif scratch.bytes > limits.tmp_bytes:
            self._kill(Killed.TMP)
        elif written.files + scratch.files + nameless.files > limits.files:
            self._kill(Killed.FILES)
        # What lies very deep or in a folder closed to its own owner cannot be counted, but the disk shows it.
        elif used.bytes > limits.written_bytes + limits.tmp_bytes:
            self._kill(Killed.DISK)
        elif used.files > 2 * limits.files:
            self._kill(Killed.FILES)

    def _measure(self) -> tuple[Contents, ...]:
        most = self._limits.files
        return contents(self._written, most), contents(self._scratch, most), holdings.nameless(self._pids)

    def close(self) -> None:
        """Gives the descriptors back, after the walk that may still be using them."""
        if self._walking is not None and not self._walking.done():
            self._walking.add_done_callback(lambda _done: self._close())
        else:
            self._close()

    def _close(self) -> None:
        os.close(self._written)
        os.close(self._scratch)


@dataclass(frozen=True, slots=True)
class _Free:
    bytes: int
    files: int

    @classmethod
    def of(cls, folder: int) -> "_Free":
        found = os.fstatvfs(folder)
        return cls(found.f_bavail * found.f_frsize, found.f_favail)

    def less(self, now: "_Free") -> "_Free":
        return _Free(self.bytes - now.bytes, self.files - now.files)
