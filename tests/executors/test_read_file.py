import base64
import hashlib
import os

import pytest
from pydantic import ValidationError

from stepgate.domain import canonical
from stepgate.domain.errors import InvalidValue, NotFound, PathRefused
from stepgate.domain.plan_faults import check_params
from stepgate.executors.base import Bounds
from stepgate.executors.read_file import INLINE_BYTES, ReadFile, ReadFileParams
from tests.executors.bench import Bench

READ = ReadFile()


async def test_text_comes_whole_with_the_hash_and_size_of_the_file(bench: Bench) -> None:
    data = "erste Zeile\r\nzweite: äöü €\n".encode()
    (bench.path / "a").mkdir()
    (bench.path / "a/notes.txt").write_bytes(data)
    done = await bench.execute(READ, {"path": "./a//notes.txt"})
    assert done.output == {
        "text": data.decode(),
        "encoding": "utf-8",
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "first_line": None,
        "last_line": None,
        "truncated": False,
    }
    assert done.change_set is None


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"text with \x00", "lone \ud800".encode("utf-8", "surrogatepass")])
async def test_bytes_that_are_no_storable_text_come_as_base64(bench: Bench, data: bytes) -> None:
    (bench.path / "f").write_bytes(data)
    output = (await bench.execute(READ, {"path": "f"})).output
    assert (base64.b64decode(output["base64"]), output["encoding"]) == (data, "base64")
    assert "text" not in output
    canonical.check(output)


@pytest.mark.parametrize(
    ("lines", "text", "last"),
    [([1, 1], "one\n", 1), ([2, 3], "two\nthree", 3), ([2, 99], "two\nthree", 3), ([3, 3], "three", 3)],
)
async def test_lines_are_counted_from_one_and_both_ends_are_included(
    bench: Bench, lines: list[int], text: str, last: int
) -> None:
    (bench.path / "f").write_text("one\ntwo\nthree")
    output = (await bench.execute(READ, {"path": "f", "lines": lines})).output
    assert (output["text"], output["first_line"], output["last_line"]) == (text, lines[0], last)
    assert output["size"] == 13
    assert output["truncated"] is False


async def test_only_a_line_feed_ends_a_line(bench: Bench) -> None:
    (bench.path / "f").write_text("a\u2028b\x0cc\rd\ne\n")
    output = (await bench.execute(READ, {"path": "f", "lines": [1, 1]})).output
    assert output["text"] == "a\u2028b\x0cc\rd\n"


async def test_lines_of_an_empty_file_are_none(bench: Bench) -> None:
    (bench.path / "f").touch()
    output = (await bench.execute(READ, {"path": "f", "lines": [1, 10]})).output
    assert (output["text"], output["first_line"], output["last_line"]) == ("", None, None)


async def test_lines_behind_the_end_are_refused_with_the_number_there_are(bench: Bench) -> None:
    (bench.path / "f").write_text("one\ntwo\n")
    with pytest.raises(InvalidValue, match="the file has 2") as caught:
        await bench.execute(READ, {"path": "f", "lines": [3, 4]})
    assert caught.value.field == "lines"


async def test_lines_of_a_binary_file_are_refused(bench: Bench) -> None:
    (bench.path / "f").write_bytes(b"\xff\n\xff\n")
    with pytest.raises(InvalidValue, match="not UTF-8"):
        await bench.execute(READ, {"path": "f", "lines": [1, 1]})


async def test_max_bytes_cuts_between_characters_and_says_so(bench: Bench) -> None:
    (bench.path / "f").write_text("a€b\nc")
    for size, text in ((1, "a"), (2, "a"), (3, "a"), (4, "a€"), (6, "a€b\n")):
        output = (await bench.execute(READ, {"path": "f", "max_bytes": size})).output
        assert (output["text"], output["truncated"], output["size"]) == (text, True, 7)
    output = (await bench.execute(READ, {"path": "f", "max_bytes": 7})).output
    assert (output["text"], output["truncated"]) == ("a€b\nc", False)


async def test_cut_lines_name_the_last_line_that_is_there(bench: Bench) -> None:
    (bench.path / "f").write_text("one\ntwo\nthree\n")
    output = (await bench.execute(READ, {"path": "f", "lines": [1, 3], "max_bytes": 6})).output
    assert (output["text"], output["last_line"], output["truncated"]) == ("one\ntw", 2, True)


async def test_a_large_file_is_read_whole_too(bench: Bench) -> None:
    data = b"x" * (INLINE_BYTES * 3)
    (bench.path / "f").write_bytes(data)
    output = (await bench.execute(READ, {"path": "f"})).output
    assert output["text"] == data.decode()


@pytest.mark.parametrize("limit", [1000, INLINE_BYTES * 2])
async def test_a_file_over_the_read_limit_is_refused_by_its_path(bench: Bench, limit: int) -> None:
    (bench.path / "f").write_bytes(b"x" * (limit + 1))
    bounds = Bounds(limit, 1 << 20, bench.bounds.command)
    with pytest.raises(PathRefused, match=f"more than the {limit} allowed") as caught:
        await bench.execute(READ, {"path": "f"}, bounds=bounds)
    assert caught.value.field == "path"


async def test_links_folders_and_fifos_are_refused_by_the_path(bench: Bench) -> None:
    (bench.path / "folder").mkdir()
    (bench.path / "link").symlink_to("/etc/passwd")
    (bench.path / "way").symlink_to("/etc")
    os.mkfifo(bench.path / "fifo")
    for path in ("folder", "link", "way/passwd", "fifo", ".git/config"):
        with pytest.raises(PathRefused) as caught:
            await bench.execute(READ, {"path": path})
        assert caught.value.field == "path"
    with pytest.raises(NotFound):
        await bench.execute(READ, {"path": "missing"})


@pytest.mark.parametrize(
    ("input_", "field", "words"),
    [
        ({}, "path", "missing"),
        ({"path": "/etc/passwd"}, "path", "absolute"),
        ({"path": "a/../../b"}, "path", "'..'"),
        ({"path": "a\0b"}, "path", "NUL"),
        ({"path": ""}, "path", "empty"),
        ({"path": 5}, "path", "must be text"),
        ({"path": "f", "lines": [0, 1]}, "lines[0]", "greater than or equal to 1"),
        ({"path": "f", "lines": [2, 1]}, "lines", "after the last"),
        ({"path": "f", "lines": [1]}, "lines", "at least 2 items"),
        ({"path": "f", "lines": [True, 2]}, "lines[0]", "whole number"),
        ({"path": "f", "max_bytes": 0}, "max_bytes", "greater than or equal to 1"),
        ({"path": "f", "maxbytes": 1}, "maxbytes", "no such field"),
    ],
)
def test_bad_input_is_named_by_field(input_: dict[str, object], field: str, words: str) -> None:
    problems = check_params(ReadFileParams, input_)
    assert [problem.field for problem in problems] == [field]
    assert words in problems[0].message


def test_a_refused_path_says_how_to_write_it() -> None:
    problem = check_params(ReadFileParams, {"path": "/src/main.py"})[0]
    assert problem.fix is not None
    assert "src/main.py" in problem.fix


def test_values_are_never_coerced() -> None:
    with pytest.raises(ValidationError):
        ReadFileParams.model_validate({"path": "f", "max_bytes": "10"})


def test_values_with_references_wait_until_they_are_resolved() -> None:
    given = {"path": "${{ steps.a.output.path }}", "lines": "${{ steps.a.output.lines }}"}
    assert check_params(ReadFileParams, given) == []
