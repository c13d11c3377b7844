"""Nothing that comes from a run acts on a screen, hides there, or passes for something else."""

import json

import pytest

from stepgate.cli.text import exact, exact_line, json_text, plain, plain_line


@pytest.mark.parametrize(
    "char", ["\x00", "\x07", "\x08", "\r", "\x1b", "\x7f", "\x9b", "\u202e", "\u2066", "\u200b", "\ufeff"]
)
def test_what_acts_or_hides_is_written_as_an_escape(char: str) -> None:
    for shown in (plain, plain_line, exact, exact_line):
        assert char not in shown(f"a{char}b")
        assert "\\" in shown(f"a{char}b")


def test_json_on_a_terminal_holds_nothing_that_acts_and_reads_as_what_it_was() -> None:
    hostile = {"a\x9b": ["\x1b[2J", "\x7f", "\x85", "\u202e", "\u2066", "\U000e0041", "\r\n\t", "ä日本", '"\\']}
    text = json_text(hostile)
    assert json.loads(text) == hostile
    assert "ä日本" in text
    assert plain(text) == text
    assert not {"\x1b", "\x7f", "\x85", "\x9b", "\u202e", "\u2066", "\U000e0041"} & set(text)


def test_lines_and_tabs_stay_in_texts_and_not_in_names() -> None:
    assert plain("a\tb\nc") == exact("a\tb\nc") == "a\tb\nc"
    assert "\n" not in plain_line("a\nb")
    assert "\t" not in exact_line("a\tb")


@pytest.mark.parametrize(
    ("posing", "shown"),
    [
        ("p\u0430ypal", "p\\u0430ypal"),  # Cyrillic a
        ("\u03bfpen", "\\u03bfpen"),  # Greek o
        ("\uff52m", "\\uff52m"),  # wide r
        ("\U0001d42bm", "\\U0001d42bm"),  # bold r
    ],
)
def test_a_look_alike_among_ascii_letters_is_written_out_everywhere(posing: str, shown: str) -> None:
    assert plain(posing) == exact(posing) == shown


def test_in_commands_a_whole_word_of_look_alikes_is_written_out_too() -> None:
    assert exact("\u0441\u043e\u0440\u0443 x") == "\\u0441\\u043e\\u0440\\u0443 x"
    assert exact("rm \u2013rf") == "rm \\u2013rf"
    assert exact("\uff52\uff4d -rf /") == "\\uff52\\uff4d -rf /"


@pytest.mark.parametrize("text", ["привет мир", "naïve café", "日本語", "Ελλάδα", "foo—bar", "x²", "½ €"])
def test_other_scripts_stay_readable_in_prose(text: str) -> None:
    assert plain(text) == text


@pytest.mark.parametrize("text", ["привет.txt", "naïve/café.py", "日本語.md"])
def test_file_names_of_other_scripts_stay_readable(text: str) -> None:
    assert exact_line(text) == text


@pytest.mark.parametrize("blank", ["\xa0", "\u2003", "\u3000", "\u3164", "\u2800", "\ufe0f"])
def test_blanks_that_are_no_space_are_written_out(blank: str) -> None:
    assert blank not in exact(f"rm{blank}x")
    assert blank not in plain(f"a{blank}b")
