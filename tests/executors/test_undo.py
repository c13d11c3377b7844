import pytest

from stepgate.domain.errors import InvalidValue, StaleApproval, WorkspaceConflict
from stepgate.executors.base import Done
from stepgate.executors.edit_file import EditFile
from stepgate.executors.undo import Undo
from tests.executors.bench import Bench

EDIT, UNDO = EditFile(), Undo()


async def three_steps(bench: Bench) -> None:
    (bench.path / "kept").write_text("0\n")
    await bench.do(EDIT, "first", {"path": "kept", "content": "1\n"})
    await bench.do(EDIT, "second", {"path": "kept", "content": "2\n"})
    await bench.do(EDIT, "third", {"path": "new/file", "content": "3\n"})


async def test_everything_the_run_did_is_taken_back(bench: Bench) -> None:
    await three_steps(bench)
    prepared = await bench.prepare(UNDO, {"to": None})
    assert "-2\n+0\n" in prepared.rendering["diff"]
    done = await bench.do(UNDO, "undo", {"to": None})
    assert (bench.path / "kept").read_text() == "0\n"
    assert not (bench.path / "new").exists()
    assert done.output["to"] is None
    assert [(entry["path"], entry["op"]) for entry in done.output["files"]] == [
        ("kept", "modify"),
        ("new", "delete"),
        ("new/file", "delete"),
    ]


@pytest.mark.parametrize("to", ["first", 1, "1"])
async def test_undo_to_a_step_keeps_what_was_applied_up_to_it(bench: Bench, to: str | int) -> None:
    await three_steps(bench)
    await bench.do(UNDO, "undo", {"to": to})
    assert (bench.path / "kept").read_text() == "1\n"
    assert not (bench.path / "new").exists()


async def test_undo_can_be_undone(bench: Bench) -> None:
    await three_steps(bench)
    await bench.do(UNDO, "undo", {"to": "first"})
    await bench.do(UNDO, "again", {"to": "third"})
    assert (bench.path / "kept").read_text() == "2\n"
    assert (bench.path / "new/file").read_text() == "3\n"


async def test_undo_to_a_step_that_changed_nothing_goes_by_its_number(bench: Bench) -> None:
    await three_steps(bench)
    bench.finish("read", {"text": ""})
    bench.finish("read-2", {"text": ""})
    done = await bench.do(UNDO, "undo", {"to": "read-2"})
    assert [entry["path"] for entry in done.output["files"]] == ["new", "new/file"]


async def test_an_unknown_step_is_refused(bench: Bench) -> None:
    await three_steps(bench)
    with pytest.raises(InvalidValue, match="no finished step has the key 'nothing'"):
        await bench.execute(UNDO, {"to": "nothing"})
    assert (await bench.prepare(UNDO, {"to": "nothing"})).failure is not None


async def test_nothing_left_to_undo_is_done_without_a_change_set(bench: Bench) -> None:
    prepared = await bench.prepare(UNDO, {"to": None})
    assert prepared.rendering["notes"] == ["nothing is left to undo"]
    assert await bench.execute(UNDO, {"to": None}) == Done({"to": None, "files": [], "diff": ""}, None)


async def test_a_person_s_later_change_is_never_taken_back(bench: Bench) -> None:
    await three_steps(bench)
    (bench.path / "kept").write_text("mine\n")
    with pytest.raises(WorkspaceConflict) as caught:
        await bench.execute(UNDO, {"to": None})
    assert caught.value.details["paths"] == ["kept"]
    prepared = await bench.prepare(UNDO, {"to": None})
    assert prepared.failure is not None
    assert (bench.path / "kept").read_text() == "mine\n"


async def test_an_undo_that_would_do_something_else_than_approved_is_stale(bench: Bench) -> None:
    await three_steps(bench)
    prepared = await bench.prepare(UNDO, {"to": None})
    await bench.do(EDIT, "fourth", {"path": "kept", "content": "4\n"})
    with pytest.raises(StaleApproval):
        await bench.execute(UNDO, {"to": None}, prepared=prepared)
