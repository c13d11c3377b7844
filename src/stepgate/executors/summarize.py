"""Has a model tell the person responsible what a run did and what came out."""

from collections.abc import Sequence

from pydantic import Field

from stepgate.executors.asking import Asking, AskingParams, Instruction
from stepgate.llm import prompts
from stepgate.llm.prompts import Material
from stepgate.llm.protocol import Message, Purpose


class SummarizeParams(AskingParams):
    """What to dwell on, if anything."""

    instruction: Instruction | None = Field(
        default=None, description="what to dwell on; a general summary if not given"
    )


class Summarize(Asking[SummarizeParams]):
    """Usually the last step of a plan."""

    type = "summarize"
    summary = "Has a model summarise what the run's steps did."
    params = SummarizeParams
    purpose = Purpose.SUMMARIZE

    def messages(self, goal: str, params: SummarizeParams, materials: Sequence[Material]) -> tuple[Message, ...]:
        return prompts.summary(goal, params.instruction, materials)
