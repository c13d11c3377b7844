"""Kinds of input fields that several step types share, so that each is checked and described in one way."""

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from stepgate.domain.canonical import check_text
from stepgate.domain.errors import InvalidValue
from stepgate.domain.plan import KEY_PATTERN
from stepgate.workspace.paths import check_relative


def refusal(error: InvalidValue, kind: str = "refused") -> PydanticCustomError:
    """An error of ours in the form that validation collects, with its way out.

    `kind` is `shape` for a fault in which fields are given, which stands whatever references become.
    """
    return PydanticCustomError(kind, "{message}", {"message": error.message, "fix": error.fix})


def _relative(value: str) -> str:
    try:
        return check_relative(value)
    except InvalidValue as error:
        raise refusal(error) from error


def _relative_folder(value: str) -> str:
    try:
        return check_relative(value, allow_root=True) or "."
    except InvalidValue as error:
        raise refusal(error) from error


def _text(value: str) -> str:
    try:
        check_text(value, "value")
    except InvalidValue as error:
        raise refusal(error) from error
    return value


RelativePath = Annotated[str, AfterValidator(_relative)]
"""A file's path relative to the workspace, without `.` and empty parts; no `..`, not absolute."""
RelativeFolder = Annotated[str, AfterValidator(_relative_folder)]
"""The same for a folder; `.` is the workspace itself."""
Text = Annotated[str, AfterValidator(_text)]
"""Text that JSON and PostgreSQL can hold: no NUL, no lone surrogates."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
StepKey = Annotated[str, Field(pattern=KEY_PATTERN)]
