"""One small run with fixed ids, times and money, whose journal's bytes are pinned in `golden/journal.jsonl`.

Run as a program it writes the file anew: only for a new journal version, never to make a test pass.
"""

from decimal import Decimal
from pathlib import Path

from stepgate.domain import commands as c
from stepgate.domain.decide import decide
from stepgate.domain.state import Effect
from tests.domain.runs import CHANGE, HASH, OTHER_HASH, PERSON, SECOND, Run, gated, info, spec

FILE = Path(__file__).parent / "golden" / "journal.jsonl"


def golden_run() -> Run:
    """Touches every kind of value an event can hold: text beyond ASCII, null, floats, decimals, nested objects."""
    about = info('Mend “parse()” — naïve, 日本語, \U0001f512, "quoted" \\ and \n')._replace(
        metadata={"zeta": 1, "Alpha": [1.5, -0.25, True, None, {"b": 2, "a": 1}], "é": ""}, labels={"team": "core"}
    )
    plan = (
        spec(1, max_attempts=2, backoff_ms=250)._replace(why="to see it", timeout_ms=30_000),
        gated(2, effect=Effect.WORKSPACE),
        spec(3, on_error="continue"),
        spec(4, effect=Effect.ONCE, needs=[2]),
    )
    first = decide(None, c.Create(PERSON, about, plan), SECOND)
    run = Run(first.state, list(first.events))
    run.start()
    run.begin(1)
    run.call_model(1, model="small")
    tokens = {"input": 120, "output": 7, "cached": None, "reasoning": None}
    run.settle_model(1, cost=Decimal("0.000125"), source="router", tokens=tokens, model="small-2")
    run.fail(1, retryable=True)
    run.wait(SECOND)
    run.complete(1)
    run.prepare(2)
    run.ask(2, OTHER_HASH, expires_at=9 * SECOND)
    run.ask(2, HASH, expires_at=9 * SECOND)
    run.wait(SECOND)
    run.approve(2)
    run.compute(2, HASH)
    run.complete(2, result=CHANGE)
    run.begin(4)
    run.pause()
    run.interrupt(4)
    run.skip(4)
    run.resume()
    run.fail(3)
    run.complete(3)
    run.undo(5)
    run.ask(5)
    run.reject(5)
    return run


def golden_text() -> str:
    """One line for each event: its hash and the hashed text."""
    records, _ = golden_run().records()
    return "".join(f"{record.hash.hex()} {record.body.decode()}\n" for record in records)


if __name__ == "__main__":
    FILE.write_text(golden_text(), encoding="utf-8")
