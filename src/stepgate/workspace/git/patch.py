"""A change set as a patch that `git apply` takes exactly: complete, with git's modes, binary content included.

Unlike the diff that people are shown it leaves nothing out but what git cannot hold, which is named.
Format: git's Documentation/diff-generate-patch, and diff.c of git for binary patches.
"""

import base64
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from stepgate.domain.errors import ChangeRefused
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import Change, ChangeSet, Kind, Node
from stepgate.workspace.diff import hunks_of, label, lines_of, quoted, sections_of

MAX_PATCH_BYTES: Final = 64 << 20
FILE_MODE, EXECUTABLE_MODE, LINK_MODE = 0o100644, 0o100755, 0o120000
_LARGEST_TEXT: Final = 1 << 20
_LINE_BYTES: Final = 52
_ABSENT: Final = "0" * 40


@dataclass(frozen=True, slots=True)
class Patch:
    """`left_out` are `(path, reason)` of what git cannot hold."""

    text: str
    left_out: Sequence[tuple[str, str]]


def patch_of(change_set: ChangeSet, blobs: BlobStore, *, max_bytes: int = MAX_PATCH_BYTES) -> Patch:
    """Raises ChangeRefused `patch_too_large` over `max_bytes`, NotFound or IntegrityError for lost blobs."""
    parts, size = list[str](), 0
    for change, source in sections_of(change_set):
        for text in _section(change, source, blobs):
            size += len(text)
            if size > max_bytes:
                raise ChangeRefused(
                    f"the patch would have more than {max_bytes} bytes",
                    code="patch_too_large",
                    field="as",
                    fix="deliver the result as a branch, or apply it",
                )
            parts.append(text)
    return Patch("".join(parts), list(_left_out(change_set)))


def git_mode(node: Node) -> int:
    """The mode git records for a file or link: of the permission bits only whether the owner may execute it."""
    if node.kind is Kind.SYMLINK:
        return LINK_MODE
    return EXECUTABLE_MODE if node.mode & 0o100 else FILE_MODE


def content_of(node: Node, blobs: BlobStore) -> bytes:
    """A file's bytes or a link's text, as git stores them."""
    return node.target.encode() if node.target is not None else blobs.get(node.sha256 or "")


def blob_id(data: bytes) -> str:
    """The name git gives to this content."""
    return hashlib.sha1(b"blob %d\x00" % len(data) + data, usedforsecurity=False).hexdigest()


def _left_out(change_set: ChangeSet) -> Iterator[tuple[str, str]]:
    for change in change_set.changes:
        before, after = change.before, change.after
        kinds = {node.kind for node in (before, after) if node is not None}
        if kinds == {Kind.FOLDER}:
            filled = change.after is not None and _holds(change_set, change.path)
            if before is not None and after is not None:
                yield change.path, "git does not record the modes of folders"
            elif after is not None and not filled:
                yield change.path, "git does not record empty folders"
        elif before is not None and after is not None and len(kinds) == 1 and _hidden_mode(before, after):
            yield change.path, f"git does not record the mode {after.mode:04o}"


def _hidden_mode(before: Node, after: Node) -> bool:
    return before.mode != after.mode and git_mode(before) == git_mode(after)


def _holds(change_set: ChangeSet, folder: str) -> bool:
    return any(
        change.path.startswith(f"{folder}/") and change.after is not None and change.after.kind is not Kind.FOLDER
        for change in change_set.changes
    )


def _section(change: Change, source: Change | None, blobs: BlobStore) -> Iterator[str]:
    before, after = _held(change.before), _held(change.after)
    if source is not None and source.before is not None and after is not None:
        yield _rename(source.path, source.before, change.path, after)
        return
    if before is not None and after is not None and (before.kind is not after.kind):
        yield from _section(Change(change.path, before, None), None, blobs)
        yield from _section(Change(change.path, None, after), None, blobs)
        return
    if before is None and after is None:
        return
    old = b"" if before is None else content_of(before, blobs)
    new = b"" if after is None else content_of(after, blobs)
    modes = _modes(before, after)
    if not modes and old == new:
        return
    yield f"diff --git {quoted('a/' + change.path)} {quoted('b/' + change.path)}\n{modes}"
    if before is None or after is None or old != new:
        yield from _content(change.path, before, after, old, new)


def _held(node: Node | None) -> Node | None:
    """What git knows of it: a folder is nothing of its own."""
    return None if node is None or node.kind is Kind.FOLDER else node


def _modes(before: Node | None, after: Node | None) -> str:
    if before is None and after is not None:
        return f"new file mode {git_mode(after):06o}\n"
    if before is not None and after is None:
        return f"deleted file mode {git_mode(before):06o}\n"
    if before is not None and after is not None and git_mode(before) != git_mode(after):
        return f"old mode {git_mode(before):06o}\nnew mode {git_mode(after):06o}\n"
    return ""


def _rename(old_path: str, before: Node, new_path: str, after: Node) -> str:
    head = f"diff --git {quoted('a/' + old_path)} {quoted('b/' + new_path)}\n"
    names = f"rename from {quoted(old_path)}\nrename to {quoted(new_path)}\n"
    return f"{head}{_modes(before, after)}similarity index 100%\n{names}"


def _content(path: str, before: Node | None, after: Node | None, old: bytes, new: bytes) -> Iterator[str]:
    ids = (_ABSENT if before is None else blob_id(old), _ABSENT if after is None else blob_id(new))
    same_mode = before is not None and after is not None and git_mode(before) == git_mode(after)
    yield f"index {ids[0]}..{ids[1]}{f' {git_mode(after):06o}' if same_mode and after is not None else ''}\n"
    if old == new:  # an empty file made or deleted
        return
    old_text, new_text = _text(old), _text(new)
    if old_text is None or new_text is None:
        yield f"GIT binary patch\n{_literal(new)}\n{_literal(old)}\n"
        return
    yield f"--- {'/dev/null' if before is None else label(quoted('a/' + path))}\n"
    yield f"+++ {'/dev/null' if after is None else label(quoted('b/' + path))}\n"
    yield from hunks_of(lines_of(old_text), lines_of(new_text), 3)


def _text(data: bytes) -> str | None:
    """None where it is not short UTF-8 text, so that no tool on the way can take it for another."""
    if len(data) > _LARGEST_TEXT or b"\x00" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _literal(data: bytes) -> str:
    packed = zlib.compress(data, 9)
    lines = [f"literal {len(data)}\n"]
    for start in range(0, len(packed), _LINE_BYTES):
        piece = packed[start : start + _LINE_BYTES]
        size = chr(ord("A") + len(piece) - 1) if len(piece) <= 26 else chr(ord("a") + len(piece) - 27)
        lines.append(f"{size}{base64.b85encode(piece, pad=True).decode()}\n")
    return "".join(lines)
