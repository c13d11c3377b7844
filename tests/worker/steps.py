"""Step types for tests: each does one thing that the engine must cope with, and tells the test about it."""

import asyncio
import os
import signal
import threading
from collections import Counter, defaultdict
from typing import Any

from stepgate.domain.errors import InvalidValue
from stepgate.domain.state import Effect
from stepgate.executors.base import Context, Done, Executor, Failed, Outcome, Params
from stepgate.executors.registry import BUILTIN, Registry

MAY_DIE = "STEPGATE_TESTS_MAY_DIE"


class Nothing(Params):
    """Takes nothing."""


class Named(Params):
    """Takes a name by which the test knows it."""

    name: str = ""


class Number(Params):
    """Takes a number."""

    number: int


class Text(Params):
    """Takes a text."""

    text: str


class Noop(Executor[Nothing]):
    type = "noop"
    summary = "Does nothing."
    reads_workspace = False
    params = Nothing

    async def execute(self, context: Context, params: Nothing) -> Outcome:
        return Done({"ok": True})


class Echo(Executor[Text]):
    type = "echo"
    summary = "Says what it is given."
    reads_workspace = False
    params = Text

    async def execute(self, context: Context, params: Text) -> Outcome:
        return Done({"text": params.text, "size": len(params.text)})


class Count(Executor[Number]):
    """Its input can be wrong only once a reference is resolved."""

    type = "count"
    summary = "Takes a whole number."
    reads_workspace = False
    params = Number

    async def execute(self, context: Context, params: Number) -> Outcome:
        return Done({"number": params.number})


class Hold(Executor[Named]):
    """Runs until the test lets it go."""

    type = "hold"
    summary = "Waits for the test."
    lasts = True
    reads_workspace = False
    params = Named

    def __init__(self) -> None:
        self.open = defaultdict[str, asyncio.Event](asyncio.Event)
        self.inside: set[str] = set()
        self.most = 0
        self.begun = Counter[str]()
        self.stopped: list[str] = []

    async def execute(self, context: Context, params: Named) -> Outcome:
        self.inside.add(context.step_id)
        self.begun[params.name] += 1
        self.most = max(self.most, len(self.inside))
        try:
            await self.open[params.name].wait()
        except asyncio.CancelledError:
            self.stopped.append(params.name)
            raise
        finally:
            self.inside.discard(context.step_id)
        return Done({"name": params.name})


class Reader(Hold):
    """The same, with the workspace under its eyes."""

    type = "reader"
    reads_workspace = True


class Brief(Hold):
    """The same, but its start is not recorded."""

    type = "brief"
    lasts = False


class Once(Hold):
    """Has an effect outside that must not happen twice."""

    type = "once"
    effect = Effect.ONCE


class Flaky(Executor[Number]):
    """Fails as often as it is told, for each step."""

    type = "flaky"
    summary = "Fails some times."
    reads_workspace = False
    params = Number
    hint_ms: int | None = None

    def __init__(self) -> None:
        self.tries = Counter[str]()

    async def execute(self, context: Context, params: Number) -> Outcome:
        self.tries[context.step_id] += 1
        if self.tries[context.step_id] <= params.number:
            said = {"said": f"try {self.tries[context.step_id]}"}
            return Failed("flaky", "not yet", retryable=True, retry_after_ms=self.hint_ms, output=said)
        return Done({"tries": self.tries[context.step_id]})


class Broken(Executor[Nothing]):
    type = "broken"
    summary = "Has a bug."
    reads_workspace = False
    params = Nothing

    async def execute(self, context: Context, params: Nothing) -> Outcome:
        raise ZeroDivisionError("a bug in a step type")


class Refusing(Executor[Nothing]):
    type = "refusing"
    summary = "Says that its input is at fault."
    reads_workspace = False
    params = Nothing

    async def execute(self, context: Context, params: Nothing) -> Outcome:
        raise InvalidValue("this cannot be", field="input.name", fix="name another")


class Large(Executor[Number]):
    type = "large"
    summary = "Says a lot."
    reads_workspace = False
    params = Number

    async def execute(self, context: Context, params: Number) -> Outcome:
        return Done({"text": "x" * params.number})


class Deadly(Executor[Nothing]):
    """Its worker does not survive it, where a test has agreed to that."""

    type = "deadly"
    summary = "Kills its worker."
    reads_workspace = False
    params = Nothing

    async def execute(self, context: Context, params: Nothing) -> Outcome:
        if MAY_DIE in os.environ:
            os.kill(os.getpid(), signal.SIGKILL)
        return Done({})


class Stubborn(Executor[Nothing]):
    """Holds up the whole event loop until the test lets it go."""

    type = "stubborn"
    summary = "Blocks its worker."
    reads_workspace = False
    params = Nothing

    def __init__(self) -> None:
        self.inside, self.released = threading.Event(), threading.Event()

    async def execute(self, context: Context, params: Nothing) -> Outcome:
        self.inside.set()
        return Done({"released": self.released.wait(60)})


class Kit:
    """A registry of its own for a test, and the executors in it that a test speaks to."""

    def __init__(self, *, without: str | None = None) -> None:
        self.hold, self.reader, self.brief, self.once, self.flaky = Hold(), Reader(), Brief(), Once(), Flaky()
        self.stubborn = Stubborn()
        own: tuple[Executor[Any], ...] = (self.hold, self.reader, self.brief, self.once, self.flaky, self.stubborn)
        others: tuple[Executor[Any], ...] = (Noop(), Echo(), Count(), Broken(), Refusing(), Large(), Deadly())
        self.registry = Registry([one for one in (*BUILTIN, *own, *others) if one.type != without])
