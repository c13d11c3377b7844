import shutil
import subprocess

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.diff import unified
from stepgate.workspace.edits import uses_crlf
from stepgate.workspace.linediff import changed_blocks
from stepgate.workspace.patch import apply_patch
from tests.workspace import trees
from tests.workspace.trees import File, Folder, Link, Tree


def diff(before: Tree, after: Tree, blobs: BlobStore, **options: int) -> str:
    return unified(trees.between(before, after, blobs), blobs, **options)


def test_an_edit_looks_as_from_git(blobs: BlobStore) -> None:
    old = "".join(f"{number}\n" for number in range(1, 31))
    new = old.replace("3\n", "three\n", 1).replace("25\n", "")
    assert diff({"f.txt": File(old.encode())}, {"f.txt": File(new.encode())}, blobs) == (
        "diff --git a/f.txt b/f.txt\n"
        "--- a/f.txt\n"
        "+++ b/f.txt\n"
        "@@ -1,6 +1,6 @@\n 1\n 2\n-3\n+three\n 4\n 5\n 6\n"
        "@@ -22,7 +22,6 @@\n 22\n 23\n 24\n-25\n 26\n 27\n 28\n"
    )


def test_creation_deletion_modes_and_missing_newlines_are_shown(blobs: BlobStore) -> None:
    before: Tree = {"gone": File(b"a\n"), "mode": File(b"x"), "tail": File(b"a")}
    after: Tree = {"mode": File(b"x", 0o755), "tail": File(b"a\n"), "new": File(b"n\n", 0o600), "zero": File(b"")}
    assert diff(before, after, blobs) == (
        "diff --git a/gone b/gone\ndeleted file mode 100644\n--- a/gone\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n"
        "diff --git a/mode b/mode\nold mode 100644\nnew mode 100755\n"
        "diff --git a/new b/new\nnew file mode 100600\n--- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+n\n"
        "diff --git a/tail b/tail\n--- a/tail\n+++ b/tail\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n"
        "diff --git a/zero b/zero\nnew file mode 100644\n"
    )


def test_a_rename_is_one_entry_even_among_equals(blobs: BlobStore) -> None:
    same = b"the same content\n"
    before: Tree = {"a": File(same), "b": File(same)}
    after: Tree = {"c": File(same, 0o755), "d": File(same), "e": File(same)}
    assert diff(before, after, blobs) == (
        "diff --git a/a b/c\nold mode 100644\nnew mode 100755\n"
        "similarity index 100%\nrename from a\nrename to c\n"
        "diff --git a/b b/d\nsimilarity index 100%\nrename from b\nrename to d\n"
        "diff --git a/e b/e\nnew file mode 100644\n--- /dev/null\n+++ b/e\n@@ -0,0 +1 @@\n+the same content\n"
    )


def test_links_and_changes_of_kind_are_shown(blobs: BlobStore) -> None:
    before: Tree = {"l": Link("old"), "k": File(b"x\n"), "d": Folder()}
    after: Tree = {"l": Link("new"), "k": Link("l"), "d": Folder(0o700), "e": Folder()}
    assert diff(before, after, blobs) == (
        "# folder d/ mode 0755 to 0700\n"
        "# new folder e/ mode 0755\n"
        "diff --git a/k b/k\ndeleted file mode 100644\n--- a/k\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n"
        "diff --git a/k b/k\nnew file mode 120000\n--- /dev/null\n+++ b/k\n@@ -0,0 +1 @@\n+l\n"
        "\\ No newline at end of file\n"
        "diff --git a/l b/l\n--- a/l\n+++ b/l\n@@ -1 +1 @@\n-old\n\\ No newline at end of file\n+new\n"
        "\\ No newline at end of file\n"
    )
    assert diff({"e": Folder()}, {}, blobs) == "# deleted folder e/\n"


@pytest.mark.parametrize("data", [b"\x00\x01", b"caf\xe9\n"])
def test_what_is_not_text_is_named_with_its_sizes(blobs: BlobStore, data: bytes) -> None:
    shown = diff({"b": File(b"text")}, {"b": File(data)}, blobs)
    assert f"4 to {len(data)} bytes" in shown
    assert shown.endswith("Binary files a/b and b/b differ\n")


def test_a_huge_file_is_named_not_read(blobs: BlobStore) -> None:
    after: Tree = {"big": File(b"x\n" * 600_000)}
    change_set = trees.between({}, after, blobs)
    for name in change_set.blob_names:
        blobs.path_of(name).unlink()
    assert "too large to show: 0 to 1200000 bytes" in unified(change_set, blobs)


def test_a_diff_over_its_limit_says_how_much_is_missing(blobs: BlobStore) -> None:
    after: Tree = {f"f{number}": File(b"line\n" * 10) for number in range(9)}
    shown = diff({}, after, blobs, max_bytes=500)
    assert len(shown.encode()) < 600
    assert shown.endswith("more of 9 changes not shown: the diff is too long\n")


def test_hostile_names_cannot_forge_lines(blobs: BlobStore) -> None:
    name = 'a\n+++ b/evil\t"\\ü\x1b[31m\u202e'
    shown = diff({}, {name: File(b"x\n")}, blobs)
    quoted = '"b/a\\n+++ b/evil\\t\\"\\\\ü\\033[31m\\342\\200\\256"'
    assert f"+++ {quoted}\n" in shown
    assert shown.count("\n") == 6


def test_only_a_line_feed_ends_a_line(blobs: BlobStore) -> None:
    old, new = "a\r\nb\x0cc\u2028d\r\n", "a\r\nb\x0cc\u2028e\r\n"
    shown = diff({"f": File(old.encode())}, {"f": File(new.encode())}, blobs)
    assert shown.endswith("@@ -1,2 +1,2 @@\n a\r\n-b\x0cc\u2028d\r\n+b\x0cc\u2028e\r\n")


lines = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "\n", "d\r\n", "-x\n", "+y\n", "@@ -1 +1 @@\n"]), max_size=25)
texts = st.builds(lambda body, tail: "".join(body) + tail, lines, st.sampled_from(["", "no newline"]))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts, texts, st.integers(0, 4))
def test_a_diff_applied_to_the_old_text_gives_the_new(blobs: BlobStore, old: str, new: str, context: int) -> None:
    before, after = {"f": File(old.encode())}, {"f": File(new.encode())}
    shown = diff(before, after, blobs, context=context)
    # A patch without any CRLF means CRLF in a file that has nothing else, so it cannot bring a bare LF there.
    assume(not shown or "\r\n" in shown or not uses_crlf(old))
    if shown:
        assert apply_patch(old.encode(), shown, "f") == new.encode()
    else:
        assert old == new


@pytest.mark.skipif(shutil.which("git") is None, reason="compares with git")
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts, texts, st.sampled_from(["f", "with blank", 'quote"d', "ümlaut", "tab\tbed"]))
def test_git_applies_it(tmp_path_factory: pytest.TempPathFactory, old: str, new: str, name: str) -> None:
    base = tmp_path_factory.mktemp("git")
    blobs = BlobStore(base / "blobs")
    before: Tree = {name: File(old.encode()), "gone": File(b"gone\n"), "moved": File(b"moved\n")}
    after: Tree = {name: File(new.encode()), "new": File(b"new\n", 0o755), "arrived": File(b"moved\n"), "l": Link("x")}
    (base / "w").mkdir()
    trees.write(base / "w", before)
    shown = diff(before, after, blobs)
    subprocess.run(["git", "apply", "--unidiff-zero", "-"], input=shown.encode(), cwd=base / "w", check=True)
    found = trees.read(base / "w")
    assert found.keys() == after.keys()
    for path, item in after.items():
        there = found[path]
        assert there == item or (isinstance(there, File) and isinstance(item, File) and there.data == item.data)


@given(st.lists(st.integers(0, 3), max_size=30), st.lists(st.integers(0, 3), max_size=30))
def test_blocks_turn_the_old_lines_into_the_new(old_drawn: list[int], new_drawn: list[int]) -> None:
    old, new = [str(item) for item in old_drawn], [str(item) for item in new_drawn]
    assert rebuilt(old, new) == new


def rebuilt(old: list[str], new: list[str]) -> list[str]:
    result, done = list[str](), 0
    for block in changed_blocks(old, new):
        assert block.old_from >= done
        result += old[done : block.old_from] + new[block.new_from : block.new_to]
        done = block.old_to
    return result + old[done:]


def test_large_texts_take_linear_work(blobs: BlobStore) -> None:
    old = [f"line {number}" for number in range(50_000)]
    moved = old[:100] + old[30_000:] + ["new"] + old[100:30_000]
    assert rebuilt(old, moved) == moved
    noise = [str(number % 7) for number in range(50_000)]
    assert rebuilt(noise, noise[::-1]) == noise[::-1]
    scattered = [f"{line}!" if number % 500 == 0 else line for number, line in enumerate(old)]
    blocks = changed_blocks(old, scattered)
    assert len(blocks) == 100
    assert all(block.old_to - block.old_from == 1 for block in blocks)
