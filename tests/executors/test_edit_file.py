import hashlib
import os

import httpx2
import orjson
import pytest

from stepgate.domain.errors import (
    EditConflict,
    InvalidValue,
    ModelUnavailable,
    NotFound,
    PathRefused,
    StaleApproval,
)
from stepgate.domain.plan_faults import check_params
from stepgate.executors.base import Done, Failed
from stepgate.executors.edit_file import EditFile, EditFileParams
from stepgate.llm.openai import OpenAIRouter
from tests.executors.bench import Bench

EDIT = EditFile()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_content_makes_a_file_and_the_folders_above_it(bench: Bench) -> None:
    done = await bench.do(EDIT, "edit", {"path": "src/new/mod.py", "content": "x = 1\n"})
    assert (bench.path / "src/new/mod.py").read_text() == "x = 1\n"
    assert done.change_set is not None
    assert done.output["change_set_id"] == done.change_set.id
    assert done.output["files"] == [
        {"path": "src", "op": "create", "before": None, "after": None},
        {"path": "src/new", "op": "create", "before": None, "after": None},
        {"path": "src/new/mod.py", "op": "create", "before": None, "after": sha256(b"x = 1\n")},
    ]
    assert "+x = 1" in done.output["diff"]


async def test_edits_replace_what_stands_once(bench: Bench) -> None:
    (bench.path / "f").write_text("a\nb\nc\n")
    edits = [{"find": "b", "replace": "B"}, {"find": "B\nc", "replace": "B\nC"}]
    done = await bench.do(EDIT, "edit", {"path": "f", "edits": edits})
    assert (bench.path / "f").read_text() == "a\nB\nC\n"
    assert done.output["files"] == [
        {"path": "f", "op": "modify", "before": sha256(b"a\nb\nc\n"), "after": sha256(b"a\nB\nC\n")}
    ]


async def test_a_patch_is_applied_to_the_letter(bench: Bench) -> None:
    (bench.path / "f").write_text("a\nb\nc\n")
    patch = "--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n"
    await bench.do(EDIT, "edit", {"path": "f", "patch": patch})
    assert (bench.path / "f").read_text() == "a\nB\nc\n"
    with pytest.raises(EditConflict, match="hunk 1"):
        await bench.execute(EDIT, {"path": "f", "patch": patch})


async def test_delete_removes_the_file(bench: Bench) -> None:
    (bench.path / "f").write_text("gone\n")
    done = await bench.do(EDIT, "edit", {"path": "f", "delete": True})
    assert not (bench.path / "f").exists()
    assert done.output["files"] == [{"path": "f", "op": "delete", "before": sha256(b"gone\n"), "after": None}]


async def test_the_mode_is_kept_or_set(bench: Bench) -> None:
    (bench.path / "f").write_text("a\n")
    (bench.path / "f").chmod(0o640)
    await bench.do(EDIT, "one", {"path": "f", "content": "b\n"})
    assert (bench.path / "f").stat().st_mode & 0o7777 == 0o640
    prepared = await bench.prepare(EDIT, {"path": "f", "content": "b\n", "mode": "755"})
    assert prepared.action["mode"] == "0755"
    assert prepared.risk == "high"
    await bench.do(EDIT, "two", {"path": "f", "content": "b\n", "mode": "0755"})
    assert (bench.path / "f").stat().st_mode & 0o7777 == 0o755


async def test_a_file_that_is_already_so_is_done_without_a_change_set(bench: Bench) -> None:
    (bench.path / "f").write_text("same\n")
    prepared = await bench.prepare(EDIT, {"path": "f", "content": "same\n"})
    assert prepared.rendering["notes"] == ["the file is already like this: nothing will change"]
    done = await bench.execute(EDIT, {"path": "f", "content": "same\n"}, prepared=prepared)
    assert done == Done({"change_set_id": None, "files": [], "diff": ""}, None)


async def test_the_person_sees_the_diff_and_the_approval_covers_it(bench: Bench) -> None:
    (bench.path / "f").write_text("old\n")
    prepared = await bench.prepare(EDIT, {"path": "f", "content": "new\n"})
    assert "-old\n+new\n" in prepared.rendering["diff"]
    assert prepared.rendering["title"] == "Edit f"
    assert prepared.rendering["truncated"] is False
    assert prepared.action["before"] == sha256(b"old\n")
    assert prepared.action["after"] == sha256(b"new\n")
    assert prepared.failure is None


async def test_nothing_a_diff_shows_can_steer_the_screen(bench: Bench) -> None:
    content = "\x1b[2J\u202egnp.exe\r\n"
    prepared = await bench.prepare(EDIT, {"path": "f\x1b.txt", "content": content})
    shown = orjson.dumps(prepared.rendering).decode()
    assert "\\u001b" not in shown
    assert "\u202e" not in shown
    assert "\\x1b[2J\\u202egnp.exe\\x0d" in prepared.rendering["diff"]
    done = await bench.execute(EDIT, {"path": "f\x1b.txt", "content": content}, prepared=prepared)
    assert bench.blobs.get(done.change_set.changes[0].after.sha256) == content.encode()


async def test_a_file_changed_after_the_approval_makes_it_stale(bench: Bench) -> None:
    (bench.path / "f").write_text("one\ntwo\n")
    input_ = {"path": "f", "edits": [{"find": "two", "replace": "2"}]}
    prepared = await bench.prepare(EDIT, input_)
    (bench.path / "f").write_text("ONE\ntwo\n")
    with pytest.raises(StaleApproval):
        await bench.execute(EDIT, input_, prepared=prepared)
    again = await bench.prepare(EDIT, input_)
    assert again.action != prepared.action
    done = await bench.execute(EDIT, input_, prepared=again)
    assert isinstance(done, Done)


async def test_touching_a_file_leaves_the_approval_standing(bench: Bench) -> None:
    (bench.path / "f").write_text("one\n")
    prepared = await bench.prepare(EDIT, {"path": "f", "content": "two\n"})
    os.utime(bench.path / "f", (1, 1))
    assert isinstance(await bench.execute(EDIT, {"path": "f", "content": "two\n"}, prepared=prepared), Done)


@pytest.mark.parametrize("way", [{"content": "x"}, {"edits": [{"find": "a", "replace": "b"}]}, {"delete": True}])
async def test_another_base_is_refused(bench: Bench, way: dict[str, object]) -> None:
    (bench.path / "f").write_text("a\n")
    with pytest.raises(EditConflict) as caught:
        await bench.execute(EDIT, {"path": "f", "base_sha256": "0" * 64, **way})
    assert caught.value.field == "base_sha256"
    right = {"path": "f", "base_sha256": sha256(b"a\n"), **way}
    assert isinstance(await bench.execute(EDIT, right), Done)


@pytest.mark.parametrize(
    ("input_", "error", "field"),
    [
        ({"path": "f", "edits": [{"find": "x", "replace": ""}]}, EditConflict, "edits[0].find"),
        ({"path": "f", "edits": [{"find": "a", "replace": ""}]}, EditConflict, "edits[0].find"),
        ({"path": "binary", "edits": [{"find": "a", "replace": ""}]}, EditConflict, "edits"),
        ({"path": "missing", "edits": [{"find": "a", "replace": ""}]}, NotFound, "path"),
        ({"path": "missing", "delete": True}, NotFound, "path"),
        ({"path": "link", "content": "x"}, PathRefused, "path"),
        ({"path": "folder", "delete": True}, PathRefused, "path"),
        ({"path": "f/below", "content": "x"}, PathRefused, "path"),
        ({"path": ".git/hooks/post-commit", "content": "x"}, PathRefused, "path"),
        ({"path": "sub/.GIT/config", "content": "x"}, PathRefused, "path"),
        ({"path": "f", "patch": "no patch"}, InvalidValue, "patch"),
    ],
)
async def test_what_does_not_fit_is_named_and_changes_nothing(
    bench: Bench, input_: dict[str, object], error: type[Exception], field: str
) -> None:
    (bench.path / "f").write_text("a a\n")
    (bench.path / "binary").write_bytes(b"\xff\xfea")
    (bench.path / "folder").mkdir()
    (bench.path / "link").symlink_to("f")
    before = bench.tree()
    with pytest.raises(error) as caught:
        await bench.execute(EDIT, input_)
    assert getattr(caught.value, "field", None) == field
    prepared = await bench.prepare(EDIT, input_)
    assert prepared.failure is not None
    assert prepared.risk == "high"
    assert "diff" not in prepared.rendering
    assert bench.tree() == before


@pytest.mark.parametrize(
    ("input_", "field", "words"),
    [
        ({"path": "f"}, "", "nothing says what to change"),
        ({"path": "f", "content": "a", "delete": True}, "", "content and delete are given"),
        ({"path": "f", "delete": False}, "", "nothing says what to change"),
        ({"path": "f", "contents": "a"}, "contents", "no such field"),
        ({"path": "/f", "content": "a"}, "path", "absolute"),
        ({"path": "f", "content": "a", "mode": "0o755"}, "mode", ""),
        ({"path": "f", "content": "a", "mode": "4755"}, "mode", ""),
        ({"path": "f", "delete": True, "mode": "0644"}, "", "no mode"),
        ({"path": "f", "edits": []}, "edits", "at least 1"),
        ({"path": "f", "edits": [{"find": "", "replace": ""}]}, "edits[0].find", "at least 1"),
        ({"path": "f", "edits": [{"find": "a"}]}, "edits[0].replace", "missing"),
        ({"path": "f", "content": "a", "base_sha256": "abc"}, "base_sha256", ""),
        ({"path": "f", "content": "\ud800"}, "content", ""),
        ({"path": "f", "content": "a\0"}, "content", "NUL"),
    ],
)
def test_bad_input_is_named_by_field(input_: dict[str, object], field: str, words: str) -> None:
    problems = check_params(EditFileParams, input_)
    assert [problem.field for problem in problems] == [field]
    assert words in problems[0].message


def test_two_ways_at_once_are_refused_even_before_references_are_resolved() -> None:
    text = "${{ steps.a.output.text }}"
    assert check_params(EditFileParams, {"path": "f", "content": text}) == []
    assert len(check_params(EditFileParams, {"path": "f", "content": text, "patch": text})) == 1


# A model that writes


def writing(*contents: str) -> OpenAIRouter:
    """A router whose model answers with these texts, one after another."""
    left = list(contents)

    def answer(request: httpx2.Request) -> httpx2.Response:
        message = {"role": "assistant", "content": orjson.dumps({"content": left.pop(0)}).decode()}
        body = {"id": "1", "model": "writer-1", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        return httpx2.Response(200, json=body)

    return OpenAIRouter("http://router.test/v1", None, "writer", transport=httpx2.MockTransport(answer))


INSTRUCTION = {"path": "f", "instruction": "say two"}


async def test_without_a_model_an_instruction_is_refused_with_the_way_out(bench: Bench) -> None:
    (bench.path / "f").write_text("one\n")
    with pytest.raises(ModelUnavailable) as caught:
        await bench.prepare(EDIT, INSTRUCTION)
    assert caught.value.reason_code == "offline_cannot_write"
    assert caught.value.field == "instruction"
    assert "STEPGATE_MODEL" in (caught.value.fix or "")


async def test_what_the_model_wrote_is_shown_and_exactly_that_is_applied(bench: Bench) -> None:
    (bench.path / "f").write_text("one\n")
    bench.models.router = writing("two\n")
    first = await bench.prepare(EDIT, INSTRUCTION)
    assert "-one\n+two\n" in first.rendering["diff"]

    async def shown() -> object:
        return orjson.loads(orjson.dumps(first.rendering))

    again = await bench.prepare(EDIT, INSTRUCTION, shown=shown)
    assert again.action == first.action
    done = await bench.execute(EDIT, INSTRUCTION, prepared=again)
    bench.apply("edit", done)
    assert (bench.path / "f").read_text() == "two\n"
    assert len(bench.models.asked) == 1


async def test_the_model_is_asked_again_when_the_file_is_another(bench: Bench) -> None:
    (bench.path / "f").write_text("one\n")
    bench.models.router = writing("two\n", "zwei\n")
    first = await bench.prepare(EDIT, INSTRUCTION)
    (bench.path / "f").write_text("eins\n")
    with pytest.raises(StaleApproval):
        await bench.execute(EDIT, INSTRUCTION, prepared=first)

    async def shown() -> object:
        return first.rendering

    again = await bench.prepare(EDIT, INSTRUCTION, shown=shown)
    assert "-eins\n+zwei\n" in again.rendering["diff"]
    assert len(bench.models.asked) == 2


async def test_another_instruction_or_lost_bytes_are_no_earlier_writing(bench: Bench) -> None:
    bench.models.router = writing("two\n", "three\n", "drei\n")
    first = await bench.prepare(EDIT, INSTRUCTION)

    async def shown() -> object:
        return first.rendering

    other = await bench.prepare(EDIT, {**INSTRUCTION, "instruction": "say three"}, shown=shown)
    assert "+three\n" in other.rendering["diff"]
    bench.blobs.path_of(first.action["written"]["content"]).unlink()
    again = await bench.prepare(EDIT, INSTRUCTION, shown=shown)
    assert "+drei\n" in again.rendering["diff"]


async def test_a_model_never_writes_after_the_approval(bench: Bench) -> None:
    bench.models.router = writing("two\n")
    outcome = await bench.execute(EDIT, INSTRUCTION)
    assert isinstance(outcome, Failed)
    assert outcome.code == "not_prepared"
    assert bench.models.asked == []


async def test_a_failing_router_leaves_a_question_without_a_preview(bench: Bench) -> None:
    def refuse(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(402, json={"error": {"message": "no credit"}})

    bench.models.router = OpenAIRouter("http://router.test", None, "m", transport=httpx2.MockTransport(refuse))
    prepared = await bench.prepare(EDIT, INSTRUCTION)
    assert prepared.failure is not None
    assert "no credit" in prepared.failure


async def test_a_file_too_long_for_a_model_is_refused(bench: Bench) -> None:
    (bench.path / "f").write_text("x" * 100_001)
    bench.models.router = writing("short")
    prepared = await bench.prepare(EDIT, INSTRUCTION)
    assert "100001 characters" in (prepared.failure or "")
    assert bench.models.asked == []
