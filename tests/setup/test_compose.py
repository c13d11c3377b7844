"""The container files fit their schema, the settings and the lock; no engine is needed to check that."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from stepgate.settings import Settings, variable_of

ROOT = Path(__file__).parents[2]
STEPGATE_SERVICES = ("migrate", "api", "worker")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def test_the_compose_file_fits_its_schema() -> None:
    program = Path(sys.executable).with_name("check-jsonschema")
    command = [str(program), "--builtin-schema", "vendor.compose-spec", str(ROOT / "docker-compose.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_has_the_database_the_api_a_worker_and_a_router(compose: dict[str, Any]) -> None:
    assert {"postgres", "api", "worker", "router"} <= set(compose["services"])


def test_every_variable_of_ours_is_a_setting(compose: dict[str, Any]) -> None:
    known = {variable_of(field) for field in Settings.model_fields}
    for service in STEPGATE_SERVICES:
        assert set(compose["services"][service]["environment"]) <= known


def test_the_api_is_published_on_loopback_only_and_asks_for_a_key(compose: dict[str, Any]) -> None:
    api = compose["services"]["api"]
    assert all(port.startswith("127.0.0.1:") for port in api["ports"])
    assert api["environment"]["STEPGATE_KEY"].startswith("${STEPGATE_KEY:?")


def test_workers_may_build_their_sandbox_and_nothing_else(compose: dict[str, Any]) -> None:
    for service in STEPGATE_SERVICES:
        options = compose["services"][service]
        assert options["security_opt"] == ["seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined"]
        assert options["cap_drop"] == ["ALL"]
        assert not options.get("privileged")


def test_files_mounted_from_the_checkout_exist(compose: dict[str, Any]) -> None:
    mounts = [mount.split(":")[0] for mount in compose["services"]["router"]["volumes"]]
    assert all((ROOT / mount).is_file() for mount in mounts)


def test_the_router_asks_nobody_twice() -> None:
    """Each attempt is a row of ours, so nobody else may retry."""
    config = yaml.safe_load((ROOT / "deploy" / "litellm.yaml").read_text())
    assert config["litellm_settings"]["num_retries"] == 0


def test_the_image_runs_as_an_ordinary_user_and_is_built_from_the_lock() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert lines[-1].startswith("CMD")
    assert "USER stepgate" in lines
    assert any("--require-hashes -r requirements.lock" in line for line in lines)


def test_everything_the_image_copies_is_let_through_to_the_builder() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied: set[str] = set()
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            copied |= set(line.split()[1:-1])
    assert copied <= allowed
    assert all((ROOT / name).exists() for name in copied)
