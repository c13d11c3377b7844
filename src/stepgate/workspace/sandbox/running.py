"""One command from its start to the end of its last process, on the event loop."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from stepgate.domain.errors import SandboxUnavailable, StepgateError
from stepgate.workspace.layers.layer import Layer
from stepgate.workspace.redaction import Redactor
from stepgate.workspace.sandbox.cgroup import Counted, Group
from stepgate.workspace.sandbox.command import Command, Finished, Killed
from stepgate.workspace.sandbox.ending import SIGNALLED, code_without_run
from stepgate.workspace.sandbox.limits import Limits, resource_limits
from stepgate.workspace.sandbox.output import Stream
from stepgate.workspace.sandbox.recipe import Recipe
from stepgate.workspace.sandbox.start import Report, start
from stepgate.workspace.sandbox.watch import Watch
from stepgate.workspace.sandbox.wire import receive

_PATIENCE_S: Final = 20.0


def _make_group(home: Path, limits: Limits) -> Group:
    try:
        return Group.make(home, limits)
    except OSError as error:
        raise SandboxUnavailable(f"no control group can be made in {home}: {error.strerror}") from error


class Running:
    """One command in its sandbox. `run` or `discard` must be called once; `start` may be called long before."""

    def __init__(
        self,
        recipe: Recipe,
        command: Command,
        layer: Layer,
        on_output: Callable[[str, bytes], None] | None,
        on_end: "Callable[[Running], None] | None" = None,
    ) -> None:
        self._recipe = recipe
        self._command = command
        self._layer = layer
        self._on_output = on_output
        self._on_end = on_end
        self._started: tuple[socket.socket, tuple[Stream, Stream]] | None = None
        self._wanted = False
        self._ready: asyncio.Future[None] | None = None
        self._release = -1
        self._bare = False
        self._loop = asyncio.get_running_loop()
        self._began = 0.0
        self._killed: Killed | None = None
        self._fault: BaseException | None = None
        self._written = 0
        self._process = -1
        self._first: asyncio.Future[int] = self._loop.create_future()
        self._gone = asyncio.Event()
        self._report: asyncio.Future[Report | None] = self._loop.create_future()
        self._group: Group | None = None
        self.counted: Counted | None = None

    def start(self) -> None:
        """Has the sandbox set up, and does not wait for it; nothing of the command runs before `run`."""
        self._up()

    def _up(self) -> tuple[socket.socket, tuple[Stream, Stream]]:
        if self._started is None:
            if self._recipe.groups is not None:
                self._group = _make_group(self._recipe.groups, self._command.limits)
            try:
                self._started = self._start()
            except BaseException:
                self._remove_group()
                raise
        return self._started

    async def run(self, stop: asyncio.Event | None = None, ready: "asyncio.Future[None] | None" = None) -> Finished:
        """The command, from `ready` (at once without one) to the end of its last process."""
        control, streams = self._up()
        self._began, self._wanted, self._ready = time.monotonic(), True, ready
        self._let_go_when_ready()
        try:
            return await self._follow(streams, stop)
        except BaseException:
            self.kill(Killed.CANCEL)  # what nobody follows must not go on
            raise
        finally:
            self._loop.remove_reader(control)
            self._part_with(control)
            release, self._release = self._release, -1
            os.close(release)
            for stream in streams:
                stream.close()
            process, self._process = self._process, -1
            if process >= 0:
                self._loop.remove_reader(process)
                os.close(process)
            self._remove_group()
            if self._on_end is not None:
                self._on_end(self)

    @property
    def alive(self) -> bool:
        """Whether its sandbox has not ended."""
        return not self._gone.is_set()

    async def discard(self) -> None:
        """Ends a sandbox whose command is not to run after all; returns when nothing of it is left."""
        self.kill(Killed.CANCEL)
        with contextlib.suppress(StepgateError):  # it may never have come up
            await self.run()

    def _remove_group(self) -> None:
        if self._group is not None:
            self._group.remove()

    def _part_with(self, control: socket.socket) -> None:
        report = self._report.result() if self._report.done() else None
        if report is None or report.fault or self._bare:
            control.close()
        else:
            self._recipe.launcher.give_back(control)

    def _start(self) -> tuple[socket.socket, tuple[Stream, Stream]]:
        recipe, command = self._recipe, self._command
        how = recipe.start(command, self._layer)
        self._bare = how.bare
        started = start(
            recipe.launcher,
            how,
            command.argv,
            resource_limits(command.limits),
            command.stdin,
            self._layer.opened_ns,
        )
        self._release = started.release
        started.control.setblocking(False)
        self._loop.add_reader(started.control, self._hear, started.control)
        keep = command.limits.output_bytes
        return started.control, (
            Stream("stdout", started.stdout, keep, self._on_output, self._count, self._redactor()),
            Stream("stderr", started.stderr, keep, self._on_output, self._count, self._redactor()),
        )

    def _redactor(self) -> Redactor | None:
        secrets = self._command.secrets
        return None if secrets is None else Redactor(secrets)

    def _hear(self, control: socket.socket) -> None:
        try:
            data, descriptors = receive(control, 1)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        if descriptors:
            self._process = descriptors[0]
            self._loop.add_reader(self._process, self._end)
            message = json.loads(data)
            # Without a namespace, what lost its parent comes to the guard.
            self._first.set_result(message.get("guard", message["first"]))
            if self._group is not None:
                self._enclose(self._group, message["first"])
            if self._killed is not None:
                self.kill(self._killed)
            else:
                self._let_go_when_ready()
            return
        self._loop.remove_reader(control)
        if not self._first.done():
            self._gone.set()
            self._first.set_result(-1)
        self._report.set_result(Report.of(json.loads(data)) if data else None)

    def _enclose(self, group: Group, first: int) -> None:
        try:
            group.add(first)
        except OSError as error:
            self._fault = SandboxUnavailable(f"a command cannot be put into its control group: {error.strerror}")
            self.kill(Killed.CANCEL)

    def _let_go_when_ready(self) -> None:
        """Once there is a sandbox, and its command is wanted."""
        if not self._wanted or self._process < 0:
            return
        if self._ready is None:
            self._let_go()
        else:
            self._ready.add_done_callback(self._let_go)

    def _let_go(self, ready: "asyncio.Future[None] | None" = None) -> None:
        """The command begins, unless what it had to wait for has failed."""
        if ready is not None and (ready.cancelled() or ready.exception() is not None):
            self._fault = self._fault or (None if ready.cancelled() else ready.exception())
            self.kill(Killed.CANCEL)
        elif self._killed is None and self._release >= 0:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._release, b"x")

    def _end(self) -> None:
        self._loop.remove_reader(self._process)
        self._gone.set()

    def _count(self, size: int) -> None:
        self._written += size
        if self._written > self._command.limits.output_kill_bytes:
            self.kill(Killed.OUTPUT)

    def kill(self, why: Killed) -> None:
        """Ends the command and all it started; the first reason given is the one reported.

        May be called from any thread, and before there is a process, which is then killed as soon as it is there.
        """
        if self._killed is None and not self._gone.is_set():
            self._killed = why
        process = self._process
        if process >= 0:
            # The kernel takes everything in the namespace down with its first process; a guard does that work itself.
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(process, signal.SIGTERM if self._bare else signal.SIGKILL)

    async def _follow(self, streams: tuple[Stream, Stream], stop: asyncio.Event | None) -> Finished:
        watch = Watch(self._command.limits, self._layer, self.kill)
        following = asyncio.ensure_future(self._whole(watch, streams, stop))
        try:
            await asyncio.shield(following)
        except asyncio.CancelledError:
            await self._give_up(following)
            raise
        finally:
            watch.close()
        return self._finished(following.result(), watch, streams)

    async def _give_up(self, following: "asyncio.Future[Report | None]") -> None:
        # Cancelled again while waiting, it still waits: nothing may survive the call.
        while not following.done():
            try:
                await asyncio.shield(self._first)
                self.kill(Killed.CANCEL)
                await asyncio.wait([following])
            except asyncio.CancelledError:
                continue

    async def _whole(self, watch: Watch, streams: tuple[Stream, Stream], stop: asyncio.Event | None) -> Report | None:
        first = await self._first
        beside = [self._loop.create_task(self._stop_when(stop))] if stop is not None else []
        if first >= 0:
            beside.append(self._loop.create_task(watch.follow(first)))
        for task in beside:
            task.add_done_callback(self._unwatched)
        try:
            await self._gone.wait()
            report = await self._end_of(streams)
        finally:
            for task in beside:
                task.cancel()
        if self._fault is not None:
            raise self._fault
        return report

    async def _end_of(self, streams: tuple[Stream, Stream]) -> Report | None:
        # Every process that could be waited for or hold a pipe's other end is dead; else this was no sandbox.
        try:
            async with asyncio.timeout(_PATIENCE_S):
                for stream in streams:
                    await stream.ended.wait()
                return await asyncio.shield(self._report)
        except TimeoutError:
            raise SandboxUnavailable("a process outlived its sandbox") from None

    def _unwatched(self, task: asyncio.Task[None]) -> None:
        # Nothing may run whose limits are not watched.
        if not task.cancelled() and (fault := task.exception()) is not None:
            self._fault = fault
            self.kill(Killed.CANCEL)

    async def _stop_when(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self.kill(Killed.CANCEL)

    def _finished(self, report: Report | None, watch: Watch, streams: tuple[Stream, Stream]) -> Finished:
        out, err = streams
        if self._group is not None:
            self.counted = self._group.counted()
            if self.counted.out_of_memory and self._killed is None:
                self._killed = Killed.MEMORY
        code = None if report is None else report.code
        if self._killed is None and (report is None or not report.ran):
            code = code_without_run(self._command, bytes(err.data), code, report)
        number = code - SIGNALLED if code is not None and SIGNALLED < code <= SIGNALLED + signal.NSIG else None
        in_group = self.counted.peak_bytes if self.counted else None
        peaks = [size for size in (report.peak_bytes if report else None, watch.peak_bytes, in_group) if size]
        # Of processes that die with their namespace the supervisor is not told what they used.
        spent = [report.cpu_us if report else None, self.counted.cpu_us if self.counted else None]
        cpu_us = max([round(watch.cpu_s * 1e6), *(used for used in spent if used is not None)])
        return Finished(
            exit_code=None if self._killed else code,
            signal=signal.SIGKILL if self._killed else number,
            killed=self._killed,
            stdout=bytes(out.data),
            stderr=bytes(err.data),
            truncated=out.truncated or err.truncated,
            level=self._recipe.level,
            limits=self._command.limits,
            wall_ms=round((time.monotonic() - self._began) * 1000),
            cpu_ms=round(cpu_us / 1000) if cpu_us or report else None,
            peak_memory_bytes=max(peaks, default=None),
        )
