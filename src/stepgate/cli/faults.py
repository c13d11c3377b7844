"""Errors as a person at a terminal, or a program that reads `--json`, gets them: one block a fault, no traceback."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from stepgate.cli import exits
from stepgate.cli.exits import Exit
from stepgate.cli.text import json_text, plain, plain_line
from stepgate.domain.errors import Problem, StepgateError


class CliError(Exception):
    """Ends a command: what is wrong, field by field, and the exit code that says so."""

    def __init__(
        self,
        message: str,
        *,
        exit: Exit,  # noqa: A002 - the word for it
        code: str = "error",
        problems: Sequence[Problem] = (),
        fix: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.exit = exit
        self.code = code
        self.problems = tuple(problems)
        self.fix = fix
        self.details: Mapping[str, Any] = details or {}


class Interrupted(CliError):
    """Ctrl-C, or a request to end: the run, if there is one, was handed back."""

    def __init__(self, message: str, fix: str | None = None) -> None:
        super().__init__(message, exit=Exit.INTERRUPTED, code="interrupted", fix=fix)


def of_error(error: StepgateError) -> CliError:
    """An error of this process."""
    return CliError(
        error.message,
        exit=exits.of_error(error),
        code=error.reason_code,
        problems=error.problems,
        fix=error.fix,
        details=error.details,
    )


def of_problem(status: int, document: Mapping[str, Any]) -> CliError:
    """An `application/problem+json` that the API answered."""
    code = str(document.get("type", "error")).rpartition(":")[2]
    problems = [
        Problem(str(one.get("field", "")), str(one.get("message", "")), one.get("fix"))
        for one in document.get("errors", ())
    ]
    message = str(document.get("detail") or document.get("title") or f"status {status}")
    return CliError(
        message, exit=exits.of_problem(status, code), code=code, problems=problems, details=document.get("details")
    )


def usage(field: str, message: str, fix: str | None = None) -> CliError:
    """Bad input on the command line itself."""
    return CliError(message, exit=Exit.USAGE, code="usage", problems=(Problem(field, message, fix),), fix=fix)


def answer(error: CliError, run_id: str | None = None) -> None:
    """The one object of `--json` where a command ends in an error."""
    run = {} if run_id is None else {"run_id": run_id}
    print(json_text(document(error) | run))


def show(error: CliError) -> None:
    """Writes one block for each fault to standard error."""
    for line in lines(error):
        print(line, file=sys.stderr)


def lines(error: CliError) -> list[str]:
    """`error: <field>: <message>` and `fix: ...` for each fault."""
    found = []
    for problem in error.problems or (Problem("", error.message),):
        where = f"{plain_line(problem.field)}: " if problem.field else ""
        found.append(f"error: {where}{plain(problem.message)}")
        if problem.fix:
            found.append(f"fix: {plain(problem.fix)}")
    if error.fix and not any(problem.fix for problem in error.problems):
        found.append(f"fix: {plain(error.fix)}")
    return found


def document(error: CliError) -> dict[str, Any]:
    """The same for programs."""
    problems = [{"field": one.field, "message": one.message, "fix": one.fix} for one in error.problems]
    body: dict[str, Any] = {"code": error.code, "detail": error.message, "fix": error.fix, "errors": problems}
    if error.details:
        body["details"] = dict(error.details)
    return {"error": body, "exit_code": int(error.exit)}
