"""The last lines that steps at work have printed, fetched as they come."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from stepgate.cli.client import RUNS, Api
from stepgate.cli.faults import CliError
from stepgate.domain.states import StepStatus
from stepgate.engine import views

PRINTING = frozenset({StepStatus.PREPARING, StepStatus.RUNNING})
FIRST_LOOK_S = 0.2
"""A step that ends sooner is not asked for what it prints."""
KEPT_CHARS = 4000


@dataclass(slots=True)
class _Printed:
    since: float
    after: int = 0
    attempt: int = 0
    text: str = ""
    lines: list[str] = field(default_factory=list)


class Printed:
    """What the steps of one run print; ask `look` now and then."""

    def __init__(self, api: Api, run_id: str) -> None:
        self._api = api
        self._run_id = run_id
        self._steps: dict[str, _Printed] = {}

    async def look(self, steps: Sequence[views.Step]) -> None:
        """Fetches what is new; a server that cannot tell is no reason to stop following."""
        now = time.monotonic()
        at_work = {step.id for step in steps if step.status in PRINTING}
        self._steps = {step_id: printed for step_id, printed in self._steps.items() if step_id in at_work}
        for step_id in at_work:
            printed = self._steps.setdefault(step_id, _Printed(now))
            if now - printed.since >= FIRST_LOOK_S:
                await self._fetch(step_id, printed)

    async def _fetch(self, step_id: str, printed: _Printed) -> None:
        path = f"{RUNS}/{self._run_id}/steps/{step_id}/output/live"
        try:
            found = await self._api.read(views.LiveOutput, path, after=printed.after)
        except CliError:
            return
        printed.after = found.next
        for item in found.items:
            if item.attempt != printed.attempt:
                printed.attempt, printed.text = item.attempt, ""
            *whole, rest = (printed.text + item.text).split("\n")
            printed.lines += whole
            printed.text = rest[-KEPT_CHARS:]

    def last(self, step_id: str, most: int) -> list[str]:
        """The last lines, the one that is not complete yet included."""
        printed = self._steps.get(step_id)
        if printed is None:
            return []
        lines = printed.lines[-most:] + ([printed.text] if printed.text else [])
        printed.lines = printed.lines[-most:]
        return lines[-most:]

    def new(self) -> Iterator[tuple[str, str]]:
        """(step id, line) of every complete line since the last call."""
        for step_id, printed in self._steps.items():
            lines, printed.lines = printed.lines, []
            yield from ((step_id, line) for line in lines)
