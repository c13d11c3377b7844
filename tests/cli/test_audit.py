"""A run's evidence leaves as a signed file and is checked where there is neither database nor state folder."""

import json
from pathlib import Path

from tests.cli.conftest import READ, Cli


def exported(cli: Cli) -> Path:
    (cli.cwd / "note.txt").write_text("x")
    run_id = cli("run", cli.plan(READ), "--json").json["run_id"]
    told = cli("audit", "export", run_id, "--out", "bundle.json", "--json")
    assert told.code == 0, told
    assert (told.json["run_id"], told.json["file"]) == (run_id, "bundle.json")
    return cli.cwd / "bundle.json"


def test_a_bundle_is_checked_without_database_and_state(cli: Cli, anywhere: Cli) -> None:
    bundle = exported(cli)
    key = cli("audit", "key", "--json").json["fingerprint"]
    elsewhere = anywhere.having(DATABASE_URL="postgresql://127.0.0.1:1/none", STEPGATE_STATE_DIR="/nowhere/at/all")
    trusted = elsewhere("audit", "verify", str(bundle), "--key", key, "--json")
    assert (trusted.code, trusted.json["verified"], trusted.json["trusted"]) == (0, True, True)
    alone = elsewhere("audit", "verify", str(bundle))
    assert alone.code == 0
    assert key in alone.out
    assert "was not compared" in alone.out


def test_a_changed_bundle_is_told_with_the_event(cli: Cli) -> None:
    bundle = exported(cli)
    data = json.loads(bundle.read_text())
    data["events"][2]["body"] = data["events"][2]["body"].replace('"v":1', '"v": 1')
    bundle.write_text(json.dumps(data))
    told = cli("audit", "verify", "bundle.json")
    assert told.code == 7
    assert "event 3: " in told.out
    assert cli("audit", "verify", "bundle.json", "--json").json["first_bad_seq"] == 3


def test_no_file_is_written_over_and_a_missing_one_is_named(cli: Cli) -> None:
    bundle = exported(cli)
    before = bundle.read_bytes()
    run_id = json.loads(before)["run"]["id"]
    again = cli("audit", "export", run_id, "--out", "bundle.json")
    assert again.code == 2
    assert "exists already" in again.err
    assert bundle.read_bytes() == before
    assert cli("audit", "verify", "none.json").code == 2
    (cli.cwd / "other.json").write_text("{}")
    other = cli("audit", "verify", "other.json")
    assert (other.code, "no audit bundle" in other.err) == (2, True)
