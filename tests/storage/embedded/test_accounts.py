"""Who the server runs as, and what users may not do to each other."""

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import stepgate
from stepgate.domain.errors import DatabaseUnavailable
from stepgate.storage.embedded import acquire, binaries, layout
from tests.fixtures.embedded import eventually, is_silent
from tests.fixtures.patience import PATIENCE_S

PROGRAM = """
import asyncio, sys
from pathlib import Path
import asyncpg
from stepgate.storage.embedded import acquire

async def owner(server):
    connection = await asyncpg.connect(**server.dsn_kwargs())
    try:
        return await connection.fetchval("SELECT 'yes'")
    finally:
        await connection.close()

with acquire(Path(sys.argv[1]), binaries=Path(sys.argv[2]), durable=False) as server:
    print(asyncio.run(owner(server)))
"""
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def python_for(uid: int) -> str | None:
    """An interpreter of our version that this user can run; root's own may lie in a closed folder."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{name}", f"/usr/local/bin/{name}"):
        try:
            subprocess.run([candidate, "-c", ""], user=uid, check=True, capture_output=True, cwd="/")
        except (OSError, subprocess.CalledProcessError):
            continue
        return candidate
    return None


@pytest.fixture
def open_copy() -> Iterator[Path]:
    """Our source, its libraries and programs where every user can read them."""
    folder = Path(tempfile.mkdtemp(prefix="stepgate-open-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@root_only
def test_an_ordinary_user_gets_a_server_of_their_own(state_dir: Path, open_copy: Path) -> None:
    user = pwd.getpwnam("nobody")
    python = python_for(user.pw_uid)
    if python is None:
        pytest.skip("no interpreter of this version that an ordinary user can run")
    shutil.copytree(Path(stepgate.__file__).parent, open_copy / "stepgate")
    programs = binaries.reachable(binaries.find(None, frozenset()), open_copy)
    os.chown(state_dir, user.pw_uid, user.pw_gid)
    libraries = sysconfig.get_path("platlib")
    result = subprocess.run(
        [python, "-c", PROGRAM, str(state_dir), str(programs.folder)],
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=[],
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{open_copy}:{libraries}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert (result.stdout.strip(), result.stderr) == ("yes", "")
    assert eventually(lambda: is_silent(state_dir))
    (data,) = state_dir.glob("postgres-*/PG_VERSION")
    assert data.stat().st_uid == user.pw_uid


@root_only
def test_roots_server_runs_as_another_user_and_opens_nothing_but_a_way_through(state_dir: Path) -> None:
    with acquire(state_dir, durable=False) as server:
        data = state_dir / f"postgres-{server.version.split('.')[0]}"
        assert data.stat().st_uid != 0
        assert data.stat().st_mode & 0o777 == 0o700
        assert Path(server.host).stat().st_mode & 0o777 == 0o700
        assert state_dir.stat().st_mode & 0o777 == 0o711


@root_only
def test_root_uses_the_account_that_made_the_data(state_dir: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    os.chown(state_dir, nobody.pw_uid, nobody.pw_gid)
    with acquire(state_dir, durable=False):
        (data,) = state_dir.glob("postgres-*/PG_VERSION")
        assert data.stat().st_uid == nobody.pw_uid
        assert (state_dir / "start.lock").stat().st_uid == nobody.pw_uid


@root_only
def test_root_is_told_when_its_server_cannot_enter_the_state_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(DatabaseUnavailable, match="cannot enter") as caught:
        acquire(tmp_path / "state")
    assert "/var/lib" in str(caught.value.fix)


@root_only
def test_a_folder_that_a_stranger_made_first_is_refused(state_dir: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    squatted = state_dir / "run"
    squatted.mkdir()
    os.chown(squatted, nobody.pw_uid + 1, nobody.pw_gid)
    with pytest.raises(DatabaseUnavailable, match="another user"):
        acquire(state_dir)


def test_a_link_in_place_of_the_socket_folder_is_refused(state_dir: Path, tmp_path: Path) -> None:
    (state_dir / "run").symlink_to(tmp_path)
    with pytest.raises(DatabaseUnavailable, match="another user"):
        layout.prepare(state_dir)
