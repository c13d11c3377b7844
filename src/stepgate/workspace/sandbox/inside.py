"""The canaries' part that runs inside the sandbox: standard library only, given facts of the host as JSON in argv[1].

Prints [[name, passed, detail], ...].
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

FACTS: dict[str, Any] = json.loads(sys.argv[1])
_CLONE_NEWUSER = 0x10000000


def read_outside() -> str:
    """A file of the host, by its path and around corners."""
    secret = FACTS["secret"]
    for way in (secret, f"/proc/1/root{secret}", f"/proc/self/cwd/../../../../../..{secret}", f"/workspace/..{secret}"):
        try:
            with open(way) as file:
                if FACTS["token"] in file.read():
                    return f"{way} was read"
        except OSError:
            continue
    return ""


def unix_socket() -> str:
    """A unix socket of the host in the abstract name space, and any in the file system."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(f"\0{FACTS['token']}")
        except OSError:
            pass
        else:
            return "an abstract socket of the host was reached"
    for path in ("/run", "/var/run", "/var/lib"):
        if os.path.exists(path):
            return f"{path} is visible"
    return ""


def loopback() -> str:
    """A TCP and a UDP port of the host, and any way out."""
    for address in (("127.0.0.1", FACTS["tcp"]), ("192.0.2.1", 9)):
        with socket.socket() as client:
            client.settimeout(2)
            try:
                client.connect(address)
            except OSError:
                continue
            return f"{address} was reached"
    with socket.socket(type=socket.SOCK_DGRAM) as client, contextlib.suppress(OSError):
        client.sendto(b"canary", ("127.0.0.1", FACTS["udp"]))
    interfaces = [name for _index, name in socket.if_nameindex() if name != "lo"]
    return f"interfaces {interfaces}" if interfaces else ""


def environment() -> str:
    """Variables of the worker, here and in every process to be seen."""
    known = set(FACTS["environment"])
    extra = set(os.environ) - known - {"LC_CTYPE"}
    if extra:
        return f"variables {sorted(extra)}"
    for pid in processes():
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                names = {part.partition(b"=")[0].decode() for part in file.read().split(b"\0") if part}
        except OSError:
            continue
        if names - known - {"LC_CTYPE"}:
            return f"variables {sorted(names - known)} of process {pid}"
    return ""


def descriptors() -> str:
    """Descriptors beyond the three that were given, or one of those leading to a folder."""
    for name in sorted(os.listdir("/proc/self/fd"), key=int):
        number = int(name)
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if number > 2 or not target.startswith(("pipe:", "/dev/null", "/memfd:")):
            return f"descriptor {number} leads to {target}"
    return ""


def other_processes() -> str:
    """Processes of the host."""
    seen = list(processes())
    if len(seen) > 3:
        return f"{len(seen)} processes are visible"
    try:
        os.kill(FACTS["pid"], 0)
    except ProcessLookupError:
        pass
    except PermissionError:
        return "the worker can be named"
    else:
        if FACTS["pid"] not in seen:
            return "the worker can be signalled"
    shared = [name for name, link in FACTS["namespaces"].items() if os.readlink(f"/proc/self/ns/{name}") == link]
    return f"namespaces {shared} are the host's" if shared else ""


def system_folders() -> str:
    """Writing where programs lie, or anywhere but the workspace and the places for scratch."""
    for folder in ("/", "/usr", "/usr/bin", "/etc", "/dev", "/proc", sys.prefix, os.path.dirname(sys.executable)):
        path = os.path.join(folder, "canary")
        try:
            with open(path, "w"):
                pass
        except OSError:
            continue
        return f"{path} was written"
    return ""


def privileges() -> str:
    """Being root, holding a capability, running without the filter, or making a new user namespace."""
    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    if "0" in status["Uid"].split():
        return "the user is root"
    held = [name for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb") if int(status[name], 16)]
    if held:
        return f"capabilities in {held}"
    if status["NoNewPrivs"] != "1" or status["Seccomp"] != "2":
        return "no system call filter"
    if ctypes.CDLL(None).unshare(_CLONE_NEWUSER) == 0:
        return "a user namespace was made"
    return ""


def processes() -> Iterator[int]:
    """Every process to be seen."""
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


ATTACKS: tuple[tuple[str, Callable[[], str], str], ...] = (
    ("inherited descriptors", descriptors, "only the three streams are open"),
    ("read outside", read_outside, "a file of the host cannot be read"),
    ("unix socket", unix_socket, "no unix socket of the host can be reached"),
    ("loopback", loopback, "no port of the host can be reached"),
    ("environment", environment, "only the variables that were given"),
    ("other processes", other_processes, "only its own processes and namespaces"),
    ("system folders", system_folders, "programs cannot be written"),
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
