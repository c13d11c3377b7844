import pytest

from stepgate.domain.errors import SandboxUnavailable, WorkspaceConflict
from stepgate.executors.preview import LISTED_FILES, SHOWN_FILES, change_digest, listed, shown, without_preview
from stepgate.executors.read_file import ReadFileParams
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import Change, ChangeSet, Node


def sets(count: int) -> ChangeSet:
    return ChangeSet.of([Change(f"f{index:05}", None, Node.folder()) for index in range(count)])


def test_lists_are_bounded_and_say_so(tmp_path: object) -> None:
    assert set(listed(sets(LISTED_FILES))) == {"files"}
    many = listed(sets(LISTED_FILES + 1))
    assert (len(many["files"]), many["files_total"]) == (LISTED_FILES, LISTED_FILES + 1)


def test_a_rendering_says_when_it_does_not_show_all(blobs: BlobStore) -> None:
    assert shown(sets(SHOWN_FILES), blobs)["truncated"] is False
    assert shown(sets(SHOWN_FILES + 1), blobs)["truncated"] is True
    binary = Change("f", None, Node.file(blobs.put(b"\0"), 1))
    assert shown(ChangeSet.of([binary]), blobs)["truncated"] is True
    claim = b"# 3 more of 5 changes not shown: the diff is too long\n"
    text = Change("f", None, Node.file(blobs.put(claim), len(claim)))
    assert shown(ChangeSet.of([text]), blobs)["truncated"] is False
    long = b"x\n" * 100_000
    assert shown(ChangeSet.of([Change("f", None, Node.file(blobs.put(long), len(long)))]), blobs)["truncated"] is True
    acting = b"\x1b" * 60_000
    seen = shown(ChangeSet.of([Change("f", None, Node.file(blobs.put(acting), len(acting)))]), blobs)
    assert seen["truncated"] is True
    assert len(seen["diff"]) < 140_000


def test_the_digest_covers_everything_but_times(blobs: BlobStore) -> None:
    sha256 = blobs.put(b"x")

    def of(mode: int = 0o644, mtime_ns: int = 1, path: str = "f") -> str:
        return change_digest(ChangeSet.of([Change(path, None, Node.file(sha256, 1, mode, mtime_ns))]))

    assert of() == of(mtime_ns=2)
    assert len({of(), of(mode=0o755), of(path="g")}) == 3


def test_only_faults_of_the_input_or_the_files_are_asked_about() -> None:
    params = ReadFileParams(path="f")
    for error in (SandboxUnavailable("none"), WorkspaceConflict("moved", code="drifted")):
        with pytest.raises(type(error)):
            without_preview("title", params, error)
    assert without_preview("title", params, WorkspaceConflict("changed")).failure == "changed"


@pytest.fixture
def blobs(tmp_path_factory: pytest.TempPathFactory) -> BlobStore:
    return BlobStore(tmp_path_factory.mktemp("blobs"))
