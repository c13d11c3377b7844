"""The single moves of an apply: each either happens whole or leaves what another program wrote where it was."""

import contextlib
import errno
import os
import sys
from collections import defaultdict
from collections.abc import Callable

from stepgate.domain.errors import NotFound, PathRefused
from stepgate.workspace.access import FileStat, Root
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import PERMISSIONS, Change, ChangeSet, Kind, Node
from stepgate.workspace.moves import give_back, is_still, move_to_free_name, put_back, raced, remove_folder
from stepgate.workspace.paths import parent_of
from stepgate.workspace.states import OWNER_ACCESS
from stepgate.workspace.syscalls import LINUX, RENAME_EXCHANGE, RENAME_NOREPLACE, fsync, rename

OnPoint = Callable[[str], None]

_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Placing:
    """Moves the changes of one set into place under temporary names that any later apply of the set finds again."""

    def __init__(self, root: Root, change_set: ChangeSet, on_point: OnPoint) -> None:
        self._root = root
        self._set = change_set
        self._on_point = on_point
        self._numbers = {change.path: number for number, change in enumerate(change_set.changes)}
        self.owner_changed: list[str] = []

    def temporary_name(self, path: str) -> str:
        """The name used beside the target while the path is being changed."""
        return f".stepgate-{self._set.id}-{self._numbers[path]}"

    def held_name(self, path: str) -> str:
        """The name that takes what was at the target until it is known to be what was seen there.

        Another than the first, because after a crash what lies there may be another program's only copy.
        """
        return f"{self.temporary_name(path)}.held"

    def temporary_folder(self, path: str) -> str:
        """The nearest folder above that is a folder both before and after, so that the name survives a crash there."""
        folder = parent_of(path)
        while folder and (change := self._set.get(folder)) is not None and not _stays_folder(change):
            folder = parent_of(folder)
        return folder

    def sweep(self) -> None:
        """Removes every temporary name of this set, and gives back what a crash took from another program."""
        names: defaultdict[str, list[Change]] = defaultdict(list)
        for change in self._set.changes:
            names[self.temporary_folder(change.path)].append(change)
        for folder, changes in names.items():
            with contextlib.suppress(NotFound, PathRefused):
                descriptor = self._root.open_folder(folder, readable=False)
                try:
                    for change in changes:
                        self._sweep_one(descriptor, folder, change)
                finally:
                    os.close(descriptor)

    def _sweep_one(self, descriptor: int, folder: str, change: Change) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.temporary_name(change.path), dir_fd=descriptor)
        held = self.held_name(change.path)
        with contextlib.suppress(FileNotFoundError):
            os.stat(held, dir_fd=descriptor, follow_symlinks=False)
            give_back(self._root, change, folder, held)

    def prepare(self, change: Change, node: Node, found: FileStat | None, blobs: BlobStore, *, durable: bool) -> None:
        """Makes the new file or link under its temporary name, whole and with its owner, mode and time."""
        folder = self._root.open_folder(self.temporary_folder(change.path), readable=False)
        name = self.temporary_name(change.path)
        try:
            owner = found or FileStat.of(os.fstat(folder))
            if node.kind is Kind.SYMLINK and node.target is not None:
                os.symlink(node.target, name, dir_fd=folder)
                made = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if (made.st_uid, made.st_gid) != (owner.uid, owner.gid):
                    self._keep_link_owner(folder, name, owner, change.path)
                os.utime(name, ns=(node.mtime_ns, node.mtime_ns), dir_fd=folder, follow_symlinks=False)
                return
            descriptor = os.open(name, _NEW_FILE, 0o600, dir_fd=folder)
            try:
                blobs.copy_to(node.sha256 or "", descriptor)
                self._keep_owner(descriptor, owner, change.path, replaced=found is not None)
                if found is not None and found.kind is Kind.FILE:
                    self._keep_attributes(descriptor, change.path)
                os.fchmod(descriptor, node.mode)
                os.utime(descriptor, ns=(node.mtime_ns, node.mtime_ns))
                if durable:
                    fsync(descriptor)
            finally:
                os.close(descriptor)
        finally:
            os.close(folder)

    def _keep_owner(self, descriptor: int, owner: FileStat, path: str, *, replaced: bool) -> None:
        made = os.fstat(descriptor)
        if (made.st_uid, made.st_gid) == (owner.uid, owner.gid):
            return
        if os.geteuid() == 0:
            os.fchown(descriptor, owner.uid, owner.gid)
        elif replaced:
            try:
                os.fchown(descriptor, -1, owner.gid)
            except PermissionError:
                self.owner_changed.append(path)
            else:
                if made.st_uid != owner.uid:
                    self.owner_changed.append(path)

    def _keep_attributes(self, descriptor: int, path: str) -> None:
        """Access lists and a person's own attributes; others, such as capabilities, belong to the content replaced."""
        if sys.platform != "linux":
            return
        old, _ = self._root.open_file(path, allow_hard_links=True)
        try:
            for name in os.listxattr(old):
                if name.startswith("user.") or name == "system.posix_acl_access":
                    os.setxattr(descriptor, name, os.getxattr(old, name))
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.ENODATA):
                raise
        finally:
            os.close(old)

    def _keep_link_owner(self, folder: int, name: str, owner: FileStat, path: str) -> None:
        if os.geteuid() == 0:
            os.chown(name, owner.uid, owner.gid, dir_fd=folder, follow_symlinks=False)
        else:
            self.owner_changed.append(path)

    def make_folder(self, change: Change, found: FileStat | None) -> None:
        """Makes a folder that only its owner can enter; a file or link seen there before gives way."""
        if found is not None and found.kind is Kind.FOLDER:
            return
        if found is not None:
            self.remove(change, found)
        folder = self._root.open_folder(parent_of(change.path), readable=False)
        try:
            name = change.path.rpartition("/")[2]
            try:
                os.mkdir(name, OWNER_ACCESS, dir_fd=folder)
            except FileExistsError as error:
                raise raced(change.path) from error
            if os.geteuid() == 0:
                self._give_folder(change.path, os.fstat(folder))
        finally:
            os.close(folder)

    def _give_folder(self, path: str, owner: os.stat_result) -> None:
        # By descriptor: the name could by now be another's hard link, a folder cannot.
        descriptor = self._root.open_folder(path)
        try:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        finally:
            os.close(descriptor)

    def place(self, change: Change, found: FileStat | None) -> None:
        """Gives the prepared file or link its name, where `found` (None: nothing) was seen before."""
        temporary, held = self.temporary_name(change.path), self.held_name(change.path)
        aside, folder, name = self._open_both(change.path)
        try:
            if found is None:
                move_to_free_name(aside, temporary, folder, name, change.path)
                return
            os.rename(temporary, held, src_dir_fd=aside, dst_dir_fd=aside)
            try:
                exchanged = rename(aside, held, folder, name, RENAME_EXCHANGE)
            except FileNotFoundError as error:
                raise raced(change.path) from error
            if not exchanged:
                if not is_still(folder, name, found):
                    raise raced(change.path)
                os.rename(held, name, src_dir_fd=aside, dst_dir_fd=folder)
                return
            self._on_point(f"exchanged:{change.path}")
            if not is_still(aside, held, found):
                put_back(aside, held, folder, name, RENAME_EXCHANGE)
                raise raced(change.path)
            os.unlink(held, dir_fd=aside)
        finally:
            os.close(aside)
            os.close(folder)

    def remove(self, change: Change, found: FileStat) -> None:
        """Removes what was seen there before; a folder must be empty."""
        held = self.held_name(change.path)
        aside, folder, name = self._open_both(change.path)
        try:
            if found.kind is Kind.FOLDER:
                remove_folder(folder, name, change.path)
                return
            try:
                if not rename(folder, name, aside, held, RENAME_NOREPLACE):
                    if not is_still(folder, name, found):
                        raise raced(change.path)
                    os.unlink(name, dir_fd=folder)
                    return
            except FileNotFoundError:
                return
            self._on_point(f"taken:{change.path}")
            if not is_still(aside, held, found):
                put_back(aside, held, folder, name, RENAME_NOREPLACE)
                raise raced(change.path)
            os.unlink(held, dir_fd=aside)
        finally:
            os.close(aside)
            os.close(folder)

    def set_mode(self, path: str, mode: int) -> None:
        """Sets a folder's permission bits, leaving set-id and sticky bits as they are."""
        descriptor = self._root.open_folder(path, readable=False)
        try:
            kept = os.fstat(descriptor).st_mode & 0o7777 & ~PERMISSIONS
            os.chmod(_by_descriptor(descriptor), mode | kept)
        finally:
            os.close(descriptor)

    def set_time(self, path: str, mtime_ns: int) -> None:
        """Sets the modification time of whatever is at the path."""
        folder = self._root.open_folder(parent_of(path), readable=False)
        try:
            os.utime(path.rpartition("/")[2], ns=(mtime_ns, mtime_ns), dir_fd=folder, follow_symlinks=False)
        finally:
            os.close(folder)

    def _open_both(self, path: str) -> tuple[int, int, str]:
        aside = self._root.open_folder(self.temporary_folder(path), readable=False)
        try:
            return aside, self._root.open_folder(parent_of(path), readable=False), path.rpartition("/")[2]
        except BaseException:
            os.close(aside)
            raise


def _stays_folder(change: Change) -> bool:
    sides = (change.before, change.after)
    return all(node is not None and node.kind is Kind.FOLDER for node in sides)


def _by_descriptor(descriptor: int) -> int | str:
    # A descriptor that only names a folder cannot be changed through, except by its name in /proc.
    return f"/proc/self/fd/{descriptor}" if LINUX else descriptor
