"""Every setting has one name, a default, a check, and a known origin."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from stepgate.compose import bounds
from stepgate.domain.errors import InvalidValue
from stepgate.settings import MASK, Settings, Source, default_state_dir, load, variable_of
from stepgate.workspace.sandbox.levels import Level
from stepgate.workspace.sandbox.limits import Limits

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith("STEPGATE_") or name.upper() == "DATABASE_URL":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_defaults_bind_to_loopback_and_need_nothing(tmp_path: Path) -> None:
    settings = load()
    assert (settings.host, settings.port) == ("127.0.0.1", 8002)
    assert settings.database_url is None
    assert settings.workspace_root == tmp_path
    assert settings.local_trust is False
    assert settings.concurrency["run_command"] >= 2
    assert settings.notices == ()


def test_an_option_beats_the_environment_which_beats_the_env_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("STEPGATE_PORT=1001\nSTEPGATE_LEASE_S=11\nSTEPGATE_LOG_LEVEL=DEBUG\n")
    monkeypatch.setenv("STEPGATE_PORT", "1002")
    monkeypatch.setenv("STEPGATE_LEASE_S", "12")
    settings = load({"port": 1003, "host": None, "database_url": "postgres://u@db/name"})
    assert settings.source("database_url") is Source.OPTION
    assert (settings.port, settings.source("port")) == (1003, Source.OPTION)
    assert (settings.lease_s, settings.source("lease_s")) == (12, Source.ENVIRONMENT)
    assert (settings.log_level, settings.source("log_level")) == ("debug", Source.ENV_FILE)
    assert (settings.host, settings.source("host")) == ("127.0.0.1", Source.DEFAULT)


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPGATE_KEY", "")
    monkeypatch.setenv("DATABASE_URL", "")
    settings = load()
    assert settings.key is None
    assert settings.database_url is None
    assert settings.source("key") is Source.DEFAULT


def test_secrets_are_masked_wherever_a_person_sees_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://somebody:hunter2@example.org/stepgate")
    monkeypatch.setenv("STEPGATE_MODEL_KEY", "hunter2")
    monkeypatch.setenv("STEPGATE_KEY", "hunter2")
    settings = load()
    seen = repr(settings) + str(settings.listing()) + str(settings.model_dump())
    assert "hunter2" not in seen
    shown = {item.name: item.value for item in settings.listing()}
    assert [shown[name] for name in ("DATABASE_URL", "STEPGATE_MODEL_KEY", "STEPGATE_KEY")] == [MASK] * 3


def test_the_listing_has_every_setting_with_its_meaning() -> None:
    listing = load().listing()
    assert [item.name for item in listing] == [variable_of(field) for field in Settings.model_fields]
    assert all(item.meaning for item in listing)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("STEPGATE_PORT", "eight", "valid integer"),
        ("STEPGATE_PORT", "65536", "less than or equal to 65535"),
        ("STEPGATE_LEASE_S", "0", "greater than or equal to 1"),
        ("STEPGATE_LEASE_S", "nan", "finite"),
        ("STEPGATE_WORKER_CHECK_INTERVAL", "inf", "finite"),
        ("STEPGATE_EMBEDDED_WORKER", "maybe", "valid boolean"),
        ("STEPGATE_MAX_READ_BYTES", "-1", "greater than or equal to 1"),
        ("STEPGATE_CONCURRENCY", "run_command", "not of the form type=number"),
        ("STEPGATE_CONCURRENCY", "run_command=0", "not between 1 and 10000"),
        ("STEPGATE_COMMAND_LIMITS", "memory_bytes", "not of the form name=value"),
        ("STEPGATE_COMMAND_LIMITS", "memory=1GiB", "no limit 'memory'; there are cpu_s, memory_bytes"),
        ("STEPGATE_COMMAND_LIMITS", "memory_bytes=1GB", "memory_bytes=1GB is not a number of bytes"),
        ("STEPGATE_COMMAND_LIMITS", "memory_bytes=-1", "memory_bytes=-1 is not a number of bytes"),
        ("STEPGATE_COMMAND_LIMITS", "memory_bytes=0", "memory_bytes=0 is not more than 0"),
        ("STEPGATE_COMMAND_LIMITS", "memory_bytes=9999999999GiB", "is more than"),
        ("STEPGATE_COMMAND_LIMITS", "pids=1KiB", "pids=1KiB is not a number"),
        ("STEPGATE_COMMAND_LIMITS", "pids=0.5", "pids=0.5 is not a number"),
        ("STEPGATE_COMMAND_LIMITS", "cpu_s=soon", "cpu_s=soon is not a duration"),
        ("STEPGATE_COMMAND_LIMITS", "pids=1,pids=2", "pids is given twice"),
        ("STEPGATE_COMMAND_LIMITS", "wall_s=5", "wall_s is set by STEPGATE_COMMAND_TIMEOUT_S"),
        ("STEPGATE_COMMAND_LIMITS", "output_bytes=5", "output_bytes is set by STEPGATE_MAX_OUTPUT_BYTES"),
        ("STEPGATE_SANDBOX_ENV", "CI,MY-NAME", "'MY-NAME' is not the name of an environment variable"),
        ("STEPGATE_SANDBOX_ENV", "Stepgate_Model_Key", "never shown to commands"),
        ("STEPGATE_SANDBOX_ENV", "DATABASE_URL", "never shown to commands"),
        ("STEPGATE_SANDBOX_LEVELS", "none", "bwrap-full"),
        ("STEPGATE_SANDBOX_LEVELS", ",", "at least 1 item"),
        ("STEPGATE_SANDBOX_READONLY", "data", "not an absolute path"),
        ("STEPGATE_STATE_DIR", "~no-such-user/state", "no such user"),
        ("STEPGATE_MODEL_ROUTER", "magic", "'auto', 'offline', 'openai' or 'smart_router'"),
        ("STEPGATE_MODEL_URL", "localhost:4000", "not a URL"),
        ("STEPGATE_URL", "ftp://example.org", "not a URL"),
        ("STEPGATE_LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("DATABASE_URL", "mysql://example.org/db", "mysql:// is not supported"),
    ],
)
def test_a_bad_value_names_its_variable_and_what_is_expected(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidValue, match=said) as caught:
        load()
    assert caught.value.field == name
    assert caught.value.fix


def test_all_bad_values_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPGATE_PORT", "x")
    monkeypatch.setenv("STEPGATE_LEASE_S", "x")
    with pytest.raises(InvalidValue) as caught:
        load()
    assert {problem.field for problem in caught.value.problems} == {"STEPGATE_PORT", "STEPGATE_LEASE_S"}


def test_a_router_without_an_address_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPGATE_MODEL_ROUTER", "openai")
    with pytest.raises(InvalidValue, match="no address") as caught:
        load()
    assert caught.value.field == "STEPGATE_MODEL_URL"


def test_an_unknown_name_is_told_its_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPGATE_PROT", "80")
    Path(".env").write_text("STEPGATE_ZZZ=1\nSTEPGATE_DATABASE_URL=x\nOTHER=2\n")
    misnamed, first, second = load().notices
    assert misnamed.endswith("did you mean DATABASE_URL?")
    assert first == "STEPGATE_PROT is not a setting of Stepgate and is ignored; did you mean STEPGATE_PORT?"
    assert second == "STEPGATE_ZZZ is not a setting of Stepgate and is ignored"


def test_an_env_file_that_is_no_text_is_refused() -> None:
    Path(".env").write_bytes(b"STEPGATE_PORT=\xff\n")
    with pytest.raises(InvalidValue, match="cannot be read"):
        load()


def test_concurrency_is_one_number_or_one_for_each_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPGATE_CONCURRENCY", "3")
    assert load().concurrency == {"*": 3}
    monkeypatch.setenv("STEPGATE_CONCURRENCY", "run_command=1, analyze = 5")
    counts = load().concurrency
    assert (counts["run_command"], counts["analyze"], counts["*"]) == (1, 5, 64)


def test_a_commands_limits_are_set_by_name_and_shown_as_they_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPGATE_COMMAND_TIMEOUT_S", "7")
    monkeypatch.setenv("STEPGATE_MAX_OUTPUT_BYTES", "1000")
    monkeypatch.setenv("STEPGATE_COMMAND_LIMITS", " memory_bytes=512MiB, cpu_s=1.5m ,pids=20,tmp_bytes=1000")
    settings = load()
    limits = bounds(settings).command
    wanted = Limits(wall_s=7, output_bytes=1000, memory_bytes=512 << 20, cpu_s=90, pids=20, tmp_bytes=1000)
    assert repr(limits) == repr(replace(wanted, wall_s=7.0, cpu_s=90.0))
    shown = {item.name: item.value for item in settings.listing()}["STEPGATE_COMMAND_LIMITS"]
    assert shown.startswith("cpu_s=90,memory_bytes=512MiB,pids=20,")
    assert "tmp_bytes=1000B" not in shown
    monkeypatch.setenv("STEPGATE_COMMAND_LIMITS", shown)
    assert bounds(load()).command == wanted


def test_without_a_setting_a_commands_limits_are_the_defaults() -> None:
    settings = load()
    limits = bounds(settings).command
    assert repr(limits) == repr(
        Limits(wall_s=float(settings.command_timeout_s), output_bytes=settings.max_output_bytes)
    )


def test_commands_see_only_the_variables_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bounds(load()).environment == {}
    monkeypatch.setenv("CI", "yes")
    monkeypatch.setenv("OTHER", "no")
    monkeypatch.setenv("STEPGATE_SANDBOX_ENV", "CI, MISSING")
    assert bounds(load()).environment == {"CI": "yes"}


def test_paths_are_absolute_and_know_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STEPGATE_WORKSPACE_ROOT", "projects/../mine")
    monkeypatch.setenv("STEPGATE_STATE_DIR", "~/state")
    settings = load()
    assert settings.workspace_root == tmp_path / "mine"
    assert settings.state_dir == tmp_path / "home" / "state"


def test_the_state_folder_follows_the_users_conventions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert default_state_dir() == Path("/home/somebody/.local/state/stepgate")
    monkeypatch.setenv("XDG_STATE_HOME", "/data/state")
    assert default_state_dir() == Path("/data/state/stepgate")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_state_dir() == Path("/var/lib/stepgate")


def test_the_levels_offered_are_those_the_sandbox_has() -> None:
    offered = Settings.model_fields["sandbox_levels"].description or ""
    assert all(level in offered for level in Level)
    assert load({"sandbox_levels": ", ".join(Level)}).sandbox_levels == tuple(Level)
    with pytest.raises(InvalidValue) as caught:
        load({"sandbox_levels": "bwrap-full,strongest"})
    assert caught.value.field == "STEPGATE_SANDBOX_LEVELS"


def test_the_example_file_names_every_setting_and_nothing_else() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    named = [line.removeprefix("#").partition("=")[0] for line in lines if "=" in line.removeprefix("#").split(" ")[0]]
    assert named == [variable_of(field) for field in Settings.model_fields]
