import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgate.domain.errors import ChangeRefused, IntegrityError, PathRefused
from stepgate.workspace.changes import FIRST_REV, Change, ChangeSet, Kind, Node, Op, next_rev
from stepgate.workspace.paths import is_protected

SHA = "ab" * 32
ID = "01890a5d-ac96-774b-bcce-b302099a8057"

nodes = st.one_of(
    st.builds(
        Node.file,
        st.integers(0, 2**256 - 1).map(lambda n: f"{n:064x}"),
        st.integers(0, 2**40),
        st.integers(0, 0o777),
        st.integers(0, 2**62),
    ),
    st.builds(Node.folder, st.integers(0, 0o777), st.integers(0, 2**62)),
    st.builds(Node.symlink, st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1)),
)
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00/."), min_size=1, max_size=5).filter(
    lambda name: not is_protected(name)
)
change_sets = st.dictionaries(names, st.tuples(st.none() | nodes, nodes), max_size=6).map(
    lambda drawn: ChangeSet.of(Change(path, *sides) for path, sides in drawn.items())
)


@given(change_sets)
def test_a_change_set_survives_json(change_set: ChangeSet) -> None:
    again = ChangeSet.from_json(change_set.to_json())
    assert again == change_set
    assert again.digest == change_set.digest


def test_the_digest_is_pinned() -> None:
    change_set = ChangeSet.of(
        [
            Change("new/file.txt", None, Node.file(SHA, 3, 0o644, 17)),
            Change("new", None, Node.folder(0o755, 18)),
            Change("old", Node.symlink("target"), None),
        ],
        ID,
    )
    assert change_set.paths == ("new", "new/file.txt", "old")
    assert change_set.digest == "2dabb3853009cb54973eea08897002d5c507c6b494aa61cfb4473cf24c07486c"


def test_the_digest_leaves_out_the_id_and_the_times_of_folders() -> None:
    one = ChangeSet.of([Change("d", None, Node.folder(0o755, 1))])
    other = ChangeSet.of([Change("d", None, Node.folder(0o755, 2))])
    assert one.id != other.id
    assert one.digest == other.digest


@pytest.mark.parametrize(
    "other",
    [
        Change("f", None, Node.file(SHA, 3, 0o755, 1)),
        Change("f", None, Node.file(SHA, 4, 0o644, 1)),
        Change("f", None, Node.file("cd" * 32, 3, 0o644, 1)),
        Change("f", None, Node.file(SHA, 3, 0o644, 2)),
        Change("g", None, Node.file(SHA, 3, 0o644, 1)),
        Change("f", Node.folder(), Node.file(SHA, 3, 0o644, 1)),
    ],
)
def test_every_difference_that_is_applied_is_in_the_digest(other: Change) -> None:
    base = Change("f", None, Node.file(SHA, 3, 0o644, 1))
    assert ChangeSet.of([base]).digest != ChangeSet.of([other]).digest


def test_operations_follow_from_the_two_sides() -> None:
    file, folder = Node.file(SHA, 3), Node.folder()
    assert Change("p", None, file).op is Op.CREATE
    assert Change("p", file, folder).op is Op.MODIFY
    assert Change("p", file, None).op is Op.DELETE


def test_touching_a_file_is_no_other_state() -> None:
    assert Node.file(SHA, 3, 0o644, 1).same(Node.file(SHA, 3, 0o644, 2))
    assert not Node.file(SHA, 3, 0o644).same(Node.file(SHA, 3, 0o600))


def test_set_id_bits_never_get_into_a_node() -> None:
    assert Node.file(SHA, 3, 0o4755).mode == 0o755
    with pytest.raises(ChangeRefused):
        Node(Kind.FILE, 0o4755, 3, SHA, None, 0)


@pytest.mark.parametrize("kind", [Kind.FIFO, Kind.SOCKET, Kind.DEVICE])
def test_only_files_folders_and_links_can_be_recorded(kind: Kind) -> None:
    with pytest.raises(ChangeRefused):
        Node(kind, 0o644, 0, None, None, 0)


@pytest.mark.parametrize("path", [".git", "sub/.git/hooks/pre-commit", ".GIT/config", "a//b", "./a"])
def test_a_protected_or_crooked_path_is_never_in_a_change_set(path: str) -> None:
    with pytest.raises(ChangeRefused):
        ChangeSet.of([Change(path, None, Node.folder())])


@pytest.mark.parametrize("path", ["../up", "/abs", "a\x00"])
def test_a_path_that_leads_outside_is_never_in_a_change_set(path: str) -> None:
    with pytest.raises(PathRefused):
        ChangeSet.of([Change(path, None, Node.folder())])


def test_changes_that_contradict_each_other_are_refused() -> None:
    file = Node.file(SHA, 3)
    with pytest.raises(ChangeRefused, match="no folder afterwards"):
        ChangeSet.of([Change("d", Node.folder(), None), Change("d/f", None, file)])
    with pytest.raises(ChangeRefused, match="sorted and unique"):
        ChangeSet.of([Change("f", None, file), Change("f", file, None)])
    with pytest.raises(ChangeRefused, match="absent"):
        ChangeSet.of([Change("f", None, None)])


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"v": 2, "id": ID, "changes": []},
        {"v": 1, "id": ID, "changes": [{}]},
        {"v": 1, "id": ID, "changes": [{"path": "../x", "before": None, "after": {"kind": "folder"}}]},
        {
            "v": 1,
            "id": ID,
            "changes": [{"path": "x", "before": None, "after": {"kind": "fifo", "mode": 0, "mtime_ns": 0}}],
        },
        {"v": 1, "id": ID, "changes": 5},
    ],
)
def test_what_was_never_recorded_is_an_integrity_error(broken: dict[str, object]) -> None:
    with pytest.raises(IntegrityError):
        ChangeSet.from_json(broken)


def test_revisions_form_a_chain() -> None:
    first = next_rev(FIRST_REV, SHA)
    assert first != next_rev(first, SHA)
    assert first == next_rev("0" * 64, SHA)
    assert len(first) == 64


def test_looking_up_a_path_finds_it_or_nothing() -> None:
    change_set = ChangeSet.of([Change(path, None, Node.folder()) for path in ("a", "c")])
    found = change_set.get("c")
    assert found is not None
    assert found.path == "c"
    assert change_set.get("b") is None
    assert change_set.get("d") is None
