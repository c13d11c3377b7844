"""What was measured, round by round."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench import load
from stepgate.compose import Stack
from stepgate.domain.ids import RunId


@dataclass(slots=True)
class Rounds:
    """Every round's value of each figure; None where a round's runs did not verify."""

    values: dict[str, list[float | None]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, name: str, value: float | None) -> None:
        self.values.setdefault(name, []).append(value)

    async def sound(self, stack: Stack, runs: Sequence[RunId]) -> bool:
        """Whether every run completed and verifies; a figure of others is not used."""
        problems = await load.unverified(stack, runs)
        self.problems += problems[:10]
        return not problems

    def middle(self, name: str) -> float | None:
        found = [value for value in self.values.get(name, []) if value is not None]
        return load.middle(found) if found and len(found) == len(self.values[name]) else None

    def ratio(self, name: str, against: str) -> float | None:
        """The median of the ratios round by round: a machine whose speed drifts does not change it."""
        pairs = zip(self.values.get(name, []), self.values.get(against, []), strict=True)
        ratios = [a / b for a, b in pairs if a is not None and b]
        return load.middle(ratios) if ratios and len(ratios) == len(self.values[name]) else None
