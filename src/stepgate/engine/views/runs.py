"""Runs, where they work, and what was asked of them."""

from typing import Any, Literal

from pydantic import Field

from stepgate.domain.states import RunStatus
from stepgate.engine.views.base import Actor, Id, Mode, Sha256, Time, Usd, View
from stepgate.engine.views.steps import Step, Tokens


class Waiting(View):
    """One reason why a run does not move."""

    kind: Literal["approval", "workspace", "execute", "retry", "budget", "review", "executor", "sandbox", "person"] = (
        Field(
            description=(
                "approval: a decision on the step; workspace: another run changes it; execute: the next `execute` (or "
                "`start`); retry: a later attempt; budget: a higher limit; review: a look at the step, then `resume`; "
                "executor, sandbox: a worker that has it, then `resume`; person: somebody must add steps or `resume`"
            )
        )
    )
    step_id: Id | None
    until: Time | None = Field(description="when it ends by itself; null where it does not")


class Progress(View):
    """Planned steps that came to an end, and all of them."""

    done: int
    total: int


class ForkedFrom(View):
    """The run that a fork took its first steps from, and where that run's journal stood then."""

    run_id: Id
    from_step: str = Field(description="the key of the first step that began anew")
    head_seq: int
    head_hash: Sha256


class Amount(View):
    """Money and tokens; null where that is not limited, or no price is known."""

    cost_usd: Usd | None
    tokens: int | None


class RunBudget(View):
    """What a run may spend, and how far it is."""

    limit: Amount = Field(description="as the run began, with everything that was added")
    spent: Amount = Field(description="a call of unknown cost counts as its worst case")
    held: Amount = Field(description="what calls under way may take at most")
    percent: int = Field(description="spent, of the limit that is nearer to its end")


class Run(View):
    """One run."""

    id: Id
    name: str | None
    goal: str
    status: RunStatus
    reason: str | None
    waiting_for: list[Waiting]
    workspace: str | None = Field(default=None, description="the name of its workspace, if it has one")
    workspace_path: str
    workspace_mode: Mode = Field(description="isolated: its steps work on a private copy of the folder")
    workspace_rev: str | None
    forked_from: ForkedFrom | None = Field(default=None, description="of a fork")
    labels: dict[str, str]
    metadata: dict[str, Any]
    requester: Actor
    limits: dict[str, Any]
    budget: RunBudget | None = Field(default=None, description="null where neither cost nor tokens are limited")
    plan_revision: int = Field(default=0, description="how often its plan was written; 0 until it has one")
    progress: Progress
    total_cost_usd: Usd | None = Field(description="null while the cost of any model call is unknown")
    tokens: Tokens
    unknown_cost_calls: int
    head_seq: int = Field(description="the number of its last event")
    created_at: Time
    updated_at: Time
    started_at: Time | None
    completed_at: Time | None
    undone_at: Time | None


class LeftOut(View):
    """Something that is not part of a copy or of a delivery, and why."""

    path: str
    reason: str


class PrivateCopy(View):
    """The folder that an isolated run works in."""

    path: str
    files: int | None = Field(description="files and folders when it was made; null while it is not")
    bytes: int | None = Field(description="of all its files when it was made")
    left_out: list[LeftOut]
    made_at: Time | None
    discarded_at: Time | None


class RunDetail(Run):
    """A run with its first 200 steps."""

    private_copy: PrivateCopy | None = Field(
        default=None, description="of an isolated run: the folder that its steps work in"
    )
    steps: list[Step]


class Workspace(View):
    """A folder that was given a name."""

    id: Id
    name: str
    path: str
    mode: Mode = Field(description="how runs use it that do not say")
    rev: str | None
    created_at: Time


class Executed(View):
    """What one `execute` did: the run now, and the step it let run."""

    run: RunDetail
    step: Step


class Undone(View):
    """The run now, and the step that will undo its changes once it is approved."""

    run: RunDetail
    step: Step


class Discarded(View):
    """Whether there was a private copy to remove, and the run now."""

    removed: bool
    run: RunDetail
