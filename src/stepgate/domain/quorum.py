"""What a question needs before it counts as approved: how many persons, of which roles, and who may not be one."""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from stepgate.domain.identity import LOCAL_ID, Kind, included


class Quorum(NamedTuple):
    """How many distinct persons approve; each of them has one role of every group in `roles`."""

    persons: int = 1
    roles: tuple[tuple[str, ...], ...] = ()
    exclude_requester: bool = False

    @property
    def named(self) -> bool:
        """Whether it matters which person approves, so that a caller who is no particular person does not count."""
        return self.persons > 1 or self.exclude_requester


ANYBODY = Quorum()
"""One approval, by whoever may decide at all."""


class Authority(NamedTuple):
    """What somebody decides with: the roles that count and, for a delegate, whose they are and until when (us)."""

    roles: tuple[str, ...] = ()
    on_behalf_of: str | None = None
    delegation_id: str | None = None
    until: int | None = None


OWN = Authority()


class Approver(NamedTuple):
    """Whoever says yes, as far as a quorum is about it."""

    id: str
    kind: str
    roles: tuple[str, ...]
    on_behalf_of: str | None = None

    @property
    def people(self) -> frozenset[str]:
        """Whose approval this is: with it neither of them has another one."""
        return frozenset({self.id}) if self.on_behalf_of is None else frozenset({self.id, self.on_behalf_of})


class Shortfall(NamedTuple):
    """Why somebody's approval does not count: a stable code, a sentence, and what would help."""

    code: str
    message: str
    fix: str


def strictest(wanted: Iterable[Quorum]) -> Quorum:
    """What meets all of them: the highest count, every group of roles, and no requester where one says so."""
    found = tuple(wanted)
    groups = {tuple(sorted(set(group))) for one in found for group in one.roles}
    needed = (group for group in groups if not any(set(other) < set(group) for other in groups))
    return Quorum(
        max((one.persons for one in found), default=1),
        tuple(sorted(needed)),
        any(one.exclude_requester for one in found),
    )


def shortfall(quorum: Quorum, approver: Approver, requesters: Collection[str]) -> Shortfall | None:
    """Why this approval would not count; None where it does. `requesters` asked for the run, and for the step.

    `local` stands for whoever can read a file: where it matters who approves, it is nobody, and so is a service. What
    `local` asked for may be anybody's, so nobody is shown to be another person than its requester.
    """
    if quorum.named and (approver.kind != Kind.PERSON or approver.id == LOCAL_ID):
        who = "several persons" if quorum.persons > 1 else "another person than the requester"
        return Shortfall(
            "person_required",
            f"this needs {who}, and {approver.id} is no particular person",
            "decide with a person's own key or token",
        )
    if quorum.exclude_requester and LOCAL_ID in requesters:
        return Shortfall(
            "requester_unknown",
            "the requester may not approve this, and the local secret does not tell who that is",
            "reject it, and ask for it with a key of one's own",
        )
    if quorum.exclude_requester and (own := approver.people.intersection(requesters)):
        return Shortfall(
            "requester_excluded", f"{min(own)} asked for this and may not approve it", "let another person decide"
        )
    held = included(approver.roles)
    for group in quorum.roles:
        if held.isdisjoint(group):
            return Shortfall(
                "role_required",
                f"this needs an approver with the role {' or '.join(group)}; {approver.id} decides with "
                f"{', '.join(approver.roles) or 'none'}",
                "let somebody decide who has it",
            )
    return None


def of_editor(quorum: Quorum, approver: Approver, editor: str) -> Shortfall | None:
    """Why the approval of an action that `editor` wrote would not count: it is theirs as a run is its requester's."""
    missing = shortfall(quorum, approver, (editor,))
    if missing is None or not quorum.exclude_requester:
        return None
    return Shortfall(
        "editor_excluded",
        f"{editor} edited this action, and whoever asks for one may not approve it",
        "let another person decide",
    )


def is_met(quorum: Quorum, approvers: Sequence[Approver], requesters: Collection[str]) -> bool:
    """Whether these approvals, each of a person of their own, are enough."""
    counted = [one for one in approvers if shortfall(quorum, one, requesters) is None]
    return len(counted) >= quorum.persons
