"""Values of secrets are taken out of what commands print, however they are cut, wrapped and written."""

import base64
import json
import os
import random
import textwrap
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from stepgate.workspace.redaction import Forms, Redactor

VALUE = "p4ss/w0rd+with spaces & ünï%"
KEY = "-----BEGIN KEY-----\nMIIBVQIBADANBgkq\nshort\nhkiG9w0BAQEFAASC\n-----END KEY-----"


def redacted(data: bytes, secrets: dict[str, str], pieces: int | None = None) -> bytes:
    redactor = Redactor(Forms(secrets))
    step = len(data) if pieces is None else pieces
    return b"".join(redactor.feed(data[at : at + step]) for at in range(0, len(data), max(1, step))) + redactor.end()


@pytest.mark.parametrize(
    "written",
    [
        VALUE.encode(),
        base64.b64encode(VALUE.encode()),
        base64.b64encode(f"{VALUE}\n".encode()),
        base64.urlsafe_b64encode(VALUE.encode()),
        quote(VALUE).encode(),
        quote(VALUE, safe="").encode(),
        quote_plus(VALUE).encode(),
        quote(VALUE, safe="").lower().encode(),
        json.dumps(VALUE)[1:-1].encode(),
        json.dumps(VALUE, ensure_ascii=False)[1:-1].encode(),
    ],
)
def test_a_value_is_found_in_every_usual_way_of_writing_it(written: bytes) -> None:
    assert redacted(b"before " + written + b" after", {"TOKEN": VALUE}) == b"before [secret:TOKEN] after"


@pytest.mark.parametrize("before", ["", "u", "me", "user:", "\n\n"])
@pytest.mark.parametrize("after", ["", "x", "@h", "\n"])
def test_a_value_inside_other_base64_is_found_at_every_offset(before: str, after: str) -> None:
    value = "correct-horse-battery"
    text = base64.b64encode(f"{before}{value}{after}".encode())
    found = redacted(text, {"TOKEN": value})
    assert b"[secret:TOKEN]" in found
    # At most the characters that stand for its neighbours too are left of it.
    rest = found.replace(b"[secret:TOKEN]", b"")
    assert len(rest) <= 4 * ((len(before) + len(after)) // 3 + 2)


@pytest.mark.parametrize("width", [64, 76])
@pytest.mark.parametrize("end", ["", "\n"])
def test_long_base64_is_found_line_by_line(width: int, end: str) -> None:
    value = random.Random(7).randbytes(150).hex()
    wrapped = "\n".join(textwrap.wrap(base64.b64encode((value + end).encode()).decode(), width)).encode()
    found = redacted(wrapped, {"TOKEN": value})
    assert set(found.split(b"\n")) == {b"[secret:TOKEN]"}


def test_a_value_of_several_lines_is_found_line_by_line() -> None:
    assert redacted(f"a {KEY} b".encode(), {"KEY": KEY}) == b"a [secret:KEY] b"
    indented = KEY.replace("\n", "\r\n  ").encode()
    found = redacted(indented, {"KEY": KEY})
    assert b"MIIBVQIBADANBgkq" not in found
    assert b"hkiG9w0BAQEFAASC" not in found
    # What stands in every key, and lines too short to mean anything, stay readable.
    assert found.startswith(b"-----BEGIN KEY-----")
    assert b"short" in found


@pytest.mark.parametrize("pieces", [1, 2, 3, 5, 7, 11, 64])
def test_however_the_output_is_cut_the_result_is_the_same(pieces: int) -> None:
    secrets = {"A": "abcdefgh", "B": "efghijklmn", "KEY": KEY, "T": VALUE, "R": "abababababab"}
    chooser = random.Random(pieces)
    parts = [*secrets.values(), *(base64.b64encode(one.encode()).decode() for one in secrets.values())]
    parts += ["abcdefg", "MIIBVQIBADANBgk", "plain text", "\n", "abab", "efghijklm", "abcdefghijklmn"]
    data = "".join(chooser.choice(parts) for _ in range(200)).encode()
    whole = redacted(data, secrets)
    assert redacted(data, secrets, pieces) == whole
    for value in ("abcdefgh", "efghijklmn", "MIIBVQIBADANBgkq", VALUE, "abababababab"):
        assert value.encode() not in whole


def test_values_that_overlap_leave_nothing_of_either() -> None:
    secrets = {"A": "abcdefgh", "B": "efghijkl"}
    for pieces in (None, 1, 6, 9):
        assert redacted(b"<abcdefghijkl>", secrets, pieces) == b"<[secret:A]>"


def test_a_beginning_that_comes_to_nothing_is_given_back() -> None:
    redactor = Redactor(Forms({"A": "abcdefgh"}))
    assert redactor.feed(b"see abcd") == b"see "
    assert redactor.feed(b"x") == b"abcdx"
    assert redactor.feed(b"abcdefg") == b""
    assert redactor.end() == b"abcdefg"


def test_output_without_secrets_is_given_on_at_once() -> None:
    redactor = Redactor(Forms({"A": "s3cret-value"}))
    assert redactor.feed(b"nothing to see here\n") == b"nothing to see here\n"


def test_a_file_is_searched_across_the_borders_of_its_pieces(tmp_path: Path) -> None:
    value = "needle-in-a-haystack"
    forms = Forms({"A": "another-one", "N": value})
    path = tmp_path / "f"
    for at in ((1 << 20) - 5, (1 << 20) - len(value), 0, 3_000_000):
        data = bytearray(b"." * 3_000_100)
        data[at : at + len(value)] = value.encode()
        path.write_bytes(data)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            assert forms.name_in_file(descriptor) == "N"
        finally:
            os.close(descriptor)


def test_names_of_files_that_are_no_text_can_be_cleaned() -> None:
    assert Forms({"A": "s3cret-value"}).clean("x/s3cret-value\udcff") == "x/[secret:A]\udcff"
