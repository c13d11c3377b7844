"""Mounts that appear in a workspace after a run was created for it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]


def test_a_mount_in_the_workspace_refuses_new_runs_and_fails_the_steps_of_earlier_ones(
    database_url: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.worker.mounting", database_url, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd=ROOT)
    if "PermissionError" in done.stderr and "enter_namespace" in done.stderr:
        pytest.skip("namespaces are not permitted here")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    inside = str(tmp_path / "spaces" / "project" / "sub")
    assert told["created"] == ["workspace_mounts", "workspace_path", [inside]]
    assert (told["worked"]["code"], told["worked"]["paths"]) == ("workspace_mounts", [inside])
    assert told["text"] == "old\n"
