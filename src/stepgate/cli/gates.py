"""Asks a person about one action, or answers for them where they said yes to everything beforehand."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from stepgate.cli import question
from stepgate.cli.terminal import forget_typed, read_line, say
from stepgate.engine import views

APPROVED_BEFOREHAND = "approved beforehand by --yes"


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision as the API takes it."""

    verb: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Left:
    """The person goes away; the question stays open."""


@dataclass(frozen=True, slots=True)
class Gates:
    """`asking` is the terminal of a person, or None; with `yes` all is approved, shown where `told` prints."""

    asking: Console | None
    told: Console
    yes: bool = False
    choices: tuple[str, ...] = ("approve", "reject", "skip", "view")

    @property
    def can_decide(self) -> bool:
        return self.yes or self.asking is not None

    async def ask(self, step: views.Step) -> Answer | Left:
        """Shows the action and returns the decision on exactly that action."""
        if self.yes or self.asking is None:
            question.show(self.told, step)
            say(self.told, ("  approved by --yes", "green"))
            return Answer("approve", {"action_hash": _hash(step), "reason": APPROVED_BEFOREHAND})
        forget_typed()
        question.show(self.asking, step)
        return await self._conversation(self.asking, step)

    async def _conversation(self, console: Console, step: views.Step) -> Answer | Left:
        while True:
            _prompt(console, f"{' / '.join(self.choices)}? ")
            line = await read_line()
            if line is None:
                console.print()
                return Left()
            match self._choice(line):
                case "approve":
                    return Answer("approve", {"action_hash": _hash(step)})
                case "reject":
                    return Answer("reject", {"action_hash": _hash(step), "reason": await _reason(console)})
                case "skip":
                    return Answer("skip", {"reason": await _reason(console)})
                case "view":
                    question.show(console, step, whole=True)
                case _:
                    letters = ", ".join(f"{choice[0]} ({choice})" for choice in self.choices)
                    say(console, (f"type one of {letters}; Ctrl-D leaves the question open", "yellow"))

    def _choice(self, line: str) -> str | None:
        """The choice that begins with what was typed; an empty line chooses nothing."""
        typed = line.strip().lower()
        fitting = [choice for choice in self.choices if typed and choice.startswith(typed)]
        return fitting[0] if len(fitting) == 1 else None


def _hash(step: views.Step) -> str | None:
    return None if step.approval is None else step.approval.action_hash


async def _reason(console: Console) -> str | None:
    _prompt(console, "why (may be empty)? ")
    line = await read_line()
    return (line or "").strip() or None


def _prompt(console: Console, text: str) -> None:
    console.print(Text(text, style="bold"), end="")
    console.file.flush()
