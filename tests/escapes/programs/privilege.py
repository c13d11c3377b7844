"""Becoming somebody else, or leaving something on the host that lets others become us."""

import ctypes
import mmap
import os
import stat
import struct
import subprocess

from tests.escapes.inside import FACTS, call, checked, claim, each, libc, wait_to_be_looked_at

SET_ID = 0o4755
O_TMPFILE = 0o20200000


def _name() -> str:
    return "set-id-" + str(FACTS["token"])


def _show(descriptor: int) -> None:
    os.write(descriptor, b"#!/bin/sh\n")
    os.close(descriptor)


def set_id_by_chmod() -> None:
    _show(os.open(_name(), os.O_CREAT | os.O_WRONLY, 0o755))
    each(
        lambda: os.chmod(_name(), SET_ID),
        lambda: os.chmod(_name(), 0o2755),
        lambda: os.fchmod(os.open(_name(), os.O_RDONLY), SET_ID),
        lambda: call("fchmodat2", -100, _name().encode(), SET_ID, 0),
    )
    wait_to_be_looked_at()


def set_id_by_open() -> None:
    try:
        each(*(lambda top=top: os.open(f"{top}/{_name()}", os.O_CREAT | os.O_WRONLY, SET_ID) for top in (".", "/tmp")))
    finally:
        wait_to_be_looked_at()


def set_group_id_by_open() -> None:
    os.open(_name(), os.O_CREAT | os.O_WRONLY, 0o2755)
    wait_to_be_looked_at()


def set_id_by_openat2() -> None:
    how = ctypes.create_string_buffer(struct.pack("QQQ", os.O_CREAT | os.O_WRONLY, SET_ID, 0), 24)
    call("openat2", -100, _name().encode(), how, 24)
    wait_to_be_looked_at()


def set_id_by_creat() -> None:
    checked(libc.creat(_name().encode(), SET_ID))
    wait_to_be_looked_at()


def set_id_by_mknod() -> None:
    os.mknod(_name(), stat.S_IFREG | SET_ID)
    wait_to_be_looked_at()


def set_id_by_nameless_file() -> None:
    made = os.open(".", O_TMPFILE | os.O_WRONLY, SET_ID)
    AT_SYMLINK_FOLLOW = 0x400
    checked(libc.linkat(-100, f"/proc/self/fd/{made}".encode(), -100, _name().encode(), AT_SYMLINK_FOLLOW))
    wait_to_be_looked_at()


def set_id_by_rewriting() -> None:
    # Writing through a mapping does not take the bits away as a write would.
    descriptor = os.open("set-id-tool", os.O_RDWR)
    with mmap.mmap(descriptor, 16) as content:
        content[:8] = b"tampered"
    os.rename("set-id-tool", _name())
    wait_to_be_looked_at()


def character_device() -> None:
    os.mknod("null-" + FACTS["token"], stat.S_IFCHR | 0o666, os.makedev(1, 3))
    claim("a device was made")


def block_device() -> None:
    number = FACTS["disk"]
    os.mknod("disk-" + FACTS["token"], stat.S_IFBLK | 0o666, os.makedev(*number))
    claim("the host's disk was made")


def become_root() -> None:
    try:
        each(lambda: os.setuid(0), lambda: os.setresuid(0, 0, 0), lambda: os.setreuid(0, 0))
    finally:
        if os.geteuid() == 0:
            claim("root")


def become_another() -> None:
    other = FACTS["another_uid"]
    each(
        lambda: os.setgroups([other]),
        lambda: os.setresgid(other, other, other),
        lambda: os.setresuid(other, other, other),
    )
    if os.geteuid() == other:
        claim(f"user {other}")


def give_away() -> None:
    with open("given", "w") as file:
        file.write("given")
    os.chown("given", FACTS["another_uid"], FACTS["another_uid"])
    claim("a file was given to another user")


def switch_user() -> None:
    for program in (
        ("su", "-c", "id -u"),
        ("sudo", "-n", "id", "-u"),
        ("doas", "-n", "id", "-u"),
        ("pkexec", "id", "-u"),
    ):
        try:
            done = subprocess.run(program, stdin=subprocess.DEVNULL, capture_output=True, timeout=5, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.stdout.strip() == b"0":
            claim(f"{program[0]} gave root")


def capabilities_by_call() -> None:
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0), 8)
    wanted = ctypes.create_string_buffer(struct.pack("6I", 1 << 21, 1 << 21, 0, 0, 0, 0), 24)
    call("capset", header, wanted)
    claim("a capability was taken")


def ambient_capability() -> None:
    PR_CAP_AMBIENT, RAISE, SYS_ADMIN = 47, 2, 21
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0), 8)
    every = 1 << SYS_ADMIN
    call("capset", header, ctypes.create_string_buffer(struct.pack("6I", every, every, every, 0, 0, 0), 24))
    checked(libc.prctl(PR_CAP_AMBIENT, RAISE, SYS_ADMIN, 0, 0))
    claim("an ambient capability was raised")


def file_capability() -> None:
    with open("capable", "w") as file:
        file.write("#!/bin/sh\n")
    every = struct.pack("<5I", 0x02000001, 0xFFFFFFFF, 0, 0x1FF, 0)
    os.setxattr("capable", "security.capability", every)
    claim("a file got capabilities")


def trusted_attribute() -> None:
    with open("marked", "w") as file:
        file.write("x")
    os.setxattr("marked", "trusted.overlay.opaque", b"y")
    claim("a trusted attribute was set")


def new_privileges() -> None:
    PR_GET_NO_NEW_PRIVS = 39
    if libc.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0:
        claim("programs may still gain privileges")


def secure_bits() -> None:
    PR_SET_SECUREBITS = 28
    checked(libc.prctl(PR_SET_SECUREBITS, 0x10, 0, 0, 0))
    claim("the rules for gaining capabilities were changed")


def map_ids() -> None:
    for program in ("newuidmap", "newgidmap"):
        child = os.fork()
        if child == 0:
            libc.unshare(0x10000000)
            libc.pause()
        try:
            done = subprocess.run(
                [program, str(child), "0", "100000", "1"], capture_output=True, timeout=5, check=False
            )
        except OSError:
            continue
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)
        if done.returncode == 0:
            claim(f"{program} mapped another user")
