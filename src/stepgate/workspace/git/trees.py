"""Git trees as values: what is at a path, and the tree that some changes make of another."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from dulwich.objects import ObjectID, parse_tree, serialize_tree, sorted_tree_items

from stepgate.workspace.git.objects import TREE, Objects
from stepgate.workspace.git.repository import refused

FOLDER_MODE: Final = 0o040000
SUBMODULE_MODE: Final = 0o160000

Entry = tuple[int, str]
"""Mode and object name of what is at a path."""


@dataclass(slots=True)
class _Changes:
    """What changes at one name and beneath it."""

    here: Entry | None = None
    changed: bool = False
    below: dict[str, "_Changes"] = field(default_factory=dict)


class Trees:
    """Trees of one repository, each read once."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._read: dict[str, dict[bytes, Entry]] = {}

    def entries(self, tree: str | None) -> Mapping[bytes, Entry]:
        """What a tree holds directly; None is the empty tree."""
        if tree is None:
            return {}
        found = self._read.get(tree)
        if found is None:
            try:
                parsed = parse_tree(self._objects.read(tree, TREE), 20)
                found = {name: (mode, hexsha.decode()) for name, mode, hexsha in parsed}
            except ValueError as error:
                raise refused(f"its tree {tree} is damaged") from error
            self._read[tree] = found
        return found

    def at(self, tree: str | None, path: str) -> Entry | None:
        """The entry at a path; a submodule's for every path in it."""
        *folders, name = path.split("/")
        for folder in folders:
            entry = self.entries(tree).get(folder.encode())
            if entry is None or entry[0] == SUBMODULE_MODE:
                return entry
            if entry[0] != FOLDER_MODE:
                return None
            tree = entry[1]
        return self.entries(tree).get(name.encode())

    def edit(self, tree: str | None, changes: Mapping[str, Entry | None]) -> str | None:
        """The tree with these paths changed (None: removed), added to the objects; None where nothing is left."""
        root = _Changes()
        for path, entry in changes.items():
            here = root
            for part in path.split("/"):
                here = here.below.setdefault(part, _Changes())
            here.here, here.changed = entry, True
        return self._edit(tree, root)

    def _edit(self, tree: str | None, changes: _Changes) -> str | None:
        entries = dict(self.entries(tree))
        for part, change in changes.below.items():
            name = part.encode()
            entry = _after(entries.get(name), change)
            if change.below and (entry is None or entry[0] == FOLDER_MODE):
                below = self._edit(None if entry is None else entry[1], change)
                entry = None if below is None else (FOLDER_MODE, below)
            if entry is None:
                entries.pop(name, None)
            else:
                entries[name] = entry
        if not entries:
            return None
        items = {name: (mode, ObjectID(object_name.encode())) for name, (mode, object_name) in entries.items()}
        return self._objects.add(TREE, b"".join(serialize_tree(sorted_tree_items(items, False))))


def _after(entry: Entry | None, change: _Changes) -> Entry | None:
    """What is at a name before what changes beneath it: a removed file makes way for a folder, a folder stays."""
    if not change.changed:
        return None if change.below and entry is not None and entry[0] != FOLDER_MODE else entry
    if change.here is not None:
        return change.here
    return entry if entry is not None and entry[0] == FOLDER_MODE else None
