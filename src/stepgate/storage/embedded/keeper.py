"""The small process that owns the server: it starts it, restarts it after a crash, and stops it with the last client.

It runs by file name in an interpreter without site-packages, so it imports the standard library only and gets
everything it needs as one JSON argument. A process of its own is needed because no client may outlive the others'
server or leave one behind when it is killed.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
RESTARTS_PER_MINUTE = 5
STOP_WITHIN_S = 30.0
LOG_LIMIT_BYTES = 10_000_000
UNUSED = signal.SIGUSR1
WAITED_FOR = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, UNUSED}


class Keeper:
    """Holds the keeper lock and the server's process."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.starts: list[float] = []
        self.held = [self.lock("keeper", fcntl.LOCK_EX | fcntl.LOCK_NB)]

    def lock(self, name: str, how: int) -> int:
        descriptor = os.open(self.order["locks"][name], os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(descriptor, how)
        return descriptor

    def run(self, announce: int) -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, WAITED_FOR)
        server = self.start_server()
        threading.Thread(target=self.watch_clients, daemon=True).start()
        os.write(announce, b"k")
        os.close(announce)
        while True:
            if signal.sigwait(WAITED_FOR) != signal.SIGCHLD:
                return self.stop(server)
            if server.poll() is None:
                continue
            if server.returncode == 0 or not self.may_restart():
                return 1
            server = self.start_server()

    def start_server(self) -> "subprocess.Popen[bytes]":
        """Waits until no backend of an earlier server is left, then starts one that inherits the lock."""
        lock = self.lock("server", fcntl.LOCK_EX)
        self.remove_leftovers()
        self.starts.append(time.monotonic())
        log_path = Path(self.order["log"])
        if log_path.exists() and log_path.stat().st_size > LOG_LIMIT_BYTES:
            log_path.replace(log_path.with_suffix(".log.1"))
        account = self.order["account"]
        with log_path.open("ab") as log:
            server = subprocess.Popen(
                self.order["command"],
                pass_fds=[lock],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=self.order["environment"],
                # This process is small and its other thread only waits for a lock, so forking with it is safe.
                preexec_fn=self.die_with_me,  # noqa: PLW1509
                **({"user": account[0], "group": account[1], "extra_groups": []} if account else {}),
            )
        os.close(lock)
        return server

    def die_with_me(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if sys.platform == "linux" and self.order["die_with_keeper"]:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)

    def remove_leftovers(self) -> None:
        """With the server lock ours, the files are stale for certain.

        PostgreSQL itself only asks whether a process of that number exists, and refuses to start when the number
        has been given to somebody else. It never takes its parent for that somebody, and needs the rest of the pid
        file to free the shared memory of a killed server: so the number becomes ours and the file stays.
        """
        for leftover in self.order["leftovers"]:
            with contextlib.suppress(FileNotFoundError):
                Path(leftover).unlink()
        with contextlib.suppress(FileNotFoundError):
            pid_file = Path(self.order["pid_file"])
            _, newline, rest = pid_file.read_bytes().partition(b"\n")
            if newline:
                pid_file.write_bytes(f"{os.getpid()}\n".encode() + rest)
            else:
                pid_file.unlink()

    def may_restart(self) -> bool:
        now = time.monotonic()
        return sum(1 for start in self.starts if now - start < 60) < RESTARTS_PER_MINUTE

    def watch_clients(self) -> None:
        """Ends with the start lock held, once there is no client: so none can arrive while the server stops."""
        while True:
            start = self.lock("start", fcntl.LOCK_EX)
            clients = os.open(self.order["locks"]["clients"], os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(clients, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(start)
                fcntl.flock(clients, fcntl.LOCK_EX)
                os.close(clients)
                continue
            self.held += [start, clients]
            os.kill(os.getpid(), UNUSED)
            return

    def stop(self, server: "subprocess.Popen[bytes]") -> int:
        """SIGINT is PostgreSQL's fast shutdown: it ends the sessions and writes a checkpoint."""
        for request, patience in ((signal.SIGINT, STOP_WITHIN_S), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
            with contextlib.suppress(ProcessLookupError):
                server.send_signal(request)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(patience)
                return 0
        return 1


def main(order_text: str, announce: int) -> int:
    # The starter waits for its own child only, which ends here: nobody is left with a zombie.
    if os.fork():
        return 0
    return Keeper(json.loads(order_text)).run(announce)


if __name__ == "__main__":
    os._exit(main(sys.argv[1], int(sys.argv[2])))
