"""Runs in repositories: where they began is noted, and their result becomes a branch."""

from pathlib import Path

import pytest

from stepgate.domain.errors import Conflict
from stepgate.domain.ids import RunId
from stepgate.storage.origins import Origins
from tests.worker.lab import PERSON, Lab
from tests.worker.test_isolated import AFTER, BEFORE, PLAN, copy_of, fill, finish, start
from tests.workspace.git.repositories import Git, needs_git

pytestmark = needs_git


@pytest.fixture
def git(lab: Lab) -> Git:
    """The lab's workspace as a repository with one commit."""
    fill(lab.workspace)
    made = Git(lab.workspace).init()
    made.commit()
    return made


def own_files(folder: Path) -> dict[str, str]:
    paths = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_text() for name, path in paths.items() if not name.startswith(".git/")}


async def began(lab: Lab, run_id: RunId) -> tuple[str | None, str | None]:
    found = await Origins(lab.stack.database).get(run_id)
    assert found is not None
    return found.git_ref, found.git_commit


async def test_an_isolated_run_becomes_a_branch_with_a_commit_for_each_step(lab: Lab, git: Git) -> None:
    base = git("rev-parse", "HEAD")
    run_id = await start(lab)
    await finish(lab, run_id)
    assert await began(lab, run_id) == ("refs/heads/main", base)
    assert not (copy_of(lab, run_id) / ".git").exists()
    (lab.workspace / "a.txt").write_text("the person goes on\n")
    git.commit("meanwhile")
    before = git.state()
    branch = await lab.engine.deliver_branch(run_id, "result")
    assert git.state() == before
    assert git("fsck", "--strict") == ""
    assert git("rev-parse", "result~2") == base == branch.base
    assert git.subjects("result") == [
        "first",
        "edit: Edit a.txt",
        "command: Run cat a.txt; echo more >> d/b.txt; rm gone",
    ]
    about = git("log", "-1", "--format=%B", "result")
    assert f"Stepgate-Run: {run_id}" in about
    assert "Stepgate-Step: command" in about
    assert "Approved-by: ada (cli)" in about
    state = await lab.state(run_id)
    completed_at = state.steps[state.keys["command"]].completed_at
    assert completed_at is not None
    assert int(git("log", "-1", "--format=%ct", "result")) == completed_at // 1_000_000
    assert {path: git.show("result", path) + "\n" for path in git.tree("result")} == AFTER
    assert (await lab.engine.deliver_branch(run_id, "again")).commit == branch.commit
    assert (await lab.engine.deliver_branch(run_id, "result")) == branch


async def test_a_run_in_the_folder_itself_becomes_a_branch_too(lab: Lab, git: Git) -> None:
    base = git("rev-parse", "HEAD")
    run_id = await lab.create(PLAN)
    await finish(lab, run_id)
    before = git.state()
    await lab.engine.deliver_branch(run_id, "result")
    assert git.state() == before
    assert await began(lab, run_id) == ("refs/heads/main", base)
    assert git("rev-parse", "result~2") == base
    # What the run left in the folder is what its branch says.
    assert git("diff", "--stat", "result") == ""


async def test_where_a_run_began_is_noted_when_it_is_first_driven(lab: Lab, git: Git) -> None:
    run_id = await lab.create(PLAN, start=False)
    (lab.workspace / "a.txt").write_text("later\n")
    later = git.commit("later")
    await lab.engine.start(run_id, PERSON)
    await lab.until_step(run_id, "edit", "awaiting_approval")
    git.commit("and later still")
    await finish(lab, run_id)
    assert await began(lab, run_id) == ("refs/heads/main", later)


async def test_an_undo_is_a_commit_like_any_other(lab: Lab, git: Git) -> None:
    run_id = await start(lab)
    await finish(lab, run_id)
    state, step_id = await lab.engine.undo(run_id, PERSON)
    await lab.approve(run_id, state.steps[step_id].spec.key)
    await lab.until(run_id, lambda state: state.undone_at is not None)
    branch = await lab.engine.deliver_branch(run_id, "result")
    assert [commit.step for commit in branch.commits] == ["edit", "command", "undo-3"]
    assert git("diff", "--stat", "main", "result") == ""


async def test_a_folder_that_was_no_repository_has_no_base(lab: Lab) -> None:
    fill(lab.workspace)
    run_id = await start(lab)
    await finish(lab, run_id)
    Git(lab.workspace).init().commit()
    with pytest.raises(Conflict) as refused:
        await lab.engine.deliver_branch(run_id, "result")
    assert refused.value.reason_code == "no_base"


async def test_a_damaged_repository_stops_no_run(lab: Lab, git: Git) -> None:
    (lab.workspace / ".git" / "HEAD").write_bytes(b"\xff\xfe")
    run_id = await lab.create(PLAN)
    await finish(lab, run_id)
    assert own_files(lab.workspace) == AFTER
    with pytest.raises(Conflict) as refused:
        await lab.engine.deliver_branch(run_id, "result")
    assert refused.value.reason_code == "no_base"


async def test_a_discarded_copy_is_not_needed(lab: Lab, git: Git) -> None:
    run_id = await start(lab)
    await finish(lab, run_id)
    await lab.engine.delivery.discard(run_id)
    await lab.engine.deliver_branch(run_id, "result")
    assert git.show("result", "a.txt") == "new"
    assert own_files(lab.workspace) == BEFORE
