"""Change sets: what an action did to a workspace, as pure data that can be shown, hashed, applied and undone."""

import hashlib
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any

from stepgate.domain import canonical
from stepgate.domain.errors import ChangeRefused, IntegrityError, StepgateError
from stepgate.domain.ids import new_id
from stepgate.workspace.paths import ancestors, check_relative, is_protected

FIRST_REV = "0" * 64
PERMISSIONS = 0o777
SYMLINK_MODE = 0o777
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_FORMAT = 1


class Op(StrEnum):
    """What happened to one path; `modify` covers content, mode and kind."""

    CREATE = "create"
    MODIFY = "modify"
    DELETE = "delete"


class Kind(StrEnum):
    """What a name in a folder is; only the first three can be in a change set."""

    FILE = "file"
    FOLDER = "folder"
    SYMLINK = "symlink"
    FIFO = "fifo"
    SOCKET = "socket"
    DEVICE = "device"


@dataclass(frozen=True, slots=True)
class Node:
    """One path's state: `mode` is permission bits only (0o777), `size` bytes, `target` a symlink's text.

    A file's content is stored as the blob `sha256` unless `kept` is false: then it is only known what it was.
    """

    kind: Kind
    mode: int
    size: int
    sha256: str | None
    target: str | None
    mtime_ns: int
    kept: bool = True

    def __post_init__(self) -> None:
        match self.kind:
            case Kind.FILE:
                fits = self.sha256 is not None and self.target is None and _SHA256.match(self.sha256) is not None
            case Kind.FOLDER:
                fits = self.sha256 is None and self.target is None
            case Kind.SYMLINK:
                fits = self.sha256 is None and bool(self.target)
            case _:
                fits = False
        if not fits or self.mode & ~PERMISSIONS or self.size < 0:
            raise ChangeRefused(f"a {self.kind} cannot be recorded in this form")

    @classmethod
    def file(cls, sha256: str, size: int, mode: int = 0o644, mtime_ns: int = 0) -> "Node":
        """A regular file; bits of `mode` above 0o777 are dropped."""
        return cls(Kind.FILE, mode & PERMISSIONS, size, sha256, None, mtime_ns)

    @classmethod
    def folder(cls, mode: int = 0o755, mtime_ns: int = 0) -> "Node":
        """A folder; bits of `mode` above 0o777 are dropped (set-group-id stays the person's)."""
        return cls(Kind.FOLDER, mode & PERMISSIONS, 0, None, None, mtime_ns)

    @classmethod
    def symlink(cls, target: str, mtime_ns: int = 0) -> "Node":
        """A symbolic link, never followed."""
        return cls(Kind.SYMLINK, SYMLINK_MODE, len(target.encode()), None, target, mtime_ns)

    def same(self, other: "Node | None") -> bool:
        """Whether the two are the same state; times do not count, so touching a file is no change."""
        return other is not None and (self.kind, self.mode, self.size, self.sha256, self.target) == (
            other.kind,
            other.mode,
            other.size,
            other.sha256,
            other.target,
        )

    def to_json(self) -> dict[str, Any]:
        """The node as JSON; keys that say nothing about its kind are left out."""
        match self.kind:
            case Kind.FILE:
                body: dict[str, Any] = {"sha256": self.sha256, "size": self.size}
                body |= {} if self.kept else {"kept": False}
            case Kind.SYMLINK:
                body = {"target": self.target}
            case _:
                body = {}
        return {"kind": self.kind.value, "mode": self.mode, "mtime_ns": self.mtime_ns, **body}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Node":
        """The inverse of `to_json`; raises KeyError, ValueError or ChangeRefused for anything else."""
        kind = Kind(value["kind"])
        target = value.get("target")
        size = len(target.encode()) if kind is Kind.SYMLINK and target else value.get("size", 0)
        return cls(kind, value["mode"], size, value.get("sha256"), target, value["mtime_ns"], value.get("kept", True))


@dataclass(frozen=True, slots=True)
class Change:
    """One path's state before and after; None means absent."""

    path: str
    before: Node | None
    after: Node | None

    @property
    def op(self) -> Op:
        """What happened to the path."""
        if self.before is None:
            return Op.CREATE
        return Op.DELETE if self.after is None else Op.MODIFY

    def to_json(self) -> dict[str, Any]:
        """`{path, op, before, after}`."""
        return {
            "path": self.path,
            "op": self.op.value,
            "before": self.before.to_json() if self.before else None,
            "after": self.after.to_json() if self.after else None,
        }


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """Changes sorted by path, parents before children; `id` is a UUIDv7."""

    id: str
    changes: tuple[Change, ...]

    def __post_init__(self) -> None:
        paths = [change.path for change in self.changes]
        if any(left >= right for left, right in pairwise(paths)):
            raise ChangeRefused("the paths of a change set must be sorted and unique")
        for change in self.changes:
            self._check(change)

    def _check(self, change: Change) -> None:
        path = change.path
        if check_relative(path) != path:
            raise ChangeRefused(f"{path!r} is not a normalised path", field="path")
        if is_protected(path):
            raise ChangeRefused(f"{path!r} is protected", field="path", fix="leave .git to git")
        if change.before is None and change.after is None:
            raise ChangeRefused(f"{path!r} is absent before and after", field="path")
        if change.after is None:
            return
        for folder in ancestors(path):
            above = self.get(folder)
            if above is not None and (above.after is None or above.after.kind is not Kind.FOLDER):
                raise ChangeRefused(f"{path!r} would lie in {folder!r}, which is no folder afterwards", field="path")

    @classmethod
    def of(cls, changes: Iterable[Change], set_id: str | None = None) -> "ChangeSet":
        """A change set from changes in any order; a new id unless one is given."""
        return cls(set_id or new_id(), tuple(sorted(changes, key=lambda change: change.path)))

    def get(self, path: str) -> Change | None:
        """The change of one path, or None."""
        index = bisect_left(self.changes, path, key=lambda change: change.path)
        found = index < len(self.changes) and self.changes[index].path == path
        return self.changes[index] if found else None

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path touched, sorted."""
        return tuple(change.path for change in self.changes)

    @property
    def cannot_undo(self) -> tuple[str, ...]:
        """The paths whose former content is not kept, so that nobody can bring it back."""
        stored = {change.after.sha256 for change in self.changes if change.after is not None}
        return tuple(
            change.path
            for change in self.changes
            if change.before is not None and not change.before.kept and change.before.sha256 not in stored
        )

    @property
    def blob_names(self) -> frozenset[str]:
        """The sha256 of every blob needed to apply the set, and to undo it where that is possible."""
        nodes = (node for change in self.changes for node in (change.before, change.after) if node is not None)
        return frozenset(node.sha256 for node in nodes if node.sha256 is not None and node.kept)

    @property
    def digest(self) -> str:
        """The sha256 of the canonical JSON of the changes; neither the id nor a folder's mtime is in it."""
        return canonical.digest(canonical.dumps([_hashed(change) for change in self.changes]))

    def to_json(self) -> dict[str, Any]:
        """`{v, id, changes: [{path, op, before, after}]}`."""
        return {"v": _FORMAT, "id": self.id, "changes": [change.to_json() for change in self.changes]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ChangeSet":
        """The inverse of `to_json`; raises IntegrityError for anything that is not a recorded change set."""
        try:
            if value["v"] != _FORMAT:
                raise IntegrityError(f"a change set of the unknown format {value['v']!r}")
            return cls(value["id"], tuple(_change(item) for item in value["changes"]))
        except IntegrityError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, StepgateError) as error:
            raise IntegrityError(f"not a recorded change set: {error}") from error


def next_rev(rev: str, digest: str) -> str:
    """The workspace revision after applying a set: sha256 over the text of the revision before and the set's digest."""
    return hashlib.sha256((rev + digest).encode()).hexdigest()


def _hashed(change: Change) -> dict[str, Any]:
    body = change.to_json()
    for side in ("before", "after"):
        if body[side] is not None and body[side]["kind"] == Kind.FOLDER:
            del body[side]["mtime_ns"]
    return body


def _change(item: Mapping[str, Any]) -> Change:
    before, after = item["before"], item["after"]
    return Change(
        item["path"],
        Node.from_json(before) if before is not None else None,
        Node.from_json(after) if after is not None else None,
    )
