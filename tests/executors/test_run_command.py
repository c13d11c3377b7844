import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stepgate.domain import canonical
from stepgate.domain.errors import InvalidValue, SandboxUnavailable, StaleApproval, WorkspaceConflict
from stepgate.domain.plan_faults import check_params
from stepgate.domain.policy.action import Action, Ruling
from stepgate.domain.policy.decide import decide_policy
from stepgate.domain.policy.reading import policy_of
from stepgate.executors.base import Bounds, Done, Failed
from stepgate.executors.command_end import failure
from stepgate.executors.command_params import RunCommandParams
from stepgate.executors.preview import without_preview
from stepgate.executors.run_command import RunCommand
from stepgate.workspace.layers.layer import Capture
from stepgate.workspace.layers.store import Layers
from stepgate.workspace.sandbox.command import Finished, Killed
from stepgate.workspace.sandbox.levels import Level
from stepgate.workspace.sandbox.limits import Limits
from stepgate.workspace.secrets import SecretFolder
from tests.executors.bench import Bench
from tests.fixtures.patience import PATIENCE_S

RUN = RunCommand()
KEYS = {
    *("exit_code", "signal", "stdout", "stderr", "truncated", "killed", "level", "limits", "wall_ms", "cpu_ms"),
    "limited_by",
    *("peak_memory_bytes", "change_set_id", "files"),
}


async def test_a_command_tells_how_it_ended_and_what_it_said(bench: Bench) -> None:
    done = await bench.execute(RUN, {"argv": ["sh", "-c", "echo out; echo err >&2"]})
    assert isinstance(done, Done)
    assert set(done.output) == KEYS
    assert (done.output["exit_code"], done.output["stdout"], done.output["stderr"]) == (0, "out\n", "err\n")
    assert (done.output["killed"], done.output["signal"], done.output["truncated"]) == (None, None, False)
    assert (done.output["change_set_id"], done.output["files"], done.change_set) == (None, [], None)
    assert done.output["level"] == "bwrap-full"
    assert done.output["limits"]["wall_s"] == 20.0
    assert sorted(bench.output) == [("stderr", b"err\n"), ("stdout", b"out\n")]


async def test_what_it_changes_becomes_a_change_set_and_touches_nothing_else(bench: Bench) -> None:
    (bench.path / "f").write_text("old\n")
    (bench.path / "g").write_text("gone\n")
    before = bench.tree()
    done = await bench.execute(RUN, {"command": "echo new > f && rm g && mkdir d && echo made > d/h"})
    assert bench.tree() == before
    assert done.change_set is not None
    assert done.output["change_set_id"] == done.change_set.id
    assert [(entry["path"], entry["op"]) for entry in done.output["files"]] == [
        ("d", "create"),
        ("d/h", "create"),
        ("f", "modify"),
        ("g", "delete"),
    ]
    bench.apply("run", done)
    assert (bench.path / "f").read_text() == "new\n"
    assert (bench.path / "d/h").read_text() == "made\n"


async def test_arguments_reach_the_program_as_they_are(bench: Bench) -> None:
    argv = ["printf", "%s|", "a b", "$HOME", "'", "*", "", "ä\n"]
    done = await bench.execute(RUN, {"argv": argv})
    assert done.output["stdout"] == "a b|$HOME|'|*||ä\n|"


async def test_the_folder_environment_and_input_are_those_given(bench: Bench) -> None:
    (bench.path / "sub").mkdir()
    input_ = {"command": 'pwd; echo "$GREETING"; cat', "cwd": "sub", "env": {"GREETING": "hi"}, "stdin": "in\n"}
    done = await bench.execute(RUN, input_)
    assert done.output["stdout"] == "/workspace/sub\nhi\nin\n"


async def test_variables_passed_on_from_the_worker_are_seen_shown_and_approved(bench: Bench) -> None:
    bench.bounds = replace(bench.bounds, environment={"CI": "yes", "GREETING": "worker"})
    input_ = {"command": 'echo "$CI $GREETING"', "env": {"GREETING": "step"}}
    prepared = await bench.prepare(RUN, input_)
    assert prepared.action["env"] == prepared.rendering["env"] == {"CI": "yes", "GREETING": "step"}
    done = await bench.execute(RUN, input_, prepared=prepared)
    assert done.output["stdout"] == "yes step\n"
    bench.bounds = replace(bench.bounds, environment={"CI": "no"})
    with pytest.raises(StaleApproval):
        await bench.execute(RUN, input_, prepared=prepared)


@pytest.fixture
def secrets(tmp_path: Path) -> SecretFolder:
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    for name, value in (("TOKEN", "correct-horse-battery"), ("OTHER", "another-secret")):
        (folder / name).touch(0o600)
        (folder / name).write_text(value)
    return SecretFolder(folder, b"key")


async def test_names_and_versions_of_secrets_are_shown_and_bound_and_values_given(
    bench: Bench, secrets: SecretFolder
) -> None:
    input_ = {"command": 'echo "$TOKEN"; test ${#TOKEN} = 21', "secrets": ["TOKEN"]}
    prepared = await bench.prepare(RUN, input_, secrets=secrets)
    version = secrets.read("TOKEN", bench.path, "secrets[0]").version
    assert prepared.rendering["secrets"] == prepared.action["secrets"] == {"TOKEN": version}
    assert "horse" not in canonical.dumps([prepared.action, prepared.rendering]).decode()
    done = await bench.execute(RUN, input_, prepared=prepared, secrets=secrets)
    assert isinstance(done, Done)
    assert done.output["stdout"] == "[secret:TOKEN]\n"
    assert bench.output == [("stdout", b"[secret:TOKEN]\n")]


async def test_without_an_approval_no_secret_is_given(bench: Bench, secrets: SecretFolder) -> None:
    outcome = await bench.execute(RUN, {"command": "env", "secrets": ["TOKEN"]}, secrets=secrets)
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.field, outcome.output) == ("not_approved", "secrets", {})


async def test_a_secret_at_the_edge_of_what_is_kept_is_taken_out_whole(bench: Bench, secrets: SecretFolder) -> None:
    input_ = {"command": 'printf "1234567890%s" "$TOKEN"', "secrets": ["TOKEN"], "limits": {"output_bytes": 16}}
    prepared = await bench.prepare(RUN, input_, secrets=secrets)
    done = await bench.execute(RUN, input_, prepared=prepared, secrets=secrets)
    assert (done.output["stdout"], done.output["truncated"]) == ("1234567890[secre", True)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"secrets": ["A", "A"]}, "named twice"),
        ({"secrets": ["A"], "env": {"A": "x"}}, "in env and in secrets"),
        ({"secrets": ["A-B"]}, "A-Za-z_"),
        ({"secrets": ["../A"]}, "A-Za-z_"),
    ],
)
def test_names_of_secrets_are_checked_with_the_plan(more: dict[str, Any], said: str) -> None:
    problems = check_params(RunCommandParams, {"argv": ["true"], **more})
    assert any(said in f"{problem.message} {problem.fix}" for problem in problems), problems


async def test_the_step_tells_who_held_it_to_its_limits(bench: Bench) -> None:
    done = await bench.execute(RUN, {"argv": ["true"]})
    assert done.output["limited_by"] == bench.sandbox.limited_by
    assert (bench.sandbox.limited_by == "cgroup") == (bench.sandbox.groups is not None)


async def test_a_folder_that_is_not_there_is_named(bench: Bench) -> None:
    with pytest.raises(InvalidValue) as caught:
        await bench.execute(RUN, {"argv": ["true"], "cwd": "missing"})
    assert caught.value.field == "cwd"


async def test_a_failing_command_is_a_failure_and_its_changes_are_thrown_away(bench: Bench) -> None:
    outcome = await bench.execute(RUN, {"command": "echo partly > f; echo why >&2; exit 3"})
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.message, outcome.retryable) == ("exit_nonzero", "exit code 3", False)
    assert set(outcome.output) == KEYS
    assert (outcome.output["exit_code"], outcome.output["stderr"]) == (3, "why\n")
    assert outcome.output["files"] == []
    assert bench.tree() == {}


async def test_an_allowed_failure_is_a_result_with_its_changes(bench: Bench) -> None:
    done = await bench.execute(RUN, {"command": "echo partly > f; exit 3", "allow_failure": True})
    assert isinstance(done, Done)
    assert done.output["exit_code"] == 3
    assert [entry["path"] for entry in done.output["files"]] == ["f"]


async def test_a_program_that_is_not_there_is_exit_code_127(bench: Bench) -> None:
    outcome = await bench.execute(RUN, {"argv": ["no-such-program"]})
    assert isinstance(outcome, Failed)
    assert outcome.output["exit_code"] == 127


async def test_a_signal_is_named(bench: Bench) -> None:
    outcome = await bench.execute(RUN, {"command": "kill -SEGV $$"})
    assert isinstance(outcome, Failed)
    assert (outcome.message, outcome.output["signal"]) == ("ended by signal 11 (SIGSEGV)", 11)


@pytest.mark.parametrize(
    ("command", "limits", "killed"),
    [("sleep 60", {"wall_s": 0.3}, "wall"), ("yes", {"output_kill_bytes": 100_000}, "output")],
)
async def test_a_limit_kills_it_and_says_which_even_where_failure_is_allowed(
    bench: Bench, command: str, limits: dict[str, float], killed: str
) -> None:
    outcome = await bench.execute(RUN, {"command": command, "limits": limits, "allow_failure": True})
    assert isinstance(outcome, Failed)
    assert outcome.code == "killed"
    assert (outcome.output["killed"], outcome.output["exit_code"]) == (killed, None)


@pytest.mark.parametrize("why", list(Killed))
def test_every_reason_for_a_kill_has_its_words(why: Killed) -> None:
    limits = Limits()
    ended = Finished(None, 9, why, b"", b"", False, Level.BWRAP_FULL, limits, 1, 1, 1)
    outcome = failure(ended, allow_failure=True)
    assert outcome is not None
    assert outcome[0] == "killed"
    others = {failure(replace(ended, killed=other), allow_failure=True) for other in Killed if other is not why}
    assert outcome not in others


async def test_limits_can_only_be_lowered(bench: Bench) -> None:
    done = await bench.execute(RUN, {"argv": ["true"], "limits": {"wall_s": 5, "pids": 10}})
    assert (done.output["limits"]["wall_s"], done.output["limits"]["pids"]) == (5.0, 10)
    with pytest.raises(InvalidValue) as caught:
        await bench.execute(RUN, {"argv": ["true"], "limits": {"wall_s": 21.0}})
    assert caught.value.field == "limits.wall_s"
    assert (await bench.prepare(RUN, {"argv": ["true"], "limits": {"wall_s": 21.0}})).failure is not None


async def test_output_is_cut_at_its_limit_between_characters(bench: Bench) -> None:
    done = await bench.execute(RUN, {"command": "printf 'aa€bb'", "limits": {"output_bytes": 4}})
    assert (done.output["stdout"], done.output["truncated"]) == ("aa", True)


async def test_bytes_that_are_no_text_are_replaced_and_stay_bounded(bench: Bench) -> None:
    done = await bench.execute(RUN, {"command": r"printf 'a\377b\000c'"})
    assert done.output["stdout"] == "a\ufffdb\ufffdc"
    bounds = Bounds(1 << 20, 10_000, bench.bounds.command)
    done = await bench.execute(RUN, {"command": "head -c 9999 /dev/zero | tr '\\0' '\\001'"}, bounds=bounds)
    assert done.output["truncated"] is True
    assert len(canonical.dumps(done.output["stdout"])) <= 15_002


async def test_a_file_changed_meanwhile_is_drift(bench: Bench) -> None:
    (bench.path / "f").write_text("old\n")
    ready = asyncio.Event()
    context = bench.context(on_output=lambda stream, piece: ready.set())
    params = RunCommandParams.model_validate({"command": "echo new > f; echo ready; head -c 1 >/dev/null; sleep 0.2"})
    running = asyncio.create_task(RUN.execute(context, params))
    await asyncio.wait_for(ready.wait(), PATIENCE_S)
    (bench.path / "f").write_text("somebody else's\n")
    with pytest.raises(WorkspaceConflict) as caught:
        await running
    assert caught.value.reason_code == "drifted"
    assert caught.value.details["paths"] == ["f"]


async def test_cancelled_it_ends_everything_and_leaves_no_layer(bench: Bench) -> None:
    ready = asyncio.Event()
    context = bench.context(on_output=lambda stream, piece: ready.set())
    params = RunCommandParams.model_validate({"command": "echo ready; sleep 60"})
    running = asyncio.create_task(RUN.execute(context, params))
    await asyncio.wait_for(ready.wait(), PATIENCE_S)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.to_thread(bench.layers.settle)
    assert list(bench.layers.path.iterdir()) == []


async def test_without_a_sandbox_nothing_runs(bench: Bench) -> None:
    for call in (bench.prepare, bench.execute):
        with pytest.raises(SandboxUnavailable):
            await call(RUN, {"argv": ["true"]}, sandbox=None)


# What the approver sees, and what the approval covers


async def test_the_approver_sees_the_command_as_it_will_run(bench: Bench) -> None:
    (bench.path / "run.py").write_text("print(1)\n")
    input_ = {"argv": ["python3", "run.py", "a b\x1b[2J"], "env": {"A": "1\u202e"}, "stdin": "in\x07"}
    prepared = await bench.prepare(RUN, input_)
    shown = prepared.rendering
    assert shown["command"] == "python3 run.py 'a b\\x1b[2J'"
    assert shown["env"] == {"A": "1\\u202e"}
    assert shown["stdin"] == "in\\x07"
    assert shown["executable"].endswith("/python3")
    assert shown["cwd"] == "."
    assert shown["sandbox"] == {"level": "bwrap-full", "network": "none"}
    assert shown["reads"] == [{"path": "run.py", "sha256": hashlib.sha256(b"print(1)\n").hexdigest()}]
    assert shown["argv"] == ["python3", "run.py", "a b\\x1b[2J"]
    assert prepared.risk == "high"
    assert any("pass for others" in note for note in shown["notes"])
    plain = await bench.prepare(RUN, {"argv": ["python3", "run.py"]})
    assert (plain.risk, plain.rendering["notes"]) == ("medium", [])
    assert prepared.action["argv"] == input_["argv"]


BASE = {"argv": ["python3", "run.py"], "cwd": ".", "env": {"A": "1"}, "stdin": "x", "limits": {"wall_s": 5}}


@pytest.mark.parametrize(
    "change",
    [
        {"argv": ["python3", "run.py", "-v"]},
        {"argv": ["/usr/bin/env", "run.py"]},
        {"cwd": "sub"},
        {"env": {"A": "2"}},
        {"env": {}},
        {"stdin": "y"},
        {"limits": {"wall_s": 6}},
        {"allow_failure": True},
    ],
)
async def test_everything_that_decides_what_happens_is_in_the_action(bench: Bench, change: dict[str, object]) -> None:
    (bench.path / "sub").mkdir()
    (bench.path / "run.py").write_text("print(1)\n")
    first = await bench.prepare(RUN, BASE)
    assert (await bench.prepare(RUN, {**BASE, **change})).action != first.action
    assert (await bench.prepare(RUN, BASE)).action == first.action


async def test_a_named_file_changed_after_the_approval_makes_it_stale(bench: Bench) -> None:
    (bench.path / "run.py").write_text("print(1)\n")
    prepared = await bench.prepare(RUN, BASE)
    (bench.path / "run.py").write_text("print(2)\n")
    with pytest.raises(StaleApproval):
        await bench.execute(RUN, BASE, prepared=prepared)


@pytest.mark.parametrize(("name", "restored"), [("run.sh", False), ("run.sh", True), ("added.sh", False)])
async def test_a_named_file_changed_while_the_command_runs_makes_it_stale(
    bench: Bench, name: str, restored: bool
) -> None:
    """Commands read files late: the one approved is the one that was there when the command began."""
    (bench.path / "run.sh").write_text("echo approved > out\n")
    script, ready = bench.path / name, asyncio.Event()
    old = script.read_text() if script.exists() else None
    # A pattern names no file, so that only the script is one that the approval is bound to.
    wait = "echo ready; until [ -e go-o? ]; do sleep 0.01; done"
    given = {"command": f"{wait}; if [ -e {name} ]; then sh {name}; fi"}
    prepared = await bench.prepare(RUN, given)
    context = bench.context(on_output=lambda stream, piece: ready.set(), prepared=prepared)
    running = asyncio.create_task(RUN.execute(context, RunCommandParams.model_validate(given)))
    await asyncio.wait_for(ready.wait(), PATIENCE_S)
    script.write_text("echo evil > out\n")
    if restored:
        assert old is not None
        script.write_text(old)
    (bench.path / "go-on").touch()
    with pytest.raises(StaleApproval):
        await running


async def test_a_program_of_the_workspace_is_found_from_its_folder(bench: Bench) -> None:
    (bench.path / "sub").mkdir()
    (bench.path / "sub/go").write_text("#!/bin/sh\necho went\n")
    (bench.path / "sub/go").chmod(0o755)
    prepared = await bench.prepare(RUN, {"argv": ["./go"], "cwd": "sub"})
    assert prepared.rendering["executable"] == "/workspace/sub/go"
    assert set(prepared.action["files"]) == {"sub/go"}
    assert (await bench.execute(RUN, {"argv": ["./go"], "cwd": "sub"})).output["stdout"] == "went\n"


async def test_what_is_too_long_to_show_is_said(bench: Bench) -> None:
    prepared = await bench.prepare(RUN, {"argv": ["true", "x" * 20_000]})
    assert "the command is too long to be shown whole" in prepared.rendering["notes"]
    assert prepared.risk == "high"


@pytest.mark.parametrize(
    ("input_", "field", "words"),
    [
        ({}, "", "there is no command"),
        ({"argv": ["a"], "command": "a"}, "", "both given"),
        ({"argv": []}, "argv", "at least 1"),
        ({"argv": [""]}, "argv", "names no program"),
        ({"argv": ["a\0"]}, "argv[0]", "NUL"),
        ({"argv": "ls -l"}, "argv", "must be a list"),
        ({"command": ""}, "command", "at least 1"),
        ({"argv": ["a"], "cwd": "../x"}, "cwd", "'..'"),
        ({"argv": ["a"], "cwd": "/tmp"}, "cwd", "absolute"),
        ({"argv": ["a"], "env": {"A": 1}}, "env.A", "must be text"),
        ({"argv": ["a"], "limits": {"wall_s": 0}}, "limits.wall_s", "greater than 0"),
        ({"argv": ["a"], "limits": {"time": 1}}, "limits.time", "no such field"),
        ({"argv": ["a"], "allow_failure": "yes"}, "allow_failure", "true or false"),
        ({"argv": ["a"], "shell": True}, "shell", "no such field"),
    ],
)
def test_bad_input_is_named_by_field(input_: dict[str, object], field: str, words: str) -> None:
    problems = check_params(RunCommandParams, input_)
    assert [problem.field for problem in problems] == [field]
    assert words in problems[0].message


@pytest.mark.parametrize("name", ["1A", "A-B", "A=B", "", "Ä"])
def test_names_no_environment_may_hold_are_refused(name: str) -> None:
    assert check_params(RunCommandParams, {"argv": ["a"], "env": {name: "x"}})


def test_a_command_that_names_more_paths_than_anybody_lists_may_fit_a_rule_that_denies() -> None:
    reach = RunCommand().reach(RunCommandParams.model_validate({"argv": ["cat", ",".join(map(str, range(5000)))]}))
    assert (len(reach.paths), reach.cut) == (1000, True)
    rule = {"name": "r", "match": {"paths": ["4999"]}, "verdict": "deny"}
    policy = policy_of({"version": 1, "rules": [rule]})
    assert decide_policy(policy, Action("run_command", Ruling.ALLOW, reach=reach), 0).gate is Ruling.ASK


async def test_a_launched_command_has_done_nothing_until_it_is_finished(bench: Bench) -> None:
    params = RunCommandParams.model_validate({"command": "echo said; echo made > made"})
    launched = await RUN.launch(bench.context(), params)
    assert launched is not None
    prepared = await RUN.prepare(bench.context(), params)
    assert launched.fits(bench.context(), prepared)
    assert bench.output == []
    done = await launched.finish(bench.context(prepared=prepared))
    await launched.discard()
    assert isinstance(done, Done)
    assert (done.output["stdout"], [entry["path"] for entry in done.output["files"]]) == ("said\n", ["made"])


async def test_a_launched_command_that_is_discarded_leaves_nothing(bench: Bench) -> None:
    bench.layers.settle()  # those of earlier commands are being removed
    before = set(bench.layers.path.iterdir())
    launched = await RUN.launch(bench.context(), RunCommandParams.model_validate({"command": "echo said; sleep 300"}))
    assert launched is not None
    await launched.discard()
    await launched.discard()
    bench.layers.settle()
    assert set(bench.layers.path.iterdir()) == before
    assert bench.sandbox._live == set()
    assert bench.output == []


async def test_what_changed_between_the_launch_and_the_look_does_not_fit(bench: Bench) -> None:
    (bench.path / "a.sh").write_text("echo other\n")
    params = RunCommandParams.model_validate({"command": "sh a.sh"})
    launched = await RUN.launch(bench.context(), params)
    assert launched is not None
    (bench.path / "a.sh").write_text("echo approved\n")
    assert not launched.fits(bench.context(), await RUN.prepare(bench.context(), params))
    await launched.discard()


async def test_a_question_without_a_preview_fits_nothing_and_neither_does_another_action(bench: Bench) -> None:
    params = RunCommandParams.model_validate({"command": "true"})
    launched = await RUN.launch(bench.context(), params)
    assert launched is not None
    prepared = await RUN.prepare(bench.context(), params)
    assert launched.fits(bench.context(), prepared)
    other = await RUN.prepare(bench.context(), RunCommandParams.model_validate({"command": "true", "env": {"A": "b"}}))
    blind = without_preview("true", params, InvalidValue("it took too long", field="timeout"))
    assert not launched.fits(bench.context(), other)
    assert not launched.fits(bench.context(), blind)
    await launched.discard()
    assert not launched.fits(bench.context(), prepared)


async def test_nothing_is_launched_over_a_copy(bench: Bench, tmp_path: Path) -> None:
    """It could hold what the files held for a moment, and nobody looks at it again."""
    copies = Layers(tmp_path / "copies", captures=(Capture.COPY,))
    params = RunCommandParams.model_validate({"command": "true"})
    assert await RUN.launch(bench.context(layers=copies), params) is None
    assert list(copies.path.iterdir()) == []


async def test_what_was_not_looked_at_before_the_launch_does_not_fit(bench: Bench) -> None:
    (bench.path / "target").write_text("echo\n")
    (bench.path / "link").symlink_to("target")
    params = RunCommandParams.model_validate({"command": "sh link"})
    launched = await RUN.launch(bench.context(), params)
    assert launched is not None
    assert not launched.fits(bench.context(), await RUN.prepare(bench.context(), params))
    await launched.discard()


@pytest.mark.parametrize("more", [{"secrets": ["TOKEN"]}, {"limits": {"wall_s": 1e6}}])
async def test_nothing_is_launched_with_secrets_or_for_a_command_that_cannot_run(
    bench: Bench, more: dict[str, Any]
) -> None:
    params = RunCommandParams.model_validate({"argv": ["true"], **more})
    assert await RUN.launch(bench.context(), params) is None
    assert bench.sandbox._live == set()
