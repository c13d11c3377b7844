"""A sandbox over each kind of layer: the same tests run over both."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stepgate.workspace.layers.layer import Capture
from tests.workspace.sandbox.lab import Lab, make


@pytest.fixture(scope="session")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Capture], Lab]:
    def lab(capture: Capture) -> Lab:
        base = tmp_path_factory.mktemp(f"layers-{capture}")
        made = make(base, base / "unused", (capture,))
        assert made.layers.probe().capture is capture
        return made

    # All at once, as probing needs an event loop of its own, which a test that asks for one of them already has.
    return {capture: lab(capture) for capture in Capture}.__getitem__


@pytest.fixture(params=list(Capture))
def lab(request: pytest.FixtureRequest, labs: Callable[[Capture], Lab], workspace: Path) -> Lab:
    return replace(labs(request.param), workspace=workspace)
