"""Looking at runs: names, lists, costs, and a journal that does not hold."""

import asyncio
import subprocess

import asyncpg

from tests.cli.conftest import READ, WRITE, Cli

TEXTS = """
version: 1
goal: "[red]goal[/red] :smile: \\e[2J"
name: texts
steps:
  - key: write
    type: edit_file
    why: "\\u202edesrever"
    input: {path: note.txt, content: "[bold]x[/bold]\\e]0;owned\\a \\u0441op\\u0443\\r\\n"}
  - {key: think, type: summarize, input: {instruction: sum it up}}
"""


def execute(url: str, *statements: str) -> None:
    async def work() -> None:
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    asyncio.run(work())


def read_run(cli: Cli) -> str:
    (cli.cwd / "note.txt").write_text("x")
    run_id: str = cli("run", cli.plan(READ), "--json").json["run_id"]
    return run_id


def recorded_run(cli: Cli) -> str:
    """One that no worker has touched."""
    run_id: str = cli("run", cli.plan(READ), "--no-wait", "--json").json["run_id"]
    return run_id


def test_a_run_is_named_by_its_id_or_a_beginning_that_only_it_has(cli: Cli) -> None:
    one, two = recorded_run(cli), recorded_run(cli)
    common = next(n for n in range(36) if one[n] != two[n])
    for name in (one.upper(), one[: common + 1]):
        assert cli("show", name, "--json").json["id"] == one
    ambiguous = cli("show", one[: max(common, 1)])
    assert ambiguous.code == 2
    assert one in ambiguous.err
    assert two in ambiguous.err
    unknown = cli("verify", "ffff")
    assert unknown.code == 2
    assert "there is no run 'ffff'" in unknown.err
    assert cli("show", "ffff", "--json").json["error"]["code"] == "not_found"


def test_a_step_is_named_by_key_number_or_id(cli: Cli) -> None:
    run_id = cli("run", cli.plan(WRITE), "--yes", "--json").json["run_id"]
    step_id = cli("show", run_id, "--json").json["steps"][0]["id"]
    shown = {cli("diff", run_id, name).out for name in ("write", "1", step_id)}
    assert len(shown) == 1
    assert "+new" in shown.pop()
    assert cli("diff", run_id, "3").code == 2


def test_runs_are_listed_newest_first_and_bounded(cli: Cli) -> None:
    assert "no runs" in cli("runs").out
    ids = [recorded_run(cli) for _ in range(3)]
    listed = cli("runs", "--json").json
    assert [run["id"] for run in listed["items"]] == ids[::-1]
    first = cli("runs", "--limit", "2")
    assert ids[0] not in first.out
    assert "there are more" in first.out
    wrong = cli("runs", "--status", "sleeping")
    assert wrong.code == 2
    assert "status" in wrong.err


def test_costs_are_by_step_and_model_and_say_that_no_model_was_called(cli: Cli) -> None:
    run_id = cli("run", cli.plan(TEXTS), "--yes", "--json").json["run_id"]
    shown = cli("cost", run_id)
    assert shown.code == 0
    assert "offline-extractive-v1" in shown.out
    assert "total: $0, 1 model call" in shown.out
    assert cli("cost", run_id, "--json").json["total_cost_usd"] == "0"


def test_nothing_from_a_run_acts_on_the_terminal(cli: Cli) -> None:
    done = cli("run", cli.plan(TEXTS), "--yes")
    assert done.code == 0, done
    run_id = cli("runs", "--json").json["items"][0]["id"]
    everything = [done, cli("show", run_id), cli("diff", run_id), cli("diff", run_id, "write"), cli("runs")]
    for result in everything:
        text = result.out + result.err
        assert not {char for char in text if ord(char) < 32 and char not in "\n\t"}, result
        assert "\u202e" not in text
        assert "\u0441" not in text
    assert "[red]goal[/red]" in everything[1].out
    assert "[bold]x[/bold]\\x1b]0;owned\\x07 \\u0441op\\u0443" in everything[2].out
    assert "\x1b]0;owned" in cli("diff", run_id, "--raw").out


def test_a_diff_can_be_applied_elsewhere(cli: Cli) -> None:
    run_id = cli("run", cli.plan(TEXTS), "--yes", "--json").json["run_id"]
    written = (cli.cwd / "note.txt").read_bytes()
    elsewhere = cli.cwd / "elsewhere"
    elsewhere.mkdir()
    patch = subprocess.run(
        [*cli.argv, "diff", run_id, "--raw"], cwd=cli.cwd, env=dict(cli.environment), capture_output=True, check=True
    ).stdout
    subprocess.run(["git", "init", "-q", "."], cwd=elsewhere, check=True)
    subprocess.run(["git", "apply", "-"], cwd=elsewhere, input=patch, check=True)
    assert (elsewhere / "note.txt").read_bytes() == written


def test_a_journal_that_was_changed_is_found_out(cli: Cli, database_url: str) -> None:
    run_id = read_run(cli)
    assert cli("verify", run_id, "--json").json["verified"] is True
    execute(
        database_url,
        "SET session_replication_role = replica",
        f"UPDATE stepgate.events SET body = replace(body, 'note.txt', 'else.txt'), at = at + interval '1 second' "
        f"WHERE run_id = '{run_id}' AND seq = 2",
    )
    found = cli("verify", run_id)
    assert found.code == 7, found
    assert "NOT verified at event 2" in found.out
    as_json = cli("verify", run_id, "--json")
    assert as_json.code == 7
    assert as_json.json["first_bad_seq"] == 2
    assert cli("run", "--continue", run_id).code == 7


def test_a_changed_output_is_found_out(cli: Cli, database_url: str) -> None:
    run_id = read_run(cli)
    execute(database_url, f"UPDATE stepgate.steps SET output = '{{}}' WHERE run_id = '{run_id}'")
    assert cli("verify", run_id).code == 7
