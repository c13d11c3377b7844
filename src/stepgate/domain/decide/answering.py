"""Who may answer a question, and what is recorded of what they answer with."""

from typing import Any

from stepgate.domain.decide.turn import Turn
from stepgate.domain.errors import Forbidden
from stepgate.domain.identity import Kind
from stepgate.domain.quorum import OWN, Approver, Authority, of_editor, shortfall
from stepgate.domain.state import Actor, Approval, StepState


def check_no_agent(actor: Actor) -> None:
    """Raises Forbidden: what an agent wants to do is what is asked about; it never answers."""
    if actor.kind == Kind.AGENT:
        raise Forbidden("an agent decides nothing", code="agent_decides", fix="let a person or a service decide")


def check_delegated(turn: Turn, authority: Authority) -> None:
    """Raises Forbidden where the time for which approvals were given away is over."""
    if authority.until is not None and turn.now >= authority.until:
        raise Forbidden(
            f"{authority.on_behalf_of} gave approvals away for a time that is over",
            code="not_delegated",
            field="on_behalf_of",
            fix="decide for yourself, or ask them for another delegation",
        )


def checked_approver(turn: Turn, step: StepState, question: Approval, authority: Authority) -> Approver:
    """Who approves. Raises Forbidden for somebody whose approval does not count for this question."""
    check_delegated(turn, authority)
    approver = Approver(turn.actor.id, turn.actor.kind, authority.roles, authority.on_behalf_of)
    missing = shortfall(question.required, approver, turn.state.requesters(step))
    if missing is None and step.editor is not None:
        missing = of_editor(question.required, approver, step.editor.id)
    if missing is not None:
        raise Forbidden(
            missing.message, code=missing.code, fix=missing.fix, details={"request_id": question.request_id}
        )
    return approver


def authority_data(authority: Authority) -> dict[str, Any]:
    """As event data; left out where nothing was said, as in journals from before it was known."""
    if authority == OWN:
        return {}
    said: dict[str, Any] = {"roles": list(authority.roles)}
    if authority.on_behalf_of is not None:
        said |= {
            "on_behalf_of": authority.on_behalf_of,
            "delegation_id": authority.delegation_id,
            "delegated_until": authority.until,
        }
    return said
