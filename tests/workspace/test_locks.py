import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stepgate.domain.errors import WorkspaceUnavailable
from stepgate.workspace.access import Root
from stepgate.workspace.locks import ApplyMarks, WorkspaceLock
from tests.fixtures.patience import PATIENCE_S

HOLDER = """
import sys
from pathlib import Path
from stepgate.workspace.access import Root
from stepgate.workspace.locks import WorkspaceLock
with Root.open(Path(sys.argv[1])) as root, getattr(WorkspaceLock(root), sys.argv[2])():
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(workspace: Path, kind: str) -> "subprocess.Popen[bytes]":
    program = subprocess.Popen(
        [sys.executable, "-c", HOLDER, workspace, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert program.stdout is not None
    assert program.stdout.readline() == b"held\n"
    return program


def test_readers_share_and_writers_do_not(root: Root) -> None:
    lock = WorkspaceLock(root)
    with lock.shared(), lock.shared():
        with pytest.raises(WorkspaceUnavailable) as caught, lock.exclusive():
            pytest.fail("exclusive while shared")
        assert caught.value.field == "workspace_path"
    with lock.exclusive():
        with pytest.raises(WorkspaceUnavailable), lock.shared(0.01):
            pytest.fail("shared while exclusive")
        with pytest.raises(WorkspaceUnavailable), lock.exclusive(0.01):
            pytest.fail("exclusive twice")
    with lock.exclusive():
        pass


def test_the_lock_holds_between_processes_and_ends_with_its_holder(root: Root, workspace: Path) -> None:
    lock = WorkspaceLock(root)
    with hold(workspace, "exclusive") as program:
        with pytest.raises(WorkspaceUnavailable), lock.shared():
            pytest.fail("shared while another process holds it")
        program.kill()
        program.wait()
        with lock.exclusive(10):
            pass
        program.communicate()


def test_two_roots_of_one_folder_have_one_lock(root: Root, workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(workspace)
    with (
        Root.open(tmp_path / "alias") as alias,
        WorkspaceLock(alias).exclusive(),
        pytest.raises(WorkspaceUnavailable),
        WorkspaceLock(root).shared(),
    ):
        pytest.fail("shared through another name")


def test_who_waits_gets_it_when_it_is_free(root: Root) -> None:
    lock = WorkspaceLock(root)
    got = threading.Event()

    def wait() -> None:
        with lock.exclusive(10):
            got.set()

    with lock.shared():
        thread = threading.Thread(target=wait)
        thread.start()
        assert not got.wait(0.05)
    assert got.wait(10)
    thread.join(10)


async def test_waiting_leaves_the_event_loop_free(root: Root) -> None:
    lock = WorkspaceLock(root)
    async with lock.exclusive_async():
        with pytest.raises(WorkspaceUnavailable):
            async with lock.shared_async(0.01):
                pytest.fail("shared while exclusive")
        waiting = asyncio.create_task(_enter(lock))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not waiting.done()
    await asyncio.wait_for(waiting, PATIENCE_S)


async def _enter(lock: WorkspaceLock) -> None:
    async with lock.shared_async(10):
        return


async def test_a_cancelled_waiter_keeps_nothing(root: Root) -> None:
    lock = WorkspaceLock(root)
    async with lock.shared_async():
        waiting = asyncio.create_task(_enter_alone(lock))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    with lock.exclusive():
        pass


async def _enter_alone(lock: WorkspaceLock) -> None:
    async with lock.exclusive_async(10):
        return


def test_a_mark_stands_for_every_process_until_cleared(tmp_path: Path) -> None:
    marks, others = ApplyMarks(tmp_path), ApplyMarks(tmp_path)
    assert others.standing("w") is None
    marks.begin("w", "set-1")
    assert others.standing("w") == "set-1"
    assert others.standing("another") is None
    others.begin("w", "set-1")
    with pytest.raises(WorkspaceUnavailable, match="set-1") as caught:
        others.begin("w", "set-2")
    assert caught.value.details["change_set_id"] == "set-1"
    others.clear("w")
    others.clear("w")
    assert marks.standing("w") is None
    marks.begin("w", "set-2")
    assert others.standing("w") == "set-2"


@pytest.mark.parametrize("key", ["../../escape", "/abs", "a\x00b", "x" * 5000, ""])
def test_no_key_names_a_file_elsewhere(tmp_path: Path, key: str) -> None:
    marks = ApplyMarks(tmp_path / "state")
    marks.begin(key, "set")
    assert marks.standing(key) == "set"
    assert [path.parent for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "state/applying"]


def test_a_mark_is_durable_before_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = list[str]()
    monkeypatch.setattr("stepgate.workspace.locks.fsync", lambda _descriptor: done.append("file"))
    monkeypatch.setattr("stepgate.workspace.locks.fsync_folder", lambda path: done.append(Path(path).name))
    marks = ApplyMarks(tmp_path)
    marks.begin("w", "set")
    assert done == ["file", "applying"]
    marks.clear("w")
    assert done == ["file", "applying", "applying"]
