"""The sizes a plan may have, in one place, so that every surface refuses the same things."""

from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from stepgate.domain import duration, money
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
MIN_APPROVAL_MS = 1000
MAX_APPROVAL_MS = 90 * 24 * 3600 * 1000


def _milliseconds(value: Any) -> int:
    try:
        return duration.milliseconds(value)
    except InvalidValue as error:
        raise ValueError(error.message) from error


Duration = Annotated[
    int,
    BeforeValidator(_milliseconds),
    WithJsonSchema(
        {
            "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": duration.PATTERN}],
            "description": "seconds as a number, or a text such as 500ms, 30s, 5m, 1h",
            "examples": ["30s", 30],
        }
    ),
]


def _dollars(value: Any) -> Decimal:
    """YAML and JSON read 0.25 as a float: its shortest decimal text is what was written."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise ValueError("must be an amount in US dollars, such as 0.25")
    try:
        return money.usd(str(value))
    except InvalidValue as error:
        raise ValueError(error.message) from error


Dollars = Annotated[
    Decimal,
    BeforeValidator(_dollars),
    PlainSerializer(money.text, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": r"^\d+(\.\d{1,12})?$"}, {"type": "number", "minimum": 0}],
            "examples": ["0.25"],
        }
    ),
]
MAX_TOKENS = 10**12
Tokens = Annotated[int, Field(strict=True, ge=0, le=MAX_TOKENS)]


class RunLimits(BaseModel):
    """What a run may use. A limit that nothing enforces is not offered here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_steps: int | None = Field(default=None, strict=True, ge=1, le=MAX_STEPS, description="with those added later")
    approval_timeout: Annotated[Duration, Field(ge=MIN_APPROVAL_MS, le=MAX_APPROVAL_MS)] | None = Field(
        default=None, description="how long a person may take to decide; after that the step counts as rejected"
    )
    cost_usd: Dollars | None = Field(default=None, description="what its model calls may cost, in US dollars")
    tokens: Tokens | None = Field(default=None, description="how many tokens its model calls may take, in and out")
