"""From decisions to rows: everything a batch of entries writes, as the projection says it."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from stepgate.domain import canonical
from stepgate.domain.errors import IntegrityError
from stepgate.domain.events import Event
from stepgate.domain.ids import CallId, StepId, new_id
from stepgate.domain.projection import decision_rows, request_row, run_facts, run_row, step_facts, step_row
from stepgate.domain.state import POLICY, Approval, StepState
from stepgate.domain.states import EventType as E
from stepgate.domain.webhooks import EVENTS
from stepgate.storage.attachments import Attachments, ChangeSetRow, SettledCallRow
from stepgate.storage.entry import Entry
from stepgate.storage.full import Rows

TOLD = frozenset(EVENTS)


def collect(entries: Iterable[Entry]) -> Rows:
    """The rows of all entries; they are all new runs, or all changes of runs that exist."""
    rows = Rows()
    for entry in entries:
        _collect(rows, entry)
    return rows


def _collect(rows: Rows, entry: Entry) -> None:
    attachments = [submission.attachments for submission in entry.submissions]
    _run(rows, entry, attachments)
    for record in entry.records:
        rows.events.append((*record[:6], record.body.decode(), record.prev_hash, record.hash))
    added = _added(entry.events)
    inputs = {step: text for attached in attachments for step, text in attached.inputs.items()}
    for step_id in added:
        _new_step(rows, entry, entry.after.steps[step_id], inputs[step_id])
    renderings = {request: text for attached in attachments for request, text in attached.renderings.items()}
    for step_id in entry.touched():
        step = entry.after.steps[step_id]
        if step_id not in added:
            rows.steps.append((*step_row(entry.run_id, step), inputs.get(step_id), entry.outputs.get(step_id)))
        _approvals(rows, entry, step, renderings)
    _change_sets(rows, entry, attachments)
    _calls(rows, entry, attachments)
    _notices(rows, entry)
    _idempotency(rows, entry, attachments)


def _run(rows: Rows, entry: Entry, attachments: Sequence[Attachments]) -> None:
    state, head = entry.after, entry.head
    plan = next((attached.plan for attached in reversed(attachments) if attached.plan is not None), None)
    row = run_row(state)
    if entry.before is None:
        rows.runs.append((*run_facts(state), *row[1:], head.seq, head.hash, plan))
        return
    guard = (entry.epoch, entry.base.seq, entry.not_after, entry.over, entry.advanced)
    rows.runs.append((*row, head.seq, head.hash, plan, *guard))
    if state.workspace_rev is not None and state.workspace_rev != entry.before.workspace_rev:
        rows.workspaces.append((state.info.workspace_id, state.workspace_rev, entry.run_id))


def _added(events: Iterable[Event]) -> Mapping[StepId, None]:
    found: dict[StepId, None] = {}
    for event in events:
        if event.type is E.STEP_ADDED and event.step_id is not None:
            found[event.step_id] = None
        elif event.type is E.RUN_PLANNED:
            found |= dict.fromkeys(StepId(step["id"]) for step in event.data["steps"])
    return found


def _new_step(rows: Rows, entry: Entry, step: StepState, text: str) -> None:
    facts, row = step_facts(entry.run_id, step), step_row(entry.run_id, step)
    rows.new_steps.append((*facts, *row[2:], text, entry.outputs.get(step.id), entry.after.info.tenant))
    for position, need in enumerate(step.spec.needs):
        rows.needs.append((entry.run_id, step.id, position, need))


def _approvals(rows: Rows, entry: Entry, step: StepState, renderings: Mapping[Any, str]) -> None:
    """Questions that are new or changed, and decisions that were not there before."""
    earlier: tuple[Approval, ...] = ()
    if entry.before is not None and (before := entry.before.steps.get(step.id)) is not None:
        earlier = before.approvals
    if step.approvals is earlier:
        return
    tenant = entry.after.info.tenant
    for n, approval in enumerate(step.approvals):
        known = earlier[n] if n < len(earlier) else None
        if known == approval:
            continue
        if known is None:
            text = renderings[approval.request_id]
            rows.new_requests.append((*request_row(entry.run_id, step, approval), text, tenant))
        elif known.status is not approval.status or known.reminded != approval.reminded:
            rows.requests.append((entry.run_id, approval.request_id, approval.status.value, approval.reminded))
        heard = 0 if known is None else len(known.voices)
        rows.decisions += [(*row, tenant) for row in decision_rows(entry.run_id, approval)[heard:]]


def _change_sets(rows: Rows, entry: Entry, attachments: Iterable[Attachments]) -> None:
    """A set is applied by the event that completes its step; the order of those events is the order of application."""
    recorded: dict[str, Event] = {}
    applied: dict[str, tuple[int, int]] = {}
    for record, event in zip(entry.records, entry.events, strict=True):
        if event.type is E.STEP_COMPUTED or event.type is E.STEP_COMPLETED:
            change_set_id = event.data["change_set_id"]
            if change_set_id is not None:
                recorded.setdefault(change_set_id, event)
                if event.type is E.STEP_COMPLETED:
                    applied[change_set_id] = (record.seq, record.at)
    for attached in attachments:
        for change_set in attached.change_sets:
            computed = recorded.get(change_set.id)
            if computed is None:  # its result was discarded
                continue
            if computed.data["change_set_digest"] != change_set.digest:
                raise IntegrityError(f"change set {change_set.id} is not the one its step recorded")
            seq, at = applied.pop(change_set.id, (None, None))
            _change_set(rows, entry, change_set, (computed.at, seq, at))
    rows.applied += [(entry.run_id, change_set_id, seq, at) for change_set_id, (seq, at) in applied.items()]


def _change_set(rows: Rows, entry: Entry, given: ChangeSetRow, times: tuple[int, int | None, int | None]) -> None:
    tenant = entry.after.info.tenant
    rows.change_sets.append((entry.run_id, given.id, given.step_id, given.workspace_id, given.digest, *times, tenant))
    for position, change in enumerate(given.body["changes"]):
        before, after = (
            None if change[side] is None else canonical.dumps(change[side]).decode() for side in ("before", "after")
        )
        rows.files.append((entry.run_id, given.id, position, change["path"], change["op"], before, after))


def _calls(rows: Rows, entry: Entry, attachments: Sequence[Attachments]) -> None:
    called = {row.id: row for attached in attachments for row in attached.calls}
    details = {row.id: row for attached in attachments for row in attached.settled_calls}
    fresh: dict[str, tuple[Any, ...]] = {}
    settled: dict[str, tuple[Any, ...]] = {}
    for event in entry.events:
        if event.type is E.MODEL_CALLED and event.step_id is not None:
            data = event.data
            attempt = entry.after.steps[event.step_id].attempt
            fresh[data["call_id"]] = (
                event.step_id,
                attempt,
                data["router"],
                data["request_hash"],
                data["model"],
                event.at,
                entry.after.info.tenant,
            )
        elif event.type is E.MODEL_SETTLED:
            detail = details.get(event.data["call_id"]) or SettledCallRow(event.data["call_id"])
            settled[event.data["call_id"]] = (*_said(event), *detail[1:])
    for call_id, asked in fresh.items():
        provider = called[CallId(call_id)].provider if call_id in called else None
        rest = settled.pop(call_id, ("called", *_UNSAID, provider, *[None] * (len(SettledCallRow._fields) - 2)))
        rows.new_calls.append((entry.run_id, call_id, *rest, *asked))
    rows.settled += [(entry.run_id, call_id, *said) for call_id, said in settled.items()]


_UNSAID = (None,) * 10


def _said(event: Event) -> tuple[Any, ...]:
    data = event.data
    tokens, cost = data["tokens"], data["cost_usd"]
    return (
        data["status"],
        data["model"],
        None if cost is None else Decimal(cost),
        data["cost_source"],
        tokens["input"],
        tokens["output"],
        tokens["cached"],
        tokens["reasoning"],
        data["latency_ms"],
        event.at,
        data.get("answer_sha256"),
    )


def _notices(rows: Rows, entry: Entry) -> None:
    """What webhooks may want to tell; a question that a rule answered at once is nobody's business."""
    told = [event.type in TOLD for event in entry.events]
    if not any(told):
        return
    ruled = {event.data["request_id"] for event in entry.events if event.actor == POLICY and "request_id" in event.data}
    for record, event, wanted in zip(entry.records, entry.events, told, strict=True):
        if wanted and event.data.get("request_id") not in ruled:
            tenant = entry.after.info.tenant
            rows.notices.append((entry.run_id, new_id(), tenant, record.seq, event.type.value, event.at, event.at))


def _idempotency(rows: Rows, entry: Entry, attachments: Iterable[Attachments]) -> None:
    for attached in attachments:
        record = attached.idempotency
        if record is not None:
            rows.idempotency.append((entry.run_id, *record, entry.after.last_at))
