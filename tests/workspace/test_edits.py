import pytest

from stepgate.domain.errors import EditConflict, InvalidValue
from stepgate.workspace.edits import Edit, apply_edits


def test_edits_happen_in_order_each_seeing_the_ones_before() -> None:
    assert apply_edits("a b c\nü".encode(), [Edit("b", "x\ny"), Edit("y c", ""), Edit("ü", "u")]) == b"a x\n\nu"


@pytest.mark.parametrize(
    ("data", "find", "count"),
    [(b"x x", "x", 2), (b"aaa", "aa", 2), (b"x", "y", 0), (b"a\nb", "a\r\nb", 0), (b"", "a", 0)],
)
def test_a_text_that_does_not_match_once_names_the_edit_and_the_count(data: bytes, find: str, count: int) -> None:
    with pytest.raises(EditConflict) as caught:
        apply_edits(data, [Edit(data.decode(), data.decode())] * bool(data) + [Edit(find, "z")])
    assert caught.value.field == f"edits[{int(bool(data))}].find"
    assert caught.value.details["matches"] == count
    if count:
        assert str(count) in caught.value.message


def test_counting_matches_of_a_hostile_text_is_bounded() -> None:
    with pytest.raises(EditConflict, match="1000 or more"):
        apply_edits(b"a" * 1_000_000, [Edit("a", "b")])


@pytest.mark.parametrize("data", [b"\xff\xfe", b"caf\xe9", b"a\x00b"])
def test_what_is_not_text_is_refused(data: bytes) -> None:
    with pytest.raises(EditConflict) as caught:
        apply_edits(data, [Edit("a", "b")])
    assert caught.value.field == "edits"


def test_line_endings_are_kept() -> None:
    assert apply_edits(b"a\r\nb\r\nc\r\n", [Edit("a\nb", "x\ny\nz")]) == b"x\r\ny\r\nz\r\nc\r\n"
    assert apply_edits(b"a\r\nb\r\n", [Edit("a\r\n", "x\r\n")]) == b"x\r\nb\r\n"
    assert apply_edits(b"a\r\nb\nc", [Edit("b\nc", "d\ne")]) == b"a\r\nd\ne"
    assert apply_edits(b"\xef\xbb\xbfa", [Edit("a", "b")]) == b"\xef\xbb\xbfb"


def test_an_edit_without_a_text_to_find_is_refused() -> None:
    with pytest.raises(InvalidValue) as caught:
        apply_edits(b"a", [Edit("", "b")], "input.edits")
    assert caught.value.field == "input.edits[0].find"
    with pytest.raises(InvalidValue):
        apply_edits(b"a", [])
