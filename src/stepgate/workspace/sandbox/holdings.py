"""What a command holds that no number of its processes shows: pages mapped nowhere, buffers, files without a name."""

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final

from stepgate.workspace.sandbox.usage import Contents

# Between what a socket takes by default and what it can be made to take.
_SOCKET_BYTES: Final = 256 << 10
# A user's pipes share this much; each further one still gets two pages (pipe(7), pipe-user-pages-soft).
_PIPES_BYTES, _PIPE_BYTES, _LEAST_PIPE_BYTES = 64 << 20, 64 << 10, 8 << 10
_GONE: Final = " (deleted)"
_SHARED: Final = b"/dev/zero (deleted)"


def shared_pages() -> int:
    """Bytes of shared memory on the whole host, mapped or not."""
    with open("/proc/meminfo", "rb") as file:
        line = next((line for line in file if line.startswith(b"Shmem:")), b"Shmem: 0")
    return int(line.split()[1]) << 10


def unmapped(pids: Iterable[int], grown: int) -> int:
    """Bytes of shared memory that these processes keep; `grown` is what the host's has grown by since they began.

    Where we may not look at the memory itself, all that the host's has grown by counts for one who keeps some.
    """
    sizes: dict[int, int] = {}
    for pid in pids:
        for line in _mappings(pid):
            if not line.endswith(_SHARED):
                continue
            try:
                found = _mapped(pid, line)
            except PermissionError:
                return grown
            except OSError:
                continue
            sizes[found.st_ino] = found.st_blocks * 512
    return sum(sizes.values())


def buffers(pids: Sequence[int], limit: int) -> int:
    """An upper bound, within a factor of two, of the bytes in pipes and sockets; 0 far from the limit."""
    if sum(map(_descriptors, pids)) * _SOCKET_BYTES <= limit:
        return 0
    kinds = Counter(link.partition(":")[0] for link in {link for pid in pids for _path, link in _links(pid)})
    in_pipes = min(kinds["pipe"] * _PIPE_BYTES, _PIPES_BYTES) + kinds["pipe"] * _LEAST_PIPE_BYTES
    return kinds["socket"] * _SOCKET_BYTES + in_pipes


def nameless(pids: Iterable[int]) -> Contents:
    """Open files that lie in no folder any more; `closed` where one is only mapped, so that its size cannot be seen."""
    sizes: dict[tuple[int, int], int] = {}
    closed = False

    def count(file: os.stat_result) -> None:
        if stat.S_ISREG(file.st_mode) and not file.st_nlink:
            sizes[file.st_dev, file.st_ino] = file.st_blocks * 512

    for pid in pids:
        for path, link in _links(pid):
            if link.endswith(_GONE) and not link.startswith("/memfd:"):
                with suppress(OSError):
                    count(os.stat(path))
        for line in _mappings(pid):
            if line.endswith(_GONE.encode()) and not line.endswith(_SHARED):
                try:
                    count(_mapped(pid, line))
                except PermissionError:
                    closed = True
                except OSError:
                    continue
    return Contents(sum(sizes.values()), len(sizes), closed)


def _mapped(pid: int, line: bytes) -> os.stat_result:
    start, end = (int(part, 16) for part in line.split(maxsplit=1)[0].split(b"-"))
    return os.stat(f"/proc/{pid}/map_files/{start:x}-{end:x}")


def _descriptors(pid: int) -> int:
    try:
        # The size of the folder is their number since Linux 6.2.
        return os.stat(f"/proc/{pid}/fd").st_size or len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def _links(pid: int) -> Iterator[tuple[str, str]]:
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for name in names:
        path = f"/proc/{pid}/fd/{name}"
        with suppress(OSError):
            yield path, os.readlink(path)


def _mappings(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/maps", "rb") as file:
            return file.read().splitlines()
    except OSError:
        return []
