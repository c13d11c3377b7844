"""What the rules would say."""

from typing import Literal

from pydantic import Field

from stepgate.domain.policy.action import Ruling
from stepgate.engine.views.approvals import Required
from stepgate.engine.views.base import View


class OpenRule(View):
    """A rule that may still match, once what it is about is known."""

    rule: str
    verdict: Ruling
    why: str = Field(description="what is not known yet")


class ExplainedStep(View):
    """What policy says of one step of a plan, as far as the plan tells."""

    key: str
    number: int
    step_type: str
    verdict: Ruling
    rules: list[str] = Field(description="the rules that say so; `default:<type>` where none matches")
    preview: bool = Field(description="whether it is run ahead of its question")
    expires_s: float | None = Field(description="how long a person may take, where a rule says it")
    on_expiry: Literal["reject", "pause"] | None = Field(description="what follows then, where a person is asked")
    required: Required | None = Field(description="what it takes to approve, where a person is asked")
    unclear: str | None = Field(description="why the command is not what its words say; no rule about words allows it")
    open_rules: list[OpenRule]


class Explanation(View):
    """What policy says of a plan before anything runs."""

    policy_version: str = Field(description="sha256 of the policy, or the name of the built-in one")
    sandbox_level: str | None = Field(description="the level that commands were taken to run at")
    allowed: int
    asked: int
    denied: int
    steps: list[ExplainedStep]
