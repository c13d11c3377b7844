import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgate.domain.errors import EditConflict, InvalidValue, StepgateError
from stepgate.workspace.patch import apply_patch

OLD = b"one\ntwo\nthree\nfour\nfive\n"
HUNK = "@@ -2,3 +2,3 @@\n two\n-three\n+3\n four\n"


def test_a_bare_hunk_and_one_with_headers_do_the_same() -> None:
    new = b"one\ntwo\n3\nfour\nfive\n"
    assert apply_patch(OLD, HUNK, "f") == new
    assert apply_patch(OLD, "--- a/f\n+++ b/f\n" + HUNK, "f") == new
    assert apply_patch(OLD, "diff --git a/f b/f\nindex 1..2 100644\n--- a/f\t2024\n+++ b/f\n" + HUNK, "f") == new
    assert apply_patch(OLD, "Index: f\n===\n--- f\n+++ f\n" + HUNK + "\n\n", "f") == new


def test_a_hunk_whose_lines_moved_applies_where_alone_it_matches() -> None:
    assert apply_patch(b"zero\n" + OLD, HUNK, "f") == b"zero\none\ntwo\n3\nfour\nfive\n"
    assert apply_patch(b"two\nthree\nfour\n", HUNK, "f") == b"two\n3\nfour\n"


def test_a_later_hunk_follows_the_shift_of_an_earlier_one() -> None:
    text = "".join(f"{n}\n" for n in range(1, 41)).replace("30\n", "same\n").replace("20\n", "same\n")
    patch = "@@ -1,1 +1,1 @@\n-1\n+one\n@@ -30,1 +30,1 @@\n-same\n+thirty\n"
    moved = "new\n" + text
    assert (
        apply_patch(moved.encode(), patch, "f")
        == moved.replace("1\n", "one\n", 1).replace("29\nsame\n", "29\nthirty\n").encode()
    )


def test_a_hunk_that_matches_elsewhere_twice_is_not_guessed() -> None:
    with pytest.raises(EditConflict, match=r"hunk 1 \(line 2\) matches in 2 places") as caught:
        apply_patch(b"x\ny\n" + b"two\nthree\nfour\n" * 2, HUNK, "f")
    assert caught.value.details == {"hunk": 1, "line": 2}


@pytest.mark.parametrize("data", [b"", b"one\ntwo\nthree\nFOUR\n", b"one\ntwo\n three\nfour\n", b"two\nthree\nfour"])
def test_context_that_differs_is_refused_with_the_hunk(data: bytes) -> None:
    with pytest.raises(EditConflict, match=r"hunk 1 .* does not match"):
        apply_patch(data, HUNK, "f")


def test_hunks_may_not_overlap_or_go_back() -> None:
    with pytest.raises(EditConflict, match="hunk 2"):
        apply_patch(OLD, HUNK + HUNK, "f")


def test_insertions_go_after_the_line_they_name() -> None:
    assert apply_patch(b"a\nb\n", "@@ -1,0 +2 @@\n+x\n", "f") == b"a\nx\nb\n"
    assert apply_patch(b"a\nb\n", "@@ -0,0 +1 @@\n+x\n", "f") == b"x\na\nb\n"
    assert apply_patch(b"", "@@ -0,0 +1 @@\n+x\n", "f") == b"x\n"
    with pytest.raises(EditConflict, match="hunk 1"):
        apply_patch(b"a\n", "@@ -9,0 +9 @@\n+x\n", "f")


def test_files_are_created_and_deleted_by_dev_null() -> None:
    create = "diff --git a/f b/f\nnew file mode 100644\n--- /dev/null\n+++ b/f\n@@ -0,0 +1,2 @@\n+a\n+b\n"
    delete = "--- a/f\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-a\n-b\n"
    assert apply_patch(None, create, "f") == b"a\nb\n"
    assert apply_patch(b"a\nb\n", delete, "f") is None
    with pytest.raises(EditConflict, match="exists"):
        apply_patch(b"", create, "f")
    with pytest.raises(EditConflict, match="more lines"):
        apply_patch(b"a\nb\nc\n", delete, "f")
    for patch in (delete, HUNK):
        with pytest.raises(EditConflict, match="does not exist"):
            apply_patch(None, patch, "f")


def test_missing_newlines_at_the_end_are_part_of_the_match() -> None:
    add = "@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n"
    drop = "@@ -1 +1 @@\n-a\n+a\n\\ No newline at end of file\n"
    assert apply_patch(b"a", add, "f") == b"a\n"
    assert apply_patch(b"a\n", drop, "f") == b"a"
    with pytest.raises(EditConflict):
        apply_patch(b"a\n", add, "f")


def test_a_blank_context_line_may_have_lost_its_blank() -> None:
    assert apply_patch(b"a\n\nb\n", "@@ -1,3 +1,3 @@\n a\n\n-b\n+c\n", "f") == b"a\n\nc\n"


def test_a_patch_in_lf_fits_a_file_in_crlf() -> None:
    assert apply_patch(OLD.replace(b"\n", b"\r\n"), HUNK, "f") == b"one\r\ntwo\r\n3\r\nfour\r\nfive\r\n"
    assert apply_patch(b"a\r\nb\n", "@@ -1,2 +1,2 @@\n a\r\n-b\n+c\n", "f") == b"a\r\nc\n"


def test_lines_that_look_like_headers_are_content_inside_a_hunk() -> None:
    patch = "--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n--- x\n+++ y\n z\n"
    assert apply_patch(b"-- x\nz\n", patch, "f") == b"++ y\nz\n"


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        ("", "no hunk"),
        ("hello\n", "no hunk"),
        ("--- a/f\n+++ b/f\n", "no hunk"),
        ("@@ bad @@\n", "header of hunk 1"),
        ("@@ -1,5 +1,5 @@\n one\n", "hunk 1 ends before"),
        ("@@ -1 +1 @@\n-one\n*two\n", "line 3 in hunk 1"),
        ("@@ -1 +1,2 @@\n-one\n-two\n+x\n+y\n", "more lines"),
        (HUNK + "trailing\n", "line 6"),
        (HUNK + "--- a/g\n+++ b/g\n" + HUNK, "line 6"),
        ("--- a/g\n+++ b/g\n" + HUNK, "'a/g'"),
        ("--- a/f\n+++ b/../f\n" + HUNK, "'b/../f'"),
        ("--- /dev/null\n+++ /dev/null\n", "names no file"),
        ("diff --git a/f b/g\nrename from f\nrename to g\n", "rename"),
        ("diff --git a/f b/f\nold mode 100644\nnew mode 100755\n--- a/f\n+++ b/f\n" + HUNK, "old mode"),
        ("diff --git a/f b/f\nnew file mode 100755\n--- /dev/null\n+++ b/f\n@@ -0,0 +1 @@\n+x\n", "100755"),
        ("Binary files a/f and b/f differ\n", "Binary"),
    ],
)
def test_what_is_no_patch_of_this_file_is_refused_with_the_reason(patch: str, reason: str) -> None:
    with pytest.raises(InvalidValue, match=reason) as caught:
        apply_patch(OLD, patch, "f", "input.patch")
    assert caught.value.field == "input.patch"


def test_a_file_that_is_no_text_is_refused() -> None:
    with pytest.raises(EditConflict, match="UTF-8"):
        apply_patch(b"\xff", HUNK, "f")


def test_quoted_names_are_read_as_git_writes_them() -> None:
    name = 'tab\t"ü"\\'
    patch = '--- "a/tab\\t\\"\\303\\274\\"\\\\"\n+++ "b/tab\\t\\"\\303\\274\\"\\\\"\n' + HUNK
    assert apply_patch(OLD, patch, name) is not None


@given(st.text(alphabet="@-+, 0123456789\\\n\rab/", max_size=80))
def test_any_text_is_applied_or_refused_with_an_error_of_ours(patch: str) -> None:
    fields = set[str | None]()
    try:
        apply_patch(b"a\nb\n", patch, "a")
    except StepgateError as error:
        fields.add(error.field)
    assert fields <= {"patch"}
