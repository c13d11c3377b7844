"""What the sandbox's strength means to one command: the least it asks for, and what its approver must be told."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from stepgate.domain.errors import SandboxUnavailable
from stepgate.executors.base import Context, require_sandbox
from stepgate.workspace.sandbox.levels import Level
from stepgate.workspace.sandbox.sandbox import Sandbox

NO_SANDBOX: Final = (
    "NO SANDBOX: it can read and change whatever the worker's user can, and reach the network; only what it changes"
    " in the workspace can be undone"
)


class _Asking(Protocol):
    @property
    def sandbox(self) -> Level | None:
        """The least level, None for whatever the worker has."""


def sandbox_for(context: Context, params: _Asking) -> Sandbox:
    """The worker's. Raises SandboxUnavailable where it is weaker than the command asks for."""
    sandbox = require_sandbox(context)
    if params.sandbox is not None and not sandbox.level.at_least(params.sandbox):
        raise SandboxUnavailable(
            f"this worker's sandbox is {sandbox.level}, weaker than {params.sandbox}",
            field="sandbox",
            fix=f"start a worker whose sandbox is {params.sandbox} or stronger, then resume the run",
        )
    return sandbox


def least_level(sandbox: Sandbox, params: _Asking) -> Level:
    """What an approval covers: the level asked for, else the one that the approver saw."""
    return params.sandbox or sandbox.level


def network(sandbox: Sandbox) -> str:
    """What of the network a command reaches: `none` or, without a sandbox, the `host`'s."""
    return "host" if sandbox.level is Level.UNSAFE_NONE else "none"


def shown_sandbox(sandbox: Sandbox, action: Mapping[str, Any]) -> dict[str, Any]:
    """A rendering's `sandbox`; `least` only where a weaker one than this would do."""
    shown = {"level": sandbox.level.value, "network": action["network"]}
    return shown if action["sandbox"] == sandbox.level else {**shown, "least": action["sandbox"]}


def warnings(sandbox: Sandbox) -> list[str]:
    """What makes any command dangerous at this level."""
    return [NO_SANDBOX] if sandbox.level is Level.UNSAFE_NONE else []
