"""The watch over a running command: what the kernel's limits do not bound for a whole tree of processes."""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from stepgate.workspace.layers.layer import Layer
from stepgate.workspace.sandbox.command import Killed
from stepgate.workspace.sandbox.limits import Limits
from stepgate.workspace.sandbox.usage import Contents, contents, processes

_PERIOD_S = 0.05
_LEAST_WALK_S = 0.2
_WALK_SHARE = 10


class Watch:
    """Samples a sandbox every 50 ms and its folders less often, the less the longer a walk takes."""

    def __init__(self, limits: Limits, layer: Layer, kill: Callable[[Killed], None]) -> None:
        self.peak_bytes = 0
        self._limits = limits
        self._kill = kill
        self._written = os.dup(layer.written)
        self._scratch = os.dup(layer.scratch)
        self._walking: asyncio.Future[tuple[Contents, Contents]] | None = None
        self._already: Contents | None = None
        self._free = _Free.of(self._written)

    async def follow(self, first: int) -> None:
        """Runs until cancelled."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        next_walk = started + _LEAST_WALK_S
        while True:
            wait = min(_PERIOD_S, max(0.0, started + self._limits.wall_s - loop.time()))
            await asyncio.sleep(wait)
            if loop.time() - started >= self._limits.wall_s:
                self._kill(Killed.WALL)
                return
            self._look(first)
            if loop.time() >= next_walk:
                began = time.monotonic()
                await self._walk()
                next_walk = loop.time() + max(_LEAST_WALK_S, _WALK_SHARE * (time.monotonic() - began))

    def _look(self, first: int) -> None:
        used = processes(first)
        self.peak_bytes = max(self.peak_bytes, used.memory_bytes)
        if used.memory_bytes > self._limits.memory_bytes:
            self._kill(Killed.MEMORY)
        elif used.cpu_s > self._limits.cpu_s:
            self._kill(Killed.CPU)
        elif used.count > self._limits.pids:
            self._kill(Killed.PIDS)

    async def _walk(self) -> None:
        self._walking = asyncio.get_running_loop().run_in_executor(None, self._measure)
        written, scratch = await asyncio.shield(self._walking)
        limits = self._limits
        used = self._free.less(_Free.of(self._written)) if written.closed or scratch.closed else _Free(0, 0)
        if written.bytes > limits.written_bytes:
            self._kill(Killed.DISK)
        elif scratch.bytes > limits.tmp_bytes:
            self._kill(Killed.TMP)
        elif written.files + scratch.files > limits.files:
            self._kill(Killed.FILES)
        # What lies very deep or in a folder closed to its own owner cannot be counted, but the disk shows it.
        elif used.bytes > limits.written_bytes + limits.tmp_bytes:
            self._kill(Killed.DISK)
        elif used.files > 2 * limits.files:
            self._kill(Killed.FILES)

    def _measure(self) -> tuple[Contents, Contents]:
        most = self._limits.files
        return contents(self._written, most), contents(self._scratch, most)

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
