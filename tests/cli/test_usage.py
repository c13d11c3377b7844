"""Bad input on the command line: exit 2, one clear block, nothing on standard output but the object of `--json`."""

import pytest

from stepgate import __version__
from tests.cli.conftest import READ, Cli

COMMANDS = (
    *("demo", "run", "show", "runs", "approve", "reject", "skip", "cancel", "undo", "verify", "cost", "diff"),
    *("serve", "worker", "migrate", "settings", "doctor"),
)


def test_help_names_every_command_and_the_exit_codes(anywhere: Cli) -> None:
    shown = anywhere("--help")
    assert shown.code == 0
    for command in COMMANDS:
        assert f"  {command} " in shown.out
    assert "7 verification failed" in shown.out
    assert not anywhere.state_dir.exists()


def test_the_version_is_told(anywhere: Cli) -> None:
    assert anywhere("--version").out == f"stepgate {__version__}\n"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), "Usage:"),
        (("rnu",), "Did you mean 'run'?"),
        (("show",), "RUN"),
        (("runs", "--limit", "0"), "--limit"),
        (("runs", "--limit", "many"), "--limit"),
        (("runs", "--colour"), "--colour"),
        (("run",), "error: PLAN: "),
        (("run", "x.yaml", "--continue", "0123"), "error: PLAN: "),
        (("run", "--continue", "0123", "--no-wait"), "error: --continue: "),
        (("serve", "--port", "many"), "--port"),
    ],
)
def test_what_cannot_be_understood_is_refused(anywhere: Cli, words: tuple[str, ...], named: str) -> None:
    refused = anywhere(*words)
    assert refused.code == 2
    assert named in refused.err
    assert refused.out == ""
    assert "Traceback" not in refused.err
    assert not anywhere.state_dir.exists()


@pytest.mark.parametrize("words", [("show", "--json"), ("runs", "--nope", "--json"), ("run", "--json")])
def test_json_is_one_object_also_where_the_input_is_bad(anywhere: Cli, words: tuple[str, ...]) -> None:
    refused = anywhere(*words)
    assert refused.code == refused.json["exit_code"] == 2
    assert refused.json["error"]["errors"]


def test_a_bad_setting_is_named_with_its_mend(anywhere: Cli) -> None:
    refused = anywhere.having(STEPGATE_PORT="99999", STEPGATE_LEASE_S="soon")("settings")
    assert refused.code == 2
    assert "error: STEPGATE_PORT: " in refused.err
    assert "error: STEPGATE_LEASE_S: " in refused.err
    assert refused.err.count("fix: ") == 2


def test_an_option_that_is_no_setting_is_refused_like_one(anywhere: Cli) -> None:
    refused = anywhere("serve", "--port", "70000")
    assert refused.code == 2
    assert "error: STEPGATE_PORT: " in refused.err


def test_names_that_are_no_settings_are_noticed_on_standard_error(anywhere: Cli) -> None:
    shown = anywhere.having(STEPGATE_PROT="1")("settings", "--json")
    assert shown.code == 0
    assert "did you mean STEPGATE_PORT?" in shown.err
    assert shown.json["notices"]


def test_settings_show_value_and_source_and_mask_secrets(anywhere: Cli) -> None:
    (anywhere.cwd / ".env").write_text("STEPGATE_LEASE_S=12\n")
    told = anywhere.having(STEPGATE_KEY="hush", DATABASE_URL="postgresql://u:hush@h/d")
    listing = {one["name"]: one for one in told("settings", "--json").json["settings"]}
    assert listing["STEPGATE_LEASE_S"]["source"] == "env file"
    assert listing["STEPGATE_LEASE_S"]["value"] in ("12", "12.0")
    assert listing["STEPGATE_STATE_DIR"]["source"] == "environment"
    assert listing["STEPGATE_PORT"] | {"meaning": ""} == {
        "name": "STEPGATE_PORT",
        "value": "8002",
        "source": "default",
        "meaning": "",
    }
    shown = told("settings")
    assert "hush" not in shown.out + str(listing)
    assert "STEPGATE_LEASE_S" in shown.out


def test_a_reader_that_goes_away_is_no_fault(cli: Cli) -> None:
    process = cli.start("settings")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    process.wait()
    process.stderr.close()


@pytest.mark.parametrize("name", ["../..", "a/b", "x y", "\udcff", "é", "a" * 300, "."])
def test_a_name_that_can_be_none_names_nothing(cli: Cli, name: str) -> None:
    refused = cli("show", name)
    assert refused.code == 2
    assert "error: RUN: " in refused.err


def test_a_plan_must_be_there_and_readable(cli: Cli) -> None:
    cli.plan(READ)
    (cli.cwd / "folder").mkdir()
    for plan, said in (("none.yaml", "there is no file"), ("folder", "is a folder")):
        refused = cli("run", plan)
        assert refused.code == 2
        assert "error: PLAN: " in refused.err
        assert said in refused.err
