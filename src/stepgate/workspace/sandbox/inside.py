"""The canaries' part that runs inside the sandbox: standard library only, given facts of the host as JSON in argv[1].

Prints [[name, passed, detail], ...]. Nothing here relies on /proc, which may be empty inside.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from typing import Any

FACTS: dict[str, Any] = json.loads(sys.argv[1])
LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWUSER = 0x10000000
_PTRACE_SEIZE = 0x4206
_PR_GET_SECCOMP, _PR_CAPBSET_READ, _PR_GET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_IS_SET = 21, 23, 39, 47, 1
_FILTERED = 2
_CAPABILITY_VERSION_3 = 0x20080522
_SET_ID = stat.S_ISUID | stat.S_ISGID
_MOST_DESCRIPTORS = 4096
_NO_ADDRESS = 8


def read_outside() -> str:
    """A file of the host, by its path and around corners."""
    for secret in FACTS["secrets"]:
        for way in (
            secret,
            f"/proc/1/root{secret}",
            f"/proc/self/cwd/../../../../../..{secret}",
            f"{'../' * 32}{secret[1:]}",
        ):
            try:
                with open(way) as file:
                    if FACTS["token"] in file.read():
                        return f"{way} was read"
            except OSError:
                continue
    return ""


def write_outside() -> str:
    """A file of the host: its content, its length, its mode, its times and its name."""
    for secret in FACTS["secrets"]:
        ways: tuple[tuple[str, Callable[[str], object]], ...] = (
            ("written", lambda path: open(path, "r+").close()),
            ("truncated", lambda path: os.truncate(path, os.stat(path).st_size)),
            ("emptied through a reader", lambda path: os.close(os.open(path, os.O_RDONLY | os.O_TRUNC))),
            ("given another mode", lambda path: os.chmod(path, 0o644)),
            ("given another time", lambda path: os.utime(path, (1, 1))),
            ("given an attribute", lambda path: os.setxattr(path, "user.canary", b"1")),
            ("linked", lambda path: os.link(path, "canary-link")),
            ("renamed", lambda path: os.rename(path, f"{path}-moved")),
        )
        for what, way in ways:
            with contextlib.suppress(OSError):
                way(secret)
                return f"{secret} was {what}"
    return ""


def unix_socket() -> str:
    """A unix socket of the host: in the abstract name space, by its path, and of a kind that needs no connection."""
    for address, what in ((f"\0{FACTS['token']}", "an abstract socket"), (FACTS["socket"], "a socket by its path")):
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(address)
        except OSError:
            continue
        return f"{what} of the host was reached"
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    except OSError:
        return ""
    with ours, theirs, contextlib.suppress(OSError):
        ours.sendto(b"canary", f"\0{FACTS['token']}-datagram".encode())
        return "an abstract socket of the host was reached without a connection"
    return ""


def loopback() -> str:
    """A TCP and a UDP port of the host, and any way out."""
    for address in (("127.0.0.1", FACTS["tcp"]), ("192.0.2.1", 9)):
        with contextlib.suppress(OSError), socket.socket() as client:
            client.settimeout(2)
            client.connect(address)
            return f"{address} was reached"
    with contextlib.suppress(OSError), socket.socket(type=socket.SOCK_DGRAM) as client:
        # Whether it arrived is told by who listens.
        client.sendto(b"canary", ("127.0.0.1", FACTS["udp"]))
    return ""


def environment() -> str:
    """Variables of the worker, here and in every process to be seen."""
    known = set(FACTS["environment"])
    extra = set(os.environ) - known - {"LC_CTYPE"}
    if extra:
        return f"variables {sorted(extra)}"
    for pid in processes():
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                names = {part.partition(b"=")[0].decode(errors="replace") for part in file.read().split(b"\0") if part}
        except OSError:
            continue
        if names - known - {"LC_CTYPE"}:
            return f"process {pid} shows {len(names - known)} variables that were not given"
    return ""


def descriptors() -> str:
    """Descriptors beyond the three that were given, or one of those that is no stream."""
    for number in range(_MOST_DESCRIPTORS):
        try:
            found = os.fstat(number)
        except OSError:
            continue
        null = stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3)
        nameless = stat.S_ISREG(found.st_mode) and found.st_nlink == 0
        if number > 2 or not (stat.S_ISFIFO(found.st_mode) or null or nameless):
            return f"descriptor {number} is open, its flags are {fcntl.fcntl(number, fcntl.F_GETFL):#x}"
    return ""


def other_processes() -> str:
    """Processes of the host: listed, named by a path, or told from a signal's refusal."""
    seen = list(processes())
    if len(seen) > 3:
        return f"{len(seen)} processes are listed"
    for pid in foreign():
        if os.path.exists(f"/proc/{pid}"):
            return f"that there is a process {pid} of the host can be seen"
        try:
            os.kill(pid, 0)
        except PermissionError:
            return f"that there is a process {pid} of the host can be told from the refusal of a signal"
        except ProcessLookupError:
            continue
    return ""


def signals() -> str:
    """The worker and another process of its user."""
    for pid in foreign():
        with contextlib.suppress(OSError):
            os.kill(pid, 0)
            return f"process {pid} of the host can be signalled"
    return ""


def ptrace() -> str:
    """Taking hold of a process of the host, or reading its memory."""
    buffer = ctypes.create_string_buffer(8)
    ours = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)
    theirs = (ctypes.c_size_t * 2)(_NO_ADDRESS, 8)
    one, none = ctypes.c_ulong(1), ctypes.c_ulong(0)
    for pid in foreign():
        # The worker is not taken hold of: where that works it would do harm.
        if pid == FACTS["bystander"] and LIBC.ptrace(_PTRACE_SEIZE, pid, None, None) == 0:
            return f"process {pid} of the host can be traced"
        ctypes.set_errno(0)
        # Once reading is permitted, only the address is at fault.
        if LIBC.process_vm_readv(pid, ours, one, theirs, one, none) >= 0 or ctypes.get_errno() == errno.EFAULT:
            return f"the memory of process {pid} of the host can be read"
        for name in ("mem", "maps", "environ"):
            with contextlib.suppress(OSError):
                os.close(os.open(f"/proc/{pid}/{name}", os.O_RDONLY))
                return f"/proc/{pid}/{name} of the host can be opened"
    return ""


def foreign() -> list[int]:
    """The host's processes that are worth an attack; in an own namespace the low numbers are our own."""
    own = os.getpid() if os.getppid() == 1 else 0
    return [pid for pid in (FACTS["worker"], FACTS["bystander"]) if pid > own]


def namespaces() -> str:
    """Sharing a namespace with the host, making a new one, or a capability that a new one could bring back."""
    shared = []
    for name, link in FACTS["namespaces"].items():
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/ns/{name}") == link:
                shared.append(name)
    if socket.gethostname() == FACTS["host"]:
        shared.append("uts")
    with contextlib.suppress(OSError):
        if {name for _index, name in socket.if_nameindex()} - {"lo"}:
            shared.append("net")
    if os.getppid() != 1 or os.getpid() > 9:
        shared.append("pid")
    if shared:
        return f"{', '.join(sorted(set(shared)))} shared with the host"
    if any(LIBC.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1 for number in range(64)):
        return "the bounding set of capabilities is not empty"
    return ""


def system_folders() -> str:
    """Writing where programs lie, or anywhere but the workspace and the places for scratch."""
    for folder in ("/", "/usr", "/usr/bin", "/etc", "/dev", "/proc", sys.prefix, os.path.dirname(sys.executable)):
        path = os.path.join(folder, f"canary-{FACTS['token']}")
        try:
            with open(path, "w"):
                pass
        except OSError:
            continue
        os.unlink(path)
        return f"{folder} can be written to"
    return ""


def privileges() -> str:
    """Being root, holding a capability, set-id bits, running without the filter, making a user namespace."""
    if 0 in (*os.getresuid(), *os.getresgid()):
        return "the user is root"
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    held = (ctypes.c_uint32 * 6)()
    if LIBC.capget(header, held) != 0 or any(held):
        return "capabilities are held"
    if any(LIBC.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_IS_SET, number, 0, 0) == 1 for number in range(64)):
        return "programs would be started with capabilities"
    if LIBC.prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1:
        return "programs with set-id bits would gain privileges"
    if LIBC.prctl(_PR_GET_SECCOMP, 0, 0, 0, 0) != _FILTERED:
        return "no system call filter"
    with open("canary-set-id", "w"):
        pass
    with contextlib.suppress(OSError):
        os.chmod("canary-set-id", 0o700 | _SET_ID)
    gained = os.stat("canary-set-id").st_mode & _SET_ID
    os.unlink("canary-set-id")
    if gained:
        return "a file was given set-id bits"
    if LIBC.unshare(_CLONE_NEWUSER) == 0:
        return "a user namespace was made"
    return ""


def processes() -> Iterator[int]:
    """Every process to be seen."""
    try:
        return (int(name) for name in os.listdir("/proc") if name.isdigit())
    except OSError:
        return iter(())


ATTACKS: tuple[tuple[str, Callable[[], str], str], ...] = (
    ("inherited descriptors", descriptors, "only the three streams are open"),
    ("read outside", read_outside, "a file of the host cannot be read"),
    ("write outside", write_outside, "a file of the host cannot be changed in any way"),
    ("system folders", system_folders, "programs cannot be written"),
    ("unix socket", unix_socket, "no unix socket of the host can be reached"),
    ("loopback", loopback, "no port of the host can be reached"),
    ("environment", environment, "only the variables that were given"),
    ("other processes", other_processes, "only its own processes"),
    ("signals", signals, "no process of the host can be signalled"),
    ("ptrace", ptrace, "no process of the host can be traced or read"),
    ("namespaces", namespaces, "namespaces of its own"),
    # Last, as without a sandbox it leaves this process in a namespace of its own.
    ("privileges", privileges, "an ordinary user without capabilities"),
)


def main() -> None:
    """Tries everything; an attack that fails in an unexpected way has not been fended off."""
    signal.alarm(45)
    results: list[tuple[str, bool, str]] = []
    for name, attack, held in ATTACKS:
        try:
            fault = attack()
        except Exception as error:  # noqa: BLE001
            fault = f"{type(error).__name__}: {error}"
        results.append((name, not fault, fault or held))
    sys.stdout.write(json.dumps(results))


if __name__ == "__main__":
    main()
