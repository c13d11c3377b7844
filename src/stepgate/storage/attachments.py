"""What travels with a decision but is no part of its events: bodies, and rows that are read but never folded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

from stepgate.domain.identity import DEFAULT_TENANT
from stepgate.domain.ids import CallId, ChangeSetId, RequestId, StepId


class ChangeSetRow(NamedTuple):
    """A change set to be stored with `step.computed` (or `step.completed`).

    `body` is its JSON, `{v, id, changes: [{path, op, before, after}]}`, the changes in the order they are applied.
    """

    id: ChangeSetId
    step_id: StepId
    workspace_id: str
    digest: str
    body: Mapping[str, Any]


class ModelCallRow(NamedTuple):
    """What `model.called` does not say about a call; the rest of its row is taken from the event."""

    id: CallId
    provider: str | None = None


class SettledCallRow(NamedTuple):
    """What `model.settled` does not say about a call; None leaves what is known. `request_ids` is canonical JSON."""

    id: CallId
    provider: str | None = None
    first_token_ms: int | None = None
    finish_reason: str | None = None
    http_status: int | None = None
    request_ids: str | None = None
    cache_hit: bool | None = None
    retries: int | None = None
    avoided_cost_usd: Decimal | None = None
    estimated_savings_usd: Decimal | None = None
    difficulty_tag: str | None = None


class IdempotencyRow(NamedTuple):
    """The answer to a request that must not be carried out twice; `scope` names the channel and the caller."""

    scope: str
    key: str
    request_sha256: str
    status: int
    response: str | None = None
    tenant: str = DEFAULT_TENANT


@dataclass(slots=True)
class Attachments:
    """Texts are canonical JSON. Every new step needs its input, every result its output, every question its rendering.

    `plan` replaces the stored text of the plan.
    """

    inputs: Mapping[StepId, str] = field(default_factory=dict)
    outputs: Mapping[StepId, str] = field(default_factory=dict)
    renderings: Mapping[RequestId, str] = field(default_factory=dict)
    change_sets: Sequence[ChangeSetRow] = ()
    calls: Sequence[ModelCallRow] = ()
    settled_calls: Sequence[SettledCallRow] = ()
    idempotency: IdempotencyRow | None = None
    plan: str | None = None

    @property
    def only_outputs(self) -> bool:
        return not (
            self.inputs
            or self.renderings
            or self.change_sets
            or self.calls
            or self.settled_calls
            or self.idempotency
            or self.plan is not None
        )


NOTHING = Attachments()
