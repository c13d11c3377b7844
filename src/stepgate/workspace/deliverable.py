"""What a run did to its private copy, as one change set for the folder that the copy was made of."""

from collections.abc import Sequence

from stepgate.domain.errors import WorkspaceConflict
from stepgate.workspace.access import Root
from stepgate.workspace.changes import Change, ChangeSet, Node
from stepgate.workspace.netundo import combine
from stepgate.workspace.preflight import DONE, refuse_conflicts
from stepgate.workspace.states import State, node_at, see_all

_NAMED = 3


def deliverable(root: Root, applied: Sequence[ChangeSet], set_id: str | None = None) -> ChangeSet:
    """The one set that does to the folder what the sets (in applied order) did to its copy; what is there is left out.

    Raises WorkspaceConflict with `details["paths"]` where a path is no longer what it was when the copy was made, and
    PathRefused where it may not be written.
    """
    net = combine(applied)
    seen = see_all(root, net)
    try:
        refuse_conflicts(root, net, seen)
    except WorkspaceConflict as error:
        raise _conflict(error.details["paths"]) from error
    pairs = list(zip(net.changes, seen, strict=True))
    halfway = [change.path for change, one in pairs if one.state is State.PARTIAL]
    if halfway:
        raise _conflict(halfway)
    todo = (change for change, one in pairs if one.state not in DONE)
    return ChangeSet.of((Change(change.path, _now(root, change), change.after) for change in todo), set_id)


def _now(root: Root, change: Change) -> Node | None:
    """As it was seen, with its own time, so that undoing brings that back too."""
    return None if change.before is None else node_at(root, change.path)


def _conflict(paths: Sequence[str]) -> WorkspaceConflict:
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return WorkspaceConflict(
        f"changed in the folder since the run's copy was made: {', '.join(map(repr, paths[:_NAMED]))}{more}",
        field="path",
        fix="put these paths back, or deliver the result as a patch or a branch and merge it",
        details={"paths": list(paths)},
    )
