"""`approvals rule` and `approvals always`: the rule that would let an action pass from now on, and adding it."""

from typing import Any
from urllib.parse import urlencode

import yaml

from stepgate.cli import faults, words
from stepgate.cli.approvals import INBOX, named, show
from stepgate.cli.client import Api, read
from stepgate.cli.connect import connect
from stepgate.cli.exits import Exit
from stepgate.cli.session import Session
from stepgate.cli.terminal import forget_typed, read_line, say
from stepgate.cli.text import plain, plain_line
from stepgate.engine import views
from stepgate.engine.always import AllowRule
from stepgate.engine.policies import PolicyDetail


async def rule(session: Session, argument: str, *, until: str | None, anyone: bool) -> Exit:
    """Shows it; nothing is changed."""
    (one,) = named([argument])
    async with connect(session.settings) as connection:
        found = await _rule(connection.api, one.request_id, until, anyone=anyone)
    if session.terminal.json:
        session.answer(found.model_dump(mode="json"))
    else:
        _show(session, found)
    return Exit.COMPLETED


async def always(session: Session, argument: str, *, until: str | None, anyone: bool, yes: bool) -> Exit:
    """Shows the action and the rule and asks, or adds it at once where `yes` comes with the action's hash."""
    (one,) = named([argument])
    console = session.terminal.asking
    if yes and one.action_hash is None:
        fix = "write APPROVAL=HASH, with the action_hash that was shown"
        raise faults.usage("--yes", "an action without its hash here is one that nobody looked at", fix)
    if not yes and console is None:
        raise faults.usage("--yes", "there is no terminal to show the rule on", "write APPROVAL=HASH, and add --yes")
    async with connect(session.settings) as connection:
        asked = await connection.api.read(views.Approval, f"{INBOX}/{one.request_id}")
        found = await _rule(connection.api, one.request_id, until, anyone=anyone)
        if not yes and console is not None:
            forget_typed()
            show(console, asked)
            _show(session, found)
            console.print("add this rule (yes / no)? ", end="")
            console.file.flush()
            if (await read_line() or "").strip().lower() not in ("y", "yes"):
                say(session.terminal.out, "nothing was added")
                return Exit.CANCELLED
        body = {
            "action_hash": one.action_hash or asked.action_hash,
            "until": found.until,
            "anyone": anyone,
            "replaces": found.policy_version,
        }
        document = await connection.api.post(f"{INBOX}/{one.request_id}/rule", body)
    if session.terminal.json:
        session.answer(document)
        return Exit.COMPLETED
    version = read(PolicyDetail, document).version
    say(session.terminal.out, f"in force: policy {version}; the question itself still waits for its answer")
    return Exit.COMPLETED


async def _rule(api: Api, request_id: str, until: str | None, *, anyone: bool) -> AllowRule:
    query: dict[str, Any] = {"anyone": str(anyone).lower()} | ({} if until is None else {"until": until})
    return await api.read(AllowRule, f"{INBOX}/{request_id}/rule?{urlencode(query)}")


def _show(session: Session, found: AllowRule) -> None:
    say(session.terminal.out, plain(yaml.safe_dump([found.rule], sort_keys=False, allow_unicode=True)).rstrip())
    for line in found.scope:
        say(session.terminal.out, ("allows  ", "dim"), plain_line(line))
    say(session.terminal.out, ("until   ", "dim"), words.local_time(found.until))
    if found.policy_source == "file":
        say(session.terminal.out, ("note    ", "dim"), "here a file alone counts: the rule can be added to it by hand")
