"""Questions and their answers."""

from typing import Any, Literal

from pydantic import Field

from stepgate.domain.quorum import Quorum
from stepgate.domain.state import ApprovalStatus
from stepgate.engine.views.base import Actor, Id, Sha256, Time, View


class Required(View):
    """What it takes to approve: so many distinct persons, each with one role of every group."""

    count: int
    roles: list[list[str]] = Field(description="groups of roles; empty: whoever may decide")
    exclude_requester: bool = Field(description="whether the run's requester may not approve")

    @classmethod
    def of(cls, quorum: Quorum) -> "Required":
        groups = [list(group) for group in quorum.roles]
        return cls(count=quorum.persons, roles=groups, exclude_requester=quorum.exclude_requester)


class Approved(View):
    """One person's approval of exactly the action shown; `required` says how many it takes."""

    actor: Actor
    on_behalf_of: str | None = Field(description="whose approval it is, where the actor is a delegate")
    roles: list[str] = Field(description="the roles it counted with")
    at: Time
    reason: str | None
    implied: bool = Field(description="whether the hash was implied by an empty body")


class Decision(View):
    """The one decision that stands on a question."""

    verdict: Literal["approved", "rejected", "edited"]
    actor: Actor
    on_behalf_of: str | None = Field(description="whose decision it is, where the actor is a delegate")
    at: Time
    reason: str | None
    then: Literal["abort", "skip", "replan"] | None = Field(description="what a rejection means for the run")
    action_hash: Sha256
    implied: bool = Field(description="whether the hash was implied by an empty body")


class ApprovalRef(View):
    """The latest question of a step."""

    request_id: Id
    revision: int
    status: ApprovalStatus
    action_hash: Sha256
    risk: str
    rendering: dict[str, Any] | None = Field(
        description="what the approver must see: title, and any of diff, command, cwd, env, sandbox, files, notes"
    )
    policy_version: str = Field(description="sha256 of the policy that made it a question, or the built-in one's name")
    matched_rules: list[str] = Field(description="the rules that did; `default:<type>` where none matched")
    requested_at: Time
    expires_at: Time | None
    on_expiry: Literal["reject", "pause"] = Field(
        description="what follows when the time is over: the step counts as rejected, or the run is paused"
    )
    required: Required
    approvals: list[Approved] = Field(description="those given so far, in order; compare with `required.count`")
    decision: Decision | None


class Approval(ApprovalRef):
    """A question in the inbox, with the step and run it belongs to."""

    run_id: Id
    step_id: Id
    step_key: str
    step_number: int
    step_type: str
    goal: str
