"""Renames that never lose what another program wrote: it is put back, or kept beside where its name is in use."""

import errno
import os

from stepgate.domain.errors import NotFound, PathRefused, StepgateError, WorkspaceConflict
from stepgate.workspace.access import FileStat, Root
from stepgate.workspace.changes import Change, Kind, Node
from stepgate.workspace.paths import parent_of
from stepgate.workspace.states import node_at
from stepgate.workspace.syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, rename


def is_still(folder: int, name: str, found: FileStat) -> bool:
    """Whether a name is the very thing seen before, unchanged; renaming changes ctime, so that does not count."""
    try:
        now = FileStat.of(os.stat(name, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return False
    return (now.device, now.inode, now.kind, now.mode, now.size, now.mtime_ns) == (
        found.device,
        found.inode,
        found.kind,
        found.mode,
        found.size,
        found.mtime_ns,
    )


def move_to_free_name(aside: int, temporary: str, folder: int, name: str, path: str) -> None:
    try:
        if rename(aside, temporary, folder, name, RENAME_NOREPLACE):
            return
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileExistsError as error:
        raise raced(path) from error
    except FileNotFoundError:
        os.rename(temporary, name, src_dir_fd=aside, dst_dir_fd=folder)
        return
    raise raced(path)


def give_back(root: Root, change: Change, folder: str, held: str) -> None:
    """Settles what a crash left under the name `held` in `folder`, taken from the change's path and not yet looked at.

    Either side of the change is recorded elsewhere and goes; anything else is another program's, and returns to its
    path, or stays beside it where the path is in use once more.
    """
    path = f"{folder}/{held}" if folder else held
    found = _node(root, path)
    if found is None:
        return
    aside = root.open_folder(folder, readable=False)
    try:
        if _is_recorded(found, change):
            os.unlink(held, dir_fd=aside)
            return
        if not _given_back(root, change, aside, path, held):
            _keep(aside, held, change.path.rpartition("/")[2])
    finally:
        os.close(aside)


def _given_back(root: Root, change: Change, aside: int, path: str, held: str) -> bool:
    now = _node(root, change.path)
    if now is None:
        return _returned(root, change, aside, held, RENAME_NOREPLACE)
    if not (isinstance(now, Node) and now.same(change.after)):
        return False
    if not _returned(root, change, aside, held, RENAME_EXCHANGE):
        return False
    # Whoever wrote the path at this very moment has now been taken from it in turn.
    if not _is_recorded(_node(root, path), change):
        return False
    os.unlink(held, dir_fd=aside)
    return True


def _node(root: Root, path: str) -> Node | StepgateError | None:
    """What is at a path: nothing, a node, or why it can be none."""
    try:
        return node_at(root, path)
    except (PathRefused, WorkspaceConflict) as error:
        return error


def _is_recorded(found: Node | StepgateError | None, change: Change) -> bool:
    sides = (change.before, change.after)
    return isinstance(found, Node) and found.kind is not Kind.FOLDER and any(found.same(side) for side in sides)


def _returned(root: Root, change: Change, aside: int, held: str, flags: int) -> bool:
    try:
        folder = root.open_folder(parent_of(change.path), readable=False)
    except (NotFound, PathRefused):
        return False
    try:
        return rename(aside, held, folder, change.path.rpartition("/")[2], flags)
    except (FileExistsError, FileNotFoundError):
        return False
    finally:
        os.close(folder)


def _keep(aside: int, held: str, name: str) -> None:
    os.rename(held, f"{name}{held}.kept", src_dir_fd=aside, dst_dir_fd=aside)


def put_back(aside: int, temporary: str, folder: int, name: str, flags: int) -> None:
    """Returns to its name what another program wrote there; beside it when that name is in use once more."""
    try:
        rename(aside, temporary, folder, name, flags)
    except OSError:
        try:
            rename(aside, temporary, folder, name, RENAME_NOREPLACE)
        except FileExistsError:
            os.rename(temporary, f"{name}{temporary}.kept", src_dir_fd=aside, dst_dir_fd=folder)


def remove_folder(folder: int, name: str, path: str) -> None:
    try:
        os.rmdir(name, dir_fd=folder)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise raced(path) from error
        raise


def raced(path: str) -> WorkspaceConflict:
    return WorkspaceConflict(
        f"{path!r} was changed by another program meanwhile", field="path", details={"paths": [path]}
    )
