"""Which step types there are: those that ship, in plain sight, and those that other packages bring."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, Final

from stepgate.domain.errors import InvalidValue
from stepgate.domain.plan import StepType
from stepgate.domain.plan_faults import check_params, nearest
from stepgate.executors.analyze import Analyze
from stepgate.executors.base import Executor, Params
from stepgate.executors.deliver import Deliver
from stepgate.executors.edit_file import EditFile
from stepgate.executors.fork import Fork
from stepgate.executors.plan_steps import PlanSteps
from stepgate.executors.read_file import ReadFile
from stepgate.executors.replay import Replay
from stepgate.executors.run_command import RunCommand
from stepgate.executors.summarize import Summarize
from stepgate.executors.undo import Undo

GROUP: Final = "stepgate.executors"

BUILTIN: Final[tuple[Executor[Any], ...]] = (
    ReadFile(),
    Analyze(),
    EditFile(),
    RunCommand(),
    Summarize(),
    PlanSteps(),
    Undo(),
    Deliver(),
    Fork(),
    Replay(),
)


class Registry:
    """Executors by type, in the order given; immutable. Raises InvalidValue for one that is incomplete or doubled."""

    def __init__(self, executors: Sequence[Executor[Any]] = BUILTIN) -> None:
        by_type: dict[str, Executor[Any]] = {}
        for executor in executors:
            _check(executor)
            if executor.type in by_type:
                raise InvalidValue(f"two executors have the type {executor.type!r}", fix="rename or remove one of them")
            by_type[executor.type] = executor
        self._by_type: Mapping[str, Executor[Any]] = MappingProxyType(by_type)
        self._step_types: Mapping[str, StepType] = MappingProxyType(
            {name: _step_type(executor) for name, executor in by_type.items() if not executor.internal}
        )

    def __iter__(self) -> Iterator[Executor[Any]]:
        return iter(self._by_type.values())

    def __contains__(self, type_: object) -> bool:
        return type_ in self._by_type

    def get(self, type_: str) -> Executor[Any]:
        """The executor of a type; raises InvalidValue, suggesting the nearest name."""
        try:
            return self._by_type[type_]
        except KeyError:
            raise InvalidValue(
                f"there is no step type {type_!r}", field="type", fix=nearest(type_, self._step_types)
            ) from None

    def find(self, type_: str) -> Executor[Any] | None:
        """The executor of a type, None where it is not installed here."""
        return self._by_type.get(type_)

    def step_types(self) -> Mapping[str, StepType]:
        """What plans may use: every type but the internal ones."""
        return self._step_types

    def describe(self) -> list[dict[str, Any]]:
        """What a person or a planner may choose from: type, summary, effect, gate, version and the input's schema."""
        return [
            {
                "type": executor.type,
                "summary": executor.summary,
                "effect": executor.effect.value,
                "gate": executor.gate.value,
                "version": executor.version,
                "input_schema": executor.params.model_json_schema(),
            }
            for executor in self
            if not executor.internal
        ]


def installed(executors: Sequence[Executor[Any]] = BUILTIN) -> Registry:
    """Those given and what installed packages offer as entry points of the group `stepgate.executors`.

    Raises InvalidValue, naming the entry point, for one that cannot be loaded or is no executor.
    """
    found = sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value))
    return Registry((*executors, *(_load(point) for point in found)))


def _step_type(executor: Executor[Any]) -> StepType:
    return StepType(executor.type, partial(check_params, executor.params), executor.max_attempts, executor.step_keys)


def _load(point: EntryPoint) -> Executor[Any]:
    named = f"the entry point {point.name!r} ({point.value}) of {GROUP}"
    try:
        loaded = point.load()
        executor = loaded() if isinstance(loaded, type) else loaded
    except Exception as error:  # whatever another package's import raises
        raise InvalidValue(f"{named} cannot be loaded: {error}", fix="repair or uninstall that package") from error
    if not isinstance(executor, Executor):
        raise InvalidValue(f"{named} is no executor", fix="name a subclass of stepgate.executors.base.Executor")
    return executor


def _check(executor: Executor[Any]) -> None:
    missing = [name for name in ("type", "summary", "params") if not getattr(executor, name, None)]
    if missing:
        raise InvalidValue(f"{type(executor).__name__} declares no {', '.join(missing)}")
    if not executor.type.isidentifier() or executor.type != executor.type.lower():
        raise InvalidValue(f"{executor.type!r} is no step type", fix="write it in lower case with underscores")
    model: object = executor.params
    if not (isinstance(model, type) and issubclass(model, Params)):
        raise InvalidValue(f"the params of {executor.type!r} are no subclass of Params")
