"""One run's share of a batch: what was decided on which head, and who waits for it to be durable."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from stepgate.domain import canonical
from stepgate.domain.commands import Command
from stepgate.domain.decide import decide
from stepgate.domain.events import Event
from stepgate.domain.ids import RunId, StepId
from stepgate.domain.journal import Head, Record, seal
from stepgate.domain.state import RunState
from stepgate.domain.states import EventType as E
from stepgate.domain.wake import next_wake
from stepgate.storage.attachments import NOTHING, Attachments

HOT = frozenset({E.RUN_STARTED, E.STEP_STARTED, E.STEP_COMPLETED, E.RUN_COMPLETED})
"""What a step without an effect causes: these touch few columns and have a statement of their own."""
STARTS = frozenset({E.RUN_STARTED, E.STEP_STARTED, E.STEP_PREPARING, E.MODEL_CALLED})
"""What a worker records before it does what may be its end."""
COMPLETED, COMPUTED = E.STEP_COMPLETED, E.STEP_COMPUTED


@dataclass(slots=True, eq=False)
class RunHandle:
    """A run as its driver holds it in memory; `state` and `head` move only when the database has accepted a write.

    `epoch` is the lease's number, None for a caller that holds no lease. `released` is set when the write that
    finished the run gave its lease back as well.
    """

    run_id: RunId
    state: RunState
    head: Head
    epoch: int | None
    released: bool = False
    entry: "Entry | None" = field(default=None, repr=False)
    waiting: "list[Submission]" = field(default_factory=list, repr=False)


class Submission:
    """Commands that are decided together or not at all, and the future of whoever sent them."""

    __slots__ = ("attachments", "commands", "events", "future")

    def __init__(
        self, commands: Sequence[Command], attachments: Attachments, future: "asyncio.Future[tuple[Event, ...]] | None"
    ) -> None:
        self.commands = commands
        self.attachments = attachments
        self.future = future
        self.events: tuple[Event, ...] = ()

    def accepted(self) -> None:
        if self.future is not None and not self.future.done():
            self.future.set_result(self.events)

    def failed(self, error: BaseException) -> None:
        if self.future is not None and not self.future.done():
            self.future.set_exception(error)


class Entry:
    """Grows while it waits for its batch; each submission is decided on the state the one before it left."""

    __slots__ = (
        "attempts",
        "base",
        "before",
        "epoch",
        "events",
        "head",
        "hot",
        "not_after",
        "outputs",
        "records",
        "run_id",
        "sent",
        "state",
        "submissions",
        "weight",
    )

    def __init__(self, run_id: RunId, before: RunState | None, base: Head, epoch: int | None) -> None:
        self.run_id = run_id
        self.before = before
        self.base = base
        self.epoch = epoch
        self.state = before
        self.head = base
        self.records: list[Record] = []
        self.events: list[Event] = []
        self.submissions: list[Submission] = []
        self.outputs: dict[StepId, str] = {}
        self.hot = before is not None
        self.not_after: int | None = None
        self.weight = 0
        self.attempts = 0
        self.sent = False

    def decide(self, submission: Submission, now: int) -> None:
        """Adds the submission, or raises what its decision raises and stays as it was."""
        state = self.state
        commands = submission.commands
        if len(commands) == 1:
            state, events = decide(state, commands[0], now)
        else:
            decided: list[Event] = []
            for command in commands:
                state, more = decide(state, command, now)
                decided += more
            events = tuple(decided)
        attachments = submission.attachments
        if events:
            self._classify(events, state, attachments)
            records, self.head = seal(self.run_id, self.head, events)
            self.records += records
            self.events += events
        elif attachments.idempotency is not None:
            self.hot = False
        submission.events = events
        self.state = state
        self.submissions.append(submission)

    def _classify(self, events: Iterable[Event], after: RunState | None, attachments: Attachments) -> None:
        """Takes the bodies the events name; a digest whose body is nowhere would be the caller's fault."""
        hot = self.hot and (attachments is NOTHING or attachments.only_outputs)
        for event in events:
            type_ = event.type
            if type_ not in HOT:
                hot = False
            if type_ is COMPLETED or type_ is COMPUTED:
                hot = self._take_output(event, attachments) and hot
            elif not hot:
                self._take_rest(event, after, attachments)
        self.hot = hot

    def _take_output(self, event: Event, attachments: Attachments) -> bool:
        """Whether the result changes only columns of the hot statement."""
        step_id = event.step_id
        if step_id is None:
            raise ValueError(f"{event.type} names no step")
        earlier = None if self.state is None else self.state.steps.get(step_id)
        text = attachments.outputs.get(step_id)
        if text is not None:
            self._keep(step_id, text)
        elif earlier is None or earlier.result is None:
            raise ValueError(f"{event.type} came without its output")
        data = event.data
        return (
            earlier is not None
            and earlier.result is None
            and earlier.retry_at is None
            and data["change_set_id"] is None
            and data["workspace_before"] is None
            and data["workspace_after"] is None
        )

    def _keep(self, step_id: StepId, output: str) -> None:
        self.outputs[step_id] = output
        self.weight += len(output)

    def _take_rest(self, event: Event, after: RunState | None, attachments: Attachments) -> None:
        step_id, data = event.step_id, event.data
        match event.type:
            case E.STEP_INHERITED if data["output_sha256"] is not None and step_id is not None:
                text = attachments.outputs.get(step_id)
                if text is None or canonical.digest(text.encode()) != data["output_sha256"]:
                    raise ValueError("step.inherited came without the output it names")
                self._keep(step_id, text)
            case E.STEP_FAILED if step_id in attachments.outputs and step_id is not None:
                text = attachments.outputs[step_id]
                if canonical.digest(text.encode()) != data.get("output", {}).get("sha256"):
                    raise ValueError("step.failed came with another output than it names")
                self._keep(step_id, text)
            case E.APPROVAL_COUNTED | E.APPROVAL_APPROVED | E.APPROVAL_REJECTED if (
                after is not None and step_id is not None
            ):
                self._limit(after.steps[step_id].approvals[-1].expires_at, data.get("delegated_until"))
            case E.APPROVAL_EDITED if after is not None and step_id is not None:
                text = attachments.inputs.get(step_id, "")
                if canonical.digest(text.encode()) != data["input_sha256"]:
                    raise ValueError("approval.edited came with another input than it names")
                self._limit(after.steps[step_id].approvals[-1].expires_at)
            case E.APPROVAL_REQUESTED if data["request_id"] not in attachments.renderings:
                raise ValueError("approval.requested came without its rendering")
            case E.STEP_ADDED if step_id not in attachments.inputs:
                raise ValueError("step.added came without its input")
            case E.RUN_PLANNED if any(step["id"] not in attachments.inputs for step in data["steps"]):
                raise ValueError("run.planned came without an input")
            case _:
                pass

    def _limit(self, *ends: int | None) -> None:
        """A decision counts only if it is committed before its question, or what it was given by, has expired."""
        self.not_after = min((end for end in (self.not_after, *ends) if end is not None), default=None)

    @property
    def after(self) -> RunState:
        """The state after every event; only where there is one."""
        if self.state is None:
            raise RuntimeError("nothing has been decided yet")
        return self.state

    @property
    def over(self) -> bool:
        """Whether the run is finished and nothing will wake it: its worker's lease ends with this write."""
        state = self.after
        return self.epoch is not None and state.finished and next_wake(state) is None

    @property
    def advanced(self) -> bool:
        """Whether the run came further: a start alone leaves the workers lost on it unforgotten."""
        for event in self.events:  # noqa: SIM110 - a generator costs three times as much
            if event.type not in STARTS:
                return True
        return False

    def tell_end(self) -> None:
        """Takes the statement that fills the outbox, where the run comes to its end."""
        if self.hot and self.after.finished:
            self.hot = False

    def touched(self) -> Iterable[StepId]:
        """Every step an event names, once, in the order of the journal."""
        return dict.fromkeys(event.step_id for event in self.events if event.step_id is not None)

    def accepted(self) -> None:
        for submission in self.submissions:
            submission.accepted()

    def failed(self, error: BaseException) -> None:
        for submission in self.submissions:
            submission.failed(error)
