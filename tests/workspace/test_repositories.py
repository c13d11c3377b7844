from pathlib import Path

import pytest

from stepgate.domain.errors import ChangeRefused
from stepgate.workspace.access import Root
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.building import build_edit
from stepgate.workspace.changes import Change, ChangeSet, Node
from stepgate.workspace.repositories import refuse_repositories


def _plant(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name in ("HEAD", "commondir", "config"):
            (folder / name).write_text("x")
        else:
            (folder / name).mkdir()


@pytest.mark.parametrize("names", [("HEAD", "objects", "refs"), ("HEAD", "commondir")])
@pytest.mark.parametrize("path", ["real/config", "real/hooks/pre-commit", "real/HEAD"])
def test_nothing_in_a_repository_can_be_edited(root: Root, blobs: BlobStore, names: tuple[str, ...], path: str) -> None:
    _plant(root.path / "real", *names)
    with pytest.raises(ChangeRefused, match="repository 'real'"):
        build_edit(root, path, b"evil", blobs=blobs)


def test_a_workspace_that_is_a_bare_repository_is_not_edited(root: Root, blobs: BlobStore) -> None:
    _plant(root.path, "HEAD", "objects", "refs")
    with pytest.raises(ChangeRefused, match="repository"):
        build_edit(root, "hooks/post-update", b"evil", blobs=blobs)


def test_the_change_that_would_complete_a_repository_is_refused(root: Root) -> None:
    _plant(root.path / "d", "HEAD", "objects")
    with pytest.raises(ChangeRefused):
        refuse_repositories(root, ChangeSet.of([Change("d/refs", None, Node.folder())]))


@pytest.mark.parametrize("names", [("HEAD",), ("objects", "refs"), ("config", "refs")])
def test_folders_that_only_resemble_one_are_free(root: Root, blobs: BlobStore, names: tuple[str, ...]) -> None:
    _plant(root.path / "d", *names)
    assert build_edit(root, "d/file", b"mine", blobs=blobs).paths == ("d/file",)


def test_what_lies_beside_one_is_free(root: Root, blobs: BlobStore) -> None:
    _plant(root.path / "real", "HEAD", "objects", "refs")
    assert build_edit(root, "really/config", b"mine", blobs=blobs).paths == ("really", "really/config")
