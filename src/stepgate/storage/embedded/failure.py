"""Says what went wrong around the embedded server, and what a person can do about it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from stepgate.domain.errors import DatabaseUnavailable
from stepgate.storage.embedded.layout import CHOOSE_STATE_DIR, Layout


def tail(path: Path) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-8:])
    except OSError:
        return ""


def failure(what: str, output: str, place: Layout) -> DatabaseUnavailable:
    fix = f"see {place.log}, or set DATABASE_URL to another server"
    if "No space left on device" in output:
        fix = f"free some space for {place.state_dir}, or set STEPGATE_STATE_DIR to a folder on another disk"
    elif "Permission denied" in output or "Operation not permitted" in output:
        fix = CHOOSE_STATE_DIR
    lines = [line.strip() for line in output.strip().splitlines() if line.strip()]
    return DatabaseUnavailable(f"{what}: {' / '.join(lines[-3:])}" if lines else what, fix=fix)


@contextlib.contextmanager
def files_explained(place: Layout) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DatabaseUnavailable(
            f"the embedded server cannot use {error.filename or place.state_dir}: {error.strerror or error}",
            fix=CHOOSE_STATE_DIR,
        ) from error
