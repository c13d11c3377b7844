"""The sample project and its plan: in a checkout, or where an installed package keeps its data."""

import os
import shutil
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import stepgate
from stepgate.cli.exits import Exit
from stepgate.cli.faults import CliError

PLAN = "fix-invoice.yaml"
PROJECT = "workspace"
PLANS = "plans"


@dataclass(frozen=True, slots=True)
class Sample:
    """`project` is a folder to copy, `plan` the file that works on it."""

    project: Path
    plan: Path


def find() -> Sample:
    """Raises CliError saying what is missing."""
    schemes = (sysconfig.get_default_scheme(), f"{os.name}_user")
    shared = [Path(sysconfig.get_path("data", scheme), "share", "stepgate") for scheme in schemes]
    places = (Path(stepgate.__file__).parents[2], *shared)
    for place in places:
        found = Sample(place / PROJECT, place / PLANS / PLAN)
        if found.project.is_dir() and found.plan.is_file():
            return found
    wanted = " or ".join(str(place) for place in places)
    raise CliError(
        f"this installation has no sample project: no {PROJECT}/ and {PLANS}/{PLAN} in {wanted}",
        exit=Exit.ENVIRONMENT,
        code="no_sample",
        fix="install Stepgate from its wheel or from a whole checkout",
    )


def copy(sample: Sample, target: Path) -> None:
    """Copies the project's own files into an empty folder that is made where it is missing."""
    target.mkdir(mode=0o755, parents=True, exist_ok=True)
    for source in sorted(sample.project.rglob("*")):
        relative = source.relative_to(sample.project)
        if "__pycache__" in relative.parts:
            continue
        if source.is_dir():
            (target / relative).mkdir(exist_ok=True)
        else:
            shutil.copyfile(source, target / relative)
