"""A person's repository, read as data: where HEAD stands and which branches there are.

Nothing that a repository configures is executed or even read: no hook, no filter, no configuration. Every file is
opened beneath the repository's own folders, following no link.
"""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from stepgate.domain.errors import Conflict, NotFound, PathRefused, StepgateError
from stepgate.workspace.access import Root

DOT_GIT: Final = ".git"
BRANCHES: Final = "refs/heads/"
_COMMIT: Final = re.compile(r"[0-9a-f]{40}\Z")
_OTHER_HASH: Final = re.compile(r"[0-9a-f]{64}\Z")
_SMALL_BYTES: Final = 4096
_PACKED_BYTES: Final = 64 << 20
_LINKS: Final = 5
_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Head:
    """`ref` is the branch's full name, None where HEAD is detached; `commit` None where the branch has none yet."""

    ref: str | None
    commit: str | None


class Repository:
    """`git` holds this working tree's own HEAD, `common` what all of its working trees share; mostly the same folder.

    Everything raises Conflict `repository_refused`, with the reason, for what is not a sound repository of the usual
    form in its place.
    """

    def __init__(self, git: Root, common: Root) -> None:
        self.git = git
        self.common = common

    @classmethod
    def open(cls, workspace: Root, allowed: Path) -> "Repository":
        """The repository whose working tree the workspace is; its folders must lie in the workspace or in `allowed`.

        Raises Conflict `no_repository` where the workspace has no `.git` of its own.
        """
        git = Root.open(_git_folder(workspace, allowed), exact=True)
        try:
            common = _common(git, allowed)
        except BaseException:
            git.close()
            raise
        found = cls(git, common)
        try:
            found.check()
        except BaseException:
            found.close()
            raise
        return found

    def close(self) -> None:
        self.git.close()
        self.common.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def check(self) -> None:
        """Refuses what could not be read or written rightly."""
        for name in ("objects", "refs"):
            found = _looked(self.common, name)
            if found != "folder":
                raise refused(f"its folder {name!r} is {'missing' if found is None else f'a {found}'}")
        if _looked(self.common, "reftable") is not None:
            raise refused("its refs are in the reftable format, which is not supported")
        self.head()

    def head(self) -> Head:
        """Where the working tree stands."""
        text = small(self.git, "HEAD")
        if text is None:
            raise refused("it has no HEAD")
        if not text.startswith("ref:"):
            return Head(None, _commit(text))
        ref = text[4:].strip()
        return Head(ref, self.ref(ref))

    def ref(self, name: str, links: int = _LINKS) -> str | None:
        """The commit a ref names, None where there is none; symbolic refs are followed."""
        text = small(self.common, name) if _plain(name) else None
        if text is None:
            return self.packed().get(name)
        if text.startswith("ref:"):
            if links == 0:
                raise refused(f"the ref {name!r} leads in a circle")
            return self.ref(text[4:].strip(), links - 1)
        return _commit(text)

    def packed(self) -> dict[str, str]:
        """Every ref of the file that holds many."""
        text = small(self.common, "packed-refs", _PACKED_BYTES)
        found: dict[str, str] = {}
        for line in (text or "").splitlines():
            commit, blank, name = line.partition(" ")
            if blank and _COMMIT.match(commit):
                found[name] = commit
        return found

    def checked_out(self) -> Iterator[str]:
        """Full names of the branches that this or another working tree of the repository stands on."""
        heads = [small(self.git, "HEAD"), small(self.common, "HEAD")]
        if _looked(self.common, "worktrees") == "folder":
            heads += [small(self.common, f"worktrees/{name}/HEAD") for name in self.common.list("worktrees")]
        for text in heads:
            if text is not None and text.startswith("ref:"):
                yield text[4:].strip()


def head_of(workspace: Root, allowed: Path) -> Head:
    """Where the workspace's repository stands, if it has one that can be read; else nothing, which stops no run."""
    try:
        with Repository.open(workspace, allowed) as repository:
            return repository.head()
    except (StepgateError, OSError, ValueError):
        return Head(None, None)


def refused(reason: str) -> Conflict:
    """The error that says why a repository is left alone."""
    return Conflict(
        f"the repository is left alone: {reason}",
        code="repository_refused",
        field="workspace_path",
        fix="deliver the result as a patch, or apply it",
    )


def small(root: Root, name: str, most: int = _SMALL_BYTES) -> str | None:
    """A small text file of the repository, without the blanks around it; None where there is none."""
    try:
        return root.read(name, most, allow_hard_links=True).data.decode().strip()
    except NotFound:
        return None
    except UnicodeDecodeError:
        raise refused(f"{name!r} is not text") from None
    except PathRefused as error:
        if _looked(root, name) == "folder":
            return None
        raise refused(error.message) from error


def _looked(root: Root, name: str) -> str | None:
    try:
        found = root.stat(name)
    except PathRefused as error:
        raise refused(error.message) from error
    return None if found is None else found.kind.value


def _plain(name: str) -> bool:
    """Whether a ref's name can be a path beneath the repository."""
    return name.startswith("refs/") and not any(part in ("", ".", "..") for part in name.split("/"))


def _commit(text: str) -> str:
    if _OTHER_HASH.match(text):
        raise refused("its objects have SHA-256 names, which is not supported")
    if not _COMMIT.match(text):
        raise refused("a ref holds no commit")
    return text


def _git_folder(workspace: Root, allowed: Path) -> Path:
    found = _looked(workspace, DOT_GIT)
    match found:
        case None:
            raise Conflict(
                "the workspace is no git repository",
                code="no_repository",
                field="workspace_path",
                fix="deliver the result as a patch, or apply it",
            )
        case "folder":
            return workspace.path / DOT_GIT
        case "file":
            return _inside(workspace.path, _pointer(workspace), allowed, "its .git file")
        case _:
            raise refused(f"its .git is a {found}")


def _pointer(workspace: Root) -> str:
    """The path in a `.git` file, as working trees and submodules have one."""
    descriptor = workspace.open_beneath(workspace.fd, DOT_GIT, _READ)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise refused("its .git is no file")
        data = os.read(descriptor, _SMALL_BYTES)
    finally:
        os.close(descriptor)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise refused("its .git file is not text") from None
    if not text.startswith("gitdir:"):
        raise refused("its .git file names no folder")
    return text[len("gitdir:") :].strip()


def _common(git: Root, allowed: Path) -> Root:
    text = small(git, "commondir")
    path = git.path if text is None else _inside(git.path, text, allowed, "its commondir")
    return Root.open(path, exact=True)


def _inside(base: Path, text: str, allowed: Path, what: str) -> Path:
    """The folder a file of the repository points to, which must be one a workspace could be in."""
    if not text or "\x00" in text:
        raise refused(f"{what} names no folder")
    try:
        found = (base / text).resolve(strict=True)
        inside = found.is_relative_to(allowed.resolve(strict=True))
    except (OSError, RuntimeError) as error:
        raise refused(f"{what} points to {text!r}, which is not there") from error
    if not inside:
        raise refused(f"{what} points to {str(found)!r}, outside of the workspace root {str(allowed)!r}")
    if not found.is_dir():
        raise refused(f"{what} points to {str(found)!r}, which is no folder")
    return found


def alternates(objects: Root, allowed: Path) -> list[Path]:
    """Further folders of objects that an objects folder names."""
    text = small(objects, "info/alternates", 1 << 16)
    lines = [line for line in (text or "").splitlines() if line and not line.startswith("#")]
    return [_inside(objects.path, line, allowed, "its alternates file") for line in lines]
