"""Runs commands as forks of a process that has imported Stepgate already, since importing is most of what one costs.

Each is a process of its own with its own words, environment, folder and streams, and ends like any other. As a program
this is the process that forks.
"""

import atexit
import gc
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import IO, Final, NoReturn

from tests.fixtures.patience import PATIENCE_S, be_patient

ROOT: Final = Path(__file__).parents[2]
_LONGEST: Final = 1 << 18
_DOOR: Final = (socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Preloaded:
    """The process that forks, as tests see it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._door, theirs = socket.socketpair(*_DOOR)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.cli.preloaded", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=dict(environment),
                cwd=ROOT,
            )

    def run(
        self, words: Sequence[str], cwd: Path, environment: Mapping[str, str], *, stdin: str | None, timeout_s: float
    ) -> tuple[int, str, str]:
        """Exit code (negative: the signal that ended it), standard output and standard error."""
        with ExitStack() as exits:
            given, out, err = (exits.enter_context(tempfile.TemporaryFile()) for _ in range(3))
            given.write((stdin or "").encode())
            given.seek(0)
            answers, theirs = socket.socketpair(*_DOOR)
            with answers:
                with theirs:
                    order = json.dumps([list(words), str(cwd), dict(environment)]).encode()
                    files = [given.fileno(), out.fileno(), err.fileno(), theirs.fileno()]
                    socket.send_fds(self._door, [order], files)
                answers.settimeout(timeout_s)
                pid = int(answers.recv(64))
                try:
                    code = int(answers.recv(64))
                except TimeoutError:
                    os.kill(pid, signal.SIGKILL)
                    raise
            return code, _text(out), _text(err)

    def close(self) -> None:
        self._door.close()
        self._process.wait(PATIENCE_S)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def serve(door: socket.socket) -> None:
    """Forks for every order until the tests have gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those who wait for commands are waited for by nobody
    while True:
        order, files, _, _ = socket.recv_fds(door, _LONGEST, 4)
        if not order:
            return
        if os.fork() == 0:
            door.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _wait_for(_start(order, files), files)
        for file in files:
            os.close(file)


def _start(order: bytes, files: Sequence[int]) -> int:
    """The command's process id; the command itself does not return."""
    pid = os.fork()
    if pid:
        return pid
    words, cwd, environment = json.loads(order)
    for number, file in enumerate(files[:3]):
        os.dup2(file, number)
    for file in files:
        os.close(file)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = words
    _end(_exit_code(import_module("stepgate.cli.main").main))


def _exit_code(main: Callable[[], None]) -> int:
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:  # noqa: BLE001 - as the interpreter would
        traceback.print_exc()
        return 1
    return 0


def _end(code: int) -> NoReturn:
    """What the interpreter does at its end but taking itself apart, which in a fork copies every page."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _wait_for(pid: int, files: Sequence[int]) -> None:
    with socket.socket(fileno=files[3]) as answers:
        answers.send(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        answers.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _import_everything() -> None:
    cli = import_module("stepgate.cli")
    for module in pkgutil.walk_packages(cli.__path__, "stepgate.cli."):
        import_module(module.name)
    import_module("stepgate.compose")


if __name__ == "__main__":
    _import_everything()
    be_patient()
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as _door:
        serve(_door)
