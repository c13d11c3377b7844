"""Processes of the host that attacks go for: one that holds secrets, one that only sleeps."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from stepgate.workspace.sandbox.launch import SANDBOX_UID

# Holds a secret in its environment, and others in an open file, mapped, and in memory; answers with what is in memory.
_HOLDER = """
import ctypes, json, mmap, signal, sys
memory = ctypes.create_string_buffer(64)
def signalled(_number, _frame):
    memory.value = b"signalled"
signal.signal(signal.SIGURG, signalled)
for line in sys.stdin:
    if line.strip():
        path, secret = json.loads(line)
        file = open(path, "rb")
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        memory.value = secret.encode()
        told = {"address": ctypes.addressof(memory), "victim_fd": file.fileno(), "memory_size": len(secret)}
        print(json.dumps(told), flush=True)
    else:
        print(memory.value.decode(errors="replace"), flush=True)
"""
State = dict[str, Any]


class Victims:
    """`holder` runs as we do; `sleeper`, where we are root, as the sandbox's user."""

    def __init__(self, folder: Path) -> None:
        self._program = folder / "sleeper"
        shutil.copy("/bin/sleep", self._program)
        self._program.chmod(0o755)
        self._folder = folder
        self._holder: subprocess.Popen[str] | None = None
        self._sleeper: subprocess.Popen[bytes] | None = None
        self._told: dict[str, Any] = {}
        self._first_states: dict[str, State] = {}
        self.secret = secrets.token_hex(24)
        (folder / "secret").write_text(self.secret)

    def look_at(self, secret_file: Path, secret: str) -> None:
        """Gives the holder this secret; processes that were harmed are replaced first."""
        if self._holder is None or _of(self._holder.pid) != self._first_states.get("holder"):
            self.close(self._holder)
            self._holder = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _HOLDER, self.secret],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={"SECRET": self.secret},
                cwd=self._folder,
                start_new_session=True,
            )
            self._first_states["holder"] = _of(self._holder.pid)
        # Not as arguments: who has the token among them counts as a survivor.
        self._told = json.loads(self._answer(json.dumps([str(secret_file), secret])))
        if self._sleeper is None or _of(self._sleeper.pid) != self._first_states.get("sleeper"):
            self.close(self._sleeper)
            user = SANDBOX_UID if os.geteuid() == 0 else None
            self._sleeper = subprocess.Popen([self._program, "900"], user=user, cwd="/", env={}, start_new_session=True)
            self._first_states["sleeper"] = _of(self._sleeper.pid)
        self._program.chmod(0o755)

    def facts(self) -> dict[str, Any]:
        assert self._holder is not None
        assert self._sleeper is not None
        return {"victim": self._holder.pid, "sleeper": self._sleeper.pid, **self._told}

    def state(self) -> State:
        """Everything about them that an attack could change."""
        assert self._holder is not None
        assert self._sleeper is not None
        return {
            "memory": self._answer(),
            "holder": _of(self._holder.pid),
            "sleeper": _of(self._sleeper.pid),
            "program": oct(self._program.stat().st_mode),
        }

    def harm(self, before: State) -> str:
        """What is not as it was, "" for nothing."""
        now = self.state()
        return ", ".join(f"{key}: {before[key]} -> {now[key]}" for key in before if before[key] != now[key])

    def _answer(self, question: str = "") -> str:
        """An answer also shows that no signal is on its way any more."""
        assert self._holder is not None
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        if _of(self._holder.pid)["state"] in ("T", "t", "gone"):
            return ""
        try:
            self._holder.stdin.write(f"{question}\n")
            self._holder.stdin.flush()
            return self._holder.stdout.readline()
        except BrokenPipeError:
            return ""

    def close(self, process: "subprocess.Popen[Any] | None") -> None:
        if process is None:
            return
        process.send_signal(signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()

    def close_all(self) -> None:
        """Ends both."""
        self.close(self._holder)
        self.close(self._sleeper)


def _of(pid: int) -> State:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        state = fields[0]
        if state in ("Z", "X"):
            return {"state": "gone"}
        return {
            "state": "sleeping" if state in "RSD" else state,
            "nice": os.getpriority(os.PRIO_PROCESS, pid),
            "affinity": sorted(os.sched_getaffinity(pid)),
            "limits": Path(f"/proc/{pid}/limits").read_text(),
            "score": Path(f"/proc/{pid}/oom_score_adj").read_text().strip(),
        }
    except (ProcessLookupError, FileNotFoundError):
        return {"state": "gone"}
