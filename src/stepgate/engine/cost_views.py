"""The shapes of costs as the API gives them; unknown is null, never 0."""

from pydantic import Field

from stepgate.engine.views import Id, Time, Tokens, Usd, View


class Usage(View):
    """Model calls summed."""

    calls: int
    unknown_calls: int
    known_cost_usd: Usd
    total_cost_usd: Usd | None = Field(description="null while the cost of any of these calls is unknown")
    tokens: Tokens


class Savings(View):
    """What routers say was not spent; null where none of them says anything."""

    avoided_cost_usd: Usd | None = Field(description="what answers out of a cache would have cost")
    estimated_savings_usd: Usd | None = Field(description="the router's own estimate for choosing a cheaper model")


class StepCost(Usage):
    """What one step's model calls cost."""

    step_id: Id
    key: str
    number: int
    cost_source: str | None
    model: str | None


class ModelCost(Usage, Savings):
    """What one model's calls cost."""

    model: str | None


class SourceCost(Usage, Savings):
    """Calls whose cost was learned in one way."""

    source: str | None = Field(description="null: the calls are not back")


class UnknownCall(View):
    """A call whose cost nobody knows."""

    call_id: Id
    step_id: Id
    key: str
    number: int
    model: str | None
    status: str = Field(description="called: it is not back; lost: its worker was lost; ok: its router says no cost")
    called_at: Time


class Cost(Usage, Savings):
    """What a run's model calls cost, planning included."""

    run_id: Id
    inherited: Usage | None = Field(
        default=None, description="of a fork: what the steps it kept cost in the other run; in no sum here"
    )
    by_step: list[StepCost]
    by_model: list[ModelCost]
    by_source: list[SourceCost]
    unknown: list[UnknownCall] = Field(description="the first 100 calls whose cost nobody knows")


class GroupCost(Usage, Savings):
    """What the calls of one group cost."""

    name: str | None = Field(description="the day, model, label's value or requester; null where a call has none")
    runs: int


class Costs(View):
    """Costs over many runs, by group."""

    group_by: str
    items: list[GroupCost]
