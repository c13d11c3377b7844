"""The objects of a repository: read from wherever git keeps them, written loose, all beneath its own folder."""

import contextlib
import hashlib
import os
import zlib
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import Final, Self

from dulwich.errors import ChecksumMismatch
from dulwich.object_format import SHA1
from dulwich.objects import ObjectID
from dulwich.pack import Pack, PackData, load_pack_index_file

from stepgate.domain.errors import NotFound, PathRefused
from stepgate.workspace.access import Root
from stepgate.workspace.git.repository import Repository, alternates, refused
from stepgate.workspace.syscalls import sync_filesystem

TREE, COMMIT, BLOB = b"tree", b"commit", b"blob"
_KINDS: Final = {1: COMMIT, 2: TREE, 3: BLOB, 4: b"tag"}
_LARGEST: Final = 256 << 20
"""Of a tree or a commit; nothing else is read."""
_ALTERNATES: Final = 5
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DAMAGE = (zlib.error, ValueError, KeyError, IndexError, AssertionError, EOFError, OSError)


class Objects:
    """What is added is in memory until `write`."""

    def __init__(self, repository: Repository, allowed: Path) -> None:
        self._closing = contextlib.ExitStack()
        self._added: dict[str, tuple[bytes, bytes]] = {}
        self._packs: list[Pack] | None = None
        try:
            own = Root.open(repository.common.path / "objects", exact=True)
            self._roots = [self._closing.enter_context(own)]
            self._enter_alternates(own, allowed, _ALTERNATES)
        except BaseException:
            self._closing.close()
            raise

    def _enter_alternates(self, objects: Root, allowed: Path, left: int) -> None:
        for path in alternates(objects, allowed):
            if left == 0:
                raise refused("its alternates have alternates of their own, too many in a row")
            root = self._closing.enter_context(Root.open(path, exact=True))
            self._roots.append(root)
            self._enter_alternates(root, allowed, left - 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    # Reading

    def read(self, name: str, kind: bytes) -> bytes:
        """A tree's or commit's bytes; raises Conflict `repository_refused` where it is missing, damaged or another."""
        added = self._added.get(name)
        found = added if added is not None else self._stored(name)
        if found is None:
            raise refused(f"its object {name} is missing")
        if found[0] != kind:
            raise refused(f"its object {name} is no {kind.decode()}")
        return found[1]

    def has(self, name: str) -> bool:
        """Whether git would find the object."""
        if name in self._added:
            return True
        loose = any(_stat(root, name) for root in self._roots)
        return loose or any(ObjectID(name.encode()) in pack for pack in self._all_packs())

    def _stored(self, name: str) -> tuple[bytes, bytes] | None:
        try:
            found = self._loose(name) or self._packed(name)
        except PathRefused as error:
            raise refused(error.message) from error
        except _DAMAGE as error:
            raise refused(f"its object {name} is damaged") from error
        if found is not None and name_of(*found) != name:
            raise refused(f"its object {name} is damaged")
        return found

    def _loose(self, name: str) -> tuple[bytes, bytes] | None:
        for root in self._roots:
            try:
                packed = root.read(f"{name[:2]}/{name[2:]}", _LARGEST, allow_hard_links=True).data
            except NotFound:
                continue
            text = zlib.decompressobj().decompress(packed, _LARGEST)
            head, _, data = text.partition(b"\x00")
            return head.partition(b" ")[0], data
        return None

    def _packed(self, name: str) -> tuple[bytes, bytes] | None:
        for pack in self._all_packs():
            if ObjectID(name.encode()) in pack:
                kind, data = pack.get_raw(ObjectID(name.encode()))
                return _KINDS[kind], data
        return None

    def _all_packs(self) -> list[Pack]:
        if self._packs is None:
            self._packs = []
            for root in self._roots:
                try:
                    names = root.list("pack")
                except NotFound:
                    continue
                for name in names:
                    if name.endswith(".idx"):
                        self._packs.append(self._open_pack(root, f"pack/{name[:-4]}"))
        return self._packs

    def _open_pack(self, root: Root, path: str) -> Pack:
        """The pack and what it needs stay open as long as the objects do."""
        files = []
        for ending in ("idx", "pack"):
            try:
                descriptor, _ = root.open_file(f"{path}.{ending}", allow_hard_links=True)
            except NotFound as error:
                raise refused(f"its pack {path!r} is not whole") from error
            files.append(self._closing.enter_context(os.fdopen(descriptor, "rb")))
        try:
            index = load_pack_index_file(f"{path}.idx", files[0], SHA1)
            pack = Pack.from_lazy_objects(lambda: PackData.from_file(files[1], SHA1), lambda: index)
            self._closing.callback(pack.close)
            len(pack.data)  # opens it, and compares it with its index
        except (*_DAMAGE, ChecksumMismatch) as error:
            raise refused(f"its pack {path!r} is damaged") from error
        return pack

    # Writing

    def add(self, kind: bytes, data: bytes) -> str:
        """The object's name."""
        name = name_of(kind, data)
        self._added.setdefault(name, (kind, data))
        return name

    def write(self) -> int:
        """Makes what was added and is not there yet durable in the repository; returns how many objects that were."""
        written = 0
        root = self._roots[0]
        added, self._added = self._added, {}
        for name, (kind, data) in added.items():
            if not self.has(name):
                _write(root, name, b"%s %d\x00" % (kind, len(data)) + data)
                written += 1
        folder = root.open_folder()
        try:
            if written and not sync_filesystem(folder):
                os.sync()
        finally:
            os.close(folder)
        self._added = added
        return written


def name_of(kind: bytes, data: bytes) -> str:
    """The object's SHA-1 name."""
    return hashlib.sha1(b"%s %d\x00" % (kind, len(data)) + data, usedforsecurity=False).hexdigest()


def _stat(root: Root, name: str) -> bool:
    try:
        return root.stat(f"{name[:2]}/{name[2:]}") is not None
    except PathRefused as error:
        raise refused(error.message) from error


def _write(root: Root, name: str, data: bytes) -> None:
    """As git does it: under a name of its own, read-only, and then under the object's name."""
    folder = root.open_folder()
    try:
        owner = os.fstat(folder)
        temporary = f"tmp_obj_{token_hex(10)}"
        descriptor = os.open(temporary, _NEW, 0o600, dir_fd=folder)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(zlib.compress(data, 1))
                _give(stream.fileno(), owner)
                os.fchmod(stream.fileno(), 0o444)
            _make_folder(folder, name[:2], owner)
            below = root.open_folder(name[:2])
            try:
                os.rename(temporary, name[2:], src_dir_fd=folder, dst_dir_fd=below)
            finally:
                os.close(below)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
            raise
    finally:
        os.close(folder)


def _make_folder(folder: int, name: str, owner: os.stat_result) -> None:
    try:
        os.mkdir(name, 0o755, dir_fd=folder)
    except FileExistsError:
        return
    made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        _give(made, owner)
        os.fchmod(made, owner.st_mode & 0o7777)
    finally:
        os.close(made)


def _give(descriptor: int, owner: os.stat_result) -> None:
    """Root leaves nothing in a person's repository that the person could not remove."""
    if os.geteuid() == 0:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
