"""The file system a command sees: an allow-list of the host's programs and nothing of anybody's data."""

import os
import pwd
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from stepgate.domain.errors import InvalidValue
from stepgate.workspace.layers.layer import WORKSPACE
from stepgate.workspace.sandbox.etc import host_paths, prepare_etc
from stepgate.workspace.sandbox.launch import Launcher, NotReachable

_LINKS: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_SYSTEM_PATH: Final = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin")


@dataclass(frozen=True, slots=True)
class FileSystem:
    """`path` is the PATH inside, first entry first; `shown` are folders outside /usr as (place inside, folder)."""

    path: tuple[str, ...]
    shown: tuple[tuple[str, Path], ...]
    etc: Path
    missing: tuple[str, ...]

    @classmethod
    def build(
        cls, launcher: Launcher, state_dir: Path, python_prefix: Path | None, readonly: Sequence[Path]
    ) -> "FileSystem":
        """Looks at the host once; what commands see as /etc is put together in the state folder.

        Stepgate's own Python is left out where the sandbox's user cannot come to it; `missing` then says so.
        Raises InvalidValue for a read-only folder that would show a home, the state folder or everything.
        """
        prefix = Path(sys.base_prefix) if python_prefix is None else python_prefix
        missing = [f"there is no {path}" for path in ("/usr/bin/env", "/bin/sh") if not Path(path).exists()]
        shown = [(str(folder), _presentable(folder, state_dir)) for folder in (prefix, *readonly) if _is_new(folder)]
        order: tuple[str, ...] = _SYSTEM_PATH
        try:
            if _is_new(prefix):
                launcher.reach(shown[0][1])
            if str(prefix / "bin") not in order:
                order = (str(prefix / "bin"), *order)
        except NotReachable as error:
            del shown[0]
            missing.append(f"the worker's own Python is not shown to commands: {error.message}")
        return cls(order, tuple(shown), prepare_etc(state_dir / "sandbox"), tuple(missing))

    def arguments(self, launcher: Launcher) -> tuple[str, ...]:
        """bubblewrap's arguments for everything but the workspace, scratch and folders shown.

        Raises NotReachable where the sandbox's user cannot come to a folder.
        """
        arguments = ["--ro-bind", "/usr", "/usr"]
        for name in _LINKS:
            path = Path("/", name)
            if path.is_symlink():
                arguments += ["--symlink", str(path.readlink()), str(path)]
            elif path.is_dir():
                arguments += ["--ro-bind", str(path), str(path)]
        arguments += ["--ro-bind", launcher.reach(self.etc), "/etc"]
        return (*arguments, "--dev", "/dev")

    def shown_arguments(self, launcher: Launcher) -> tuple[str, ...]:
        """Those for folders outside /usr; they come after /tmp, beneath which one may lie. Raises NotReachable."""
        return tuple(part for place, folder in self.shown for part in ("--ro-bind", launcher.reach(folder), place))

    def without_mounts(self, launcher: Launcher, *, owned: bool) -> "FileSystem":
        """What of it a command sees that is not shown it by mounts; with `owned`, also the worker's user's folders."""
        missing, shown = list(self.missing), []
        for place, folder in self.shown:
            closed = launcher.closed(folder)
            if closed is not None:
                missing.append(f"{place} is not shown to commands: their user cannot enter {closed}")
            elif not owned and not launcher.root and folder.stat().st_uid == launcher.uid:
                missing.append(f"{place} is not shown to commands: its modes and times could be changed")
            else:
                shown.append((place, folder))
        gone = {f"{place}/bin" for place, _folder in self.shown} - {f"{place}/bin" for place, _folder in shown}
        path = tuple(folder for folder in self.path if folder not in gone)
        return replace(self, path=path, shown=tuple(shown), missing=tuple(missing))

    def readable(self) -> tuple[str, ...]:
        """Every file and folder of the host that commands may read."""
        return (
            "/usr",
            *(f"/{name}" for name in _LINKS),
            *host_paths(),
            *(str(folder) for _place, folder in self.shown),
        )

    def resolve(self, name: str) -> str | None:
        """The path of the program that PATH inside leads to, None when there is none.

        A path is returned as it stands, one relative to the workspace beneath `WORKSPACE`.
        """
        if name.startswith("/"):
            return name if name.startswith(f"{WORKSPACE}/") or self._shows(name) else None
        if "/" in name:
            return f"{WORKSPACE}/{name.removeprefix('./')}"
        found = (f"{folder}/{name}" for folder in self.path)
        return next((path for path in found if _runs(path)), None)

    def _shows(self, path: str) -> bool:
        tops = ("/usr", *(f"/{name}" for name in _LINKS), *(place for place, _folder in self.shown))
        return any(path.startswith(f"{top}/") for top in tops) and ".." not in path.split("/") and _runs(path)


def _is_new(folder: Path) -> bool:
    return not folder.is_relative_to("/usr")


def _runs(path: str) -> bool:
    return os.path.isfile(path) and bool(os.stat(path).st_mode & 0o111)


def _presentable(folder: Path, state_dir: Path) -> Path:
    """The folder without links, if commands may read all of it."""
    if not folder.is_dir():
        raise InvalidValue(f"{str(folder)!r} is not a folder", field="readonly", fix="name an existing folder")
    source = folder.resolve()
    for secret in {state_dir.resolve(), *_homes()}:
        if secret.is_relative_to(source) or source.is_relative_to(state_dir.resolve()):
            raise InvalidValue(
                f"showing {str(folder)!r} to commands would show {str(secret)!r}",
                field="readonly",
                fix="name a folder of programs, not one that holds a home or the state folder",
            )
    return source


def _homes() -> set[Path]:
    own = {Path.home().resolve()}
    for entry in pwd.getpwall():
        # Service accounts often name a system folder as their home; only people's are looked at, and root's.
        if (entry.pw_uid == 0 or entry.pw_uid >= 1000) and entry.pw_dir not in ("/", "", "/nonexistent"):
            own.add(Path(entry.pw_dir).resolve())
    return own
