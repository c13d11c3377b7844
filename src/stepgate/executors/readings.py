"""Text from runs as a person may read it: nothing in it acts, hides, or passes for something else.

Two readings: `plain` for prose, diffs and output, where other scripts are welcome; `exact` for what will be run or
written (commands, paths, names), where a character that only looks like an ASCII one is written as an escape.
"""

import re
import unicodedata
from collections.abc import Callable
from typing import Final

from stepgate.executors.screen import one_line, visible

EVERYTHING: Final = 1 << 24

# Drawn like ASCII in most fonts (after Unicode's confusables, UTS 39): Cyrillic, Greek, others; then punctuation.
_LETTERS: Final = frozenset(
    "АВЕЅІЈКМНОРСТУХѴЬаеѕіјорсухѵһԁԛԝґӏвкмнтΑΒΕΖΗΙΚΜΝΟΡΤΥΧαγικνορτυχϲϳϹՕՍԼօսցհոզᎪᎬᎳᎷᏃᎻᏞᏟᏢᏚᎢꓐꓑꓓꓖꓗꓙꓚꓝꓟꓠꓡꓢꓣꓤꓦꓧꓪꓫꓬꓮꓰꓲꓳꓴ"
)
_SIGNS: Final = frozenset("∕⁄∖٭⁎∗‐‑‒–—―−⁃ꞌ՚＇ˈʹ‘’“”‚„‹›…∶ː꞉․。")
# Blanks that are no space, and characters drawn as nothing, that `visible` leaves alone.
_BLANKS: Final = re.compile(
    "[\xa0\u115f\u1160\u1680\u17b4\u17b5\u2000-\u200a\u202f\u205f\u2800\u3000\u3164\uffa0\ufe00-\ufe0f]"
)
_WORD: Final = re.compile(r"[^\x00-\x20/\\.,:;()\[\]{}<>'\"`|&$=]+")
_ASCII_LETTER: Final = re.compile(r"[A-Za-z0-9]")


def plain(text: str, most: int = EVERYTHING) -> str:
    """Prose, diffs, output: lines and tabs stay; look-alike letters are written out among ASCII letters."""
    return _checked(visible(text, most), _mixed, _poses_as_letter)


def plain_line(text: str, most: int = 1000) -> str:
    """The same on one line."""
    return _checked(one_line(text, most), _mixed, _poses_as_letter)


def exact(text: str, most: int = EVERYTHING) -> str:
    """Commands and their texts: look-alikes are written out also where a whole word is made of them."""
    return _checked(visible(text, most), _posing, _poses)


def exact_line(text: str, most: int = 4000) -> str:
    """The same on one line, for paths and names."""
    return _checked(one_line(text, most), _posing, _poses)


def escape(char: str) -> str:
    """One character as `\\u0441`."""
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def disguised(text: str) -> bool:
    """Whether a command, a path or a name has characters that act on a screen, hide, or pass for ASCII ones."""
    return exact(text) != text


def _checked(text: str, suspicious: Callable[[str], bool], poses: Callable[[str], bool]) -> str:
    if text.isascii():
        return text

    def of_word(found: re.Match[str]) -> str:
        word = found[0]
        if word.isascii() or not suspicious(word):
            return word
        return "".join(escape(char) if poses(char) else char for char in word)

    return _BLANKS.sub(lambda found: escape(found[0]), _WORD.sub(of_word, text))


def _mixed(word: str) -> bool:
    """Whether ASCII letters and look-alikes stand in one word."""
    return _ASCII_LETTER.search(word) is not None and any(map(_poses_as_letter, word))


def _posing(word: str) -> bool:
    """Whether the word could be read as an ASCII one."""
    return all(char.isascii() or _poses(char) for char in word)


def _poses(char: str) -> bool:
    return char in _SIGNS or _poses_as_letter(char) or _is_variant(char, ("P", "S"))


def _poses_as_letter(char: str) -> bool:
    return char in _LETTERS or _is_variant(char, ("L", "Nd"))


def _is_variant(char: str, categories: tuple[str, ...]) -> bool:
    """Whether it is a wide, bold or otherwise styled form of one ASCII character."""
    if char.isascii() or not unicodedata.category(char).startswith(categories):
        return False
    folded = unicodedata.normalize("NFKC", char)
    return len(folded) == 1 and folded.isascii()
