"""Always allow this: the rule shown is the rule added, and from then on exactly such an action passes."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stepgate.domain.errors import Conflict, InvalidValue, StaleApproval
from stepgate.domain.identity import DEFAULT_TENANT
from stepgate.engine import views
from tests.worker.conftest import OpenLab
from tests.worker.lab import Lab, step_of
from tests.worker.rules import policy_file, rule


def command(*argv: str, key: str = "c", **more: Any) -> dict[str, Any]:
    return {"key": key, "type": "run_command", "input": {"argv": list(argv), **more}}


async def question(lab: Lab, *steps: dict[str, Any]) -> views.Approval:
    run_id = await lab.create(steps)
    state = await lab.until(run_id, lambda state: bool(state.asking))
    approval = state.steps[next(iter(state.asking))].approval
    assert approval is not None
    return await lab.stack.queries.approval(DEFAULT_TENANT, approval.request_id)


async def add(lab: Lab, asked: views.Approval, **more: Any) -> Any:
    given: dict[str, Any] = {"action_hash": asked.action_hash, "until": None, "anyone": False, "replaces": None}
    return await lab.stack.always.add(asked, "ada", **given | more)


async def refused(lab: Lab, asked: views.Approval) -> str:
    with pytest.raises(Conflict) as caught:
        await lab.stack.always.show(asked, "ada", None, anyone=False)
    assert caught.value.reason_code == "cannot_allow"
    return caught.value.message


async def test_what_was_shown_is_added_and_only_such_an_action_passes(lab: Lab) -> None:
    asked = await question(lab, command("touch", "made"))
    shown = await lab.stack.always.show(asked, "ada", None, anyone=False)
    assert shown.rule["match"]["argv"] == ["touch", "made"]
    assert shown.rule["match"]["executable"][0].endswith("/touch")
    assert (shown.rule["until"], shown.policy_version) == (shown.until.replace(".000000", ""), "builtin-1")
    assert "ada" in " ".join(shown.scope)
    applied = await add(lab, asked, until=datetime.fromisoformat(shown.until), replaces="builtin-1")
    assert applied.document["rules"] == [shown.rule]
    assert applied.created_by == "ada"
    run_id = await lab.create([command("touch", "made"), command("touch", "more", key="d")])
    state = await lab.until(run_id, lambda state: bool(state.asking))
    assert step_of(state, "c").approval.matched_rules == (shown.rule["name"],)  # type: ignore[union-attr]
    assert (step_of(state, "c").status, step_of(state, "d").status) == ("completed", "awaiting_approval")
    still = await lab.stack.queries.approval(DEFAULT_TENANT, asked.request_id)
    assert still.status == "open", "the question itself is nobody's to answer but a person's"
    await lab.verify(run_id)


async def test_a_rule_ends_when_it_said_it_would(lab: Lab) -> None:
    asked = await question(lab, command("touch", "made"))
    now = datetime.fromtimestamp(lab.stack.database.clock.now() / 1e6, UTC)
    for until in (now - timedelta(days=1), now + timedelta(days=400)):
        with pytest.raises(InvalidValue) as caught:
            await add(lab, asked, until=until)
        assert caught.value.field == "until"
    applied = await add(lab, asked, until=now + timedelta(seconds=5))
    ends = datetime.fromisoformat(applied.document["rules"][0]["until"])
    assert timedelta(0) < ends - now <= timedelta(seconds=5)


async def test_somebody_who_looked_at_something_else_adds_nothing(lab: Lab) -> None:
    asked = await question(lab, command("touch", "made"))
    with pytest.raises(StaleApproval):
        await add(lab, asked, action_hash="0" * 64)
    await lab.stack.policies.apply({"version": 1, "rules": [rule("deny", paths=["keys/**"])]}, "bob")
    with pytest.raises(Conflict) as caught:
        await add(lab, asked, replaces="builtin-1")
    assert caught.value.reason_code == "policy_changed"
    applied = await add(lab, asked)
    assert [one["verdict"] for one in applied.document["rules"]] == ["deny", "allow"]


async def test_no_rule_is_made_of_what_it_could_not_tell_apart(lab: Lab) -> None:
    (lab.workspace / "name").write_text("x")
    (lab.workspace / "run").write_text("#!/bin/sh\n")
    (lab.workspace / "run").chmod(0o755)
    read = {"key": "r", "type": "read_file", "input": {"path": "name"}}
    assert "other steps" in await refused(lab, await question(lab, read, command("cat", "${{ steps.r.output.text }}")))
    assert "where steps can change it" in await refused(lab, await question(lab, command("./run")))
    assert "a file" in await refused(lab, await question(lab, command("python3", "tool.py")))
    assert "shell" in await refused(lab, await question(lab, command("touch", "a") | {"input": {"command": "ls"}}))
    assert "variables" in await refused(lab, await question(lab, command("ls", env={"HOME": "x"})))
    assert "standard input" in await refused(lab, await question(lab, command("tee", "a", stdin="x")))
    assert "every time" in await refused(lab, await question(lab, command("ls") | {"gate": "ask"}))


async def test_a_file_and_a_rule_that_asks_stay_stronger(open_lab: OpenLab, tmp_path: Path) -> None:
    lab = await open_lab(policy=policy_file(tmp_path, rule("ask", "look", argv=["touch"], rest="any")))
    assert "look says ask" in await refused(lab, await question(lab, command("touch", "made")))
    asked = await question(lab, command("ls"))
    shown = await lab.stack.always.show(asked, "ada", None, anyone=True)
    assert (shown.policy_source, "requester" in shown.rule["match"]) == ("file", False)
    with pytest.raises(Conflict) as caught:
        await add(lab, asked)
    assert caught.value.reason_code == "policy_from_file"
