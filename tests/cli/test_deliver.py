"""An isolated run by command: made, looked at, delivered, discarded."""

from pathlib import Path

from tests.cli.conftest import WRITE, Cli
from tests.workspace.git.repositories import Git, needs_git


def isolated(cli: Cli) -> str:
    (cli.cwd / "note.txt").write_text("old\n")
    done = cli("run", cli.plan(WRITE), "--isolated", "--yes", "--json")
    assert done.code == 0, done
    run_id: str = done.json["run_id"]
    assert (cli.cwd / "note.txt").read_text() == "old\n"
    return run_id


def test_an_isolated_run_says_where_its_result_is_and_how_to_get_it(cli: Cli) -> None:
    (cli.cwd / "note.txt").write_text("old\n")
    done = cli("run", cli.plan(WRITE), "--isolated", "--yes")
    assert done.code == 0, done
    assert "a private copy of" in done.err + done.out
    assert "unchanged" in done.out
    run_id = done.out.split("run ")[1][:36]
    for form in ("--apply", "--patch FILE"):
        assert f"deliver {run_id} {form}" in done.out
    shown = cli("show", run_id)
    assert f"isolated/{run_id}/files (2 files and folders" in shown.out
    assert f"deliver {run_id} --apply" in shown.out


def test_a_result_is_applied_once_it_is_approved(cli: Cli) -> None:
    run_id = isolated(cli)
    refused = cli("deliver", run_id, "--apply")
    assert refused.code == 2
    assert "no terminal" in refused.err
    done = cli("deliver", run_id, "--apply", "--yes")
    assert done.code == 0, done
    assert "+new" in done.err + done.out
    assert (cli.cwd / "note.txt").read_text() == "new\n"
    again = cli("deliver", run_id, "--apply", "--yes", "--json")
    assert (again.code, again.json["error"]["code"]) == (2, "nothing_to_deliver")


def test_a_conflict_names_the_paths(cli: Cli) -> None:
    run_id = isolated(cli)
    (cli.cwd / "note.txt").write_text("mine\n")
    refused = cli("deliver", run_id, "--apply", "--yes")
    assert refused.code == 2, refused
    assert "note.txt" in refused.err
    assert (cli.cwd / "note.txt").read_text() == "mine\n"


def test_a_patch_is_written_and_never_over_another_file(cli: Cli, tmp_path: Path) -> None:
    run_id = isolated(cli)
    file = tmp_path / "result.patch"
    done = cli("deliver", run_id, "--patch", str(file), "--json")
    assert (done.code, done.json["patch"], done.json["left_out"]) == (0, str(file), [])
    assert file.read_text().startswith("diff --git a/note.txt b/note.txt\n")
    assert list(tmp_path.glob(".result*")) == []
    refused = cli("deliver", run_id, "--patch", str(file))
    assert refused.code == 2
    assert "--force" in refused.err
    file.write_text("something else\n")
    assert cli("deliver", run_id, "--patch", str(file), "--force").code == 0
    assert file.read_text().startswith("diff --git")
    assert cli("deliver", run_id, "--patch", str(tmp_path / "none" / "x")).code == 2


@needs_git
def test_a_result_becomes_a_branch_of_the_repository(cli: Cli) -> None:
    git = Git(cli.cwd).init()
    (cli.cwd / "note.txt").write_text("old\n")
    git.commit()
    run_id = isolated(cli)
    before = git.state()
    done = cli("deliver", run_id, "--branch", "result", "--json")
    assert (done.code, done.json["name"], done.json["left_out"]) == (0, "result", [])
    assert done.json["commit"] == git("rev-parse", "result")
    assert git.show("result", "note.txt") == "new"
    assert git.state() == before
    again = cli("deliver", run_id, "--branch", "result")
    assert again.code == 0
    assert done.json["commit"][:12] in again.out
    taken = cli("deliver", run_id, "--branch", "main")
    assert taken.code == 2
    assert "checked out" in taken.err


def test_one_form_is_chosen(cli: Cli) -> None:
    for words in ((), ("--apply", "--patch", "x")):
        refused = cli("deliver", "0", *words)
        assert refused.code == 2
        assert "--apply" in refused.err


def test_a_copy_is_discarded_only_when_that_is_said(cli: Cli) -> None:
    run_id = isolated(cli)
    copy = cli.state_dir / "isolated" / run_id
    refused = cli("discard", run_id)
    assert refused.code == 2
    assert str(copy) in refused.err
    assert copy.is_dir()
    done = cli("discard", run_id, "--yes", "--json")
    assert (done.code, done.json) == (0, {"run_id": run_id, "removed": True})
    assert not copy.exists()
    assert "discarded at" in cli("show", run_id).out


def test_workspaces_are_named_listed_and_forgotten(cli: Cli) -> None:
    (cli.cwd / "shop").mkdir()
    assert "no workspace has a name" in cli("workspaces").out
    made = cli("workspaces", "add", "shop", "shop", "--isolated", "--json")
    assert (made.code, made.json["path"], made.json["mode"]) == (0, str(cli.cwd / "shop"), "isolated")
    listed = cli("workspaces")
    assert "shop" in listed.out
    assert "isolated" in listed.out
    assert [one["name"] for one in cli("workspaces", "--json").json["items"]] == ["shop"]
    done = cli("run", cli.plan(WRITE), "--workspace-name", "shop", "--yes", "--json")
    assert done.code == 0, done
    assert list((cli.cwd / "shop").iterdir()) == []
    assert cli("show", done.json["run_id"], "--json").json["workspace"] == "shop"
    assert cli("workspaces", "remove", "shop").code == 0
    missing = cli("workspaces", "remove", "shop")
    assert missing.code == 2
    assert "no workspace named" in missing.err
    assert cli("run", cli.plan(WRITE), "--workspace-name", "shop", "--yes").code == 2


def test_a_fork_goes_on_from_a_step(cli: Cli) -> None:
    run_id = isolated(cli)
    done = cli("fork", run_id, "--from", "look", "--yes")
    assert done.code == 0, done
    assert "inherited" in done.out or "fork" in done.out
    made = next(run["id"] for run in cli("runs", "--json").json["items"] if run["forked_from"])
    shown = cli("show", made)
    assert f"{run_id} from look" in shown.out
    assert (cli.state_dir / "isolated" / made / "files" / "note.txt").read_text() == "new\n"
    refused = cli("fork", run_id, "--from", "ghost")
    assert refused.code == 2


def test_a_replay_says_that_all_agrees_or_what_does_not(cli: Cli) -> None:
    run_id = isolated(cli)
    done = cli("replay", run_id)
    assert (done.code, "replayed: 2 steps agree" in done.out) == (0, True), done
    command = "{version: 1, goal: g, steps: [{key: clock, type: run_command, input: {command: 'date +%s%N'}}]}"
    made = cli("run", cli.plan(command, "clock.yaml"), "--yes", "--json").json["run_id"]
    differs = cli("replay", made, "--json")
    assert (differs.code, differs.json["divergence"]["step"]) == (7, "clock")
    assert cli("replay", made, "--ignore-printed").code == 0
