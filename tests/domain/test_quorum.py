"""Several approvals: who counts, who does not, and that nobody counts twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgate.domain import commands as c
from stepgate.domain.errors import AlreadyDecided, Forbidden
from stepgate.domain.identity import Kind, Principal, Role
from stepgate.domain.quorum import ANYBODY, Approver, Authority, Quorum, is_met, shortfall, strictest
from stepgate.domain.state import Actor, ApprovalStatus
from tests.domain.driving import to_the_end
from tests.domain.runs import HASH, OTHER_HASH, PERSON, WORKER, Run, gated, refusal, started, types, undo_spec

ADA, BOB, CAROL = PERSON, Actor("bob", "person", "api"), Actor("carol", "person", "api")
LOCAL, BOT, AGENT = Actor("local", "person", "cli"), Actor("ci", "service", "api"), Actor("ai", "agent", "api")
APPROVER, ADMIN = Authority(("approver",)), Authority(("admin",))

ROLES = st.sampled_from(["viewer", "operator", "approver", "admin"])
quorums = st.builds(
    Quorum, st.integers(1, 3), st.lists(st.lists(ROLES, min_size=1).map(tuple), max_size=3).map(tuple), st.booleans()
)
people = st.builds(
    Approver,
    st.sampled_from(["ada", "bob", "carol", "local", "ci"]),
    st.sampled_from(["person", "service"]),
    st.lists(ROLES, max_size=2).map(tuple),
    st.sampled_from([None, None, "ada", "dave"]),
)


def asked(required: Quorum) -> Run:
    """A run that ada asked for."""
    run = started(gated(1))
    run.ask(1, required=required)
    return run


def refused(run: Run, by: Actor, authority: Authority = APPROVER) -> str:
    error = refusal(run, c.Approve(by, run.id(1), HASH, None, authority))
    assert isinstance(error, Forbidden)
    assert error.fix
    return error.reason_code


def test_one_of_two_approvals_leaves_the_question_open_and_the_second_settles_it() -> None:
    run = asked(Quorum(2))
    assert types(run.approve(1, by=BOB)) == ["approval.counted"]
    assert (run.status(1), run.state.status) == ("awaiting_approval", "awaiting_approval")
    question = run.step(1).approval
    assert question is not None
    assert [voice.actor for voice in question.voices] == [BOB]
    assert question.decided_by is None
    assert types(run.approve(1, by=CAROL)) == ["approval.approved"]
    assert run.status(1) == "approved"
    run.complete(1, HASH)


def test_the_same_person_counts_once() -> None:
    run = asked(Quorum(3))
    run.approve(1, by=BOB)
    assert run.approve(1, by=BOB) == ()
    assert run.approve(1, by=BOB, authority=ADMIN) == ()
    run.approve(1, by=CAROL)
    assert run.approve(1, by=BOB) == ()
    assert run.status(1) == "awaiting_approval"
    run.approve(1, by=ADA)
    assert run.status(1) == "approved"


def test_an_approval_that_comes_when_enough_have_approved_is_the_same_receipt() -> None:
    run = asked(Quorum(2))
    run.approve(1, by=BOB)
    run.approve(1, by=CAROL)
    assert run.approve(1, by=ADA) == ()


def test_one_rejection_settles_it_whoever_approved() -> None:
    run = asked(Quorum(3))
    run.approve(1, by=BOB)
    assert types(run.do(c.Reject(BOB, run.id(1), HASH, "no", "abort")))[0] == "approval.rejected"
    assert (run.status(1), run.state.status) == ("rejected", "cancelled")
    with pytest.raises(AlreadyDecided):
        run.approve(1, by=CAROL)


def test_a_new_revision_begins_without_any_approval() -> None:
    run = asked(Quorum(2))
    run.approve(1, by=BOB)
    run.ask(1, OTHER_HASH, required=Quorum(2))
    assert [(a.status, len(a.voices)) for a in run.step(1).approvals] == [
        (ApprovalStatus.SUPERSEDED, 1),
        (ApprovalStatus.OPEN, 0),
    ]
    run.approve(1, OTHER_HASH, by=CAROL)
    assert run.status(1) == "awaiting_approval"
    run.approve(1, OTHER_HASH, by=BOB)
    assert run.status(1) == "approved"


def test_a_question_answered_in_part_goes_with_its_step() -> None:
    run = asked(Quorum(2))
    run.approve(1, by=BOB)
    run.skip(1)
    question = run.step(1).approval
    assert question is not None
    assert (question.status, question.decided_by) == (ApprovalStatus.VOID, None)
    with pytest.raises(AlreadyDecided):
        run.approve(1, by=CAROL)


def test_the_requester_does_not_approve_where_excluded() -> None:
    run = asked(Quorum(exclude_requester=True))
    assert refused(run, ADA) == "requester_excluded"
    assert refused(run, BOB, Authority(("approver",), on_behalf_of="ada")) == "requester_excluded"
    run.approve(1, by=BOB)
    assert refused(run, ADA) == "requester_excluded", "nor is the receipt its own"


def test_a_role_is_that_of_the_caller_and_admin_includes_the_others() -> None:
    run = asked(Quorum(roles=(("admin",),)))
    assert refused(run, BOB) == "role_required"
    assert refused(run, BOB, Authority()) == "role_required"
    run.approve(1, by=BOB, authority=ADMIN)
    other = asked(Quorum(roles=(("approver",), ("operator",))))
    assert refused(other, BOB) == "role_required"
    other.approve(1, by=BOB, authority=Authority(("approver", "operator")))


@pytest.mark.parametrize("required", [ANYBODY, Quorum(2), Quorum(exclude_requester=True), Quorum(roles=(("admin",),))])
def test_an_agent_never_approves(required: Quorum) -> None:
    assert refused(asked(required), AGENT, ADMIN) == "agent_decides"


@pytest.mark.parametrize("nobody", [LOCAL, BOT])
def test_where_it_matters_who_approves_only_persons_count(nobody: Actor) -> None:
    for required in (Quorum(2), Quorum(exclude_requester=True)):
        assert refused(asked(required), nobody, ADMIN) == "person_required"
    assert types(asked(ANYBODY).approve(1, by=nobody)) == ["approval.approved"]


def test_nobody_is_shown_to_be_another_than_whoever_asked_with_the_local_secret() -> None:
    required = Quorum(exclude_requester=True)
    missing = shortfall(required, Approver("bob", "person", ("admin",)), ("local",))
    assert missing is not None
    assert missing.code == "requester_unknown"
    assert shortfall(ANYBODY, Approver("bob", "person", ()), ("local",)) is None


def test_the_local_secret_decides_as_an_approver_and_no_more() -> None:
    local = Principal("local", Kind.PERSON, frozenset({Role.ADMIN}))
    assert local.deciding_roles == ("approver",)
    assert local.may(Role.ADMIN)
    ada = Principal("ada", Kind.PERSON, frozenset({Role.ADMIN, Role.VIEWER}))
    assert ada.deciding_roles == ("admin", "viewer")
    assert refused(asked(Quorum(roles=(("admin",),))), LOCAL, Authority(local.deciding_roles)) == "role_required"
    asked(Quorum(roles=(("admin", "approver"),))).approve(1, by=LOCAL, authority=Authority(local.deciding_roles))


def test_a_delegate_and_whose_delegate_it_is_are_one_approval_together() -> None:
    for_ada = Authority(("admin",), "ada", "d-1")
    run = asked(Quorum(2))
    event = run.approve(1, by=BOB, authority=for_ada)[0]
    assert (event.data["on_behalf_of"], event.data["delegation_id"], event.data["roles"]) == ("ada", "d-1", ["admin"])
    for by, authority in ((BOB, APPROVER), (ADA, APPROVER), (CAROL, for_ada)):
        assert run.approve(1, by=by, authority=authority) == ()
    run.approve(1, by=CAROL)
    assert run.status(1) == "approved"


def test_a_delegate_counts_with_the_roles_of_the_other_alone() -> None:
    run = asked(Quorum(roles=(("admin",),)))
    assert refused(run, BOB, Authority(("approver",), "ada")) == "role_required"
    run.approve(1, by=BOB, authority=Authority(("admin",), "ada"))


def test_an_approved_step_is_not_left_out_behind_whoever_approved_it() -> None:
    run = asked(ANYBODY)
    run.approve(1)
    with pytest.raises(AlreadyDecided):
        run.skip(1)


def test_the_strictest_word_of_several_counts() -> None:
    one = Quorum(2, (("approver", "admin"),))
    two = Quorum(1, (("admin",), ("operator",)), exclude_requester=True)
    assert strictest(()) == ANYBODY
    assert strictest((one,)) == Quorum(2, (("admin", "approver"),))
    assert strictest((one, two)) == strictest((two, one)) == Quorum(2, (("admin",), ("operator",)), True)


def test_approvals_given_are_weighed_against_what_it_takes_now() -> None:
    bob, carol = Approver("bob", "person", ("approver",)), Approver("carol", "person", ("admin",))
    assert is_met(ANYBODY, (bob,), ("ada",))
    assert not is_met(Quorum(2), (bob,), ("ada",))
    assert is_met(Quorum(2), (bob, carol), ("ada",))
    assert not is_met(Quorum(2, (("admin",),)), (bob, carol), ("ada",))
    assert not is_met(Quorum(2, exclude_requester=True), (bob, carol), ("bob",))


def test_a_run_of_steps_that_need_several_comes_to_its_end() -> None:
    run = started(gated(1), gated(2), gated(3, needs=()))
    for number in (1, 3):
        run.ask(number, f"{number:x}".rjust(64, "0"), required=Quorum(2, (("admin",),), exclude_requester=True))
    to_the_end(run)
    assert run.state.status == "completed"


def test_a_delegation_that_is_over_by_the_time_of_the_decision_does_not_count() -> None:
    run = asked(ANYBODY)
    late = Authority(("approver",), "ada", "d-1", until=run.now)
    assert refused(run, BOB, late) == "not_delegated"
    error = refusal(run, c.Reject(BOB, run.id(1), HASH, None, "abort", late))
    assert isinstance(error, Forbidden)
    run.approve(1, by=BOB, authority=late._replace(until=run.now + 1))


def test_whoever_adds_a_step_to_another_s_run_asked_for_it_too() -> None:
    run = asked(ANYBODY)
    run.do(c.AddSteps(BOB, (gated(2, needs=()),)))
    run.ask(2, OTHER_HASH, required=Quorum(exclude_requester=True))
    assert run.state.requesters(run.step(2)) == ("ada", "bob")
    for by in (ADA, BOB):
        error = refusal(run, c.Approve(by, run.id(2), OTHER_HASH, None, APPROVER))
        assert isinstance(error, Forbidden)
        assert error.reason_code == "requester_excluded"
    run.approve(2, OTHER_HASH, by=CAROL)


def test_what_the_engine_adds_was_asked_for_with_the_run() -> None:
    run = asked(ANYBODY)
    run.do(c.AddSteps(WORKER, (gated(2, needs=()),)))
    assert run.state.requesters(run.step(2)) == ("ada",)


def test_whoever_wants_an_undo_asked_for_it() -> None:
    run = started(gated(1))
    run.skip(1)
    run.do(c.Undo(BOB, undo_spec(2)))
    run.ask(2, required=Quorum(exclude_requester=True))
    error = refusal(run, c.Approve(BOB, run.id(2), HASH, None, APPROVER))
    assert isinstance(error, Forbidden)
    run.approve(2, by=CAROL)


@given(st.lists(quorums, max_size=4), st.lists(people, max_size=4), st.sampled_from(["ada", "local", "eve"]))
def test_what_meets_the_strictest_meets_every_one_of_them(
    wanted: list[Quorum], approvers: list[Approver], requester: str
) -> None:
    if is_met(strictest(wanted), approvers, (requester,)):
        assert all(is_met(one, approvers, (requester,)) for one in wanted)


@given(quorums, st.lists(people, max_size=4), st.sampled_from(["ada", "local", "eve"]))
def test_another_requester_never_makes_more_approvals_count(
    quorum: Quorum, approvers: list[Approver], requester: str
) -> None:
    if is_met(quorum, approvers, (requester, "bob")):
        assert is_met(quorum, approvers, (requester,))


@given(quorums, st.lists(people, max_size=6))
def test_however_many_approve_the_question_is_settled_by_as_many_different_people(
    quorum: Quorum, approvers: list[Approver]
) -> None:
    run = asked(quorum)
    for one in approvers:
        authority = Authority(one.roles, one.on_behalf_of)
        actor = Actor(one.id, one.kind, "api")
        if refusal(run, c.Approve(actor, run.id(1), HASH, None, authority)) is None:
            run.approve(1, by=actor, authority=authority)
    question = run.step(1).approval
    assert question is not None
    everybody = [person for voice in question.approvers for person in voice.people]
    assert len(everybody) == len(set(everybody)), "nobody counts twice, as a delegate or otherwise"
    assert (run.status(1) == "approved") is (len(question.approvers) == quorum.persons)
    assert run.status(1) != "approved" or is_met(quorum, question.approvers, ("ada",))
