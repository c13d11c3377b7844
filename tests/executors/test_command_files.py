import hashlib

from stepgate.executors.command_files import MAX_NAMED, UNREADABLE, named_files
from tests.executors.bench import Bench


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_every_way_to_name_a_file_counts(bench: Bench) -> None:
    (bench.path / "sub").mkdir()
    for name in ("a.py", "b.cfg", "sub/c", "sub/d"):
        (bench.path / name).write_text(name)
    argv = ["tool", "./a.py", "--config=b.cfg", "/workspace/sub/c", "x:sub/d", "missing", "sub", "-v", ""]
    assert named_files(bench.root, argv, None, ".") == {
        name: sha256(name) for name in ("a.py", "b.cfg", "sub/c", "sub/d")
    }


def test_names_are_seen_from_the_command_s_folder(bench: Bench) -> None:
    (bench.path / "sub").mkdir()
    (bench.path / "f").write_text("above")
    (bench.path / "sub/f").write_text("below")
    assert named_files(bench.root, ["cat", "f", "../f"], None, "sub") == {
        "f": sha256("above"),
        "sub/f": sha256("below"),
    }


def test_nothing_outside_the_workspace_is_looked_at(bench: Bench) -> None:
    (bench.path.parent / "outside").write_text("secret")
    argv = ["cat", "../outside", "/etc/passwd", str(bench.path.parent / "outside"), "a/../../outside", "d/" * 70]
    assert named_files(bench.root, argv, None, ".") == {}


def test_the_words_of_shell_text_count(bench: Bench) -> None:
    for name in ("a", "b c", "d", "e"):
        (bench.path / name).write_text(name)
    text = "cat a 'b c'>out;tool --x=d|wc<e"
    assert set(named_files(bench.root, [], text, ".")) == {"a", "b c", "d", "e"}
    assert set(named_files(bench.root, [], "cat a 'open", ".")) == {"a"}


def test_links_are_followed_inside_the_workspace_only(bench: Bench) -> None:
    (bench.path / "real").write_text("real")
    (bench.path / "link").symlink_to("real")
    (bench.path / "out").symlink_to("/etc/passwd")
    (bench.path / "loop").symlink_to("loop")
    assert named_files(bench.root, ["cat", "link", "out", "loop"], None, ".") == {
        "link": "link:real",
        "loop": "link:loop",
        "out": "link:/etc/passwd",
        "real": sha256("real"),
    }


def test_what_cannot_be_read_is_told_apart_from_what_is_not_there(bench: Bench) -> None:
    (bench.path / "folder").mkdir()
    (bench.path / "way").symlink_to("folder")
    (bench.path / "folder/f").write_text("x")
    assert named_files(bench.root, ["cat", "way/f", "none/f"], None, ".") == {"way/f": UNREADABLE}


def test_the_number_of_names_is_bounded(bench: Bench) -> None:
    for index in range(MAX_NAMED + 5):
        (bench.path / str(index)).touch()
    argv = [str(index) for index in range(MAX_NAMED + 5)]
    assert len(named_files(bench.root, argv, None, ".")) == MAX_NAMED
