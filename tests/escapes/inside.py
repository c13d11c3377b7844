"""What every attack program starts with: facts of the host, raw system calls, and words that tell how far it came.

It is the beginning of the program that runs inside, so it needs nothing but the standard library, and it says what it
sees on standard output: the host believes it only where nothing outside could show the same.
"""

import ctypes
import errno
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from typing import Any, Final

CLAIM, KEPT, READY, REFUSED = "ESCAPED", "KEPT", "READY", "REFUSED"
_X86: Final = platform.machine() == "x86_64"
# Numbers on x86_64 and aarch64.
_CALLS: Final = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "capset": (126, 91),
    "clone": (56, 220),
    "clone3": (435, 435),
    "fallocate": (285, 47),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fchmodat2": (452, 452),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "io_uring_setup": (425, 425),
    "ioperm": (173, -1),
    "iopl": (172, -1),
    "ioprio_set": (251, 30),
    "kcmp": (312, 272),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "migrate_pages": (256, 238),
    "modify_ldt": (154, -1),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "msgget": (68, 186),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "openat2": (437, 437),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "rt_sigqueueinfo": (129, 138),
    "sched_setattr": (314, 274),
    "seccomp": (317, 277),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "shmget": (29, 194),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "tgkill": (234, 131),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vmsplice": (278, 75),
}

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.ptrace.restype = ctypes.c_long
FACTS: dict[str, Any] = {}


def call(name: str, *arguments: object) -> int:
    """A system call by name; raises OSError as the functions of `os` do."""
    return raw(_CALLS[name][0 if _X86 else 1], *arguments)


def raw(number: int, *arguments: object) -> int:
    """A system call by number."""
    return checked(libc.syscall(number, *(_word(argument) for argument in arguments)))


def checked(result: int) -> int:
    """The result of a C function that sets errno."""
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result)


def _word(argument: object) -> object:
    return ctypes.c_long(argument) if isinstance(argument, int) else argument


def say(text: str) -> None:
    """One line at once, whatever happens next."""
    os.write(1, f"{text}\n".encode())


def claim(what: str) -> None:
    """Something happened that only this program can see."""
    say(f"{CLAIM} {what}")


def gained(what: str, _result: object) -> None:
    """As `claim`, after an expression that succeeded."""
    claim(what)


def tell(data: bytes | str) -> None:
    """What was read; the host looks for its secret in it."""
    os.write(1, data if isinstance(data, bytes) else data.encode(errors="replace"))
    say("")


def keep(what: str) -> None:
    """Holds what was taken for as long as a watch needs to see it; who comes to its end was not stopped."""
    time.sleep(FACTS["hold_s"])
    say(f"{KEPT} {what}")


def wait_to_be_looked_at() -> None:
    """Tells the host that there is something to look at, and stays until it is ended."""
    say(READY)
    time.sleep(FACTS["stay_s"])


def each(*ways: Callable[[], object]) -> None:
    """Tries several ways; one that is refused does not keep from the next."""
    last: OSError | None = None
    for way in ways:
        try:
            way()
        except OSError as error:
            last = error
    if last is not None:
        raise last


def read(path: str) -> None:
    """Tells what is in a file, if it can be read."""
    with open(path, "rb") as file:
        tell(file.read(1 << 16))


def overwrite(path: str) -> None:
    """Writes over a file that is there."""
    descriptor = os.open(path, os.O_WRONLY)
    os.write(descriptor, b"overwritten")
    os.close(descriptor)


def run(program: Callable[[], object]) -> None:
    """Runs one attack; an error of the system is a refusal, any other an error of the attack itself."""
    FACTS.update(json.loads(sys.argv[1]))
    try:
        program()
    except (OSError, MemoryError, RuntimeError) as error:
        code = getattr(error, "errno", None)
        say(f"{REFUSED} {errno.errorcode.get(code, code) if code else type(error).__name__}: {error}")
