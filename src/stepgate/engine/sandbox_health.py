"""What start-up found out about the sandbox, for every surface that shows it."""

from stepgate.domain.errors import SandboxUnavailable
from stepgate.engine.views import Canary, SandboxHealth, SandboxWeakness
from stepgate.workspace.sandbox.levels import REQUIRED, Level
from stepgate.workspace.sandbox.sandbox import Sandbox

UNSAFE = "NO SANDBOX: commands can do whatever the worker's user can"


def sandbox_health(sandbox: Sandbox | None, refused: SandboxUnavailable | None) -> SandboxHealth:
    """What the canaries showed; not degraded where nobody looked, because nothing is executed here."""
    if sandbox is None:
        weaknesses = [] if refused is None else [SandboxWeakness(reason=refused.message, fix=refused.fix)]
        return SandboxHealth(
            level=None,
            canaries=[],
            degraded=refused is not None,
            weaknesses=weaknesses,
            error=None if refused is None else str(refused),
        )
    required = REQUIRED[sandbox.level]
    canaries = [
        Canary(name=one.name, passed=one.passed, detail=one.detail, required=one.name in required)
        for one in sandbox.canaries
    ]
    weaknesses = [SandboxWeakness(reason=one.reason, fix=one.fix or None) for one in sandbox.degraded]
    return SandboxHealth(
        level=sandbox.level,
        canaries=canaries,
        degraded=bool(weaknesses),
        weaknesses=weaknesses,
        limited_by=sandbox.limited_by,
        error="; ".join(weakness.reason for weakness in weaknesses) or None,
    )


def in_a_word(sandbox: Sandbox | None, refused: SandboxUnavailable | None) -> str:
    """One line for the start of a process."""
    if sandbox is None:
        return f"none: {refused}"
    if sandbox.level is Level.UNSAFE_NONE:
        return f"{sandbox.level}: {UNSAFE}"
    return f"{sandbox.level}{', degraded: see `stepgate doctor`' if sandbox.degraded else ''}"
