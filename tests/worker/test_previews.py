"""A command that is run ahead of its question: what was seen is what is applied, and nothing else ever happens."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepgate.domain.ids import RunId
from stepgate.domain.state import ApprovalStatus
from tests.worker.conftest import LoseLease, OpenLab
from tests.worker.lab import PERSON, Lab, eventually, processes, statuses, step_of, until_processes
from tests.worker.rules import PREVIEW, policy_file, rule

OpenPreviewing = Callable[..., Any]


@pytest.fixture
def previewing(open_lab: OpenLab, tmp_path: Path) -> OpenPreviewing:
    """Opens a process whose policy wants every command run ahead."""

    async def open_one(*more: dict[str, Any], **settings: Any) -> Lab:
        return await open_lab(policy=policy_file(tmp_path, PREVIEW, *more), **settings)

    return open_one


@pytest.fixture
def marker() -> str:
    """A number of seconds that no other test sleeps for."""
    return f"7{random.randrange(10)}.{random.randrange(10**9):09}"


def command(text: str, key: str = "c", **more: Any) -> dict[str, Any]:
    given = {"command": text, **more.pop("input", {})}
    return {"key": key, "type": "run_command", "input": given, **more}


async def shown(lab: Lab, run_id: RunId, key: str = "c", revision: int = 1) -> dict[str, Any]:
    """What the question of this revision shows, once it is asked."""
    state = await lab.until(
        run_id, lambda now: len(step_of(now, key).approvals) == revision and step_of(now, key).id in now.asking
    )
    view = await lab.stack.queries.step(run_id, step_of(state, key).id)
    assert view.approval is not None
    assert view.approval.rendering is not None
    return view.approval.rendering


def nothing_left(lab: Lab) -> bool:
    return not any(lab.stack._layers.path.iterdir())  # type: ignore[union-attr]


async def change_sets(superuser: Any) -> int:
    return int(await superuser.fetchval("SELECT count(*) FROM stepgate.change_sets"))


async def test_approval_applies_the_very_change_that_was_shown_and_nothing_runs_again(
    previewing: OpenPreviewing,
) -> None:
    lab = await previewing()
    (lab.workspace / "log").write_text("old\n")
    run_id = await lab.create([command("date +%N | tee stamp; echo line >> log; echo warning >&2")])
    seen = await shown(lab, run_id)
    assert (seen["preview"]["exit_code"], seen["preview"]["stderr"], seen["preview"]["cut"]) == (0, "warning\n", False)
    assert "+line" in seen["diff"]
    assert {entry["path"]: entry["op"] for entry in seen["files"]} == {"log": "modify", "stamp": "create"}
    assert (lab.workspace / "log").read_text() == "old\n"
    assert not (lab.workspace / "stamp").exists()
    await lab.until_idle()
    assert nothing_left(lab)
    await lab.approve(run_id, "c")
    state = await lab.until_status(run_id, "completed")
    stamp = (lab.workspace / "stamp").read_text()
    assert stamp == seen["preview"]["stdout"]
    assert (await lab.output(run_id, "c"))["stdout"] == stamp
    assert (lab.workspace / "log").read_text() == "old\nline\n"
    assert await lab.events(run_id, "c") == [
        "step.preparing",
        "step.prepared",
        "approval.requested",
        "approval.approved",
        "step.computed",
        "step.completed",
    ]
    assert (step_of(state, "c").attempt, len(step_of(state, "c").approvals)) == (1, 1)
    await lab.verify(run_id)


async def test_an_approval_given_to_another_worker_applies_the_same_change(previewing: OpenPreviewing) -> None:
    first = await previewing()
    run_id = await first.create([command("date +%N > stamp; cat stamp")])
    seen = await shown(first, run_id)
    asked = await first.step(run_id, "c")
    await first.worker.stop()
    assert asked.approval is not None
    await first.engine.approve(run_id, asked.id, PERSON, action_hash=asked.approval.action_hash)
    second = await previewing()
    await second.until_status(run_id, "completed")
    assert (second.workspace / "stamp").read_text() == seen["preview"]["stdout"]


async def test_a_command_without_changes_completes_with_the_output_that_was_shown(previewing: OpenPreviewing) -> None:
    lab = await previewing()
    run_id = await lab.create([command("date +%N")])
    seen = await shown(lab, run_id)
    assert (seen["diff"], seen["files"]) == ("", [])
    await lab.approve(run_id, "c")
    await lab.until_status(run_id, "completed")
    assert (await lab.output(run_id, "c"))["stdout"] == seen["preview"]["stdout"]
    assert "step.started" not in await lab.events(run_id, "c")


@pytest.mark.parametrize("end", ["reject", "skip", "cancel", "expire"])
async def test_what_is_not_approved_leaves_nothing_behind(previewing: OpenPreviewing, superuser: Any, end: str) -> None:
    limits = {"approval_timeout": "1s"} if end == "expire" else {}
    lab = await previewing()
    run_id = await lab.create([command("echo a > a; echo said")], limits=limits)
    if end != "expire":
        await shown(lab, run_id)
    match end:
        case "reject":
            await lab.reject(run_id, "c", "abort")
        case "skip":
            await lab.engine.skip(run_id, (await lab.step(run_id, "c")).id, PERSON, None)
        case "cancel":
            await lab.engine.cancel(run_id, PERSON)
        case _:
            pass
    await lab.until_status(run_id, "completed" if end == "skip" else "cancelled")
    await lab.until_idle()
    assert list(lab.workspace.iterdir()) == []
    assert nothing_left(lab)
    assert await change_sets(superuser) == 0

    async def silent() -> bool:
        return bool(await superuser.fetchval("SELECT count(*) = 0 FROM stepgate.output_chunks"))

    await eventually(silent, lambda: "what it printed is still there")
    step = await lab.step(run_id, "c")
    assert step.result is None
    assert await lab.output(run_id, "c") is None
    await lab.verify(run_id)


async def test_its_output_reaches_no_step_before_the_approval(previewing: OpenPreviewing) -> None:
    lab = await previewing()
    after = {"key": "m", "type": "analyze", "input": {"instruction": "Say it again"}, "needs": []}
    held = {"key": "h", "type": "hold", "input": {"name": "h"}, "needs": []}
    reads = {"key": "r", "type": "echo", "input": {"text": '${{ steps.c.output.stdout | default("none") }}'}}
    run_id = await lab.create(
        [command("echo sesame", needs=[]), {**reads, "needs": ["c"]}, held, {**after, "needs": ["h"]}]
    )
    assert (await shown(lab, run_id))["preview"]["stdout"] == "sesame\n"
    lab.kit.hold.open["h"].set()
    await lab.until_step(run_id, "m", "completed")
    assert "sesame" not in str(await lab.output(run_id, "m"))
    assert (await lab.step(run_id, "r")).status == "pending"
    await lab.reject(run_id, "c", "skip")
    await lab.until_status(run_id, "completed")
    assert (await lab.output(run_id, "r"))["text"] == "none"


async def test_a_file_it_changed_that_moved_meanwhile_makes_it_run_again_under_a_new_question(
    previewing: OpenPreviewing,
) -> None:
    lab = await previewing()
    (lab.workspace / "log").write_text("old\n")
    run_id = await lab.create([command("echo line >> log")])
    assert " old\n+line" in (await shown(lab, run_id))["diff"]
    (lab.workspace / "log").write_text("mine\n")
    await lab.approve(run_id, "c")
    assert " mine\n+line" in (await shown(lab, run_id, revision=2))["diff"]
    assert (lab.workspace / "log").read_text() == "mine\n"
    await lab.approve(run_id, "c")
    state = await lab.until_status(run_id, "completed")
    assert (lab.workspace / "log").read_text() == "mine\nline\n"
    assert step_of(state, "c").approvals[0].status is ApprovalStatus.SUPERSEDED
    await lab.verify(run_id)


async def test_a_file_it_names_that_changed_meanwhile_makes_it_run_again(previewing: OpenPreviewing) -> None:
    lab = await previewing()
    (lab.workspace / "tool.sh").write_text("echo good > made\n")
    run_id = await lab.create([{"key": "c", "type": "run_command", "input": {"argv": ["sh", "tool.sh"]}}])
    assert "+good" in (await shown(lab, run_id))["diff"]
    (lab.workspace / "tool.sh").write_text("echo evil > made\n")
    await lab.approve(run_id, "c")
    assert "+evil" in (await shown(lab, run_id, revision=2))["diff"]
    assert not (lab.workspace / "made").exists()


async def test_a_change_of_another_run_in_the_workspace_makes_it_run_again(previewing: OpenPreviewing) -> None:
    lab = await previewing()
    run_id = await lab.create([command("cat *.txt; echo x > out")])
    first = await shown(lab, run_id)
    other = await lab.create([{"key": "e", "type": "edit_file", "input": {"path": "new.txt", "content": "new\n"}}])
    await lab.approve(other, "e")
    await lab.until_status(other, "completed")
    await lab.approve(run_id, "c")
    second = await shown(lab, run_id, revision=2)
    assert (first["preview"]["stdout"], second["preview"]["stdout"]) == ("", "new\n")
    assert not (lab.workspace / "out").exists()
    await lab.approve(run_id, "c")
    await lab.until_status(run_id, "completed")
    assert (lab.workspace / "out").exists()


async def test_a_failed_end_is_shown_and_an_approval_records_it_without_another_run(
    previewing: OpenPreviewing,
) -> None:
    lab = await previewing()
    run_id = await lab.create([command("date +%N; echo a > a; exit 3")])
    seen = await shown(lab, run_id)
    assert (seen["preview"]["exit_code"], seen["preview"]["failed"]) == (3, "exit code 3")
    assert "no_preview" not in seen
    await lab.approve(run_id, "c")
    state = await lab.until_status(run_id, "failed")
    assert step_of(state, "c").reason == "exit_nonzero"
    assert list(lab.workspace.iterdir()) == []
    output = await lab.output(run_id, "c")
    assert (output["exit_code"], output["stdout"]) == (3, seen["preview"]["stdout"])
    assert "step.started" not in await lab.events(run_id, "c")
    await lab.verify(run_id)


async def test_a_failure_that_the_plan_allows_keeps_its_changes(previewing: OpenPreviewing) -> None:
    lab = await previewing()
    run_id = await lab.create([command("echo a > a; exit 3", input={"allow_failure": True})])
    assert (await shown(lab, run_id))["preview"]["exit_code"] == 3
    await lab.approve(run_id, "c")
    await lab.until_status(run_id, "completed")
    assert (lab.workspace / "a").read_text() == "a\n"


@pytest.mark.parametrize(
    ("text", "given", "why"),
    [
        ("sleep 60", {"limits": {"wall_s": 0.2}}, "killed after 0.2 s"),
        ("mkfifo pipe", {}, "pipe"),
        ("mkdir .git; touch .git/x", {}, "protected"),
    ],
    ids=["killed", "refused", "protected"],
)
async def test_where_no_preview_can_be_made_the_question_says_why_and_the_command_runs_once_approved(
    previewing: OpenPreviewing, text: str, given: dict[str, Any], why: str
) -> None:
    lab = await previewing()
    run_id = await lab.create([command(text, input=given)])
    seen = await shown(lab, run_id)
    assert why in seen["no_preview"]
    assert f"no preview: {seen['no_preview']}" in seen["notes"]
    assert seen["command"] == text
    assert list(lab.workspace.iterdir()) == []
    await lab.approve(run_id, "c")
    state = await lab.until_status(run_id, "failed")
    assert len(step_of(state, "c").approvals) == 1
    assert (await lab.events(run_id, "c")).count("step.started") == 1
    await lab.verify(run_id)


async def test_a_preview_that_takes_longer_than_the_step_may_is_given_up(previewing: OpenPreviewing) -> None:
    lab = await previewing()
    run_id = await lab.create([command("ls | grep -q w && echo done > done || sleep 60", timeout="4s")])
    assert "longer than its 4 s" in (await shown(lab, run_id))["no_preview"]
    (lab.workspace / "now").write_text("")
    await lab.approve(run_id, "c")
    await lab.until_status(run_id, "completed")
    assert (lab.workspace / "done").exists()


async def test_many_previews_keep_to_the_limit_of_their_type(previewing: OpenPreviewing, marker: str) -> None:
    lab = await previewing(concurrency={"*": 64, "run_command": 2})
    texts = [f"sleep {marker} & sleep 0.05; kill $!; echo {number}" for number in range(8)]
    runs = [await lab.create([command(text)]) for text in texts]
    most = 0

    async def count() -> None:
        nonlocal most
        while True:
            most = max(most, len(await asyncio.to_thread(processes, f"sleep\0{marker}")))

    watching = asyncio.create_task(count())
    try:
        for number, run_id in enumerate(runs):
            assert (await shown(lab, run_id))["preview"]["stdout"] == f"{number}\n"
    finally:
        watching.cancel()
    assert most <= 2


async def test_nobody_waits_for_a_person_to_use_the_workspace(previewing: OpenPreviewing) -> None:
    lab = await previewing()
    waiting = [await lab.create([command(f"echo {name} > {name}")]) for name in ("a", "b")]
    for run_id in waiting:
        await shown(lab, run_id)
    edit = {"key": "e", "type": "edit_file", "input": {"path": "c", "content": "c\n"}}
    other = await lab.create([edit])
    await lab.approve(other, "e")
    await lab.until_status(other, "completed")


async def test_a_stopped_run_stops_its_preview_and_a_resumed_one_makes_it_anew(
    previewing: OpenPreviewing, marker: str
) -> None:
    lab = await previewing()
    run_id = await lab.create([command(f"ls | grep -q . || sleep {marker}; echo x > x")])
    await until_processes(f"sleep\0{marker}", 1)
    assert (await lab.step(run_id, "c")).status == "preparing"
    await lab.engine.pause(run_id, PERSON)
    await lab.until_status(run_id, "paused")
    await lab.until_idle()
    assert processes(f"sleep\0{marker}") == set()
    assert nothing_left(lab)
    (lab.workspace / "wake").write_text("")
    await lab.engine.resume(run_id, PERSON)
    await shown(lab, run_id)
    await lab.approve(run_id, "c")
    await lab.until_status(run_id, "completed")
    await lab.verify(run_id)


async def test_a_worker_lost_in_a_preview_leaves_one_question(
    previewing: OpenPreviewing, lose_lease: LoseLease, marker: str
) -> None:
    lost = await previewing()
    # The lost worker does not hear that it is: its command ends by its own limit.
    text = f"ls | grep -q . || sleep {marker}; echo x > x"
    run_id = await lost.create([command(text, input={"limits": {"wall_s": 4}})])
    await until_processes(f"sleep\0{marker}", 1)
    (lost.workspace / "wake").write_text("")
    await lose_lease(lost)
    other = await previewing()
    await shown(other, run_id)
    await lost.until_idle()
    await until_processes(f"sleep\0{marker}", 0)
    events = await other.events(run_id, "c")
    assert events.count("approval.requested") == 1
    await other.approve(run_id, "c")
    await other.until_status(run_id, "completed")
    await other.verify(run_id)


async def test_blobs_are_durable_before_anybody_is_asked(
    previewing: OpenPreviewing, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = await previewing()
    blobs = lab.stack.blobs
    order: list[str] = []
    put, sync, submit = blobs.put, blobs.sync, lab.stack.committer.submit

    def putting(data: bytes) -> str:
        order.append("put")
        name: str = put(data)
        return name

    def syncing() -> None:
        sync()
        order.append("sync")

    def submitting(handle: Any, commands: Any, attachments: Any = None) -> Any:
        order.extend(type(one).__name__ for one in commands)
        return submit(handle, commands, attachments)

    monkeypatch.setattr(blobs, "put", putting)
    monkeypatch.setattr(blobs, "sync", syncing)
    monkeypatch.setattr(lab.stack.committer, "submit", submitting)
    run_id = await lab.create([command("echo x > x")])
    await shown(lab, run_id)
    assert order[order.index("Prepare") :] == ["Prepare", "put", "sync", "Ask"]


async def test_lost_blobs_make_it_run_again(previewing: OpenPreviewing) -> None:
    lab = await previewing()
    run_id = await lab.create([command("echo x > x")])
    seen = await shown(lab, run_id)
    lab.stack.blobs.path_of(seen["preview"]["outcome"]).unlink()
    await lab.approve(run_id, "c")
    await shown(lab, run_id, revision=2)
    await lab.approve(run_id, "c")
    await lab.until_status(run_id, "completed")


async def test_what_the_preview_printed_is_made_visible(previewing: OpenPreviewing) -> None:
    lab = await previewing()
    run_id = await lab.create([command("printf '\\033[2Jgone\\n'; seq 1 20000")])
    seen = (await shown(lab, run_id))["preview"]
    assert seen["cut"]
    assert seen["stdout"].endswith("20000\n")
    quiet = await lab.create([command("printf '\\033[2Jgone\\n'")])
    assert (await shown(lab, quiet))["preview"]["stdout"] == "\\x1b[2Jgone\n"


async def test_a_preview_whose_change_a_rule_denies_is_never_asked(previewing: OpenPreviewing, superuser: Any) -> None:
    lab = await previewing(rule("deny", "keys", touches=["keys/**"]))
    run_id = await lab.create([command("mkdir keys; touch keys/a")])
    state = await lab.until_status(run_id, "failed")
    assert (step_of(state, "c").reason, step_of(state, "c").approvals) == ("denied", ())
    assert list(lab.workspace.iterdir()) == []
    assert await change_sets(superuser) == 0


async def test_a_preview_shows_what_a_rule_about_changes_asks_for_and_asks_once(previewing: OpenPreviewing) -> None:
    lab = await previewing(rule("ask", "many", files_over=1))
    run_id = await lab.create([command("touch a b")])
    seen = await shown(lab, run_id)
    assert seen["policy"]["rules"] == ["many", "preview"]
    await lab.approve(run_id, "c")
    state = await lab.until_status(run_id, "completed")
    assert len(step_of(state, "c").approvals) == 1


async def test_a_command_that_a_rule_allows_is_not_run_ahead(open_lab: OpenLab, tmp_path: Path) -> None:
    lab = await open_lab(policy=policy_file(tmp_path, rule("allow", executor="run_command")))
    run_id = await lab.create([command("echo x > x")])
    await lab.until_status(run_id, "completed")
    assert "step.preparing" not in await lab.events(run_id, "c")


async def test_a_command_with_a_secret_is_not_run_ahead(previewing: OpenPreviewing, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "TOKEN").touch(0o600)
    (secrets / "TOKEN").write_text("hush-hush-4711")
    lab = await previewing(secrets_dir=secrets)
    run_id = await lab.create([command("echo x > x", input={"secrets": ["TOKEN"]})])
    assert "preview" not in await shown(lab, run_id)
    assert await lab.events(run_id, "c") == ["approval.requested"]


async def test_a_command_in_no_sandbox_is_not_run_ahead_whatever_a_rule_says(open_lab: OpenLab, tmp_path: Path) -> None:
    anywhere = rule("ask", "preview", {"preview": True}, executor="run_command")
    lab = await open_lab(policy=policy_file(tmp_path, anywhere), sandbox_levels=("unsafe-none",))
    mark = tmp_path / "mark"
    run_id = await lab.create([command(f"touch {mark}")])
    seen = await shown(lab, run_id)
    assert (seen["sandbox"]["level"], "preview" in seen) == ("unsafe-none", False)
    await lab.until_idle()
    assert not mark.exists()


async def test_without_a_policy_nothing_is_run_ahead(lab: Lab) -> None:
    run_id = await lab.create([command("echo x > x")])
    assert "preview" not in await shown(lab, run_id)
    assert statuses(await lab.state(run_id)) == {"c": "awaiting_approval"}
    assert await lab.events(run_id, "c") == ["approval.requested"]
