"""Values of settings that are more than one word: how they are written, read, checked and shown."""

import os
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from stepgate.domain import duration
from stepgate.domain.errors import InvalidValue
from stepgate.llm.prices import Price
from stepgate.workspace.sandbox.limits import Limits

MASK: Final = "********"
EVERY_OTHER: Final = "*"
ELSEWHERE: Final = {"wall_s": "STEPGATE_COMMAND_TIMEOUT_S", "output_bytes": "STEPGATE_MAX_OUTPUT_BYTES"}
"""Limits of a command that have settings of their own."""
_UNITS: Final = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SIZE: Final = re.compile(r"(\d{1,15})(KiB|MiB|GiB|)", re.ASCII)
_LARGEST: Final = 2**53
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def default_state_dir() -> Path:
    """`/var/lib/stepgate` for root, whose server runs as another user and must get there; else the XDG folder."""
    if os.geteuid() == 0:
        return Path("/var/lib/stepgate")
    configured = os.environ.get("XDG_STATE_HOME", "")
    if configured.startswith("/"):
        return Path(configured) / "stepgate"
    try:
        return Path.home() / ".local" / "state" / "stepgate"
    except RuntimeError as error:
        raise InvalidValue(
            "you have no home folder", field="STEPGATE_STATE_DIR", fix="set it to a folder that you can write to"
        ) from error


def default_concurrency() -> dict[str, int]:
    return {EVERY_OTHER: 64, "run_command": max(2, os.cpu_count() or 2)}


def default_command_limits() -> dict[str, int | float]:
    limits = Limits()
    return {field.name: getattr(limits, field.name) for field in fields(limits) if field.name not in ELSEWHERE}


def concurrency(value: int | str) -> dict[str, int]:
    """`type=number,...`, or one number for all types; raises ValueError naming the faulty part."""
    if isinstance(value, int):
        return {EVERY_OTHER: value}
    if value.strip().isdecimal():
        return {EVERY_OTHER: int(value)}
    counts = dict(default_concurrency())
    for part in parts(value):
        name, equals, count = part.partition("=")
        if not equals or not count.strip().isdecimal():
            raise ValueError(f"{part!r} is not of the form type=number")
        counts[name.strip()] = int(count)
    return counts


def command_limits(value: str) -> dict[str, int | float]:
    """`name=value,...` over the defaults: seconds as durations (`90`, `5m`), sizes with units (`512MiB`), plain counts.

    Raises ValueError naming the limit that is unknown, has a setting of its own, is given twice, or is no such value.
    """
    limits = default_command_limits()
    given: set[str] = set()
    for part in parts(value):
        name, equals, text = (one.strip() for one in part.partition("="))
        if not equals:
            raise ValueError(f"{part!r} is not of the form name=value")
        if name in ELSEWHERE:
            raise ValueError(f"{name} is set by {ELSEWHERE[name]}")
        if name not in limits:
            raise ValueError(f"there is no limit {name!r}; there are {', '.join(limits)}")
        if name in given:
            raise ValueError(f"{name} is given twice")
        given.add(name)
        limits[name] = _seconds(name, text) if name.endswith("_s") else _size(name, text)
    return limits


def _seconds(name: str, text: str) -> float:
    try:
        seconds = duration.milliseconds(text if not _is_number(text) else float(text)) / 1000
    except InvalidValue as error:
        raise ValueError(f"{name}={text} is not a duration; {error.fix}") from error
    return _positive(name, text, seconds)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text, re.ASCII) is not None


def _size(name: str, text: str) -> int:
    found = _SIZE.fullmatch(text)
    if found is None or (found[2] and not name.endswith("_bytes")):
        wanted = "a number of bytes, such as 1048576, 512KiB, 64MiB or 2GiB" if name.endswith("_bytes") else "a number"
        raise ValueError(f"{name}={text} is not {wanted}")
    size = int(found[1]) * _UNITS[found[2]]
    if size > _LARGEST:
        raise ValueError(f"{name}={text} is more than {_LARGEST}")
    return int(_positive(name, text, size))


def _positive(name: str, text: str, value: float) -> float:
    if value <= 0:
        raise ValueError(f"{name}={text} is not more than 0")
    return value


def models_by_tier(value: str) -> dict[str, str]:
    """`tier=model,...`; raises ValueError naming the faulty part."""
    pairs = [part.partition("=") for part in parts(value)]
    for tier, equals, model in pairs:
        if not (tier.strip() and equals and model.strip()):
            raise ValueError(f"{tier + equals + model!r} is not of the form tier=model")
    return {tier.strip(): model.strip() for tier, _, model in pairs}


def prices_by_model(value: str) -> dict[str, str]:
    """`model=input:output,...` in dollars per million tokens; raises ValueError naming the faulty part."""
    found: dict[str, str] = {}
    for part in parts(value):
        model, equals, price = part.rpartition("=")
        try:
            Price.parse(price)
        except InvalidValue as error:
            raise ValueError(f"{part!r} is not of the form model=0.15:0.60") from error
        if not equals or not model.strip():
            raise ValueError(f"{part!r} is not of the form model=0.15:0.60")
        found[model.strip()] = price.strip()
    return found


def check_passed_on(name: str) -> None:
    """Raises ValueError for a name that no variable has, and for variables that hold Stepgate's own secrets."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of an environment variable")
    if name.upper().startswith("STEPGATE_") or name.upper() == "DATABASE_URL":
        raise ValueError(f"{name} is Stepgate's own and is never shown to commands")


def full_path(path: Path) -> Path:
    """The path from the root, `~` replaced; raises ValueError where there is no such user."""
    try:
        path = path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path}: there is no such user") from error
    return Path(os.path.abspath(path))  # noqa: PTH100 - links are followed where a path is used


def parts(text: str) -> list[str]:
    """What stands between commas, without blanks around it."""
    return [part.strip() for part in text.split(",") if part.strip()]


def shown(value: Any) -> str:
    """As a person may see it, and as it could be written again; secrets are masked."""
    match value:
        case None:
            return ""
        case SecretStr():
            return MASK
        case bool():
            return "true" if value else "false"
        case Mapping():
            return ",".join(f"{name}={_short(name, part)}" for name, part in value.items())
        case tuple():
            return ",".join(str(part) for part in value)
        case _:
            return str(value)


def _short(name: str, number: float | str) -> str:
    if isinstance(number, str):
        return number
    if name.endswith("_bytes"):
        unit = next(unit for unit in ("GiB", "MiB", "KiB", "") if number % _UNITS[unit] == 0)
        return f"{number // _UNITS[unit]:.0f}{unit}"
    return f"{number:g}"
