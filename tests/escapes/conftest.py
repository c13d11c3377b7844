"""One probed sandbox of each level and one pair of victims per test process; a table of all attacks at the end."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stepgate.domain.errors import SandboxUnavailable
from stepgate.workspace.sandbox.levels import Level
from tests.escapes.attack import Attack, Kind
from tests.escapes.host import host
from tests.escapes.range import Result, without_sandbox
from tests.escapes.victims import Victims
from tests.workspace.sandbox.lab import Lab, make

Labs = Callable[[Level], Lab]
Control = Callable[[Attack], Result]


@pytest.fixture(scope="session")
def base() -> Iterator[Path]:
    """A folder that the sandbox's user could enter, so that nothing but the sandbox keeps attacks from it."""
    folder = Path(tempfile.mkdtemp(prefix="stepgate-escapes-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def victims(base: Path) -> Iterator[Victims]:
    made = Victims(base)
    yield made
    made.close_all()


@pytest.fixture(scope="session")
def labs(base: Path) -> Labs:
    """The sandbox of a level; skips the test where this host cannot have it."""
    made: dict[Level, Lab | str] = {}

    def lab(level: Level) -> Lab:
        if level not in made:
            folder = base / level
            folder.mkdir()
            try:
                made[level] = make(folder, folder / "unused", level=level)
            except SandboxUnavailable as error:
                made[level] = error.message
        found = made[level]
        if isinstance(found, str):
            pytest.skip(f"no {level} here: {found}")
        return found

    return lab


@pytest.fixture(scope="session")
def control(base: Path, victims: Victims) -> Control:
    """What an attack does without a sandbox, tried once."""
    tried: dict[str, Result] = {}

    def run(attack: Attack) -> Result:
        if attack.name not in tried:
            with host(base, victims, attack.plant) as around:
                tried[attack.name] = without_sandbox(attack, around)
        return tried[attack.name]

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """N attacks, N with teeth, 0 escapes; by level and class."""
    verdicts: Counter[tuple[str, str, str]] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport) and report.when == "call":
                verdicts.update(value for name, value in report.user_properties if name == "attack")  # type: ignore[misc]
    for level in Level:
        rows = {kind: Counter[str]() for kind in Kind}
        for (at, kind, verdict), count in verdicts.items():
            if at == level:
                rows[Kind(kind)][verdict] += count
        every = sum(rows.values(), start=Counter[str]())
        if not every:
            continue
        teeth = every.total() - every["toothless"]
        terminalreporter.section(
            f"{level}: {every.total()} attacks, {teeth} with teeth here, {every['open']} known to be open,"
            f" {every['escaped']} escapes"
        )
        for kind, verdicts_of in rows.items():
            detail = ", ".join(f"{number} {verdict}" for verdict, number in sorted(verdicts_of.items()))
            terminalreporter.write_line(f"{kind:24} {verdicts_of.total():3}  {detail}")
