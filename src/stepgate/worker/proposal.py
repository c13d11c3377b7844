"""An action as it would be now, before anybody has decided on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stepgate.domain.state import StepState
from stepgate.executors.base import Executor, Prepared


@dataclass(frozen=True, slots=True)
class Proposal:
    """`resolved` is the input with its references replaced, `rev` the workspace's revision that `prepared` saw."""

    step: StepState
    executor: Executor[Any]
    params: Any
    resolved: Mapping[str, Any]
    prepared: Prepared
    rev: str
