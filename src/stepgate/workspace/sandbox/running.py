"""One command from its start to the end of its last process, on the event loop."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stepgate.domain.errors import InvalidValue, SandboxUnavailable
from stepgate.workspace.layers.layer import WORKSPACE, Layer
from stepgate.workspace.paths import check_relative
from stepgate.workspace.sandbox import launcher as program
from stepgate.workspace.sandbox.cgroup import Counted, Group
from stepgate.workspace.sandbox.command import Command, Finished, Killed, Level
from stepgate.workspace.sandbox.launch import Launcher
from stepgate.workspace.sandbox.limits import Limits
from stepgate.workspace.sandbox.output import Stream
from stepgate.workspace.sandbox.start import Report, start
from stepgate.workspace.sandbox.watch import Watch

_PATIENCE_S: Final = 20.0
_NOT_FOUND: Final = 127
_NOT_EXECUTABLE: Final = 126
_SIGNALLED: Final = 128


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything about a sandbox that does not change from command to command."""

    level: Level
    launcher: Launcher
    bwrap: str
    options: tuple[str, ...]
    shown: tuple[str, ...]
    environment: Mapping[str, str]
    filter: bytes
    groups: Path | None = None

    def arguments(self, command: Command, layer: Layer) -> tuple[str, ...]:
        """bubblewrap's arguments, up to but without the command's own."""
        cwd = check_relative(command.cwd, "cwd", allow_root=True)
        environment = {**self.environment, **command.env}
        given = [part for name, value in environment.items() for part in ("--setenv", name, value)]
        return (
            *("--clearenv", *given),
            *self.options,
            *layer.mounts(),
            *self.shown,
            *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", f"{WORKSPACE}/{cwd}" if cwd else WORKSPACE),
        )


def resource_limits(limits: Limits) -> dict[str, int]:
    """The kernel's own limits, by name: hard stops behind the watch."""
    return {
        "RLIMIT_CORE": 0,
        "RLIMIT_CPU": int(limits.cpu_s) + 2,
        # Twice the limit, so that the watch sees and names the excess before allocations begin to fail.
        "RLIMIT_DATA": 2 * limits.memory_bytes,
        "RLIMIT_FSIZE": limits.file_bytes,
        "RLIMIT_MEMLOCK": 1 << 16,
        "RLIMIT_MSGQUEUE": 0,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_NPROC": limits.pids,
        "RLIMIT_SIGPENDING": 1024,
    }


def _make_group(home: Path, limits: Limits) -> Group:
    try:
        return Group.make(home, limits)
    except OSError as error:
        raise SandboxUnavailable(f"no control group can be made in {home}: {error.strerror}") from error


class Running:
    """A started command. `run` must be called once."""

    def __init__(
        self, recipe: Recipe, command: Command, layer: Layer, on_output: Callable[[str, bytes], None] | None
    ) -> None:
        self._recipe = recipe
        self._command = command
        self._layer = layer
        self._on_output = on_output
        self._loop = asyncio.get_running_loop()
        self._started = time.monotonic()
        self._killed: Killed | None = None
        self._fault: BaseException | None = None
        self._written = 0
        self._process = -1
        self._first: asyncio.Future[int] = self._loop.create_future()
        self._gone = asyncio.Event()
        self._report: asyncio.Future[Report | None] = self._loop.create_future()
        self._group: Group | None = None
        self.counted: Counted | None = None

    async def run(self, stop: asyncio.Event | None) -> Finished:
        if self._recipe.groups is not None:
            self._group = _make_group(self._recipe.groups, self._command.limits)
        try:
            return await self._run(stop)
        finally:
            if self._group is not None:
                self._group.remove()

    async def _run(self, stop: asyncio.Event | None) -> Finished:
        control, streams = self._start()
        try:
            return await self._follow(streams, stop)
        finally:
            self._loop.remove_reader(control)
            control.close()
            for stream in streams:
                stream.close()
            process, self._process = self._process, -1
            if process >= 0:
                self._loop.remove_reader(process)
                os.close(process)

    def _start(self) -> tuple[socket.socket, tuple[Stream, Stream]]:
        recipe, command = self._recipe, self._command
        arguments = recipe.arguments(command, self._layer)
        rlimits = resource_limits(command.limits)
        started = start(
            recipe.launcher,
            recipe.bwrap,
            arguments,
            command.argv,
            rlimits,
            recipe.filter,
            command.stdin,
            self._layer.opened_ns,
            hold=self._group is not None,
        )
        started.control.setblocking(False)
        self._loop.add_reader(started.control, self._hear, started.control)
        keep = command.limits.output_bytes
        return started.control, (
            Stream("stdout", started.stdout, keep, self._on_output, self._count),
            Stream("stderr", started.stderr, keep, self._on_output, self._count),
        )

    def _hear(self, control: socket.socket) -> None:
        try:
            data, descriptors = program.receive(control, 1)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        if descriptors:
            self._process = descriptors[0]
            self._loop.add_reader(self._process, self._end)
            first = json.loads(data)["first"]
            self._first.set_result(first)
            if self._group is not None:
                self._enclose(control, self._group, first)
            if self._killed is not None:
                self.kill(self._killed)
            return
        self._loop.remove_reader(control)
        if not self._first.done():
            self._gone.set()
            self._first.set_result(-1)
        self._report.set_result(Report.of(json.loads(data)) if data else None)

    def _enclose(self, control: socket.socket, group: Group, first: int) -> None:
        try:
            group.add(first)
        except OSError as error:
            self._fault = SandboxUnavailable(f"a command cannot be put into its control group: {error.strerror}")
            self.kill(Killed.CANCEL)
        with contextlib.suppress(OSError):
            control.send(program.GO if self._fault is None else program.STOP)

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
            # The kernel takes everything in the namespace down with its first process.
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(process, signal.SIGKILL)

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
            code = self._not_run(bytes(err.data), code, report.fault if report else "")
        number = code - _SIGNALLED if code is not None and _SIGNALLED < code <= _SIGNALLED + signal.NSIG else None
        in_group = self.counted.peak_bytes if self.counted else None
        peaks = [size for size in (report.peak_bytes if report else None, watch.peak_bytes, in_group) if size]
        return Finished(
            exit_code=None if self._killed else code,
            signal=signal.SIGKILL if self._killed else number,
            killed=self._killed,
            stdout=bytes(out.data),
            stderr=bytes(err.data),
            truncated=out.truncated or err.truncated,
            level=self._recipe.level,
            limits=self._command.limits,
            wall_ms=round((time.monotonic() - self._started) * 1000),
            cpu_ms=round(report.cpu_us / 1000) if report else None,
            peak_memory_bytes=max(peaks, default=None),
        )

    def _not_run(self, stderr: bytes, code: int | None, fault: str) -> int:
        """The exit code a shell gives where a program cannot be started; raises when the sandbox was the reason."""
        text = stderr.decode(errors="replace").strip()
        if text.startswith("bwrap: execvp "):
            return _NOT_FOUND if text.endswith("No such file or directory") else _NOT_EXECUTABLE
        if text.startswith("bwrap: Can't chdir"):
            raise InvalidValue(
                f"there is no folder {self._command.cwd!r} to run in", field="cwd", fix="name a folder of the workspace"
            )
        reason = text if text.startswith("bwrap: ") else fault or f"its processes were killed from outside ({code})"
        raise SandboxUnavailable(f"the sandbox did not come up or did not last: {reason}", details={"stderr": text})
