"""Making a branch as git makes one: locked, checked against every other ref, in one rename; nothing else is touched."""

import contextlib
import os
from typing import Final

from dulwich.refs import Ref, check_ref_format

from stepgate.domain.errors import Conflict, InvalidValue, NotFound, PathRefused
from stepgate.workspace.access import Root
from stepgate.workspace.changes import Kind
from stepgate.workspace.git.repository import BRANCHES, Repository
from stepgate.workspace.paths import ancestors, parent_of
from stepgate.workspace.syscalls import fsync

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LONGEST: Final = 200


def check_branch(name: str) -> str:
    """The full name of a branch; raises InvalidValue with the field `branch` for what git takes for none."""
    ref = f"{BRANCHES}{name}"
    sound = name.isprintable() and len(name.encode()) <= _LONGEST and not name.startswith("-") and name != "HEAD"
    if not sound or not check_ref_format(Ref(ref.encode())) or any(part.startswith(".") for part in ref.split("/")):
        raise InvalidValue(f"{name!r} is no branch name", field="branch", fix="choose one such as stepgate/fix-invoice")
    return ref


def check_free(repository: Repository, ref: str, commit: str) -> bool:
    """False where the branch is there already and names this very commit.

    Raises Conflict `branch_exists` or `branch_checked_out`.
    """
    if ref in repository.checked_out():
        raise _conflict(ref, "is checked out in a working tree", "branch_checked_out")
    return _is_free(repository, ref, commit)


def make_branch(repository: Repository, ref: str, commit: str) -> bool:
    """Makes the branch; False where it is there already and names this very commit.

    Raises Conflict `branch_exists`, `branch_checked_out` or `branch_locked`.
    """
    if not check_free(repository, ref, commit):
        return False
    root = repository.common
    _clear_way(root, ref)
    folder = _folder(root, parent_of(ref))
    lock, name = f"{ref.rpartition('/')[2]}.lock", ref.rpartition("/")[2]
    try:
        try:
            descriptor = os.open(lock, _NEW, 0o644, dir_fd=folder)
        except FileExistsError as error:
            raise _conflict(ref, "is being changed by another program", "branch_locked") from error
        try:
            with os.fdopen(descriptor, "wb") as stream:
                _give(stream.fileno(), os.fstat(folder))
                if not _is_free(repository, ref, commit):
                    return False
                stream.write(f"{commit}\n".encode())
                stream.flush()
                fsync(stream.fileno())
            os.rename(lock, name, src_dir_fd=folder, dst_dir_fd=folder)
            lock = ""
            fsync(folder)
        finally:
            if lock:
                os.unlink(lock, dir_fd=folder)
    except IsADirectoryError as error:
        raise _conflict(ref, "has branches beneath it", "branch_exists") from error
    finally:
        os.close(folder)
    return True


def _is_free(repository: Repository, ref: str, commit: str) -> bool:
    """False where the branch is there with this commit."""
    packed = repository.packed()
    there = repository.ref(ref)
    if there == commit:
        return False
    if there is not None:
        raise _conflict(ref, f"exists already, at {there[:12]}", "branch_exists")
    above = [folder for folder in ancestors(ref) if folder.startswith(BRANCHES)]
    if any(repository.ref(folder) is not None for folder in above):
        raise _conflict(ref, "lies beneath another branch", "branch_exists")
    if any(name.startswith(f"{ref}/") for name in packed) or _holds_files(repository.common, ref):
        raise _conflict(ref, "has branches beneath it", "branch_exists")
    return True


def _holds_files(root: Root, folder: str) -> bool:
    found = root.stat(folder)
    if found is None or found.kind is not Kind.FOLDER:
        return found is not None
    return any(_holds_files(root, f"{folder}/{name}") for name in root.list(folder))


def _clear_way(root: Root, ref: str) -> None:
    """Empty folders that deleted branches left are nobody's; a folder with anything in it is left and refused."""
    with contextlib.suppress(NotFound, PathRefused, OSError):
        for name in root.list(ref):
            _clear_way(root, f"{ref}/{name}")
        folder = root.open_folder(parent_of(ref))
        try:
            os.rmdir(ref.rpartition("/")[2], dir_fd=folder)
        finally:
            os.close(folder)


def _folder(root: Root, path: str) -> int:
    """The folder a ref lies in, made where it is missing."""
    try:
        for step in (*ancestors(path), path):
            above = root.open_folder(parent_of(step))
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(step.rpartition("/")[2], 0o755, dir_fd=above)
                    _share(root.open_folder(step), os.fstat(above))
            finally:
                os.close(above)
        return root.open_folder(path)
    except PathRefused as error:
        raise _conflict(path, "is a branch, so none can lie beneath it", "branch_exists") from error


def _share(folder: int, above: os.stat_result) -> None:
    try:
        _give(folder, above)
        os.fchmod(folder, above.st_mode & 0o7777)
    finally:
        os.close(folder)


def _give(descriptor: int, owner: os.stat_result) -> None:
    if os.geteuid() == 0:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _conflict(ref: str, why: str, code: str) -> Conflict:
    name = ref.removeprefix(BRANCHES)
    return Conflict(
        f"the branch {name!r} {why}", code=code, field="branch", fix="choose another name", details={"branch": name}
    )
