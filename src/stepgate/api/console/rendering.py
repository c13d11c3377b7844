"""Pages from templates: every value is written out visibly and escaped, whatever a plan or a model put into it."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import HTMLResponse

from stepgate.executors.readings import exact, plain
from stepgate.executors.screen import SHOWN_TEXT, visible_json

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER: Final = Path(__file__).parent
SHORT: Final = 100
MOST_LINES: Final = 5000
MOST_TEXT: Final = 256 * 1024
POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": POLICY,
    # With none at all a browser would call the origin of a form `null`.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
SHOWN_APART: Final = frozenset(
    {"title", "command", "shell", "executable", "cwd", "env", "stdin", "sandbox", "notes", "diff", "files"}
    | {"secrets", "truncated", "requester", "cost_so_far_usd", "claim", "no_preview", "preview", "cannot_undo", "risk"}
    | {"disguised", "requester_kind", "edited_by", "also_asked_by"}
)


def _final(value: Any) -> Any:
    """Nothing is shown that acts, hides, or passes for something else."""
    if value is None:
        return ""
    # What is markup already was made here, of values that went this way.
    return plain(value, MOST_TEXT) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _short(text: str) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= SHORT else line[: SHORT - 1] + "…"


def _words(status: str) -> str:
    return str(status).replace("_", " ")


def _moment(text: str) -> str:
    """RFC 3339 to the second."""
    return f"{text[:10]} {text[11:19]} UTC"


def _usd(amount: str | None) -> str:
    return "unknown" if amount is None else f"${amount}"


def _exact(text: Any) -> str:
    """What will be run or written: also whole words of characters that only look like others are written out."""
    return "" if text is None else exact(str(text), MOST_TEXT)


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader  # noqa: PLC0415 - slow to load, and most processes show no page

    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        finalize=_final,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"short": _short, "words": _words, "moment": _moment, "usd": _usd, "exact": _exact}
    environment.filters["json"] = json_text
    return environment


def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A whole page; `session` None: nobody is signed in."""
    given = {"session": None, "here": None, "notice": None, "fault": None, **values}
    return HTMLResponse(_environment().get_template(template).render(given), status, dict(HEADERS))


def diff_lines(diff: str) -> list[tuple[str, str]]:
    """Each line of a diff with what it is: added, removed, head, place or same."""
    lines = diff.splitlines()
    shown = [(_kind(line), line) for line in lines[:MOST_LINES]]
    if len(lines) > MOST_LINES:
        shown.append(("head", f"… {len(lines) - MOST_LINES} more lines; the API and the command line have them"))
    return shown


def _kind(line: str) -> str:
    match line[:1]:
        case "+":
            return "head" if line.startswith("+++ ") else "added"
        case "-":
            return "head" if line.startswith("--- ") else "removed"
        case "@":
            return "place"
        case " " | "":
            return "same"
        case _:
            return "head"


def json_text(value: Any) -> str:
    """JSON for people, cut where it is very long."""
    if value is None:
        return ""
    text = json.dumps(visible_json(value), ensure_ascii=False, indent=2, sort_keys=True)
    return exact(text, 4 * SHOWN_TEXT)


def rest_of(shown: Mapping[str, Any]) -> str:
    """What of a rendering has no place of its own on the page."""
    return json_text({name: value for name, value in shown.items() if name not in SHOWN_APART} or None)
