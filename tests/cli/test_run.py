"""`run`: from a plan to the end of its run, its exit code, and every input that is refused before anything is made."""

import json

import pytest

from tests.cli.conftest import READ, WRITE, Cli

FAILS = """
version: 1
goal: Read what is not there
steps:
  - key: look
    type: read_file
    input: {path: missing.txt}
"""


def test_a_run_completes_and_is_proved(cli: Cli) -> None:
    (cli.cwd / "note.txt").write_text("hello\n")
    done = cli("run", cli.plan(READ))
    assert done.code == 0, done
    assert "✓  1 look" in done.out
    assert "note.txt, 6 B" in done.out
    assert "journal verified: " in done.out
    assert "stepgate show " in done.out
    assert done.err == ""


def test_json_is_the_one_object_and_progress_goes_elsewhere(cli: Cli) -> None:
    done = cli("run", cli.plan(WRITE), "--yes", "--json", "--label", "team=core")
    assert done.code == 0, done
    told = done.json
    assert set(told) >= {
        *("run_id", "status", "verified", "events", "workspace_path", "steps", "total_cost_usd", "tokens"),
        *("duration_s", "model", "undo_command"),
    }
    assert told["status"] == "completed"
    assert told["verified"] is True
    assert told["workspace_path"] == str(cli.cwd)
    assert [step["status"] for step in told["steps"]] == ["completed", "completed"]
    assert told["total_cost_usd"] == "0"
    assert told["undo_command"].endswith(f"undo {told['run_id']}")
    assert "+new" in done.err
    assert "approved by --yes" in done.err
    listed = cli("runs", "--label", "team=core", "--status", "COMPLETED", "--json").json["items"]
    assert [run["id"] for run in listed] == [told["run_id"]]
    assert cli("runs", "--label", "team=other", "--json").json["items"] == []
    assert listed[0]["requester"]["channel"] == "cli"


def test_a_failed_run_ends_with_1_and_says_why(cli: Cli) -> None:
    done = cli("run", cli.plan(FAILS))
    assert done.code == 1, done
    assert "missing.txt" in done.out
    assert "failed" in done.out


def test_without_a_terminal_and_without_yes_a_gate_ends_with_2_and_the_ways_on(cli: Cli) -> None:
    stopped = cli("run", cli.plan(WRITE), "--json")
    assert stopped.code == 2, stopped
    assert stopped.json["status"] == "awaiting_approval"
    assert stopped.json["waiting_for"][0]["kind"] == "approval"
    assert "no terminal to ask on" in stopped.err
    assert not (cli.cwd / "note.txt").exists()
    went_on = cli("run", "--continue", stopped.json["run_id"], "--yes", "--json")
    assert went_on.code == 0, went_on
    assert (cli.cwd / "note.txt").read_text() == "new\n"


def test_a_run_can_be_recorded_only_and_gone_on_with_later(cli: Cli) -> None:
    (cli.cwd / "note.txt").write_text("x")
    recorded = cli("run", cli.plan(READ), "--no-wait", "--json")
    assert recorded.code == 0, recorded
    run_id = recorded.json["run_id"]
    assert cli("show", run_id, "--json").json["status"] == "queued"
    other = cli("run", cli.plan(READ, "other.yaml"))
    assert other.code == 0
    assert cli("show", run_id, "--json").json["status"] == "queued", "a command moves no run but its own"
    assert cli("run", "--continue", run_id).code == 0
    again = cli("run", "--continue", run_id, "--json")
    assert again.code == 0
    assert again.json["status"] == "completed"


def test_parameters_are_cast_to_what_the_plan_declares(cli: Cli) -> None:
    (cli.cwd / "a.txt").write_text("one\ntwo\n")
    plan = cli.plan("""
version: 1
goal: Read ${{ params.file }}
params:
  file: {type: string}
  most: {type: integer, default: 100}
steps:
  - {key: look, type: read_file, input: {path: "${{ params.file }}", max_bytes: "${{ params.most }}"}}
""")
    done = cli("run", plan, "-p", "file=a.txt", "-p", "most=3", "--json")
    assert done.code == 0, done
    shown = cli("show", done.json["run_id"], "--json").json
    assert shown["goal"] == "Read a.txt"
    assert shown["steps"][0]["output"]["text"] == "one"
    for wrong, named in (("most=many", "params.most"), ("file", "params.file"), ("nope=1", "params.nope")):
        refused = cli("run", plan, "-p", "file=a.txt", "-p", wrong)
        assert refused.code == 2, refused
        assert named in refused.err


def test_the_workspace_is_named_from_the_current_folder_and_lies_in_the_root(cli: Cli) -> None:
    inner = cli.cwd / "inner"
    inner.mkdir()
    (inner / "note.txt").write_text("x")
    plan = cli.plan(READ)
    assert cli("run", plan, "--workspace", "inner", "--json").json["workspace_path"] == str(inner)
    below = cli.inside(inner).having(STEPGATE_WORKSPACE_ROOT=str(cli.cwd))
    assert below("run", f"../{plan}", "--workspace", ".", "--json").json["workspace_path"] == str(inner)
    (cli.cwd / "file").write_text("")
    for outside in ("/etc", "..", "missing", "file", "a\x00b"[:1] + "/../.."):
        refused = cli("run", plan, "--workspace", outside)
        assert refused.code == 2, refused
        assert "error: workspace_path: " in refused.err
        assert "fix: " in refused.err
    assert cli.count_runs() == 2


PROBLEMS = """version: 1
goal: x
steps:
  - key: a
    type: read_fiel
  - key: a
    type: read_file
    input: {path: x, colour: red}
  - key: later
    type: read_file
    needs: [a, nobody]
    input: {path: y}
"""


def test_every_problem_of_a_plan_is_listed_with_its_line(cli: Cli) -> None:
    refused = cli("run", cli.plan(PROBLEMS))
    assert refused.code == 2, refused
    assert "error: plan.yaml:5: steps[0].type: " in refused.err
    assert "did you mean read_file" in refused.err
    assert "plan.yaml:6: steps[1].key" in refused.err
    assert "plan.yaml:8: steps[1].input.colour" in refused.err
    assert "nobody" in refused.err
    assert refused.out == ""
    as_json = cli("run", "plan.yaml", "--json").json
    assert len(as_json["error"]["errors"]) >= 4
    assert cli.count_runs() == 0


def steps(*lines: str) -> str:
    return "version: 1\ngoal: x\nsteps:\n" + "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ("version: 1\ngoal: x\nsteps: []\n", "steps"),
        ("version: 1\ngoal: x\n", "steps: is missing"),
        ("- a\n", "a plan is a mapping"),
        ("version: [", "error: plan.yaml:2: "),
        (
            steps(
                '  - {key: a, type: read_file, input: {path: "${{ steps.b.output.text }}"}}',
                "  - {key: b, type: read_file, input: {path: x}}",
            ),
            "error: plan.yaml:4: steps[0].input.path: ",
        ),
        ("version: 1\nversion: 1\n", "stands twice"),
        (f"version: 1\ngoal: {'x' * 10_001}\nsteps:\n  - {{type: read_file, input: {{path: a}}}}\n", "goal"),
        (
            steps(
                "  - {key: a, type: read_file, input: {path: x}, needs: [b]}",
                "  - {key: b, type: read_file, input: {path: x}, needs: [a]}",
            ),
            "wait for each other",
        ),
        (steps("  - {type: read_file, input: {path: /etc/passwd}}"), "path"),
        (steps("  - {type: read_file, input: {path: ../x}}"), "path"),
        (steps('  - {type: read_file, input: {path: "a\\0b"}}'), "NUL"),
        (steps("  - {type: read_file, input: {path: x, max_bytes: .nan}}"), "max_bytes"),
        (steps("  - {type: read_file, input: {path: x, max_bytes: 99999999999999999999}}"), "64 bit"),
        (steps("  - {type: undo, input: {}}"), "steps[0].type"),
        (steps(*(f"  - {{type: read_file, input: {{path: f{n}}}}}" for n in range(10_001))), "10"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_and_nothing_is_made(cli: Cli, plan: str, said: str) -> None:
    refused = cli("run", cli.plan(plan))
    assert refused.code == 2, refused
    assert refused.err.startswith("error: ")
    assert said in refused.err
    assert "Traceback" not in refused.err
    assert cli.count_runs() == 0


def test_a_plan_that_is_not_utf8_or_holds_surrogates_is_refused(cli: Cli) -> None:
    (cli.cwd / "latin.yaml").write_bytes("goal: Größe".encode("latin-1"))
    refused = cli("run", "latin.yaml")
    assert refused.code == 2
    assert "not UTF-8" in refused.err
    (cli.cwd / "lone.json").write_text(json.dumps({"version": 1, "goal": "a\ud800b", "steps": []}))
    refused = cli("run", "lone.json")
    assert refused.code == 2
    assert "surrogate" in refused.err


def test_labels_and_arguments_that_are_not_text_are_refused(cli: Cli) -> None:
    plan = cli.plan(READ)
    for label, said in (("team", "--label"), ("=x", "--label"), ("team=\udcff", "labels")):
        refused = cli("run", plan, "--label", label)
        assert refused.code == 2, refused
        assert said in refused.err
    assert cli("run", plan, "--label", "a=1", "--label", "a=2").code == 2
    assert cli.count_runs() == 0


def test_plans_are_listed_with_their_parameters(anywhere: Cli) -> None:
    (anywhere.cwd / "plans").mkdir()
    text = "{goal: Look at it, params: {file: {type: path}, deep: {type: boolean, default: false}}, steps: []}"
    (anywhere.cwd / "plans" / "look.yaml").write_text(text)
    (anywhere.cwd / "plans" / "odd.yaml").write_text("{[")
    listed = anywhere("plans")
    assert listed.code == 0, listed
    assert "-p file=  path, required" in listed.out
    assert "-p deep=  boolean, default false" in listed.out
    items = anywhere("plans", "plans", "--json").json["items"]
    assert [(one["goal"], one["fault"] is None) for one in items] == [("Look at it", True), (None, False)]
    assert anywhere("plans", "nowhere").code == 2


def test_a_goal_alone_needs_a_model_that_can_plan(cli: Cli) -> None:
    refused = cli("run", "--goal", "look around", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (2, "no_steps"), refused
    assert cli("run", "--goal", "x", cli.plan(READ)).code == 2
