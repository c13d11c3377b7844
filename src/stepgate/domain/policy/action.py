"""What policy is asked about: the facts of one action, as the engine found them, never as a model tells them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType

_NO_LABELS: Mapping[str, str] = MappingProxyType({})


class Ruling(StrEnum):
    """What policy says; the strictest rule that matches wins."""

    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"

    @property
    def strictness(self) -> int:
        return _STRICTNESS[self]


_STRICTNESS = {Ruling.ALLOW: 0, Ruling.ASK: 1, Ruling.DENY: 2}


@dataclass(frozen=True, slots=True)
class Reach:
    """What an action names, as its executor knows it; nothing here depends on whether it is run."""

    paths: tuple[str, ...] = ()
    """Workspace paths, relative and normalised."""
    cut: bool = False
    """Whether it names more paths than these."""
    words: tuple[str, ...] = ()
    """Words that a shell may make other paths of, as it finds them; relative to the workspace as well."""
    complete: bool = False
    """Whether it can touch no other path of the workspace than those."""
    argv: tuple[str, ...] | None = None
    shell: str | None = None
    """Text for a shell, where that is the command; then `argv` is None."""
    cwd: str | None = None
    """The folder that a command runs in, relative to the workspace; `.` is the workspace itself."""
    env: tuple[str, ...] = ()
    """Names of variables the command is given."""
    planned_env: tuple[str, ...] = ()
    """Those of them that its plan gives; the others are of whoever runs the worker."""
    stdin: bool = False
    executable: str | None = None
    """The program inside the sandbox; None where nobody can tell, or (see `resolved`) nobody looked."""
    resolved: bool = False
    sandbox_level: str | None = None

    @property
    def is_command(self) -> bool:
        return self.argv is not None or self.shell is not None


@dataclass(frozen=True, slots=True)
class Spent:
    """What a run's model calls cost so far: what is known of it, and how many calls nobody knows the cost of."""

    usd: Decimal = Decimal(0)
    unknown_calls: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """What a change set does: every path, and those of them that it deletes."""

    paths: tuple[str, ...]
    deleted: int = 0


@dataclass(frozen=True, slots=True)
class Action:
    """One action of one step. `default` is what its executor asks for where no rule matches."""

    executor: str
    default: Ruling
    insists: bool = False
    """Whether the plan wants a person asked; no rule loosens that."""
    reach: Reach = field(default_factory=Reach)
    change: Change | None = None
    """None while nobody knows what it will change."""
    labels: Mapping[str, str] = field(default_factory=lambda: _NO_LABELS)
    requester: str = ""
    """Who asked for the run."""
    others: tuple[str, ...] = ()
    """Who else had a hand in the action: added the step, edited it, or had it planned."""
    spent: Spent | None = None
    """None where it is not its turn yet, so that nobody can say."""
    known: bool = True
    """False where its input still holds references: then nobody knows what it reaches."""
