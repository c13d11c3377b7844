"""Every set of rules that counts is recorded first; newer ones are taken up without a restart, faulty ones never."""

import asyncio
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from stepgate.domain.errors import Conflict, InvalidPolicy
from stepgate.engine import audit
from stepgate.engine.policies import PolicyVersion
from stepgate.storage.policies import PolicyVersions
from stepgate.storage.reads.audit import evidence
from tests.engine.test_audit import KEY, resigned
from tests.worker.conftest import OpenLab
from tests.worker.lab import PERSON, Lab, eventually, step_of
from tests.worker.rules import policy_file, rule

TOUCH = {"key": "c", "type": "run_command", "input": {"argv": ["touch", "made"]}}
ALLOW = rule("allow", "touch", executor="run_command", argv=["touch", "made"])
DENY = rule("deny", "no-touch", argv=["touch"], rest="any")


def document(*rules: dict[str, Any]) -> dict[str, Any]:
    return {"version": 1, "rules": list(rules)}


async def versions(lab: Lab) -> list[PolicyVersion]:
    return (await lab.stack.policies.page(None, 50)).items


async def end_of_touch(lab: Lab) -> str | None:
    """How policy sees the step now: the status it comes to, or the reason of its end."""
    run_id = await lab.create([TOUCH])
    state = await lab.until(run_id, lambda state: state.finished or bool(state.asking))
    step = step_of(state, "c")
    return step.reason or step.status.value


async def test_a_file_is_recorded_once_by_whoever_reads_it(open_lab: OpenLab, tmp_path: Path) -> None:
    path = policy_file(tmp_path, DENY)
    await open_lab(policy=path)
    lab = await open_lab(policy=path)
    assert await end_of_touch(lab) == "denied"
    (one,) = await versions(lab)
    assert (one.source, one.rules, one.current) == ("file", 1, True)
    assert (await lab.stack.policies.get(one.version[:12])).document["rules"][0]["name"] == "no-touch"


async def test_what_another_process_sent_counts_here_from_the_next_look_on(open_lab: OpenLab) -> None:
    worker, server = await open_lab(), await open_lab(worker=False)
    assert await end_of_touch(worker) == "awaiting_approval"
    run_id = await worker.create([TOUCH])
    asked = await worker.until_step(run_id, "c", "awaiting_approval")
    applied = await server.stack.policies.apply(document(DENY), "ada")
    await worker.stack.policies.look_again()
    assert worker.stack.policies.current.version == applied.version
    assert asked.approval is not None
    await server.engine.approve(run_id, asked.id, PERSON, action_hash=asked.approval.action_hash)
    worker.worker.ring(run_id)
    state = await worker.until_status(run_id, "failed")
    assert step_of(state, "c").reason == "denied"
    assert list(worker.workspace.iterdir()) == []
    await worker.verify(run_id)


async def test_a_process_looks_again_by_itself(open_lab: OpenLab, tmp_path: Path) -> None:
    path = policy_file(tmp_path, DENY)
    lab = await open_lab(policy=path, worker_check_interval=0.05)
    first = lab.stack.policies.current.version
    policy_file(tmp_path, ALLOW)

    async def changed() -> bool:
        return lab.stack.policies.current.version != first

    await eventually(changed, lab.stack.policies.health)
    assert await end_of_touch(lab) == "completed"


async def test_a_faulty_file_changes_nothing_and_is_told(open_lab: OpenLab, tmp_path: Path) -> None:
    path = policy_file(tmp_path, DENY)
    lab = await open_lab(policy=path)
    policies = lab.stack.policies
    standing = policies.current.version
    for break_it in (lambda: policy_file(tmp_path, rule("maybe")), lambda: path.write_text("{"), path.unlink):
        break_it()
        await policies.look_again()
        health = policies.health()
        assert (health.version, health.source) == (standing, "file")
        assert str(path) in (health.error or "")
        assert await end_of_touch(lab) == "denied"
    policy_file(tmp_path, ALLOW)
    await policies.look_again()
    assert policies.health().error is None
    assert await end_of_touch(lab) == "completed"


async def test_a_file_of_the_state_folder_that_is_taken_away_counts_until_a_restart(
    open_lab: OpenLab, tmp_path: Path
) -> None:
    lab = await open_lab()
    path = policy_file(tmp_path / "state", DENY, name="stepgate.policy.yaml")
    await lab.stack.policies.look_again()
    assert await end_of_touch(lab) == "denied"
    path.unlink()
    await lab.stack.policies.look_again()
    assert await end_of_touch(lab) == "denied"
    assert "gone" in (lab.stack.policies.health().error or "")


async def test_where_a_file_counts_nothing_else_does(open_lab: OpenLab, tmp_path: Path) -> None:
    free = await open_lab(worker=False)
    await free.stack.policies.apply(document(ALLOW), "ada")
    lab = await open_lab(policy=policy_file(tmp_path, DENY))
    assert await end_of_touch(lab) == "denied"
    with pytest.raises(Conflict) as caught:
        await lab.stack.policies.apply(document(ALLOW), "ada")
    assert caught.value.reason_code == "policy_from_file"
    assert [(one.source, one.current) for one in await versions(lab)] == [("file", True), ("api", False)]


async def test_rules_are_added_one_upon_the_other(open_lab: OpenLab) -> None:
    lab = await open_lab(worker=False)
    policies = lab.stack.policies
    first = await policies.apply(document(DENY), "ada", "builtin-1")
    assert (await policies.apply(document(DENY), "bob")).created_by == "ada"
    with pytest.raises(Conflict) as caught:
        await policies.apply(document(ALLOW), "bob", "builtin-1")
    assert (caught.value.reason_code, caught.value.details) == ("policy_changed", {"version": first.version})
    racing = [policies.apply(document(rule("ask", f"r{number}")), "bob", first.version) for number in range(5)]
    results = await asyncio.gather(*racing, return_exceptions=True)
    assert sum(isinstance(one, Conflict) for one in results) == 4
    await policies.apply(document(DENY), "cyd")
    told = [(one.created_by, one.current) for one in await versions(lab)]
    assert told == [("cyd", True), ("bob", False), ("ada", False)]


async def test_versions_can_be_looked_at_while_the_file_is_faulty(open_lab: OpenLab, tmp_path: Path) -> None:
    free = await open_lab(worker=False)
    applied = await free.stack.policies.apply(document(DENY), "ada")
    lab = await open_lab(policy=policy_file(tmp_path, rule("maybe")), worker=False)
    assert [(one.version, one.current) for one in await versions(lab)] == [(applied.version, False)]
    assert (await lab.stack.policies.get(applied.version)).document == applied.document
    with pytest.raises(InvalidPolicy):
        await lab.stack.policies.get("current")


async def test_whoever_looks_at_what_counts_sees_what_another_process_was_just_sent(open_lab: OpenLab) -> None:
    one, other = await open_lab(worker=False), await open_lab(worker=False)
    assert (await other.stack.policies.get("current")).version == "builtin-1"
    applied = await one.stack.policies.apply(document(DENY), "ada")
    assert (await other.stack.policies.get("current")).version == applied.version
    await other.stack.policies.apply(document(ALLOW), "bob", applied.version)


async def test_rules_whose_examples_fail_count_nowhere(open_lab: OpenLab) -> None:
    lab = await open_lab(worker=False)
    wrong = {**DENY, "examples": {"match": [{"executor": "run_command", "argv": ["ls"]}]}}
    with pytest.raises(InvalidPolicy):
        await lab.stack.policies.apply(document(wrong), "ada")
    assert await versions(lab) == []
    assert (await lab.stack.policies.get("current")).version == "builtin-1"


async def test_a_version_stays_what_it_is(open_lab: OpenLab) -> None:
    lab = await open_lab(worker=False)
    await lab.stack.policies.apply(document(DENY), "ada")
    table = "stepgate.policy_versions"
    texts = (
        f"UPDATE {table} SET content = '{{}}'",
        f"DELETE FROM {table}",
        f"TRUNCATE {table}",
        f"INSERT INTO {table} SELECT tenant_id, 9, version, '{{}}', source, created_by, created_at FROM {table}",
    )
    for text in texts:
        connection = await lab.stack.database.connect("test")
        try:
            with pytest.raises(asyncpg.PostgresError):
                await connection.execute(text)
        finally:
            await connection.close()
    assert (await PolicyVersions(lab.stack.database).latest("api")) is not None


async def test_a_bundle_holds_the_rules_it_was_asked_under(open_lab: OpenLab) -> None:
    lab = await open_lab()
    await lab.stack.policies.apply(document(rule("ask", "look", argv=["touch"], rest="any")), "ada")
    run_id = await lab.create([TOUCH])
    asked = await lab.approve(run_id, "c")
    await lab.until_status(run_id, "completed")
    data = audit.export(run_id, *await evidence(lab.stack.database, run_id), KEY)
    assert audit.verify(data).verified
    assert asked.approval is not None
    assert [one["version"] for one in json.loads(data)["policies"]] == [asked.approval.policy_version]
    other = json.dumps({"version": 1, "rules": []})
    forgeries: list[list[dict[str, str]]] = [
        [],
        [{"version": asked.approval.policy_version, "content": other}],
        [{"version": sha256(other.encode()).hexdigest(), "content": other}],
    ]
    for forged in forgeries:
        verdict = audit.verify(resigned({**json.loads(data), "policies": forged}))
        assert not verdict.verified
        assert "polic" in (verdict.reason or "")
