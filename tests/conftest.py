"""Fixtures and options that every test may ask for."""

import pytest
from hypothesis import settings

from tests.fixtures.patience import be_patient

pytest_plugins = ["tests.fixtures.database"]

# How long an example takes says how busy the machine is, and no test is about that. The same examples are tried each
# time, so that a change is refused for what it did; `--hypothesis-profile exploring` looks for new ones.
settings.register_profile("patient", settings.default, deadline=None, derandomize=True)
settings.register_profile("exploring", settings.default, deadline=None)
settings.load_profile("patient")
be_patient()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--crash", action="store_true", help="try every death of a worker (tests/crash), not a chosen part; takes long"
    )
    parser.addoption(
        "--router", action="store_true", help="also test against a real LiteLLM proxy (./dev test --router)"
    )
