"""One probed sandbox per test process, and a workspace per test."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.workspace.sandbox.lab import Lab, make


@pytest.fixture(scope="session")
def shared_lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    base = tmp_path_factory.mktemp("sandbox")
    return make(base, base / "unused")


@pytest.fixture
def lab(shared_lab: Lab, workspace: Path) -> Lab:
    return replace(shared_lab, workspace=workspace)
