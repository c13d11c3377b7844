"""Reading and writing files of the host."""

import ctypes
import os

from tests.escapes.inside import FACTS, call, claim, each, overwrite, read, tell


def absolute_path() -> None:
    read(FACTS["secret"])


def dotdot_path() -> None:
    read("../" * 40 + FACTS["secret"].lstrip("/"))


def own_symlink() -> None:
    os.symlink(FACTS["secret"], "link")
    read("link")


def planted_symlink_to_a_folder() -> None:
    with open("out/planted", "w") as file:
        file.write("planted")


def symlink_to_a_magic_link() -> None:
    os.symlink("/proc/self/root/" + FACTS["secret"], "/tmp/link" + FACTS["token"])
    try:
        read("/tmp/link" + FACTS["token"])
    finally:
        os.unlink("/tmp/link" + FACTS["token"])


def own_hard_link() -> None:
    os.link(FACTS["secret"], "hard")
    read("hard")


def planted_hard_link() -> None:
    overwrite("hard-linked")


def rename_in() -> None:
    os.rename(FACTS["victim_file"], "taken")


def rename_out() -> None:
    with open("mine", "w") as file:
        file.write("mine")
    os.rename("mine", FACTS["folder"] + "/planted")


def write_outside() -> None:
    overwrite(FACTS["victim_file"])


def create_outside() -> None:
    with open(FACTS["folder"] + "/planted", "w") as file:
        file.write("planted")


def own_root_link() -> None:
    read("/proc/self/root" + FACTS["secret"])


def first_process_root() -> None:
    read("/proc/1/root" + FACTS["secret"])


def cwd_link() -> None:
    each(
        lambda: read("/proc/self/cwd/" + "../" * 40 + FACTS["secret"].lstrip("/")),
        lambda: read(f"/proc/{FACTS['victim']}/cwd/secret"),
    )


def root_of_every_process() -> None:
    pids = [name for name in os.listdir("/proc") if name.isdigit()]
    each(*(lambda pid=pid: read(f"/proc/{pid}/root{FACTS['secret']}") for pid in pids[:400]))


def open_files_of_every_process() -> None:
    for pid in (FACTS["victim"], *(name for name in os.listdir("/proc") if name.isdigit())):
        try:
            numbers = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for number in numbers:
            path = f"/proc/{pid}/fd/{number}"
            try:
                if os.readlink(path) == FACTS["secret"]:
                    read(path)
                    return
            except OSError:
                continue


def mapped_files() -> None:
    with os.scandir(f"/proc/{FACTS['victim']}/map_files") as entries:
        for entry in entries:
            if os.readlink(entry.path) == FACTS["secret"]:
                read(entry.path)


def running_program_of_the_host() -> None:
    os.chmod(f"/proc/{FACTS['sleeper']}/exe", 0o701)


def inherited_folder() -> None:
    for number in range(256):
        try:
            found = os.open("../" * 40 + FACTS["secret"].lstrip("/"), os.O_RDONLY, dir_fd=number)
        except OSError:
            continue
        tell(os.read(found, 1 << 16))
        return


def inherited_file() -> None:
    for number in range(256):
        for path in (f"/dev/fd/{number}", f"/proc/self/fd/{number}", f"/proc/thread-self/fd/{number}"):
            try:
                if os.stat(path).st_size == FACTS["secret_size"]:
                    read(path)
                    return
            except OSError:
                continue


def stat_oracle() -> None:
    found = os.stat(FACTS["secret"])
    claim(f"the secret has {found.st_size} bytes")


def access_oracle() -> None:
    if os.path.isdir(FACTS["folder"]) and not os.path.exists(FACTS["folder"] + "/nothing"):
        claim("folders of the host can be told from what is not there")


def file_handle() -> None:
    size, kind, handle = FACTS["handle"]
    text = bytes.fromhex(handle)
    packed = size.to_bytes(4, "little") + kind.to_bytes(4, "little", signed=True) + text

    def way(folder: str) -> None:
        mount = os.open(folder, os.O_RDONLY)
        buffer = ctypes.create_string_buffer(packed, len(packed))
        tell(os.read(call("open_by_handle_at", mount, buffer, os.O_RDONLY), 1 << 16))

    each(*(lambda folder=folder: way(folder) for folder in (".", "/tmp", "/usr")))


def host_scratch() -> None:
    each(*(lambda path=path: read(path) for path in FACTS["scratch"]))


def old_root() -> None:
    tops = ("/oldroot", "/newroot", "/newroot/../oldroot", "/.old", "/sys/1", "")
    each(*(lambda top=top: read(top + FACTS["secret"]) for top in tops))


def moved_from_beneath() -> None:
    os.makedirs("/tmp/a/b/c", exist_ok=True)
    os.chdir("/tmp/a/b/c")
    try:
        os.rename("/tmp/a/b", "/dev/shm/" + FACTS["token"])
    except OSError:
        os.rename("/tmp/a/b", FACTS["folder"] + "/moved")
    read("../" * 40 + FACTS["secret"].lstrip("/"))


def planted_pipe() -> None:
    descriptor = os.open("pipe", os.O_WRONLY | os.O_NONBLOCK)
    os.write(descriptor, FACTS["token"].encode())


def workers_environment() -> None:
    each(
        lambda: tell("\n".join(f"{name}={value}" for name, value in os.environ.items())),
        lambda: read(f"/proc/{FACTS['worker']}/environ"),
        lambda: read("/proc/1/environ"),
        lambda: read(f"/proc/{os.getppid()}/environ"),
    )
