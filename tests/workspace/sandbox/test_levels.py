"""The same promises at every level that this host supports, and which level is chosen when one does not work."""

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stepgate.domain.errors import InvalidValue, SandboxUnavailable
from stepgate.workspace.layers.layer import Layer
from stepgate.workspace.sandbox import landlock, probing
from stepgate.workspace.sandbox.command import Command, Killed
from stepgate.workspace.sandbox.levels import CANARIES, DEFAULT_LEVELS, REQUIRED, Level
from stepgate.workspace.sandbox.limits import Limits
from stepgate.workspace.sandbox.sandbox import Sandbox
from tests.fixtures.patience import PATIENCE_S
from tests.workspace.sandbox.lab import Lab, make

# Hides a part of /proc as container engines do; the kernel then permits no fresh one to a user namespace.
MASKED = """
import asyncio, ctypes, json, sys
from pathlib import Path
from stepgate.workspace.sandbox.sandbox import Sandbox
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, BIND, REC, PRIVATE = 0x20000, 4096, 16384, 1 << 18
for call, arguments in (("unshare", (CLONE_NEWNS,)), ("mount", (b"none", b"/", None, REC | PRIVATE, None)),
                        ("mount", (b"/dev/null", b"/proc/kallsyms", None, BIND, None))):
    if getattr(libc, call)(*arguments):
        raise OSError(ctypes.get_errno(), call)
sandbox = asyncio.run(Sandbox.probe(state_dir=Path(sys.argv[1])))
print(json.dumps([sandbox.level, [str(weakness) for weakness in sandbox.degraded]]))
"""


@pytest.fixture(scope="session", params=list(Level))
def leveled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    base = tmp_path_factory.mktemp(str(request.param))
    return make(base, base / "unused", level=request.param)


@pytest.fixture
def lab(leveled: Lab, workspace: Path) -> Lab:
    return replace(leveled, workspace=workspace)


def test_what_a_level_must_prove_was_proved(lab: Lab) -> None:
    sandbox = lab.sandbox
    assert {canary.name for canary in sandbox.canaries} == CANARIES
    assert all(canary.detail for canary in sandbox.canaries)
    failed = {canary.name for canary in sandbox.canaries if not canary.passed}
    assert not failed & REQUIRED[sandbox.level]
    told = [weakness.reason for weakness in sandbox.degraded]
    assert all(any(reason.startswith(f"{name}: ") for reason in told) for name in failed)


async def test_changes_are_found_and_the_level_is_told(lab: Lab) -> None:
    (lab.workspace / "old").write_text("old")
    (lab.workspace / ".git").mkdir()
    (lab.workspace / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    finished = await lab.shell("cat old .git/HEAD; exit 3")
    assert (finished.exit_code, finished.stdout, finished.level) == (
        3,
        b"oldref: refs/heads/main\n",
        lab.sandbox.level,
    )
    changes = await lab.change("echo new > old; mkdir folder; echo made > folder/made; rm -f gone")
    assert changes.paths == ("folder", "folder/made", "old")
    assert (lab.workspace / "old").read_text() == "old"


async def test_a_command_gets_its_streams_its_folder_and_its_variables(lab: Lab) -> None:
    (lab.workspace / "inner").mkdir()
    script = (
        'cat; echo "$GIVEN" >&2; basename "$PWD"; test -w "$TMPDIR" && echo scratch > "$TMPDIR/x" && cat "$TMPDIR/x"'
    )
    finished = await lab.run("/bin/sh", "-c", script, env={"GIVEN": "shown"}, cwd="inner", stdin=b"typed\n")
    assert (finished.exit_code, finished.stdout, finished.stderr) == (0, b"typed\ninner\nscratch\n", b"shown\n")


async def test_what_cannot_be_started_is_told_apart(lab: Lab) -> None:
    (lab.workspace / "plain").write_text("text")
    (lab.workspace / "script").write_text("echo run by a shell\n")
    (lab.workspace / "script").chmod(0o755)
    assert (await lab.run("no-such-program")).exit_code == 127
    assert (await lab.run("./plain")).exit_code == 126
    assert (await lab.run("./script")).stdout == b"run by a shell\n"
    assert (await lab.shell("kill -SEGV $$")).signal == signal.SIGSEGV
    with pytest.raises(InvalidValue) as caught:
        await lab.run("/bin/true", cwd="nowhere")
    assert caught.value.field == "cwd"


# Leaves its parent, its session and its group, and ignores every signal that can be; the lock shows that it lives.
STUBBORN = """
import fcntl, os, signal, sys, time
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
    signal.signal(number, signal.SIG_IGN)
for generation in range(3):
    if os.fork():
        while generation == 0 and (sys.argv[1] == "stay" or not os.path.exists("told")):
            time.sleep(0.01)
        os._exit(0)
    os.setsid()
held = open(os.environ["TMPDIR"] + "/held", "w")
fcntl.flock(held, fcntl.LOCK_EX)
print("held", flush=True)
open("told", "w")
time.sleep(60)
"""


async def test_nothing_survives_a_command_that_ends(lab: Lab) -> None:
    with lab.layer() as layer:
        finished = await lab.sandbox.run(_stubborn("leave"), layer)
        assert (finished.exit_code, finished.stdout) == (0, b"held\n")
        assert not _locked(layer)


async def test_nothing_survives_a_command_that_is_ended(lab: Lab) -> None:
    stop = asyncio.Event()
    lived: list[bool] = []
    with lab.layer() as layer:

        def begun(_stream: str, _data: bytes) -> None:
            lived.append(_locked(layer))
            stop.set()

        finished = await lab.sandbox.run(_stubborn("stay"), layer, on_output=begun, stop=stop)
        assert (finished.killed, lived) == (Killed.CANCEL, [True])
        assert not _locked(layer)


# A process whose first thread has ended looks dead to whoever asks for its state.
HEADLESS = """
import ctypes, fcntl, os, threading, time
def hold():
    held = open(os.environ["TMPDIR"] + "/held", "w")
    fcntl.flock(held, fcntl.LOCK_EX)
    print("held", flush=True)
    time.sleep(3600)
if os.fork() == 0:
    os.setsid()
    threading.Thread(target=hold).start()
    ctypes.CDLL(None).pthread_exit(None)
time.sleep(3600)
"""


async def test_a_process_without_its_first_thread_is_ended_too(lab: Lab) -> None:
    stop = asyncio.Event()
    with lab.layer() as layer:
        command = Command(("python3", "-I", "-S", "-c", HEADLESS), limits=Limits(wall_s=60))
        async with asyncio.timeout(PATIENCE_S):
            finished = await lab.sandbox.run(command, layer, on_output=lambda *_: stop.set(), stop=stop)
        assert (finished.killed, finished.stdout) == (Killed.CANCEL, b"held\n")
        assert not _locked(layer)


def _stubborn(then: str) -> Command:
    return Command(("python3", "-I", "-S", "-c", STUBBORN, then), limits=Limits(wall_s=30))


def _locked(layer: Layer) -> bool:
    try:
        # A lock taken through an overlay is not seen on the file below it.
        held = os.open("tmp/held", os.O_RDONLY | os.O_CLOEXEC, dir_fd=layer.scratch)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(held)
    return False


BOMB = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"


async def test_what_forks_as_fast_as_it_can_is_ended(lab: Lab) -> None:
    marker = secrets.token_hex(8)
    finished = await lab.python(BOMB, marker, limits=Limits(wall_s=1.5, pids=40))
    assert finished.killed in (Killed.WALL, Killed.PIDS)
    assert not list(_with(marker.encode()))


@pytest.mark.parametrize(
    ("script", "killed"),
    [
        ("import time; time.sleep(60)", Killed.WALL),
        ("while True: pass", Killed.CPU),
        ("x = bytearray(300 << 20)\nimport time; time.sleep(60)", Killed.MEMORY),
        ("import os\nwhile True: os.write(1, bytes(65536))", Killed.OUTPUT),
        ("import time\nfor n in range(400): open(str(n), 'w').close()\ntime.sleep(60)", Killed.FILES),
    ],
)
async def test_limits_hold(lab: Lab, script: str, killed: Killed) -> None:
    limits = Limits(
        wall_s=1.0 if killed is Killed.WALL else 30.0,
        cpu_s=1.0 if killed is Killed.CPU else 20.0,
        memory_bytes=200 << 20,
        output_kill_bytes=1 << 20,
        files=200,
    )
    assert (await lab.python(script, limits=limits)).killed is killed


def _with(argument: bytes) -> Iterator[str]:
    for name in os.listdir("/proc"):  # noqa: PTH208
        with contextlib.suppress(OSError):
            if name.isdigit() and argument in Path(f"/proc/{name}/cmdline").read_bytes():
                yield name


def test_the_strongest_comes_first_and_only_the_strong_ones_are_the_default() -> None:
    assert DEFAULT_LEVELS == (Level.BWRAP_FULL, Level.BWRAP_NOPROC)
    assert Level.BWRAP_FULL.at_least(Level.BWRAP_NOPROC)
    assert Level.BWRAP_NOPROC.at_least(Level.BWRAP_NOPROC)
    assert not Level.BWRAP_NOPROC.at_least(Level.BWRAP_FULL)


async def test_the_order_of_the_setting_does_not_weaken_the_sandbox(tmp_path: Path) -> None:
    sandbox = await Sandbox.probe(levels=("bwrap-noproc", "bwrap-full"), state_dir=tmp_path)
    assert (sandbox.level, sandbox.degraded) == (Level.BWRAP_FULL, ())


async def test_with_an_empty_proc_nothing_of_the_host_is_listed(tmp_path: Path) -> None:
    lab = await asyncio.to_thread(make, tmp_path, tmp_path / "workspace", level=Level.BWRAP_NOPROC)
    finished = await lab.shell("ls -A /proc; touch /proc/x 2>/dev/null || echo refused")
    assert finished.stdout == b"refused\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hide a part of /proc")
def test_where_proc_is_masked_the_next_level_is_used_and_says_so(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", MASKED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    level, degraded = json.loads(done.stdout)
    assert level == "bwrap-noproc"
    assert "bwrap-full" in degraded[0]
    assert "/proc" in degraded[0]


async def test_a_level_that_was_not_named_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "candidates", lambda: iter(()))
    with pytest.raises(SandboxUnavailable) as caught:
        await Sandbox.probe(state_dir=tmp_path)
    for level in Level:
        assert (f"{level}: " in caught.value.message) is (level in DEFAULT_LEVELS)


# The daemon is somewhere else, and its forefather tells who stands over them.
OVERSEEN = """
import fcntl, os, time
told, tell = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        held = open(os.environ["TMPDIR"] + "/held", "w")
        fcntl.flock(held, fcntl.LOCK_EX)
        os.write(tell, b"x")
        time.sleep(60)
    os._exit(0)
os.read(told, 1)
print(os.getppid(), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("level", [Level.LANDLOCK_SECCOMP, Level.UNSAFE_NONE])
@pytest.mark.parametrize("generations", [0, 1, 2], ids=["the guard", "the guard of the guard", "the launcher"])
async def test_nothing_survives_the_loss_of_who_stands_over_it(
    tmp_path: Path, workspace: Path, level: Level, generations: int
) -> None:
    lab = replace(await asyncio.to_thread(make, tmp_path, tmp_path / "unused", level=level), workspace=workspace)
    with lab.layer() as layer:
        lived: list[bool] = []

        def begun(_stream: str, data: bytes) -> None:
            victim = int(data)
            for _ in range(generations):
                victim = _parent(victim)
            lived.append(_locked(layer))
            os.kill(victim, signal.SIGKILL)

        command = Command(("python3", "-I", "-S", "-c", OVERSEEN), limits=Limits(wall_s=30))
        with contextlib.suppress(SandboxUnavailable):
            finished = await lab.sandbox.run(command, layer, on_output=begun)
            assert finished.exit_code != 0
        assert lived == [True]
        assert not _locked(layer)
    assert (await lab.shell("echo again")).stdout == b"again\n"


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("abi", range(1, landlock.abi() + 1))
async def test_every_landlock_holds_what_its_level_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abi: int
) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: abi)
    sandbox = await Sandbox.probe(levels=("landlock-seccomp",), state_dir=tmp_path)
    told = " ".join(str(weakness) for weakness in sandbox.degraded)
    assert ("moved from folder to folder" in told) is (abi < 2)
    assert ("truncated" in told) is (abi < 3)
    assert ("can be sent signals" in told) is (abi < 6)


async def test_without_landlock_its_level_is_refused_with_the_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    with pytest.raises(SandboxUnavailable, match="no Landlock"):
        await Sandbox.probe(levels=("landlock-seccomp",), state_dir=tmp_path)


async def test_a_weaker_level_says_why_the_stronger_did_not_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "candidates", lambda: iter(()))
    sandbox = await Sandbox.probe(levels=("unsafe-none", "landlock-seccomp", "bwrap-full"), state_dir=tmp_path)
    assert sandbox.level is Level.LANDLOCK_SECCOMP
    assert "bwrap-full: no bubblewrap" in sandbox.degraded[0].reason
    assert sandbox.degraded[0].fix


async def test_without_a_sandbox_the_canaries_show_it(tmp_path: Path) -> None:
    sandbox = await Sandbox.probe(levels=("unsafe-none",), state_dir=tmp_path)
    failed = {canary.name for canary in sandbox.canaries if not canary.passed}
    assert {"loopback", "namespaces", "nothing heard", "other processes", "privileges", "unix socket"} <= failed
    assert "there is no sandbox" in sandbox.degraded[0].reason
