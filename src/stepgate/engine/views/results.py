"""What came of a run: its changes, its deliveries, its replays."""

from typing import Any

from pydantic import Field

from stepgate.engine.views.base import Id, View
from stepgate.engine.views.runs import LeftOut, RunDetail
from stepgate.engine.views.steps import Step


class Rename(View):
    """A file under its new name."""

    source: str = Field(description="the path it had before")
    target: str


class Diff(View):
    """What a step or a whole run changed in its workspace."""

    run_id: Id
    step_id: Id | None
    applied: bool = Field(description="false where the change set is recorded and not (yet) applied")
    files: list[dict[str, Any]] = Field(description="path, op (create, modify, delete) and the state before and after")
    renames: list[Rename] = Field(description="files that were moved unchanged; each is two of `files`")
    cannot_undo: list[str] = Field(description="paths whose former content was too large to be kept")
    diff: str = Field(
        description=(
            "a unified diff as git writes it; files over 1 MiB and what is no text are named with their sizes, past "
            "256 KiB the rest is counted"
        )
    )


class Patch(View):
    """A run's net change for `git apply`."""

    text: str = Field(description="complete and exact, binary content included")
    left_out: list[LeftOut] = Field(description="what git cannot hold")


class BranchCommit(View):
    """One commit of a delivered branch."""

    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    subject: str
    step: str | None = Field(description="the key of its step; null for the state in which the run found its files")


class Branch(View):
    """A run's result as a branch of the folder's repository."""

    name: str
    commit: str = Field(pattern=r"^[0-9a-f]{40}$", description="the last one")
    base: str | None = Field(description="the commit it begins from; null where there was none")
    commits: list[BranchCommit] = Field(description="the first one first")
    left_out: list[LeftOut] = Field(description="ignored files, and what lies in submodules")


class Delivered(View):
    """A result that was handed over in one of its forms; the members of the others are null."""

    run: RunDetail | None = Field(default=None, description="apply: the run that will change the folder")
    step: Step | None = Field(default=None, description="apply: its step, which asks for approval first")
    patch: Patch | None = None
    branch: Branch | None = None


class Divergence(View):
    """The first step that came out otherwise when it was done again."""

    step: str = Field(description="its key")
    what: str = Field(
        description=(
            "output, changes, action (not the approved one), question to a model, sandbox, policy, or outcome (failed)"
        )
    )
    expected: str = Field(description="what was recorded: a digest, or a word")
    found: str
    names: list[str] = Field(description="the output's fields, or the paths, that differ; the first 20")


class Report(View):
    """What a replay found; `steps` ended in the run, `agreed` of them came out the same when they were done again."""

    run_id: Id
    steps: int
    agreed: int
    taken: list[str] = Field(description="keys of the steps that were taken from the record instead")
    divergence: Divergence | None


class Replayed(View):
    """The run that replays, its one step, and what it found: null until then, and where it failed (`step.error`)."""

    run: RunDetail
    step: Step
    replay: Report | None
