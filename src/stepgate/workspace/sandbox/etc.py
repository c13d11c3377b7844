"""What commands see as /etc: a few of the host's files and no account of a person, in one folder.

One folder is one mount; bubblewrap takes about 0.2 ms for each.
"""

import contextlib
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

INSIDE_ID: Final = 1000
_HOST: Final = (
    "alternatives",
    "ca-certificates",
    "fonts",
    "java-*",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "perl",
    "pki/ca-trust/extracted",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "protocols",
    "python3*",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
)
_OWN: Final = {
    "passwd": f"sandbox:x:{INSIDE_ID}:{INSIDE_ID}::/tmp:/bin/sh\n",
    "group": f"sandbox:x:{INSIDE_ID}:\n",
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
_LARGEST: Final = 8 << 20


def prepare_etc(parent: Path) -> Path:
    """The folder to show as /etc, made anew when the host's files have changed since the last time."""
    entries = list(_entries())
    notes = [(path, found.st_mode, found.st_size, found.st_mtime_ns) for path, found in entries]
    name = f"etc-{hashlib.sha256(repr((notes, _OWN)).encode()).hexdigest()[:16]}"
    target = parent / name
    if target.is_dir():
        return target
    parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    new = parent / f".{name}-{secrets.token_hex(4)}"
    new.mkdir(mode=0o755)
    try:
        for path, found in entries:
            _copy(path, found, new / path.relative_to("/etc"))
        for name, text in _OWN.items():
            (new / name).write_text(text)
            (new / name).chmod(0o644)
        new.chmod(0o755)
        # Another process may have been quicker; its folder holds the same.
        with contextlib.suppress(OSError):
            new.rename(target)
        return target
    finally:
        shutil.rmtree(new, ignore_errors=True)


def host_paths() -> tuple[str, ...]:
    """The host's own files and folders among them, for commands that see /etc itself."""
    return tuple(str(path) for pattern in _HOST for path in sorted(Path("/etc").glob(pattern)))


def _entries() -> Iterator[tuple[Path, os.stat_result]]:
    waiting = [path for pattern in reversed(_HOST) for path in sorted(Path("/etc").glob(pattern), reverse=True)]
    while waiting:
        path = waiting.pop()
        try:
            found = path.lstat()
            if stat.S_ISDIR(found.st_mode):
                waiting += sorted(path.iterdir(), reverse=True)
        except OSError:
            continue
        yield path, found


def _copy(path: Path, found: os.stat_result, target: Path) -> None:
    for folder in reversed(target.parents):
        if not folder.exists():
            folder.mkdir()
            folder.chmod(0o755)
    with contextlib.suppress(FileNotFoundError, PermissionError):
        if stat.S_ISLNK(found.st_mode):
            target.symlink_to(os.readlink(path))
        elif stat.S_ISREG(found.st_mode) and found.st_size <= _LARGEST and found.st_mode & 0o004:
            shutil.copyfile(path, target)
            target.chmod(0o644)
        elif stat.S_ISDIR(found.st_mode):
            target.mkdir(exist_ok=True)
            target.chmod(0o755)
