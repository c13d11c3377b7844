"""How this program was called, so that the commands it prints work when they are copied, from any folder."""

import os
import shlex
import shutil
import sys
from pathlib import Path

import stepgate
from stepgate.settings import Settings, Source, variable_of

CARRIED = ("state_dir", "url")
"""Settings that decide which runs are seen. `DATABASE_URL` may hold a password and is not printed."""


def command(settings: Settings, *words: str) -> str:
    """A shell line: the program, what it needs from the environment, and these words."""
    variables = [_variable(settings, name) for name in CARRIED if settings.source(name) is not Source.DEFAULT]
    return " ".join([*variables, *map(shlex.quote, (*program(), *words))])


def _variable(settings: Settings, name: str) -> str:
    """One that was set and is not in force is emptied, as it may still be set where the line is copied to."""
    value = getattr(settings, name)
    return f"{variable_of(name)}={'' if value is None else shlex.quote(str(value))}"


def program() -> tuple[str, ...]:
    """The words that start this program again."""
    starter = Path(stepgate.__file__).parents[2] / "dev"
    if (Path(sys.prefix) / "stepgate-lock.json").is_file() and os.access(starter, os.X_OK):
        return (str(starter), "stepgate")
    called = Path(sys.argv[0])
    if called.name != "stepgate":
        return (sys.executable, "-m", "stepgate")
    found = shutil.which("stepgate")
    if found is not None and Path(found).resolve() == called.resolve():
        return ("stepgate",)
    return (str(called.absolute()),)
