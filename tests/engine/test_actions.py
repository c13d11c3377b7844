"""An action's hash: equal for the same action, another one as soon as anything about it would be done otherwise."""

from typing import Any

import pytest

from stepgate.domain.canonical import digest
from stepgate.domain.ids import StepId, new_id
from stepgate.domain.policy.action import Ruling
from stepgate.domain.policy.decide import Verdict
from stepgate.domain.state import RunState, StepState
from stepgate.engine import actions
from stepgate.executors.base import Prepared
from stepgate.executors.edit_file import EditFile
from tests.storage.building import info, spec

INPUT = {"path": "a.txt", "content": "new\n"}
ACTION = {"path": "a.txt", "after": "b" * 64}
RENDERING = {"title": "Edit a.txt", "diff": "+new"}


class Newer(EditFile):
    """The next version of a step type."""

    version = "2"


def hash_of(**changes: Any) -> str:
    state: RunState = changes.get("state", STATE)
    return actions.action_hash(
        state,
        changes.get("step", STEP),
        changes.get("revision", 1),
        changes.get("executor", EditFile()),
        Prepared(changes.get("action", ACTION), changes.get("rendering", RENDERING), "medium"),
        changes.get("resolved", INPUT),
        changes.get("rev", "r1"),
    )


STATE = RunState(info(new_id()))
VERDICT = Verdict(Ruling.ASK, ("default:edit_file",), "builtin-1")
STEP = StepState(spec(1, type="edit_file"))


def test_the_same_action_has_the_same_hash() -> None:
    assert hash_of() == hash_of()


@pytest.mark.parametrize(
    "change",
    [
        {"state": RunState(info(STATE.info.workspace_id))},
        {"state": RunState(STATE.info._replace(workspace_id=new_id()))},
        {"state": RunState(STATE.info._replace(workspace_path="/elsewhere"))},
        {"step": STEP._replace(spec=STEP.spec._replace(key="other"))},
        {"step": STEP._replace(spec=STEP.spec._replace(max_attempts=9))},
        {"step": STEP._replace(spec=STEP.spec._replace(backoff_ms=9))},
        {"step": STEP._replace(spec=STEP.spec._replace(timeout_ms=9))},
        {"revision": 2},
        {"executor": Newer()},
        {"action": {**ACTION, "after": "c" * 64}},
        {"resolved": {**INPUT, "content": "evil\n"}},
        {"rev": "r2"},
    ],
    ids=[
        *("run", "workspace", "workspace path", "step", "attempts", "backoff", "timeout"),
        *("revision", "executor version", "action", "input", "workspace rev"),
    ],
)
def test_whatever_would_be_done_otherwise_changes_the_hash(change: dict[str, Any]) -> None:
    assert hash_of(**change) != hash_of()


def test_how_it_is_shown_does_not_change_the_hash() -> None:
    assert hash_of(rendering={"title": "Something else"}) == hash_of()


def test_the_plan_s_own_words_are_shown_apart_as_a_claim() -> None:
    step = STEP._replace(spec=STEP.spec._replace(why="just runs the tests"))
    shown = actions.rendering(STATE, step, Prepared(ACTION, RENDERING, "high", "it is gone"), "r1", VERDICT)
    assert shown["claim"] == "just runs the tests"
    assert shown["title"] == "Edit a.txt"
    assert (shown["risk"], shown["no_preview"]) == ("high", "it is gone")
    assert shown["workspace"] == {"path": "/w", "rev": "r1"}


@pytest.mark.parametrize(("limits", "expires_at"), [({}, None), ({"approval_timeout": 2000}, 5_000_000)])
def test_a_question_is_bound_to_what_is_shown_and_expires_as_the_run_says(
    limits: dict[str, Any], expires_at: int | None
) -> None:
    state = RunState(STATE.info._replace(limits=limits))
    asked = actions.question(
        state, STEP, Prepared(ACTION, RENDERING, "high"), "h" * 64, '{"title":"x"}', 3_000_000, VERDICT
    )
    assert asked.rendering_sha256 == digest(b'{"title":"x"}')
    assert (asked.action_hash, asked.risk, asked.revision, asked.expires_at) == ("h" * 64, "high", 1, expires_at)
    assert StepId(asked.request_id)
