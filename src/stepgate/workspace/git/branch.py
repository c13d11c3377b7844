"""A run's result as a branch: one commit for each step that changed files, on the commit the run began from.

Only what the run touched is in the commits. Where a touched file was not as committed when the run began, a first
commit `State at start` holds it as it was, so that every later commit shows what its step did and nothing else. Content
is committed as it is: no filter, no conversion of line ends, no LFS. The same run gives the same commits each time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dulwich.objects import Commit, ObjectID

from stepgate.domain.errors import Conflict, NotFound, PathRefused, WorkspaceConflict, WorkspaceUnavailable
from stepgate.workspace.access import Root
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import ChangeSet, Kind, Node
from stepgate.workspace.git.ignoring import Ignored
from stepgate.workspace.git.objects import BLOB, COMMIT, Objects
from stepgate.workspace.git.patch import content_of, git_mode
from stepgate.workspace.git.refs import check_branch, check_free, make_branch
from stepgate.workspace.git.repository import Repository, refused, small
from stepgate.workspace.git.trees import SUBMODULE_MODE, Entry, Trees

STATE_AT_START: Final = "State at start"
_LARGEST_RULES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class StepCommit:
    """What one step did: `message` whole, `at` seconds since the epoch."""

    key: str
    message: str
    at: int
    change_set: ChangeSet


@dataclass(frozen=True, slots=True)
class Made:
    """One commit; `step` is None for the state at start."""

    commit: str
    subject: str
    step: str | None


@dataclass(frozen=True, slots=True)
class Branch:
    """`base` is the commit it begins from, None for a branch without any; `left_out` are `(path, reason)`."""

    name: str
    base: str | None
    commits: Sequence[Made]
    left_out: Sequence[tuple[str, str]]

    @property
    def commit(self) -> str:
        return self.commits[-1].commit


def deliver_branch(
    workspace: Root,
    allowed: Path,
    name: str,
    base: str | None,
    steps: Sequence[StepCommit],
    blobs: BlobStore,
    *,
    author: str,
    began: int,
    note: str,
) -> Branch:
    """Makes the branch in the workspace's repository; its working tree and its index are not touched.

    `began` is when the run started, `note` ends the message of the first commit where there is one for the state at
    start. Raises Conflict: `no_repository`, `repository_refused` with the reason, `branch_exists` unless it is this
    very one, `branch_checked_out`, `branch_locked`, `nothing_to_deliver`; InvalidValue for a name that is none.
    """
    ref = check_branch(name)
    try:
        with Repository.open(workspace, allowed) as repository, Objects(repository, allowed) as objects:
            history = _History(repository, objects, workspace, blobs, author, base)
            history.begin(steps, began, note)
            for step in steps:
                history.add(step)
            if not history.made:
                raise Conflict(
                    "the run changed nothing that git holds",
                    code="nothing_to_deliver",
                    details={"left_out": [list(pair) for pair in history.left_out.items()]},
                )
            commit = history.made[-1].commit
            if check_free(repository, ref, commit):
                objects.write()
                make_branch(repository, ref, commit)
            return Branch(name, base, history.made, sorted(history.left_out.items()))
    except (PathRefused, WorkspaceUnavailable) as error:
        raise refused(error.message) from error
    except OSError as error:
        raise refused(f"it cannot be written: {error.strerror}") from error


@dataclass(slots=True)
class _History:
    repository: Repository
    objects: Objects
    workspace: Root
    blobs: BlobStore
    author: str
    base: str | None
    made: list[Made] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    _tree: str | None = None
    _trees: Trees = field(init=False)

    def __post_init__(self) -> None:
        self._trees = Trees(self.objects)
        if self.base is not None:
            self._tree = _tree_of(self.objects, self.base)

    def begin(self, steps: Sequence[StepCommit], began: int, note: str) -> None:
        """Leaves out what git would not take, and commits what was otherwise than committed when the run began."""
        first: dict[str, Node | None] = {}
        last: dict[str, Node | None] = {}
        for step in steps:
            for change in step.change_set.changes:
                first.setdefault(change.path, change.before)
                last[change.path] = change.after
        ignored = Ignored(self._rules(last), self._exclude().encode())
        start: dict[str, Entry | None] = {}
        for path, before in first.items():
            tracked = self._trees.at(self._tree, path)
            if tracked is not None and tracked[0] == SUBMODULE_MODE:
                self.left_out[path] = "in a submodule"
            elif tracked is None and path in ignored:
                self.left_out[path] = "ignored"
            elif self._is_known(before) and (was := self._entry(before)) != tracked:
                start[path] = was
        self._commit(start, f"{STATE_AT_START}\n\n{note}", began, None)

    def _is_known(self, before: Node | None) -> bool:
        """Whether git could hold what was there, and its content was kept: that of a very large file may not be."""
        if before is None or before.sha256 is None:
            return not _is_folder(before)
        return self.blobs.has(before.sha256)

    def add(self, step: StepCommit) -> None:
        """One more commit, unless the step changed nothing that git holds."""
        changes: dict[str, Entry | None] = {}
        for change in step.change_set.changes:
            if change.path in self.left_out or (_is_folder(change.before) and _is_folder(change.after)):
                continue
            if change.after is not None and _is_folder(change.after) and change.before is None:
                continue
            changes[change.path] = self._entry(change.after)
        self._commit(changes, step.message, step.at, step.key)

    def _entry(self, node: Node | None) -> Entry | None:
        if node is None or _is_folder(node):
            return None
        return git_mode(node), self.objects.add(BLOB, content_of(node, self.blobs))

    def _commit(self, changes: Mapping[str, Entry | None], message: str, at: int, step: str | None) -> None:
        tree = self._trees.edit(self._tree, changes)
        if tree == self._tree:
            return
        commit = Commit()
        commit.tree = ObjectID((tree or self.objects.add(b"tree", b"")).encode())
        parent = self.made[-1].commit if self.made else self.base
        commit.parents = [] if parent is None else [ObjectID(parent.encode())]
        commit.author = commit.committer = self.author.encode()
        commit.author_time = commit.commit_time = at
        commit.author_timezone = commit.commit_timezone = 0
        commit.message = message.encode()
        name = self.objects.add(COMMIT, commit.as_raw_string())
        self.made.append(Made(name, message.partition("\n")[0], step))
        self._tree = tree

    def _rules(self, last: Mapping[str, Node | None]) -> Callable[[str], bytes | None]:
        """Ignore files as the run left them, or as they are in the folder."""

        def content(path: str) -> bytes | None:
            if path in last:
                node = last[path]
                return self.blobs.get(node.sha256) if node is not None and node.sha256 else None
            try:
                return self.workspace.read(path, _LARGEST_RULES, allow_hard_links=True).data
            except (NotFound, PathRefused, WorkspaceConflict):
                return None

        return content

    def _exclude(self) -> str:
        return small(self.repository.common, "info/exclude", _LARGEST_RULES) or ""


def _is_folder(node: Node | None) -> bool:
    return node is not None and node.kind is Kind.FOLDER


def _tree_of(objects: Objects, commit: str) -> str:
    head = objects.read(commit, COMMIT).partition(b"\n")[0]
    kind, _, tree = head.partition(b" ")
    if kind != b"tree" or len(tree) != 40:
        raise refused(f"its commit {commit} is damaged")
    return tree.decode()
