"""From rows to what people see: times, money and JSON text in the forms that `views` declares."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from stepgate.domain import canonical, journal, money
from stepgate.engine import views
from stepgate.engine.waiting import Reason

Row = Mapping[str, Any]


def moment(value: datetime | None) -> str | None:
    """RFC 3339 in UTC with microseconds and Z."""
    return None if value is None else _time(value)


def _time(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def total(known: Decimal, unknown_calls: int) -> str | None:
    """The sum, or None while the cost of any call is unknown."""
    return None if unknown_calls else money.text(known)


def _known(known: Decimal) -> str:
    return money.text(known) or "0"


def tokens(row: Row) -> views.Tokens:
    return views.Tokens(
        input=row["tokens_input"],
        output=row["tokens_output"],
        cached=row["tokens_cached"],
        reasoning=row["tokens_reasoning"],
    )


def _json(text: str | None) -> Any:
    return None if text is None else canonical.loads(text)


def waiting(reasons: Sequence[Reason]) -> list[views.Waiting]:
    return [views.Waiting(kind=one.kind, step_id=one.step_id, until=moment(one.until)) for one in reasons]


def _run_fields(row: Row, reasons: Sequence[Reason]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "name": row["name"],
        "goal": row["goal"],
        "status": row["status"],
        "reason": row["reason"],
        "waiting_for": waiting(reasons),
        "workspace_path": row["workspace_path"],
        "workspace_mode": row["workspace_mode"],
        "workspace_rev": row["workspace_rev"],
        "labels": row["labels"],
        "metadata": _json(row["metadata"]),
        "requester": views.Actor(id=row["requester"], kind=row["requester_kind"], channel=row["requester_channel"]),
        "limits": _json(row["limits"]),
        "progress": views.Progress(done=row["steps_done"], total=row["steps_total"]),
        "total_cost_usd": total(row["known_cost_usd"], row["unknown_cost_calls"]),
        "tokens": tokens(row),
        "unknown_cost_calls": row["unknown_cost_calls"],
        "head_seq": row["head_seq"],
        "created_at": _time(row["created_at"]),
        "updated_at": _time(row["updated_at"]),
        "started_at": moment(row["started_at"]),
        "completed_at": moment(row["completed_at"]),
        "undone_at": moment(row["undone_at"]),
    }


def run(row: Row, reasons: Sequence[Reason]) -> views.Run:
    return views.Run(**_run_fields(row, reasons))


def run_detail(row: Row, reasons: Sequence[Reason], steps: list[views.Step]) -> views.RunDetail:
    return views.RunDetail(**_run_fields(row, reasons), steps=steps)


def step(row: Row, needs: Sequence[str]) -> views.Step:
    error = _json(row["error"])
    return views.Step(
        id=row["id"],
        run_id=row["run_id"],
        key=row["key"],
        number=row["number"],
        parent_id=row["parent_id"],
        step_type=row["type"],
        status=row["status"],
        reason=row["reason"],
        effect=row["effect"],
        gate=row["gate"],
        needs=list(needs),
        why=row["why"],
        input=_json(row["input"]),
        output=_json(row["output"]),
        output_sha256=row["output_sha256"],
        output_size=row["output_size"],
        omitted=_omitted(row),
        error=None if error is None else views.Failure(**error),
        attempt=row["attempt"],
        max_attempts=row["max_attempts"],
        retry_at=moment(row["retry_at"]),
        cost_usd=total(row["known_cost_usd"], row["unknown_cost_calls"]),
        cost_source=row["cost_source"],
        tokens=tokens(row),
        model=row["model"],
        latency_ms=row["latency_ms"],
        change_set_id=row["change_set_id"],
        workspace_before=row["workspace_before"],
        workspace_after=row["workspace_after"],
        approval=None if row["request_id"] is None else views.ApprovalRef(**_question_fields(row)),
        created_at=_time(row["created_at"]),
        started_at=moment(row["started_at"]),
        completed_at=moment(row["completed_at"]),
    )


def _omitted(row: Row) -> list[Any]:
    """What is there and was left out because it is large."""
    there = {
        "input": True,
        "output": row["has_output"],
        "rendering": row["request_id"] is not None,
    }
    return [name for name, present in there.items() if present and row[name] is None]


def _question_fields(row: Row) -> dict[str, Any]:
    return {
        "request_id": row["request_id"],
        "revision": row["revision"],
        "status": row["request_status"],
        "action_hash": row["action_hash"],
        "risk": row["risk"],
        "rendering": _json(row["rendering"]),
        "requested_at": _time(row["requested_at"]),
        "expires_at": moment(row["expires_at"]),
        "decision": _decision(row),
    }


def _decision(row: Row) -> views.Decision | None:
    if row["verdict"] is None:
        return None
    return views.Decision(
        verdict=row["verdict"],
        actor=views.Actor(id=row["actor"], kind=row["actor_kind"], channel=row["channel"]),
        at=_time(row["decided_at"]),
        reason=row["decision_reason"],
        then=row["then"],
        action_hash=row["decided_hash"],
        implied=row["implied"],
    )


def approval(row: Row) -> views.Approval:
    return views.Approval(
        **_question_fields(row),
        run_id=row["run_id"],
        step_id=row["step_id"],
        step_key=row["key"],
        step_number=row["number"],
        step_type=row["type"],
        goal=row["goal"],
        required=row["required"],
        on_expiry=row["on_expiry"],
        policy_version=row["policy_version"],
        matched_rules=_json(row["matched_rules"]),
    )


def event(row: Row) -> views.Event:
    parsed = journal.parse(row["body"])
    return views.Event(
        seq=row["seq"],
        type=parsed.type,
        step_id=parsed.step_id,
        actor=views.Actor(**parsed.actor._asdict()),
        at=_time(row["at"]),
        data=dict(parsed.data),
        body=row["body"],
        prev_hash=row["prev_hash"].hex(),
        hash=row["hash"].hex(),
    )


def _sums(row: Row) -> dict[str, Any]:
    known, unknown = row["known_cost_usd"], row["unknown_cost_calls"]
    return {
        "calls": row["model_calls"],
        "unknown_calls": unknown,
        "known_cost_usd": _known(known),
        "total_cost_usd": total(known, unknown),
        "tokens": tokens(row),
    }


def cost(run_row: Row, by_step: Sequence[Row], by_model: Sequence[Row]) -> views.Cost:
    return views.Cost(
        run_id=run_row["id"],
        **_sums(run_row),
        by_step=[
            views.StepCost(
                **_sums(row),
                step_id=row["id"],
                key=row["key"],
                number=row["number"],
                cost_source=row["cost_source"],
                model=row["model"],
            )
            for row in by_step
        ],
        by_model=[views.ModelCost(**_sums(row), model=row["model"]) for row in by_model],
    )
