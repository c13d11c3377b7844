"""Follows a run until it ends or nobody here can move it, asking at each gate on the way."""

import asyncio
import time
from dataclasses import dataclass, replace

from stepgate.cli import exits
from stepgate.cli.board import Board
from stepgate.cli.client import PAGE, RUNS, Api
from stepgate.cli.connect import Connection
from stepgate.cli.exits import Exit
from stepgate.cli.faults import CliError
from stepgate.cli.gates import Gates, Left
from stepgate.cli.live import Printed
from stepgate.domain.states import CLOSED, FINISHED, RunStatus, StepStatus
from stepgate.engine import views

FIRST_LOOK_S = 0.03
LONGEST_LOOK_S = 0.5
NO_WORKER_AFTER_S = 3.0
STANDING = frozenset({RunStatus.CREATED, RunStatus.PLANNED, RunStatus.PAUSED, RunStatus.AWAITING_APPROVAL})
"""Run statuses that only a person changes."""
OVERTAKEN = frozenset({"stale_approval", "already_decided", "illegal_transition", "expired", "conflict"})
"""Refusals of a decision that mean: look again."""


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a run was left: `asked` are the questions that wait, `left` whether that is so on purpose."""

    run: views.RunDetail
    asked: tuple[views.Step, ...]
    target: views.Step | None
    left: bool = False

    @property
    def exit(self) -> Exit:
        if self.target is not None:
            return exits.of_step(self.target.status)
        return exits.of_run(self.run.status, self.run.reason)


class StepPages:
    """All steps of a run, page by page; a page in which every step has ended is not read again."""

    def __init__(self, api: Api, run_id: str) -> None:
        self._api = api
        self._run_id = run_id
        self._ended: dict[str | None, views.Page[views.Step]] = {}

    async def read(self, run: views.RunDetail) -> list[views.Step]:
        """The steps now; a run of few steps brought them along."""
        if len(run.steps) < PAGE:
            return run.steps
        found: list[views.Step] = []
        cursor: str | None = None
        while True:
            page = await self._page(cursor)
            found += page.items
            if page.next_cursor is None:
                return found
            cursor = page.next_cursor

    async def _page(self, cursor: str | None) -> views.Page[views.Step]:
        known = self._ended.get(cursor)
        if known is not None:
            return known
        place = {} if cursor is None else {"cursor": cursor}
        page = await self._api.read(views.Page[views.Step], f"{RUNS}/{self._run_id}/steps", limit=PAGE, **place)
        if page.next_cursor is not None and all(step.status in CLOSED for step in page.items):
            self._ended[cursor] = page
        return page


class Follower:
    """`target` is a step that is followed for its own sake, in a run that may have ended: an undo.

    With `patient` it goes on also while only somebody elsewhere can move the run.
    """

    def __init__(
        self,
        connection: Connection,
        run_id: str,
        board: Board,
        gates: Gates,
        target: str | None = None,
        *,
        patient: bool = False,
    ) -> None:
        self._connection = connection
        self._api = connection.api
        self._run_id = run_id
        self._board = board
        self._gates = gates
        self._target = target
        self._patient = patient
        self._printed = Printed(connection.api, run_id)
        self._pages = StepPages(connection.api, run_id)
        self._seq = -1
        self._warned = False
        # One that takes several persons stays open after the answer of whoever is here.
        self._answered: set[str | None] = set()

    async def follow(self) -> Stand:
        """Returns when the run has ended, or needs what cannot be given here."""
        pause_s, since = FIRST_LOOK_S, time.monotonic()
        while True:
            stand, moved = await self._look()
            if self._has_ended(stand):
                return stand
            asked = [step for step in stand.asked if _question(step) not in self._answered]
            if asked and self._gates.can_decide:
                if not await self._decide(asked[0]):
                    return Stand(stand.run, stand.asked, stand.target, left=True)
                pause_s = FIRST_LOOK_S
                continue
            if self._is_stuck(stand) and not self._patient:
                return replace(stand, left=bool(stand.asked) and self._gates.can_decide)
            if moved:
                pause_s, since = FIRST_LOOK_S, time.monotonic()
            elif time.monotonic() - since > NO_WORKER_AFTER_S:
                await self._warn_without_worker()
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, LONGEST_LOOK_S)

    async def _look(self) -> tuple[Stand, bool]:
        run = await self._api.run(self._run_id)
        steps = await self._pages.read(run)
        moved = run.head_seq != self._seq
        self._seq = run.head_seq
        for step in steps:
            if self._board.is_news(step):
                self._board.tell(await self._api.step(self._run_id, step.id) if step.omitted else step)
        if self._board.shows_output:
            await self._printed.look(steps)
        self._board.show(run, steps, self._printed)
        relevant = [step for step in steps if self._target in (None, step.id)]
        asked = tuple(step for step in relevant if step.status is StepStatus.AWAITING_APPROVAL)
        target = relevant[0] if self._target is not None and relevant else None
        return Stand(run, asked, target), moved

    def _has_ended(self, stand: Stand) -> bool:
        if stand.target is not None:
            return stand.target.status in CLOSED
        return stand.run.status in FINISHED

    def _is_stuck(self, stand: Stand) -> bool:
        """Whether nothing will move without somebody who is not here."""
        if stand.target is not None:
            return stand.target.status in (StepStatus.AWAITING_APPROVAL, StepStatus.NEEDS_REVIEW)
        # A question alone does not stop a run: `awaiting_approval` says that nothing else of it can move.
        return stand.run.status in STANDING or any(reason.kind == "execute" for reason in stand.run.waiting_for)

    async def _decide(self, asked: views.Step) -> bool:
        """Asks about one question; False where the person leaves it open."""
        self._board.hold()
        try:
            step = await self._api.step(self._run_id, asked.id)
            answer = await self._gates.ask(step)
            if isinstance(answer, Left):
                return False
            try:
                await self._api.decide(step, answer.verb, answer.body)
                self._answered.add(_question(step))
            except CliError as error:
                if error.code not in OVERTAKEN:
                    raise
                self._board.note(f"{step.key}: {error.message}; looking again", "yellow")
            return True
        finally:
            self._board.go_on()

    async def _warn_without_worker(self) -> None:
        if self._warned or self._connection.local:
            return
        self._warned = True
        status = await self._api.read(views.WorkerStatus, "/worker/status")
        if status.workers == 0:
            self._board.note("no worker is alive that could go on; start one: stepgate worker", "yellow")


def _question(step: views.Step) -> str | None:
    return None if step.approval is None else step.approval.request_id
