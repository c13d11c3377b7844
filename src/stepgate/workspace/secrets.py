"""Where the values of secrets come from: a folder with one file for each, as Docker and Kubernetes mount them."""

import contextlib
import hmac
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from stepgate.domain.errors import InvalidValue, StepgateError
from stepgate.domain.identity import DEFAULT_TENANT
from stepgate.workspace.redaction import LEAST_BYTES

SETTING: Final = "STEPGATE_SECRETS_DIR"
MAX_BYTES: Final = 32 * 1024
VERSION_CHARS: Final = 32
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Secret:
    """`version` tells values apart without telling them: nobody can find the value from it by trying."""

    name: str
    version: str
    value: str = field(repr=False)


class SecretFolder:
    """`key` makes versions; nothing beneath the folders `shown` may be a source, because commands may see them."""

    def __init__(self, path: Path, key: bytes, shown: Sequence[Path] = ()) -> None:
        self._path = path
        self._key = key
        self._shown = tuple(shown)

    def of(self, tenant: str) -> "SecretFolder":
        """A tenant's secrets: those of the default one lie in the folder itself, others' in folders of their names."""
        if tenant == DEFAULT_TENANT:
            return self
        return SecretFolder(self._path / tenant, self._key, self._shown)

    def read(self, name: str, workspace: Path, field: str) -> Secret:
        """The secret as it is now; blocks. `field` is what its errors are about.

        Raises InvalidValue where the folder or the file cannot be a source or the value cannot be a secret, naming the
        way to mend it and never the value.
        """
        try:
            folder = self._path.resolve(strict=True)
            for place in (workspace, *self._shown):
                if folder.is_relative_to(place.resolve()):
                    raise _unfit(
                        f"the secrets in {folder} lie inside {place}, which commands see",
                        f"set {SETTING} to a folder outside",
                    )
            value = self._value(folder, name, field)
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise _missing(name, field, f"{self._path / name}: {reason}", f"put its value there ({SETTING})") from error
        keyed = hmac.new(self._key, name.encode() + b"\0" + value.encode(), sha256)
        return Secret(name, keyed.hexdigest()[:VERSION_CHARS], value)

    def _value(self, folder: Path, name: str, field: str) -> str:
        # Kubernetes shows each file through links inside the folder, so that it can exchange all of them at once.
        path = (folder / name).resolve(strict=True)
        if not path.is_relative_to(folder):
            raise _missing(name, field, f"{folder / name} leads out of its folder", "put the file itself there")
        descriptor = os.open(path, _FLAGS)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise _missing(name, field, f"{path} is no regular file", "put a file with the value there")
            if found.st_mode & _OTHERS or found.st_uid not in (0, os.geteuid()):
                raise _missing(
                    name,
                    field,
                    f"{path} can be read or changed by others than the worker's user",
                    f"chmod 600 {path} (Docker: `mode: 0400`, Kubernetes: `defaultMode: 0400`)",
                )
            data = os.read(descriptor, MAX_BYTES + 3)
        finally:
            os.close(descriptor)
        return _checked(data, name, field, path)


def _checked(data: bytes, name: str, field: str, path: Path) -> str:
    data = data.removesuffix(b"\n").removesuffix(b"\r")
    if len(data) > MAX_BYTES:
        raise _missing(name, field, f"{path} has more than {MAX_BYTES} bytes", "give a smaller secret")
    if len(data.strip()) < LEAST_BYTES:
        raise _missing(
            name,
            field,
            f"{path} has fewer than {LEAST_BYTES} bytes, which could not be kept out of the output",
            "give a longer secret",
        )
    if b"\0" in data:
        raise _missing(name, field, f"{path} contains NUL, which no environment can hold", "encode it, as in base64")
    with contextlib.suppress(UnicodeDecodeError):  # which would carry the value along
        return data.decode()
    raise _missing(name, field, f"{path} is not UTF-8", "encode it, as in base64")


def _missing(name: str, field: str, what: str, fix: str) -> InvalidValue:
    return InvalidValue(f"there is no secret {name}: {what}", code="secret_unavailable", field=field, fix=fix)


def _unfit(what: str, fix: str) -> StepgateError:
    return InvalidValue(what, code="secret_unavailable", field=SETTING, fix=fix)
