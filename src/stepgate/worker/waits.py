"""What keeps a step waiting, apart from its run: other runs in its workspace, and its own time."""

from typing import TYPE_CHECKING

from stepgate.domain.state import StepState

if TYPE_CHECKING:
    from stepgate.worker.driver import Driver


class Held(Exception):
    """The step cannot go on now because its workspace is in use; the run is given back and waits."""


class NotItsTurn(Held):
    """Another step changes the workspace; its end wakes whoever waits."""


def time_limit(driver: "Driver", step: StepState) -> float:
    """How long one attempt may take, in seconds."""
    return (step.spec.timeout_ms or driver.tools.step_timeout_ms) / 1000
