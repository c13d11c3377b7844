"""Showing a change set to a person as the unified diff that git and every review tool use."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import Change, ChangeSet, Kind, Node
from stepgate.workspace.linediff import Block, changed_blocks

MAX_DIFF_BYTES: Final = 256 * 1024
MAX_FILE_BYTES: Final = 1024 * 1024
_SNIFFED: Final = 8000
_NO_NEWLINE: Final = "\\ No newline at end of file\n"
_ESCAPES: Final = {"\t": "\\t", "\n": "\\n", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def unified(change_set: ChangeSet, blobs: BlobStore, *, context: int = 3, max_bytes: int = MAX_DIFF_BYTES) -> str:
    """A git-style diff: modes, renames (equal content), links, `Binary files differ`, missing newlines at the end.

    Files over 1 MiB are named, not shown; past `max_bytes` of UTF-8 the rest is only counted, in a last line that
    starts with `# `, as do lines for folders, which git does not know. File content is unescaped: who
    prints it to a terminal must escape control characters. Raises NotFound or IntegrityError for lost blobs.
    """
    parts, size = list[str](), 0
    sections = sections_of(change_set)
    for number, section in enumerate(sections):
        text = _render(section, blobs, context)
        size += len(text.encode())
        if size > max_bytes:
            parts.append(
                f"# {len(sections) - number} more of {len(sections)} changes not shown: the diff is too long\n"
            )
            break
        parts.append(text)
    return "".join(parts)


Section = tuple[Change, Change | None]
"""A change, and where its content came from if it is a rename."""


def sections_of(change_set: ChangeSet) -> list[Section]:
    """One section per change, a pair of equal deleted and created files as one."""
    gone = defaultdict[str, list[Change]](list)
    for change in reversed(change_set.changes):
        if change.after is None and change.before is not None and change.before.sha256 and change.before.size:
            gone[change.before.sha256].append(change)
    sections, renamed = list[Section](), set[str]()
    for change in change_set.changes:
        source = None
        if change.before is None and change.after is not None and gone.get(change.after.sha256 or ""):
            source = gone[change.after.sha256 or ""].pop()
            renamed.add(source.path)
        sections.append((change, source))
    return [section for section in sections if section[0].path not in renamed]


def _render(section: Section, blobs: BlobStore, context: int) -> str:
    change, source = section
    before, after = change.before, change.after
    if source is not None and source.before is not None and after is not None:
        return _rename(source.path, source.before, change.path, after)
    if before is not None and after is not None and before.kind is not after.kind:
        gone = _render((Change(change.path, before, None), None), blobs, context)
        return gone + _render((Change(change.path, None, after), None), blobs, context)
    if Kind.FOLDER in {node.kind for node in (before, after) if node is not None}:
        return _folder(change)
    return _header(change) + _content(change, blobs, context)


def _folder(change: Change) -> str:
    name = quoted(change.path + "/")
    match change.before, change.after:
        case None, Node(mode=mode):
            return f"# new folder {name} mode {mode:04o}\n"
        case Node(), None:
            return f"# deleted folder {name}\n"
        case Node(mode=old), Node(mode=new) if old != new:
            return f"# folder {name} mode {old:04o} to {new:04o}\n"
        case _:
            return f"# folder {name} touched\n"


def _header(change: Change) -> str:
    head = f"diff --git {quoted('a/' + change.path)} {quoted('b/' + change.path)}\n"
    match change.before, change.after:
        case None, Node() as new:
            return f"{head}new file mode {_git_mode(new)}\n"
        case Node() as old, None:
            return f"{head}deleted file mode {_git_mode(old)}\n"
        case Node() as old, Node() as new if old.mode != new.mode:
            return f"{head}old mode {_git_mode(old)}\nnew mode {_git_mode(new)}\n"
        case _:
            return head


def _rename(old_path: str, before: Node, new_path: str, after: Node) -> str:
    lines = [f"diff --git {quoted('a/' + old_path)} {quoted('b/' + new_path)}\n"]
    if before.mode != after.mode:
        lines += [f"old mode {_git_mode(before)}\n", f"new mode {_git_mode(after)}\n"]
    lines += ["similarity index 100%\n", f"rename from {quoted(old_path)}\n", f"rename to {quoted(new_path)}\n"]
    return "".join(lines)


def _git_mode(node: Node) -> str:
    # git itself knows only 644 and 755; the person who approves must see every bit.
    return "120000" if node.kind is Kind.SYMLINK else f"100{node.mode:03o}"


def _content(change: Change, blobs: BlobStore, context: int) -> str:
    before, after = change.before, change.after
    if before is not None and after is not None and (before.sha256, before.target) == (after.sha256, after.target):
        return ""
    old_name = quoted("a/" + change.path) if before is not None else "/dev/null"
    new_name = quoted("b/" + change.path) if after is not None else "/dev/null"
    sizes = f"{before.size if before else 0} to {after.size if after else 0} bytes"
    if before is not None and not before.kept:
        why = f"# cannot be undone, the former content is too large to be kept: {sizes}"
        return f"{why}\nBinary files {old_name} and {new_name} differ\n"
    if max(node.size for node in (before, after) if node is not None) > MAX_FILE_BYTES:
        return f"# too large to show: {sizes}\nBinary files {old_name} and {new_name} differ\n"
    old, new = _text(before, blobs), _text(after, blobs)
    if old is None or new is None:
        return f"# not text: {sizes}\nBinary files {old_name} and {new_name} differ\n"
    hunks = "".join(hunks_of(lines_of(old), lines_of(new), context))
    return f"--- {label(old_name)}\n+++ {label(new_name)}\n{hunks}" if hunks else ""


def _text(node: Node | None, blobs: BlobStore) -> str | None:
    """The text of a file or link, None when it is not UTF-8 text."""
    if node is None:
        return ""
    if node.target is not None:
        return node.target
    data = blobs.get(node.sha256 or "")
    if b"\x00" in data[:_SNIFFED]:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def lines_of(text: str) -> list[str]:
    """Lines with their newline; only LF ends one, as in git."""
    lines = text.split("\n")
    last = lines.pop()
    return [line + "\n" for line in lines] + ([last] if last else [])


def hunks_of(old: Sequence[str], new: Sequence[str], context: int) -> Iterator[str]:
    """The hunks of a unified diff; lines come with their newline."""
    for group in _grouped(changed_blocks(old, new), context):
        first, last = group[0], group[-1]
        above = min(context, first.old_from)
        below = min(context, len(old) - last.old_to)
        old_range = _range(first.old_from - above, last.old_to + below)
        new_range = _range(first.new_from - above, last.new_to + below)
        yield f"@@ -{old_range} +{new_range} @@\n"
        place = first.old_from - above
        for block in group:
            yield from _marked(" ", old[place : block.old_from])
            yield from _marked("-", old[block.old_from : block.old_to])
            yield from _marked("+", new[block.new_from : block.new_to])
            place = block.old_to
        yield from _marked(" ", old[place : place + below])


def _grouped(blocks: Sequence[Block], context: int) -> list[list[Block]]:
    groups = list[list[Block]]()
    for block in blocks:
        if groups and block.old_from - groups[-1][-1].old_to <= 2 * context:
            groups[-1].append(block)
        else:
            groups.append([block])
    return groups


def _range(start: int, end: int) -> str:
    count = end - start
    # An empty range names the line before it.
    first = start + 1 if count else start
    return f"{first}" if count == 1 else f"{first},{count}"


def _marked(sign: str, lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield sign + line if line.endswith("\n") else f"{sign}{line}\n{_NO_NEWLINE}"


def quoted(name: str) -> str:
    """The name as git writes it: in C quotes when it holds anything that could be mistaken or cannot be seen."""
    if name.isprintable() and '"' not in name and "\\" not in name:
        return name
    shown = (char if char.isprintable() and char not in _ESCAPES else _escaped(char) for char in name)
    return f'"{"".join(shown)}"'


def _escaped(char: str) -> str:
    return _ESCAPES.get(char) or "".join(f"\\{byte:03o}" for byte in char.encode())


def label(name: str) -> str:
    """A quoted name as it follows `---` and `+++`."""
    # After a name with blanks git writes a tab, so that tools know where it ends.
    return f"{name}\t" if " " in name and not name.startswith('"') else name
