"""From rows to what people see: times, money and JSON text in the forms that `views` declares."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from stepgate.domain import canonical, journal, money
from stepgate.engine import views
from stepgate.engine.waiting import Reason
from stepgate.storage.origins import Origin
from stepgate.storage.workspaces import Workspace
from stepgate.workspace.git.patch import Patch

if TYPE_CHECKING:
    from stepgate.workspace.git.branch import Branch

Row = Mapping[str, Any]


def time_of(at: int) -> str:
    """Of microseconds."""
    return _time(datetime.fromtimestamp(at // 1_000_000, UTC).replace(microsecond=at % 1_000_000))


def moment(value: datetime | None) -> str | None:
    """RFC 3339 in UTC with microseconds and Z."""
    return None if value is None else _time(value)


def _time(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def total(known: Decimal, unknown_calls: int) -> str | None:
    """The sum, or None while the cost of any call is unknown."""
    return None if unknown_calls else money.text(known)


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
        "workspace": row["workspace"],
        "workspace_path": row["workspace_path"],
        "workspace_mode": row["workspace_mode"],
        "workspace_rev": row["workspace_rev"],
        "forked_from": forked_from(row),
        "labels": row["labels"],
        "metadata": _json(row["metadata"]),
        "requester": views.Actor(id=row["requester"], kind=row["requester_kind"], channel=row["requester_channel"]),
        "limits": _json(row["limits"]),
        "budget": None if row["budget"] is None else views.RunBudget(**_json(row["budget"])),
        "plan_revision": row["plan_revision"],
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


def forked_from(row: Row) -> views.ForkedFrom | None:
    """Of a fork."""
    origin = _json(row["origin"])
    if origin is None:
        return None
    return views.ForkedFrom(**{name: origin[name] for name in views.ForkedFrom.model_fields})


def run(row: Row, reasons: Sequence[Reason]) -> views.Run:
    return views.Run(**_run_fields(row, reasons))


def run_detail(
    row: Row, reasons: Sequence[Reason], steps: list[views.Step], origin: Origin | None = None
) -> views.RunDetail:
    copy = private_copy(row, origin) if row["workspace_mode"] == "isolated" else None
    return views.RunDetail(**_run_fields(row, reasons), private_copy=copy, steps=steps)


def private_copy(row: Row, origin: Origin | None) -> views.PrivateCopy:
    """What is known of an isolated run's copy; nothing before the run is first driven."""
    origin = origin or Origin()
    return views.PrivateCopy(
        path=row["place"],
        files=origin.copied_files,
        bytes=origin.copied_bytes,
        left_out=left_out(origin.left_out),
        made_at=moment(origin.recorded_at) if origin.copied_files is not None else None,
        discarded_at=moment(origin.discarded_at),
    )


def left_out(pairs: Sequence[tuple[str, str]]) -> list[views.LeftOut]:
    return [views.LeftOut(path=path, reason=reason) for path, reason in pairs]


def patch(found: Patch) -> views.Patch:
    return views.Patch(text=found.text, left_out=left_out(found.left_out))


def branch(found: "Branch") -> views.Branch:
    return views.Branch(
        name=found.name,
        commit=found.commit,
        base=found.base,
        commits=[
            views.BranchCommit(commit=made.commit, subject=made.subject, step=made.step) for made in found.commits
        ],
        left_out=left_out(found.left_out),
    )


def workspace(found: Workspace) -> views.Workspace:
    return views.Workspace(
        id=found.id,
        name=found.name or "",
        path=found.root,
        mode=found.mode,
        rev=found.rev,
        created_at=_time(found.created_at),
    )


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
        "policy_version": row["policy_version"],
        "matched_rules": _json(row["matched_rules"]),
        "requested_at": _time(row["requested_at"]),
        "expires_at": moment(row["expires_at"]),
        "on_expiry": row["on_expiry"],
        "required": views.Required(
            count=row["required"], roles=_json(row["roles"]), exclude_requester=row["exclude_requester"]
        ),
        "approvals": [_approved(one) for one in _json(row["approvals"]) or ()],
        "decision": _decision(row),
    }


def _approved(told: Mapping[str, Any]) -> views.Approved:
    actor = views.Actor(id=told["actor"], kind=told["kind"], channel=told["channel"])
    about = {name: told[name] for name in ("on_behalf_of", "at", "reason", "implied")}
    return views.Approved(actor=actor, roles=_json(told["roles"]), **about)


def _decision(row: Row) -> views.Decision | None:
    if row["verdict"] is None:
        return None
    return views.Decision(
        verdict=row["verdict"],
        actor=views.Actor(id=row["actor"], kind=row["actor_kind"], channel=row["channel"]),
        on_behalf_of=row["on_behalf_of"],
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
    )


def live_chunk(row: Row) -> views.LiveChunk:
    return views.LiveChunk(
        seq=row["seq"], attempt=row["attempt"], stream=row["stream"], at=_time(row["at"]), text=row["text"]
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
