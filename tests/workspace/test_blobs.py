import gc
import hashlib
import os
import stat
import threading
from pathlib import Path

import pytest

from stepgate.domain.errors import ChangeRefused, IntegrityError, InvalidValue, NotFound
from stepgate.workspace.blobs import BlobStore


def stored(blobs: BlobStore) -> list[Path]:
    return [path for path in blobs.root.rglob("*") if path.is_file()]


def test_what_is_put_comes_back_under_its_sha256(blobs: BlobStore) -> None:
    for data in (b"", b"hello", os.urandom(3_000_000)):
        name = blobs.put(data)
        assert name == hashlib.sha256(data).hexdigest()
        assert blobs.get(name) == data
        assert blobs.has(name)


def test_putting_again_stores_once(blobs: BlobStore) -> None:
    assert blobs.put(b"x") == blobs.put(b"x")
    blobs.sync()
    blobs.put(b"x")
    assert len(stored(blobs)) == 1


def test_blobs_are_private(blobs: BlobStore) -> None:
    name = blobs.put(b"secret")
    assert stat.S_IMODE(blobs.path_of(name).stat().st_mode) == 0o600


@pytest.mark.parametrize("size", [0, 10, 100_000, 2_500_000])
def test_a_stream_is_stored_whole_wherever_its_position_is(blobs: BlobStore, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "f").write_bytes(data)
    with (tmp_path / "f").open("rb") as stream:
        stream.read(5)
        assert blobs.put_stream(stream.fileno()) == (hashlib.sha256(data).hexdigest(), size)
        assert blobs.put_stream(stream.fileno(), size) == (hashlib.sha256(data).hexdigest(), size)
    assert blobs.get(hashlib.sha256(data).hexdigest()) == data


def test_a_stream_over_the_limit_leaves_nothing(blobs: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 100_000)
    with (tmp_path / "f").open("rb") as stream, pytest.raises(ChangeRefused, match="99999"):
        blobs.put_stream(stream.fileno(), 99_999)
    assert stored(blobs) == []


def test_a_damaged_blob_is_noticed_and_mended_by_putting_it_again(blobs: BlobStore, tmp_path: Path) -> None:
    name = blobs.put(b"right")
    blobs.path_of(name).write_bytes(b"wrong")
    with pytest.raises(IntegrityError, match=name):
        blobs.get(name)
    with (tmp_path / "out").open("w+b") as out, pytest.raises(IntegrityError):
        blobs.copy_to(name, out.fileno())
    another_process = BlobStore(blobs.root)
    another_process.put(b"right")
    assert blobs.get(name) == b"right"


def test_a_blob_cut_short_by_a_power_failure_is_written_again(blobs: BlobStore) -> None:
    name = blobs.put(b"right")
    blobs.sync()
    blobs.path_of(name).write_bytes(b"")
    blobs.put(b"right")
    assert blobs.get(name) == b"right"


def test_an_absent_blob_is_not_found(blobs: BlobStore) -> None:
    with pytest.raises(NotFound):
        blobs.get("0" * 64)
    with pytest.raises(NotFound):
        blobs.open("0" * 64)
    assert not blobs.has("0" * 64)


@pytest.mark.parametrize("name", ["", "../" * 20, "A" * 64, "0" * 63, "0" * 65])
def test_a_name_that_is_no_sha256_reaches_no_file(blobs: BlobStore, name: str) -> None:
    with pytest.raises(InvalidValue):
        blobs.get(name)


def test_a_copy_has_the_bytes(blobs: BlobStore, tmp_path: Path) -> None:
    data = os.urandom(200_000)
    name = blobs.put(data)
    with (tmp_path / "out").open("w+b") as out:
        blobs.copy_to(name, out.fileno())
    assert (tmp_path / "out").read_bytes() == data


@pytest.mark.parametrize("count", [1, 200])
def test_syncing_reaches_every_blob_once(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    synced = list[str]()

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    def sync_filesystem(descriptor: int) -> bool:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        return True

    monkeypatch.setattr("stepgate.workspace.blobs.fsync", fsync)
    monkeypatch.setattr("stepgate.workspace.blobs.sync_filesystem", sync_filesystem)
    names = [blobs.put(str(number).encode()) for number in range(count)]
    blobs.sync()
    assert synced == ([names[0]] if count == 1 else [blobs.root.name])
    blobs.sync()
    blobs.put(b"0")
    blobs.sync()
    assert len(synced) == 1


def test_a_failed_sync_is_tried_again(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[int]()

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr("stepgate.workspace.blobs.fsync", fsync)
    blobs.put(b"x")
    with pytest.raises(OSError, match="Input"):
        blobs.sync()
    blobs.sync()
    assert len(calls) == 2


def test_a_sync_waits_for_the_one_that_took_its_blobs(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, release, second_done = threading.Event(), threading.Event(), threading.Event()

    def fsync(_descriptor: int) -> None:
        entered.set()
        assert release.wait(10)

    monkeypatch.setattr("stepgate.workspace.blobs.fsync", fsync)
    blobs.put(b"x")

    def second() -> None:
        blobs.sync()
        second_done.set()

    first = threading.Thread(target=blobs.sync)
    other = threading.Thread(target=second)
    first.start()
    assert entered.wait(10)
    other.start()
    assert not second_done.wait(0.1)
    release.set()
    first.join(10)
    other.join(10)
    assert second_done.is_set()


def test_threads_and_stores_share_one_folder(blobs: BlobStore) -> None:
    others = [BlobStore(blobs.root) for _ in range(3)]

    def work(store: BlobStore) -> None:
        for number in range(100):
            store.put(str(number).encode() * 100)
        store.sync()

    threads = [threading.Thread(target=work, args=(store,)) for store in (blobs, blobs, *others)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(stored(blobs)) == 100
    for path in stored(blobs):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def test_what_a_killed_writer_left_is_swept_and_what_a_living_one_writes_is_not(blobs: BlobStore) -> None:
    incoming = blobs.root / "incoming"
    left = incoming / "left"
    left.mkdir()
    (left / "half").write_bytes(b"half")
    path, descriptor = blobs._temporary()
    os.close(descriptor)
    BlobStore(blobs.root)
    assert [found.name for found in incoming.iterdir()] == [Path(path).parent.name]
    assert Path(path).exists()


def test_a_store_that_ends_leaves_nothing_behind(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    name = store.put(b"kept")
    _, descriptor = store._temporary()
    os.close(descriptor)
    del store
    gc.collect()
    assert list((tmp_path / "incoming").iterdir()) == []
    assert BlobStore(tmp_path).get(name) == b"kept"
