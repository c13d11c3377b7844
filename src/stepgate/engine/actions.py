"""The action an approval is bound to: one hash over everything that decides what will happen."""

from collections.abc import Mapping
from typing import Any

from stepgate.domain import canonical
from stepgate.domain.ids import RequestId, new_id
from stepgate.domain.policy.decide import Verdict
from stepgate.domain.state import Approval, RunState, StepState
from stepgate.executors.base import Executor, Prepared
from stepgate.executors.readings import exact_line, plain, plain_line


def action_hash(
    state: RunState,
    step: StepState,
    revision: int,
    executor: Executor[Any],
    prepared: Prepared,
    resolved_input: Mapping[str, Any],
    workspace_rev: str,
) -> str:
    """sha256 of the canonical action: two actions have one hash only if they would do the same thing.

    A reference in the input is resolved before; files the action names stand in `prepared.action` by digest.
    """
    spec = step.spec
    action = {
        "v": 1,
        "run": state.info.id,
        "step": spec.key,
        "revision": revision,
        "workspace": {"id": state.info.workspace_id, "path": state.info.workspace_path, "rev": workspace_rev},
        "executor": {"type": executor.type, "version": executor.version, "effect": spec.effect.value},
        "input": canonical.digest(canonical.dumps(resolved_input)),
        "retry": {"max_attempts": spec.max_attempts, "backoff_ms": spec.backoff_ms},
        "timeout_ms": spec.timeout_ms,
        "action": prepared.action,
    }
    return canonical.digest(canonical.dumps(action))


def rendering(
    state: RunState, step: StepState, prepared: Prepared, workspace_rev: str, verdict: Verdict
) -> dict[str, Any]:
    """What the approver sees: made by the engine; the plan's own words stand apart, labelled as a claim."""
    shown: dict[str, Any] = {
        **prepared.rendering,
        "step": {"key": step.spec.key, "number": step.spec.number, "type": step.spec.type},
        "workspace": {"path": exact_line(state.info.workspace_path), "rev": workspace_rev},
        "requester": plain_line(state.info.requester.id),
        "requester_kind": state.info.requester.kind,
        "risk": prepared.risk,
        "policy": {"rules": list(verdict.rules), "version": verdict.version},
        "cost_so_far_usd": state.usage.total_usd,
    }
    if others := state.requesters(step)[1:]:
        shown["also_asked_by"] = plain_line(", ".join(others))
    if (editor := step.editor) is not None:
        shown["edited_by"] = editor.id
    if step.spec.why is not None:
        shown["claim"] = plain(step.spec.why)
    if prepared.failure is not None:
        shown["no_preview"] = prepared.failure
    return shown


def question(
    state: RunState,
    step: StepState,
    prepared: Prepared,
    hash_: str,
    shown: str,
    now: int,
    verdict: Verdict,
) -> Approval:
    """A new request for this action; its revision and time are set when it is decided."""
    times = [time for time in (state.info.limits.get("approval_timeout"), verdict.expires_ms) if time is not None]
    expires_ms = min(times, default=None)
    return Approval(
        request_id=RequestId(new_id()),
        revision=len(step.approvals) + 1,
        action_hash=hash_,
        risk=prepared.risk,
        rendering_sha256=canonical.digest(shown.encode()),
        required=verdict.required,
        expires_at=None if expires_ms is None else now + expires_ms * 1000,
        on_expiry=verdict.on_expiry,
        policy_version=verdict.version,
        matched_rules=verdict.rules,
        requested_at=now,
    )
