"""Unified diffs on a screen."""

from rich.text import Text

from stepgate.cli.text import plain

STYLES = (
    ("+++", "bold"),
    ("---", "bold"),
    ("diff ", "bold"),
    ("@@", "cyan"),
    ("+", "green"),
    ("-", "red"),
    ("#", "dim"),
)


def coloured(diff: str, *, most_lines: int | None = None) -> Text:
    """The diff, its lines coloured by what they say; a cut one says so."""
    lines = diff.rstrip("\n").split("\n")
    shown = lines if most_lines is None or len(lines) <= most_lines else lines[:most_lines]
    text = Text()
    hunk = False
    for number, line in enumerate(shown):
        hunk = line.startswith("@@") or (hunk and line[:1] in ("+", "-", " ", "\\"))
        text.append(plain(line) + ("\n" if number < len(shown) - 1 else ""), style=_style(line, hunk))
    if len(shown) < len(lines):
        text.append(f"\n… {len(lines) - len(shown)} more lines; view shows them", style="yellow")
    return text


def _style(line: str, hunk: bool) -> str:
    if hunk and line[:1] in ("+", "-"):
        return "green" if line[0] == "+" else "red"
    return next((style for start, style in STYLES if line.startswith(start)), "")
