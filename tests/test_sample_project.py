"""The sample project and the plans that come with Stepgate: the bugs are real, and the plan really mends them."""

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from stepgate.domain.plan import ValidPlan
from stepgate.domain.plan_check import validate_plan
from stepgate.domain.plan_text import parse_plan_text
from stepgate.executors.registry import Registry
from tests.fixtures.patience import PATIENCE_S

ROOT = Path(__file__).parent.parent
PARAMS: Mapping[str, Mapping[str, Any]] = {"review-file": {"file": "invoice.py"}}
PLANS = sorted((ROOT / "plans").glob("*.yaml"))


def load(path: Path) -> ValidPlan:
    raw = parse_plan_text(path.read_bytes(), path.name)
    return validate_plan(raw, step_types=Registry().step_types(), params=PARAMS.get(path.stem, {}))


def run_tests(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-B", "-m", "unittest", "-v"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "workspace", tmp_path / "project"))


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_every_plan_is_valid_and_named_as_its_file(path: Path) -> None:
    found = load(path)
    assert found.name == path.stem
    assert found.goal


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_every_file_a_plan_reads_is_there(path: Path, project: Path) -> None:
    read = [step.input["path"] for step in load(path).steps if step.type == "read_file"]
    assert read
    assert all((project / name).is_file() for name in read)


def test_there_are_plans() -> None:
    assert {path.stem for path in PLANS} >= {"fix-invoice", "review-file", "parallel-read"}


def test_the_plan_in_the_reference_is_valid() -> None:
    page = (ROOT / "docs" / "plan-reference.md").read_text()
    example = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0]
    found = validate_plan(parse_plan_text(example), step_types=Registry().step_types())
    assert [step.type for step in found.steps][-1] == "summarize"


def test_the_sample_projects_tests_fail_as_it_is(project: Path) -> None:
    done = run_tests(project)
    assert done.returncode == 1
    assert "FAILED (failures=4)" in done.stderr


def test_the_plans_edits_make_them_pass(project: Path) -> None:
    (edit,) = [step for step in load(ROOT / "plans" / "fix-invoice.yaml").steps if step.type == "edit_file"]
    file = project / edit.input["path"]
    text = file.read_text()
    for change in edit.input["edits"]:
        assert text.count(change["find"]) == 1
        text = text.replace(change["find"], change["replace"])
    file.write_text(text)
    done = run_tests(project)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "OK")


def test_running_the_tests_leaves_nothing_behind(project: Path) -> None:
    before = sorted(path.name for path in project.rglob("*"))
    run_tests(project)
    assert sorted(path.name for path in project.rglob("*")) == before
