"""Where the values of settings come from: options, the environment, `.env`; and what is said about faulty ones."""

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import ValidationError

from stepgate.domain.errors import InvalidValue, Problem
from stepgate.settings.model import DATABASE_URL, PREFIX, Settings, Source, variable_of

ENV_FILE = ".env"


def load(overrides: Mapping[str, Any] | None = None, *, env_file: Path | None = None) -> Settings:
    """Reads options, the environment and `.env` of the current folder, in this order of precedence.

    `overrides` are values of command-line options by field name; None means not given.
    Raises InvalidValue whose `problems` name each faulty variable and its fix.
    """
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    path = env_file or Path(ENV_FILE)
    written = _read_env_file(path)
    try:
        by_alias = {DATABASE_URL if name == "database_url" else name: value for name, value in given.items()}
        settings = Settings(_env_file=path, **by_alias)
    except ValidationError as error:
        raise _explained(error) from None
    names = {name.upper() for name in os.environ if os.environ[name]}, {name.upper() for name in written}
    return settings.told(dict(_sources(given, *names)), tuple(_notices(names[0] | names[1])))


def _read_env_file(path: Path) -> dict[str, str]:
    try:
        values = dotenv_values(path, encoding="utf-8") if path.is_file() else {}
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValue(
            f"{path} cannot be read: {error}", field=str(path), fix="make it a readable UTF-8 file or remove it"
        ) from error
    return {name: value for name, value in values.items() if value}


def _sources(given: Mapping[str, Any], environment: set[str], written: set[str]) -> Iterator[tuple[str, Source]]:
    for field in Settings.model_fields:
        if field in given:
            yield field, Source.OPTION
        elif variable_of(field) in environment:
            yield field, Source.ENVIRONMENT
        elif variable_of(field) in written:
            yield field, Source.ENV_FILE


def _notices(names: set[str]) -> Iterator[str]:
    known = {field.upper(): variable_of(field) for field in Settings.model_fields}
    for name in sorted(names - set(known.values())):
        if name.startswith(PREFIX):
            nearest = difflib.get_close_matches(name.removeprefix(PREFIX), known, n=1)
            hint = f"; did you mean {known[nearest[0]]}?" if nearest else ""
            yield f"{name} is not a setting of Stepgate and is ignored{hint}"


def _explained(error: ValidationError) -> InvalidValue:
    problems: list[Problem] = []
    for fault in error.errors(include_url=False, include_input=False):
        cause = fault.get("ctx", {}).get("error")
        if isinstance(cause, InvalidValue):
            problems.extend(cause.problems)
            continue
        field = str(fault["loc"][0]) if fault["loc"] else ""
        field = "database_url" if field == DATABASE_URL else field
        known = Settings.model_fields.get(field)
        message = str(fault["msg"]).removeprefix("Value error, ")
        problems.append(Problem(variable_of(field), message, f"expected: {known.description}" if known else None))
    first = problems[0]
    return InvalidValue(first.message, field=first.field, fix=first.fix, problems=tuple(problems))
