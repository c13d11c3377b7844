"""The rules of a file that no step can write."""

from collections.abc import Collection
from pathlib import Path

from stepgate.domain.errors import InvalidPolicy, Problem
from stepgate.domain.limits import MAX_PLAN_BYTES
from stepgate.domain.policy.decide import Policy
from stepgate.domain.policy.reading import read_policy

DEFAULT_NAME = "stepgate.policy.yaml"
SETTING = "STEPGATE_POLICY"


def load_policy(
    configured: Path | None, *, state_dir: Path, workspace_root: Path, step_types: Collection[str]
) -> Policy | None:
    """The rules of the configured file, else of `stepgate.policy.yaml` in the state folder; None where there is none.

    Raises InvalidPolicy naming the field at fault, or the setting where the file is missing, cannot be read, or lies
    where a workspace may be: what a step could change would not bind it.
    """
    path = configured or state_dir / DEFAULT_NAME
    # A link that leads nowhere is a file that is missing, not one that nobody wanted.
    if configured is None and not path.exists() and not path.is_symlink():
        return None
    if path.resolve().is_relative_to(workspace_root.resolve()):
        raise _unusable(f"{path} lies below the workspace root {workspace_root}", "keep it where no workspace can be")
    try:
        return read_policy_file(path, step_types)
    except OSError as error:
        raise _unusable(f"{path} cannot be read: {error.strerror}", "name a readable file, or unset it") from error
    except InvalidPolicy as error:
        faults = [Problem(f"{path}: {one.field}", one.message, one.fix) for one in error.problems]
        raise InvalidPolicy(f"{path}: {error.message}", problems=tuple(faults)) from error


def read_policy_file(path: Path, step_types: Collection[str]) -> Policy:
    """The rules of a file wherever it lies; raises OSError, or InvalidPolicy naming each field at fault."""
    with path.open("rb") as file:
        return read_policy(file.read(MAX_PLAN_BYTES + 1), str(path), step_types)


def _unusable(message: str, fix: str) -> InvalidPolicy:
    return InvalidPolicy(message, field=SETTING, fix=fix)
