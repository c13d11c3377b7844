import pytest

from stepgate.executors.screen import one_line, visible, visible_json


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain äöü 漢字 🙂\n\t", "plain äöü 漢字 🙂\n\t"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\rb", "a\\x0db"),
        ("\x9b31m", "\\x9b31m"),
        ("user\u202e\u2066// admin\u2069", "user\\u202e\\u2066// admin\\u2069"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("tag\U000e0041", "tag\\U000e0041"),
    ],
)
def test_what_acts_on_a_screen_is_written_out(text: str, seen: str) -> None:
    assert visible(text) == seen


def test_long_text_is_cut_and_says_so() -> None:
    assert visible("abcdef", 4) == "abcd… (2 more characters)"


def test_a_title_is_one_line() -> None:
    assert one_line("rm a\nrm b\t\x1b") == "rm a\\x0arm b\\x09\\x1b"


def test_json_is_shown_with_its_names() -> None:
    given = {"a\x1b": ["\x07", {"b": 1}], "c": None, "d": True}
    assert visible_json(given) == {"a\\x1b": ["\\x07", {"b": 1}], "c": None, "d": True}
