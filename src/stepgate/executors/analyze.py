"""Asks a model a question about what earlier steps produced."""

from collections.abc import Sequence

from pydantic import Field

from stepgate.executors.asking import Asking, AskingParams, Instruction
from stepgate.llm import prompts
from stepgate.llm.prompts import Material
from stepgate.llm.protocol import Message, Purpose


class AnalyzeParams(AskingParams):
    """What to ask."""

    instruction: Instruction = Field(description="the question, or what to find out")


class Analyze(Asking[AnalyzeParams]):
    """The answer is text, and JSON where a schema was given; it changes nothing."""

    type = "analyze"
    summary = "Asks a model about the outputs of earlier steps."
    params = AnalyzeParams
    purpose = Purpose.ANALYZE

    def messages(self, goal: str, params: AnalyzeParams, materials: Sequence[Material]) -> tuple[Message, ...]:
        return prompts.analysis(goal, params.instruction, materials)
