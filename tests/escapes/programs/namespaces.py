"""Making namespaces, joining the host's, and changing what is mounted."""

import ctypes
import os
import socket
import struct

from tests.escapes.inside import FACTS, call, checked, claim, each, libc, read

NEW_NAMESPACE = {
    "time": 0x80,
    "mount": 0x20000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}
AT_FDCWD, AT_RECURSIVE, EMPTY_PATH = -100, 0x8000, 0x1000
BIND, REMOUNT, REC = 4096, 32, 16384


def _mount(source: str, target: str, kind: str, flags: int) -> None:
    checked(libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), None))


def unshare_user() -> None:
    call("unshare", NEW_NAMESPACE["user"])
    claim("a user namespace was made")


def unshare_others() -> None:
    def way(name: str) -> None:
        call("unshare", NEW_NAMESPACE[name])
        claim(f"a {name} namespace was made")

    each(*(lambda name=name: way(name) for name in ("mount", "uts", "ipc", "net", "cgroup", "pid", "time")))


def clone_user() -> None:
    if call("clone", NEW_NAMESPACE["user"] | 17, 0, 0, 0, 0) == 0:
        claim("a process in a new user namespace was made")
        os._exit(0)


def clone_user_with_padding() -> None:
    # The upper half of the flags is not looked at by the kernel, so a filter must not be led astray by it.
    if call("clone", (1 << 40) | NEW_NAMESPACE["user"] | 17, 0, 0, 0, 0) == 0:
        claim("a process in a new user namespace was made")
        os._exit(0)


def clone3_user() -> None:
    arguments = ctypes.create_string_buffer(struct.pack("8Q", NEW_NAMESPACE["user"], 0, 0, 0, 17, 0, 0, 0), 64)
    if call("clone3", arguments, 64) == 0:
        claim("a process in a new user namespace was made")
        os._exit(0)


def join_namespaces() -> None:
    def way(pid: int, name: str) -> None:
        call("setns", os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY), 0)
        claim(f"the {name} namespace of process {pid} was joined")

    pids = (FACTS["victim"], FACTS["worker"], 1)
    each(*(lambda pid=pid, name=name: way(pid, name) for pid in pids for name in ("net", "uts", "ipc", "mnt", "user")))


def join_by_process() -> None:
    call("setns", call("pidfd_open", FACTS["victim"], 0), NEW_NAMESPACE["uts"])
    claim("a namespace of the host was joined by a process descriptor")


def mount_tmpfs() -> None:
    _mount("none", "/tmp", "tmpfs", 0)
    claim("a file system was mounted")


def mount_proc() -> None:
    os.makedirs("/tmp/p" + FACTS["token"], exist_ok=True)
    try:
        _mount("proc", "/tmp/p" + FACTS["token"], "proc", 0)
        claim("a /proc was mounted")
    finally:
        os.rmdir("/tmp/p" + FACTS["token"])


def bind_mount() -> None:
    _mount("/", ".", "none", BIND | REC)
    claim("the root was mounted in the workspace")


def remount_writable() -> None:
    each(*(lambda top=top: _remount(top) for top in ("/usr", "/etc", "/", "/dev")))


def _remount(top: str) -> None:
    _mount("none", top, "none", REMOUNT | BIND)
    claim(f"{top} was mounted anew")


def unmount() -> None:
    def way(path: str) -> None:
        checked(libc.umount2(path.encode(), 2))
        claim(f"{path} was unmounted")

    each(*(lambda path=path: way(path) for path in ("/workspace", "/proc", "/dev/shm", "/dev/pts")))


def swap_root() -> None:
    _mount("none", "/tmp", "tmpfs", 0)
    os.makedirs("/tmp/old")
    call("pivot_root", b"/tmp", b"/tmp/old")
    claim("the root was exchanged")


def change_root() -> None:
    os.makedirs("/tmp/r" + FACTS["token"], exist_ok=True)
    os.chroot("/tmp/r" + FACTS["token"])
    # Now the working folder lies outside the root, from where every way up is open.
    for _ in range(40):
        os.chdir("..")
    os.chroot(".")
    read(FACTS["secret"])


def change_root_only() -> None:
    os.chroot(".")
    claim("the root was changed")


def clone_tree() -> None:
    tree = call("open_tree", AT_FDCWD, b"/", 1 | AT_RECURSIVE)
    claim("the mounts were copied")
    call("move_mount", tree, b"", AT_FDCWD, b"/tmp", 4)


def move_a_mount() -> None:
    call("move_mount", AT_FDCWD, b"/dev/shm", AT_FDCWD, b"/tmp", 0)
    claim("a mount was moved")


def open_file_system() -> None:
    call("fsopen", b"tmpfs", 0)
    claim("a file system was opened")


def pick_file_system() -> None:
    call("fspick", AT_FDCWD, b"/", 0)
    claim("the configuration of a mounted file system was opened")


def set_mount_attributes() -> None:
    attributes = ctypes.create_string_buffer(struct.pack("4Q", 0, 1, 0, 0), 32)

    def way(top: bytes) -> None:
        call("mount_setattr", AT_FDCWD, top, 0, attributes, 32)
        claim("a mount was made writable")

    each(*(lambda top=top: way(top) for top in (b"/usr", b"/etc", b"/")))


def host_name() -> None:
    socket.sethostname("taken")
    claim("the name of the host was set")


def id_map() -> None:
    for name in ("uid_map", "gid_map", "setgroups", "projid_map"):
        with open(f"/proc/self/{name}", "r+") as file:
            file.write("0 0 1")
        claim(f"{name} was written")
