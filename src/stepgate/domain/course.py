"""In which order a run's steps were done, as its journal tells, and what each could see when it began."""

from collections.abc import Sequence
from typing import NamedTuple

from stepgate.domain.events import Event
from stepgate.domain.ids import StepId
from stepgate.domain.states import EventType as E
from stepgate.domain.states import StepStatus


class Turn(NamedTuple):
    """A step that was completed: `seen` of the steps done before it were so when its last attempt began, which is
    after `events` events of the journal.
    """

    step_id: StepId
    seen: int
    events: int


class Course(NamedTuple):
    """`done` are the steps with an output in the order they got it; those of `turns` among them were executed."""

    done: tuple[StepId, ...]
    turns: tuple[Turn, ...]


def course_of(events: Sequence[Event]) -> Course:
    """The course a whole journal tells of."""
    done: list[StepId] = []
    turns: list[Turn] = []
    began: dict[StepId, tuple[int, int]] = {}
    for place, event in enumerate(events):
        step_id = event.step_id
        if step_id is None:
            continue
        match event.type:
            case E.STEP_STARTED | E.STEP_PREPARING:
                began[step_id] = (len(done), place)
            case E.STEP_COMPLETED:
                turns.append(Turn(step_id, *began.get(step_id, (len(done), place))))
                done.append(step_id)
            case E.STEP_INHERITED if event.data["status"] == StepStatus.COMPLETED:
                done.append(step_id)
            case _:
                pass
    return Course(tuple(done), tuple(turns))
