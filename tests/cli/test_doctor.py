"""`doctor` tells a newcomer what is here and what mends what is not; it only looks."""

from pathlib import Path
from typing import Any

import pytest

from stepgate.cli import checks
from stepgate.cli.checks import Finding, Status
from stepgate.cli.doctor import exit_of, worst
from stepgate.settings import load
from stepgate.workspace.sandbox.levels import CANARIES
from tests.cli.conftest import Cli, Result

NAMES = {
    *("python", "stepgate", "database", "state folder", "workspace root", "sandbox", "capture", "limits"),
    *("openat2", "landlock", "user namespaces", "models"),
}


def _checks(result: Result) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in result.json["checks"]}


def test_where_all_is_well_every_part_is_named_and_nothing_is_left(anywhere: Cli) -> None:
    told = anywhere("doctor", "--json")
    assert told.code == 0, told
    found = _checks(told)
    assert set(found) == NAMES
    assert {found[name]["status"] for name in NAMES - {"limits"}} == {"ok"}
    assert told.json["status"] == found["limits"]["status"]
    assert "not running now" in found["database"]["detail"]
    assert told.json["sandbox"]["level"] == "bwrap-full"
    assert {canary["name"] for canary in told.json["sandbox"]["canaries"]} == CANARIES
    assert not anywhere.state_dir.exists()


def test_a_database_that_is_ready_and_one_that_was_never_migrated(
    cli: Cli, empty_database_url: str, anywhere: Cli
) -> None:
    ready = _checks(cli("doctor", "--json"))["database"]
    assert (ready["status"], ready["fix"]) == ("ok", None)
    assert "PostgreSQL" in ready["detail"]
    told = anywhere.having(DATABASE_URL=empty_database_url)("doctor", "--json")
    assert told.code == 5, told
    assert "stepgate migrate" in _checks(told)["database"]["fix"]


def test_a_database_that_is_down_is_the_environments_failure(anywhere: Cli) -> None:
    told = anywhere.having(DATABASE_URL="postgresql://nobody@127.0.0.1:9/none")("doctor")
    assert told.code == 5, told
    assert "failed  database" in told.out
    assert "fix: " in told.out
    assert "14 of 14 canaries held" in told.out


def test_without_a_sandbox_the_mend_is_told_and_the_exit_says_so(without_sandbox: Cli) -> None:
    told = without_sandbox("doctor", "--json")
    assert told.code == 6, told
    found = _checks(told)
    assert (found["sandbox"]["status"], found["capture"]["status"]) == ("failed", "failed")
    assert found["sandbox"]["fix"]
    assert (told.json["sandbox"]["level"], told.json["sandbox"]["degraded"]) == (None, True)


def test_a_weaker_level_is_degraded_and_what_is_open_is_told(without_sandbox: Cli) -> None:
    told = without_sandbox.having(STEPGATE_SANDBOX_LEVELS="bwrap-full,landlock-seccomp")("doctor")
    assert told.code == 0, told
    assert "degraded  sandbox         landlock-seccomp" in told.out
    assert "open  namespaces: " in told.out
    assert "no bubblewrap of version 0.11 or newer was found" in told.out
    assert "degraded  capture         copy" in told.out


def _folder(path: Path) -> Finding:
    return checks.state_folder(load({"state_dir": path}))


def test_a_state_folder_is_looked_at_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (_folder(tmp_path / "a/b").status, (tmp_path / "a").exists()) == (Status.OK, False)
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o700)
    assert _folder(mine).status is Status.OK
    mine.chmod(0o770)
    assert (_folder(mine).status, _folder(mine).fix) == (Status.DEGRADED, f"chmod go-w {mine}")
    mine.chmod(0o700)
    (tmp_path / "file").write_text("")
    assert _folder(tmp_path / "file").status is Status.FAILED
    monkeypatch.setattr(checks, "_file_system", lambda _folder: "overlay")
    assert "volume" in (_folder(mine).fix or "")
    monkeypatch.setattr(checks, "_LEAST_FREE", 1 << 62)
    monkeypatch.setattr(checks, "_file_system", lambda _folder: "ext4")
    assert "free some space" in (_folder(mine).fix or "")


def test_a_workspace_root_that_cannot_be_used(tmp_path: Path) -> None:
    def of(root: Path, state: Path) -> Finding:
        return checks.workspace_root(load({"workspace_root": root, "state_dir": state}))

    assert of(tmp_path, Path("/var/tmp/elsewhere")).status is Status.OK
    assert of(tmp_path / "nothing", tmp_path).status is Status.FAILED
    assert of(tmp_path, tmp_path / "state").status is Status.DEGRADED


def test_the_environment_is_told_before_the_sandbox() -> None:
    def one(name: str, status: Status) -> Finding:
        return Finding(name, status, "")

    fine, no_sandbox, no_database = (
        one("python", Status.OK),
        one("sandbox", Status.FAILED),
        one("database", Status.FAILED),
    )
    assert [exit_of(found) for found in ([fine], [fine, no_sandbox], [no_sandbox, no_database])] == [0, 6, 5]
    assert worst([fine, one("limits", Status.DEGRADED)]) is Status.DEGRADED
    assert worst([no_sandbox, one("limits", Status.DEGRADED), fine]) is Status.FAILED
