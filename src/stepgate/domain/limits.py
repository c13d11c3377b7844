"""The sizes a plan may have, in one place, so that every surface refuses the same things."""

from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from stepgate.domain import money
from stepgate.domain.errors import InvalidValue

MAX_STEPS = 10_000
MAX_NEEDS = 200_000
MAX_REFERENCES = 200_000
MAX_GOAL_CHARS = 10_000
MAX_WHY_CHARS = 2_000
MAX_NAME_CHARS = 200
MAX_PARAMS = 200
MAX_PLAN_BYTES = 4 * 1024 * 1024
MAX_PLAN_NODES = 500_000
MAX_ATTEMPTS = 10
MAX_TIMEOUT_MS = 24 * 3600 * 1000
MAX_BACKOFF_MS = 3600 * 1000
DEFAULT_BACKOFF_MS = 1000
MAX_PROBLEMS = 100


def _amount(value: Any) -> Decimal:
    if isinstance(value, float):
        # YAML and JSON write 0.5 without quotes; its shortest decimal text is what the person typed.
        value = repr(value)
    try:
        return money.usd("none" if isinstance(value, bool) else value)
    except (InvalidValue, TypeError) as error:
        raise ValueError("not an amount in USD") from error


class RunLimits(BaseModel):
    """What a run may use: steps in all, and US dollars for model calls."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_steps: int | None = Field(default=None, ge=1, le=MAX_STEPS)
    max_cost_usd: Annotated[Decimal, BeforeValidator(_amount)] | None = None
