"""What a message says: made from the journal's own event, so that every attempt sends the same bytes.

Links open a page; nothing can be decided by following one.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from stepgate.domain.states import EventType
from stepgate.domain.webhooks import Format
from stepgate.engine.shapes import moment, time_of
from stepgate.executors.screen import one_line, visible_json

Row = Mapping[str, Any]

SHORT: Final = 150
LONG: Final = 600
_SAYS: Final[Mapping[str, str]] = {
    "approval.requested": "A step asks for approval",
    "approval.reminded": "A step still asks for approval",
    "approval.edited": "An action was edited and asks again",
    "approval.approved": "Approved",
    "approval.rejected": "Rejected",
    "approval.expired": "Nobody decided in time",
    "run.paused": "A run stands still",
    "run.completed": "A run completed",
    "run.failed": "A run failed",
    "run.cancelled": "A run was cancelled",
    "budget.alerted": "A budget was passed",
}


def message(row: Row, format_: Format, url: str | None) -> bytes:
    """The body for a row of `Webhooks.told`; `url` is where this installation is reached, None: no links."""
    event = orjson.loads(row["body"])
    match format_:
        case Format.JSON:
            return orjson.dumps(_event(row, event, url))
        case Format.SLACK:
            return orjson.dumps(_slack(row, event, url))


def link(url: str | None, run_id: str, step_id: str | None) -> str | None:
    """The console's page of a run, or of a step's question."""
    if url is None:
        return None
    page = f"{url.rstrip('/')}/console/runs/{run_id}"
    return page if step_id is None else f"{page}/steps/{step_id}"


def _event(row: Row, event: Row, url: str | None) -> dict[str, Any]:
    data: dict[str, Any] = {
        "run_id": event["run_id"],
        "seq": event["seq"],
        "run": {"name": row["name"], "goal": one_line(row["goal"], LONG)},
        "actor": event["actor"],
        "url": link(url, event["run_id"], row["step_id"]),
    }
    if row["step_id"] is not None:
        data["step"] = {"id": row["step_id"], "key": row["key"], "step_type": row["type"]}
    if row["revision"] is not None:
        data["approval"] = {
            "request_id": event["data"]["request_id"],
            "revision": row["revision"],
            "action_hash": row["action_hash"],
            "risk": row["risk"],
            "required": row["required"],
            "title": _title(row),
            "expires_at": moment(row["expires_at"]),
        }
    if event["type"] == EventType.BUDGET_ALERTED:
        data["budget"] = visible_json(event["data"])
    for name in ("reason", "then"):
        if isinstance(event["data"].get(name), str):
            data[name] = one_line(event["data"][name], LONG)
    return {"type": event["type"], "timestamp": time_of(event["at"]), "data": data}


def _title(row: Row) -> str | None:
    shown = orjson.loads(row["rendering"]) if row["rendering"] is not None else {}
    return one_line(str(shown.get("title") or ""), LONG) or None


def _slack(row: Row, event: Row, url: str | None) -> dict[str, Any]:
    """Plain text wherever a run's own words stand: nothing in them becomes a link, a mention or a style."""
    said = _SAYS.get(event["type"], event["type"])
    title = _title(row) or row["goal"]
    facts = [("Run", row["name"] or row["goal"])]
    if row["step_id"] is not None:
        facts.append(("Step", f"{row['key']} ({row['type']})"))
    if row["revision"] is not None:
        facts.append(("Risk", row["risk"]))
    if event["type"] == EventType.BUDGET_ALERTED:
        facts.append(("Spent", f"{event['data']['percent']} % of the {event['data']['scope']} budget"))
    if isinstance(event["data"].get("reason"), str):
        facts.append(("Reason", event["data"]["reason"]))
    if event["actor"]["kind"] != "system":
        facts.append(("By", event["actor"]["id"]))
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": _plain(said, SHORT)},
        {"type": "section", "text": _plain(title, LONG)},
        {"type": "section", "fields": [_plain(f"{name}: {one_line(value, SHORT)}", LONG) for name, value in facts]},
    ]
    address = link(url, event["run_id"], row["step_id"])
    if address is not None:
        button = {"type": "button", "text": _plain("Open", SHORT), "url": address}
        blocks.append({"type": "actions", "elements": [button]})
    return {"text": escaped(f"{said}: {one_line(title, SHORT)}"), "blocks": blocks}


def _plain(text: str, most: int) -> dict[str, Any]:
    shown = one_line(text, most)
    return {"type": "plain_text", "text": shown[:most] or "-", "emoji": False}


def escaped(text: str) -> str:
    """As Slack wants text that is no markup of its own."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
