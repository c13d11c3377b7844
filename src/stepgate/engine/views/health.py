"""Whether it works, and what went wrong."""

from typing import Literal

from pydantic import Field

from stepgate.domain.errors import Problem
from stepgate.engine.views.base import View


class WorkerStatus(View):
    """This process's worker, and the queue of all of them."""

    running: bool = Field(description="whether this process executes steps")
    check_interval: float = Field(description="how often a worker looks for work when nothing wakes it, in seconds")
    workers: int = Field(description="workers with a lease, in all processes")
    due: int = Field(description="runs that a worker could take up now")
    oldest_due_s: float | None = Field(description="how long the first of them has waited")


class Claimed(View):
    """How many runs this process's worker took up."""

    claimed: int


class DatabaseHealth(View):
    """Whether the database answers."""

    ok: bool
    version: str | None = None
    latency_ms: int | None = None
    error: str | None = None


class Canary(View):
    """One attack that was tried from inside the sandbox at start-up."""

    name: str
    passed: bool = Field(description="true: the sandbox held")
    detail: str
    required: bool = Field(description="true: the level is used only where this holds")


class SandboxWeakness(View):
    """What is weaker here than it could be."""

    reason: str
    fix: str | None = Field(description="what mends it; null where nothing does")


class SandboxHealth(View):
    """The sandbox commands run in, as its canaries found it."""

    level: str | None = Field(description="null: no command can run here")
    canaries: list[Canary]
    degraded: bool = Field(description="whether it is missing or weaker than the best level")
    weaknesses: list[SandboxWeakness] = Field(description="why it is degraded")
    limited_by: Literal["cgroup", "watchdog"] | None = Field(
        None, description="who holds commands to their memory: the kernel, or a watch that looks often"
    )
    error: str | None = None


class RouterHealth(View):
    """Who answers for models."""

    name: str
    model: str | None
    status: Literal["ok", "offline", "failing"]
    detail: str


class PolicyHealth(View):
    """The rules that this process goes by."""

    version: str | None = Field(description="sha256, or the name of the built-in rules; null before they were needed")
    source: Literal["file", "api", "builtin"] | None
    error: str | None = Field(description="why newer rules do not count: a fault in them; the earlier ones go on to")


class WorkerHealth(View):
    """Whether this process executes steps."""

    running: bool
    driving: int


class Health(View):
    """`ok`: everything works; `degraded`: no sandbox or no worker here, or faulty rules; `down`: no database."""

    status: Literal["ok", "degraded", "down"]
    version: str
    database: DatabaseHealth
    sandbox: SandboxHealth
    router: RouterHealth
    worker: WorkerHealth
    policy: PolicyHealth | None = None


class Fault(View):
    """One fault in the input."""

    field: str
    message: str
    fix: str | None

    @classmethod
    def of(cls, problem: Problem) -> "Fault":
        return cls(field=problem.field, message=problem.message, fix=problem.fix)
