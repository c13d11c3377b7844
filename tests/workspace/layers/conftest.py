"""A sandbox over each kind of layer: the same tests run over both."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stepgate.workspace.layers.layer import Capture
from tests.workspace.sandbox.lab import Lab, make


@pytest.fixture(scope="session")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Capture], Lab]:
    made: dict[Capture, Lab] = {}

    def lab(capture: Capture) -> Lab:
        if capture not in made:
            base = tmp_path_factory.mktemp(f"layers-{capture}")
            made[capture] = make(base, base / "unused", (capture,))
            assert made[capture].layers.probe().capture is capture
        return made[capture]

    return lab


@pytest.fixture(params=list(Capture))
def lab(request: pytest.FixtureRequest, labs: Callable[[Capture], Lab], workspace: Path) -> Lab:
    return replace(labs(request.param), workspace=workspace)
