"""`approvals`: the questions over all runs, and answers to several of them, each shown or named by its hash."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group
from rich.rule import Rule
from rich.text import Text

from stepgate.api.approvals import MOST_AT_ONCE, DecidedMany
from stepgate.cli import faults, question, words
from stepgate.cli.client import Api, read, segment
from stepgate.cli.connect import connect
from stepgate.cli.exits import Exit
from stepgate.cli.listing import folded, show_all
from stepgate.cli.session import Session
from stepgate.cli.terminal import forget_typed, read_line, say
from stepgate.cli.text import plain_line
from stepgate.engine import views

INBOX = "/v1/approvals"
DONE = {"approve": "approved", "reject": "rejected"}


async def listed(session: Session) -> Exit:
    """Every question that waits, the oldest first."""
    table = folded("approval", "what", "risk", "run", "step", "approved", "expires")
    table.columns[0].no_wrap = True
    return await show_all(session, INBOX, views.Approval, table, _row, nothing="nothing waits for a decision")


def _row(one: views.Approval) -> tuple[str | Text, ...]:
    title = plain_line(str((one.rendering or {}).get("title", one.step_type)))
    risk = Text(one.risk, style=words.RISK_STYLES.get(one.risk, ""))
    place = (one.run_id, plain_line(one.step_key))
    return one.request_id, title, risk, *place, words.progress(one), words.local_time(one.expires_at)


@dataclass(frozen=True, slots=True)
class Named:
    """A question as it was named: by its id, and by its hash if one was given."""

    request_id: str
    action_hash: str | None


def named(arguments: Sequence[str]) -> list[Named]:
    """`ID` and `ID=HASH`; raises CliError for anything else, and for one that is named twice."""
    found: list[Named] = []
    for argument in arguments:
        request_id, equals, hash_ = argument.partition("=")
        if equals and not (len(hash_) == 64 and set(hash_) <= set("0123456789abcdef")):
            raise faults.usage("APPROVAL", f"{hash_!r} is no hash", "write APPROVAL=HASH, with the action_hash shown")
        if any(one.request_id == request_id for one in found):
            raise faults.usage("APPROVAL", f"{request_id} is named twice", "name each once")
        found.append(Named(segment(request_id, "APPROVAL"), hash_ or None))
    return found


async def decide(
    session: Session, verb: str, arguments: Sequence[str], *, reason: str | None, then: str, yes: bool
) -> Exit:
    """Each is shown and asked about, or with `yes` named by its hash; what was said goes in one request."""
    wanted = named(arguments)
    fix = "write APPROVAL=HASH for each, with the action_hash that was shown, and add --yes"
    if yes and not all(one.action_hash for one in wanted):
        raise faults.usage("--yes", "an action without its hash here is one that nobody looked at", fix)
    if not yes and session.terminal.asking is None:
        raise faults.usage("--yes", "there is no terminal to show the actions on", fix)
    async with connect(session.settings) as connection:
        said: list[dict[str, Any]] = []
        for one in wanted:
            hash_ = one.action_hash
            if session.terminal.asking is not None and not yes:
                hash_ = await _asked(session.terminal.asking, connection.api, one, verb)
            if hash_ is not None:
                more = {"then": then} if verb == "reject" else {}
                given = {"request_id": one.request_id, "action_hash": hash_, "verdict": verb, "reason": reason, **more}
                said.append({name: value for name, value in given.items() if value is not None})
        items = await _sent(connection.api, said)
    return _told(session, verb, items, left=len(wanted) - len(said))


async def _asked(console: Console, api: Api, one: Named, verb: str) -> str | None:
    """Shows one; returns the hash of what was shown where the person said so, None to leave it."""
    asked = await api.read(views.Approval, f"{INBOX}/{one.request_id}")
    forget_typed()
    show(console, asked)
    while True:
        console.print(Text(f"{verb} / leave / view? ", style="bold"), end="")
        console.file.flush()
        line = await read_line()
        typed = (line or "").strip().lower()
        if line is None or (typed and "leave".startswith(typed)):
            return None
        if typed and verb.startswith(typed):
            return one.action_hash or asked.action_hash
        if typed and "view".startswith(typed):
            show(console, asked, whole=True)


def show(console: Console, asked: views.Approval, *, whole: bool = False) -> None:
    """One question with the run that it belongs to."""
    console.print()
    console.print(Rule(Text(f"{plain_line(asked.step_key)}: {asked.step_type}", style="bold yellow"), align="left"))
    console.print(Text.assemble((f"{'run':>11}  ", "dim"), f"{asked.run_id}  {plain_line(asked.goal)}"), soft_wrap=True)
    console.print(Group(*question.rendering(asked, whole=whole)), soft_wrap=True)


async def _sent(api: Api, said: Sequence[dict[str, Any]]) -> list[Any]:
    found: list[Any] = []
    for start in range(0, len(said), MOST_AT_ONCE):
        answer = await api.post(f"{INBOX}/bulk", {"decisions": said[start : start + MOST_AT_ONCE]})
        found += read(DecidedMany, answer).items
    return found


def _told(session: Session, verb: str, items: Sequence[Any], *, left: int) -> Exit:
    if session.terminal.json:
        session.answer({"items": [one.model_dump(mode="json") for one in items], "left": left})
    else:
        for one in items:
            if one.problem is None:
                say(session.terminal.out, f"{one.request_id}: ", (DONE[verb], "bold"))
            else:
                say(session.terminal.out, f"{one.request_id}: ", (plain_line(str(one.problem["detail"])), "red"))
        if left:
            say(session.terminal.out, f"{left} left as they are")
    return Exit.COMPLETED if all(one.problem is None for one in items) else Exit.USAGE
