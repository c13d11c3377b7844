"""Shows a run while it goes: a line for each step that comes to an end and, on a terminal, what is at work now."""

import time
from collections.abc import Sequence
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from stepgate.cli import outcome, words
from stepgate.cli.live import Printed
from stepgate.cli.text import plain_line
from stepgate.domain.states import CLOSED, StepStatus
from stepgate.engine import views

AT_WORK = frozenset({StepStatus.PREPARING, StepStatus.APPROVED, StepStatus.RUNNING, StepStatus.COMPUTED})
MOST_AT_WORK = 8
LAST_LINES = 5
KEY_WIDTH = 14


class Board:
    """`told` are steps whose end is old news; `answers`: whoever looks is asked at gates and need not be told.

    On a terminal the last lines of what steps print are shown with them; elsewhere, with `prints`, every line as it
    comes.
    """

    def __init__(
        self, console: Console, told: frozenset[str] = frozenset(), *, answers: bool = False, prints: bool = False
    ) -> None:
        self._console = console
        self._told = set(told)
        self._answers = answers
        self._prints = prints
        self._waits: tuple[str, ...] = ()
        self._since: dict[tuple[str, StepStatus], float] = {}
        self._live: Live | None = None

    def __enter__(self) -> Self:
        self.go_on()
        return self

    def __exit__(self, *_: object) -> None:
        self.hold()

    def hold(self) -> None:
        """Leaves the terminal to somebody else, such as a question."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def go_on(self) -> None:
        if self._console.is_terminal and self._live is None:
            self._live = Live(console=self._console, refresh_per_second=10, transient=True)
            self._live.start()

    @property
    def shows_output(self) -> bool:
        """Whether what steps print is shown while they run."""
        return self._console.is_terminal or self._prints

    def is_news(self, step: views.Step) -> bool:
        return step.status in CLOSED and step.id not in self._told

    def tell(self, step: views.Step) -> None:
        """The end of a step, once."""
        self._told.add(step.id)
        style = words.STEP_STYLES[step.status]
        line = Text.assemble(
            (f"{words.STEP_MARKS.get(step.status, ' ')} ", style),
            (f"{step.number:>2} ", "dim"),
            (f"{plain_line(step.key):<{KEY_WIDTH}} ", "bold"),
            f"{step.step_type:<12} ",
            (f"{words.step_status(step):<10} ", style),
            (f"{words.duration(words.took(step)):>8}  ", "dim"),
            outcome.brief(step),
        )
        more = (Text(f"     {text}", style="dim") for text in outcome.excerpt(step))
        self._console.print(Text("\n").join([line, *more]), soft_wrap=True)

    def show(self, run: views.RunDetail, steps: Sequence[views.Step], printed: Printed) -> None:
        """What is at work now and, when it changes, why nothing is."""
        still = not any(step.status in AT_WORK for step in steps)
        waits = tuple(words.waits(run, but="approval" if self._answers else None)) if still else ()
        if waits != self._waits:
            self._waits = waits
            if not self._live:
                for sentence in waits:
                    self.note(f"waits for {sentence}")
        if self._live is not None:
            self._live.update(self._now(run, steps, waits, printed))
        elif self._prints:
            keys = {step.id: plain_line(step.key) for step in steps}
            for step_id, line in printed.new():
                self.note(f"{keys[step_id]} | {plain_line(line)}")

    def note(self, text: str, style: str = "dim") -> None:
        self._console.print(Text(f"  {text}", style=style), soft_wrap=True)

    def _now(self, run: views.RunDetail, steps: Sequence[views.Step], waits: Sequence[str], printed: Printed) -> Group:
        busy = [step for step in steps if step.status in AT_WORK]
        rows: list[Spinner | Text] = []
        for step in busy[:MOST_AT_WORK]:
            # What `started_at` says is the first attempt, perhaps of yesterday.
            began = self._since.setdefault((step.id, step.status), time.monotonic())
            label = Text.assemble(
                (f"{step.number:>2} ", "dim"),
                (f"{plain_line(step.key):<{KEY_WIDTH}} ", "bold"),
                f"{step.step_type:<12} ",
                (f"{step.status.value:<10} ", "cyan"),
                (f"{time.monotonic() - began:6.1f} s", "dim"),
            )
            rows.append(Spinner("dots", label, style="cyan"))
            lines = printed.last(step.id, LAST_LINES)
            rows += [Text(f"     {plain_line(line)}", style="dim", no_wrap=True, overflow="ellipsis") for line in lines]
        if len(busy) > MOST_AT_WORK:
            rows.append(Text(f"  and {len(busy) - MOST_AT_WORK} more", style="dim"))
        if not busy:
            reason = f"waits for {'; '.join(waits)}" if waits else run.status.value
            progress = f"{run.progress.done} of {run.progress.total} steps, {reason}"
            rows.append(Spinner("dots", Text(progress, style="dim")))
        return Group(*rows)
