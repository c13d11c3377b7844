"""Branches that git finds sound, made beside whatever the person has in hand and without running anything."""

import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from stepgate.domain.errors import Conflict, InvalidValue
from stepgate.workspace.access import Root
from stepgate.workspace.apply import apply
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import Change, ChangeSet
from stepgate.workspace.git.branch import STATE_AT_START, Branch, StepCommit, deliver_branch
from stepgate.workspace.git.repository import Head, head_of
from stepgate.workspace.states import node_at
from tests.workspace.git.repositories import Git, needs_git
from tests.workspace.trees import File, Folder, Link, Tree, read, write

pytestmark = needs_git
AUTHOR = "Stepgate <stepgate@localhost>"
BEGAN = 1_750_000_000


@dataclass
class Project:
    """A repository, a place to work aside, and the sets that record what was done there."""

    git: Git
    work: Path
    blobs: BlobStore

    def __post_init__(self) -> None:
        self.sets: list[ChangeSet] = []

    def begin(self) -> None:
        """Work begins with the files as they are."""
        subprocess.run(["cp", "-a", f"{self.git.path}/.", str(self.work)], check=True)
        subprocess.run(["rm", "-rf", str(self.work / ".git")], check=True)

    def step(self, change: Callable[[Path], object]) -> ChangeSet:
        """Records what a step does to the files."""
        with Root.open(self.work) as root:
            before = {path: node_at(root, path, self.blobs) for path in read(self.work)}
            change(self.work)
            after = {path: node_at(root, path, self.blobs) for path in read(self.work)}
        paths = set(before) | set(after)
        pairs = ((path, before.get(path), after.get(path)) for path in paths)
        made = ChangeSet.of(
            Change(path, one, other)
            for path, one, other in pairs
            if (one is None) != (other is None) or (one is not None and not one.same(other))
        )
        self.sets.append(made)
        return made

    def write(self, tree: Tree) -> ChangeSet:
        return self.step(lambda folder: write(folder, tree))

    def deliver(self, name: str = "result", base: str | None = "HEAD", allowed: Path | None = None) -> Branch:
        commit = self.git("rev-parse", base) if base is not None else None
        steps = [
            StepCommit(f"s{number}", f"s{number}: title\n\nStepgate-Step: s{number}\n", BEGAN + number, change_set)
            for number, change_set in enumerate(self.sets, start=1)
        ]
        with Root.open(self.git.path) as root:
            return deliver_branch(
                root,
                allowed or self.git.path.parent,
                name,
                commit,
                steps,
                self.blobs,
                author=AUTHOR,
                began=BEGAN,
                note="Stepgate-Run: r\n",
            )


@pytest.fixture
def project(tmp_path: Path, blobs: BlobStore) -> Project:
    (tmp_path / "work").mkdir()
    git = Git(tmp_path / "project").init()
    write(git.path, {"a.txt": File(b"a\n"), "d": Folder(), "d/b.txt": File(b"b\n"), "kept": File(b"kept\n")})
    git.commit()
    return Project(git, tmp_path / "work", blobs)


def set_up(project: Project) -> tuple[Git, Project]:
    project.begin()
    return project.git, project


def test_each_step_is_a_commit_and_nothing_else_of_the_person_s_is_touched(project: Project) -> None:
    git, made = set_up(project)
    before, base = git.state(), git("rev-parse", "HEAD")
    made.write({"a.txt": File(b"A\n")})
    made.step(lambda folder: (folder / "d" / "b.txt").unlink())
    made.write({"e": Folder(), "e/new.sh": File(b"#!/bin/sh\n", 0o755), "link": Link("a.txt")})
    branch = made.deliver()
    assert git.state() == before
    assert git("fsck", "--strict", "--full") == ""
    assert git.subjects("result") == ["first", "s1: title", "s2: title", "s3: title"]
    assert (branch.base, branch.commit) == (base, git("rev-parse", "result"))
    assert [commit.step for commit in branch.commits] == ["s1", "s2", "s3"]
    assert {path: mode for path, (mode, _) in git.tree("result").items()} == {
        "a.txt": "100644",
        "e/new.sh": "100755",
        "kept": "100644",
        "link": "120000",
    }
    assert git.show("result", "a.txt") == "A"
    assert git.show("result", "link") == "a.txt"
    assert git("diff", "--name-status", f"{base}", "result~2") == "M\ta.txt"
    assert git("diff", "--name-status", "result~2", "result~1") == "D\td/b.txt"
    about = git("log", "-1", "--format=%an|%ae|%cn|%at|%ct|%ai|%B", "result")
    assert about.startswith(f"Stepgate|stepgate@localhost|Stepgate|{BEGAN + 3}|{BEGAN + 3}|")
    assert "Stepgate-Step: s3" in about
    assert branch.left_out == []


def test_the_same_run_gives_the_same_commits_and_asking_again_changes_nothing(project: Project) -> None:
    git, made = set_up(project)
    made.write({"a.txt": File(b"A\n")})
    first = made.deliver()
    assert made.deliver() == first
    assert made.deliver("other").commit == first.commit
    assert git("rev-parse", "other") == git("rev-parse", "result")


def test_files_that_were_not_as_committed_are_in_a_first_commit_as_they_were(project: Project) -> None:
    (project.git.path / "a.txt").write_bytes(b"in hand\n")
    (project.git.path / "kept").write_bytes(b"in hand too, not touched by the run\n")
    write(project.git.path, {"untracked": File(b"mine\n")})
    (project.git.path / "d" / "b.txt").unlink()
    git, made = set_up(project)
    before = git.state()
    made.write({"a.txt": File(b"in hand\nand more\n"), "untracked": File(b"ours\n"), "d/b.txt": File(b"anew\n")})
    branch = made.deliver()
    assert git.state() == before
    assert git.subjects("result") == ["first", STATE_AT_START, "s1: title"]
    assert branch.commits[0].step is None
    assert git.show("result~1", "a.txt") == "in hand"
    assert git.show("result~1", "untracked") == "mine"
    assert "d/b.txt" not in git.tree("result~1")
    assert git.show("result", "kept") == "kept"
    assert git("diff", "--numstat", "result~1", "result", "--", "a.txt") == "1\t0\ta.txt"


def test_a_branch_without_any_commit_yet_gets_a_history_of_its_own(tmp_path: Path, blobs: BlobStore) -> None:
    (tmp_path / "work").mkdir()
    git, made = set_up(Project(Git(tmp_path / "project").init(), tmp_path / "work", blobs))
    with Root.open(git.path) as root:
        assert head_of(root, tmp_path) == Head("refs/heads/main", None)
    made.write({"a": File(b"a\n")})
    branch = made.deliver(base=None)
    assert (branch.base, git.subjects("result")) == (None, ["s1: title"])
    assert git("fsck", "--strict") == ""
    with pytest.raises(Conflict) as refused:
        made.deliver("main", base=None)
    assert refused.value.reason_code == "branch_checked_out"
    assert git("status", "--porcelain") == ""


def test_where_head_stands_is_read_in_every_form(project: Project) -> None:
    git = project.git
    commit = git("rev-parse", "HEAD")
    with Root.open(git.path) as root:
        assert head_of(root, git.path) == Head("refs/heads/main", commit)
        git("pack-refs", "--all")
        assert not (git.path / ".git" / "refs" / "heads" / "main").exists()
        assert head_of(root, git.path) == Head("refs/heads/main", commit)
        git("checkout", "-q", "--detach")
        assert head_of(root, git.path) == Head(None, commit)


def test_packed_objects_with_deltas_are_read(project: Project) -> None:
    git = project.git
    for number in range(30):
        folder = git.path / f"f{number % 7}"
        folder.mkdir(exist_ok=True)
        (folder / f"n{number}").write_text("".join(f"{line} {number}\n" for line in range(200)))
        git.commit(f"c{number}")
    git("repack", "-q", "-a", "-d", "-f", "--depth=20", "--window=20")
    git("prune-packed")
    git("pack-refs", "--all")
    assert int(git("count-objects")[0]) == 0
    _, made = set_up(project)
    made.write({"f3/n3": File(b"changed\n"), "f3/more": File(b"more\n")})
    made.deliver()
    assert git("fsck", "--strict", "--full") == ""
    assert git("diff", "--name-status", "main", "result").splitlines() == ["A\tf3/more", "M\tf3/n3"]


def test_renames_kind_changes_and_odd_names_arrive(project: Project) -> None:
    git, made = set_up(project)
    made.step(lambda folder: (folder / "a.txt").rename(folder / 'new name \u00e9\t"q"'))
    made.step(lambda folder: (folder / "kept").unlink())
    made.write({"kept": Folder(), "kept/in": File(b"in\n")})
    made.step(lambda folder: subprocess.run(["rm", "-r", "d"], cwd=folder, check=True))
    made.write({"d": Link("kept")})
    made.deliver()
    assert git("fsck", "--strict") == ""
    assert git.tree("result").keys() == {'new name \u00e9\t"q"', "kept/in", "d"}
    assert git.tree("result")["d"][0] == "120000"
    assert "R100" in git("diff", "-M", "--name-status", "main", "result~4")


def test_a_step_that_leaves_no_trace_in_git_has_no_commit(project: Project) -> None:
    git, made = set_up(project)
    made.write({"empty": Folder()})
    made.write({"a.txt": File(b"A\n")})
    made.write({"a.txt": File(b"A\n", 0o600)})
    assert [commit.step for commit in made.deliver().commits] == ["s2"]
    assert git.subjects("result") == ["first", "s2: title"]


def test_a_run_that_git_sees_nothing_of_makes_no_branch(project: Project) -> None:
    git, made = set_up(project)
    made.write({"empty": Folder()})
    with pytest.raises(Conflict) as refused:
        made.deliver()
    assert refused.value.reason_code == "nothing_to_deliver"
    assert git("branch", "--list", "result") == ""


def test_all_files_gone_is_an_empty_tree(project: Project) -> None:
    git, made = set_up(project)
    made.step(lambda folder: subprocess.run(["rm", "-r", "a.txt", "d", "kept"], cwd=folder, check=True))
    made.deliver()
    assert git.tree("result") == {}
    assert git("fsck", "--strict") == ""


def test_ignored_files_stay_out_unless_they_are_tracked(project: Project) -> None:
    git = project.git
    write(
        git.path,
        {
            ".gitignore": File(b"*.log\n/build/\n!keep.log\n"),
            "d/.gitignore": File(b"secret*\n!secret.txt\n"),
            "tracked.log": File(b"t\n"),
        },
    )
    git.commit("rules")
    (git.path / ".git" / "info").mkdir(exist_ok=True)
    (git.path / ".git" / "info" / "exclude").write_text("private\n")
    _, made = set_up(project)
    made.write(
        {
            "a.log": File(b"1\n"),
            "keep.log": File(b"2\n"),
            "tracked.log": File(b"changed\n"),
            "build": Folder(),
            "build/keep.log": File(b"4\n"),
            "d/build": File(b"5\n"),
            "d/secret.key": File(b"6\n"),
            "d/secret.txt": File(b"7\n"),
            "private": File(b"8\n"),
            "e": Folder(),
            "e/x.log": File(b"9\n"),
        }
    )
    branch = made.deliver()
    ignored = {"a.log", "build/keep.log", "d/secret.key", "private", "e/x.log"}
    assert dict(branch.left_out) == {**dict.fromkeys(ignored, "ignored")} | {
        path: reason for path, reason in branch.left_out if path in ("build", "e")
    }
    changed = git("diff", "--name-only", "main", "result").splitlines()
    assert set(changed) == {"keep.log", "tracked.log", "d/build", "d/secret.txt"}
    # The same as git would say.
    subprocess.run(["cp", "-a", f"{made.work}/.", str(git.path)], check=True)
    assert set(git("ls-files", "-o", "--exclude-standard", "-m").splitlines()) == set(changed)


def test_submodules_are_left_alone(project: Project, tmp_path: Path) -> None:
    git = project.git
    other = Git(tmp_path / "other").init()
    write(other.path, {"x": File(b"x\n")})
    other.commit()
    git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(other.path), "sub")
    git.commit("with a submodule")
    _, made = set_up(project)
    subprocess.run(["rm", "-rf", str(made.work / "sub" / ".git")], check=True)
    made.sets.clear()
    made.write({"sub/x": File(b"X\n"), "sub/new": File(b"n\n"), "a.txt": File(b"A\n")})
    branch = made.deliver()
    assert dict(branch.left_out) == {"sub/x": "in a submodule", "sub/new": "in a submodule"}
    assert git.tree("result")["sub"] == git.tree("main")["sub"]
    assert git("diff", "--name-only", "main", "result") == "a.txt"


def test_content_is_committed_as_it_is(project: Project) -> None:
    git = project.git
    write(git.path, {".gitattributes": File(b"* text=auto eol=crlf\n*.bin filter=lfs\n")})
    git.commit("attributes")
    _, made = set_up(project)
    made.write({"crlf": File(b"one\r\ntwo\r\n"), "x.bin": File(b"\x00raw")})
    made.deliver()
    names = {path: name for path, (_, name) in git.tree("result").items()}
    assert git("cat-file", "-s", names["crlf"]) == "10"
    assert git("cat-file", "-s", names["x.bin"]) == "4"


def test_nothing_the_repository_configures_runs(project: Project, tmp_path: Path) -> None:
    git, made = set_up(project)
    base = git("rev-parse", "HEAD")
    mark = tmp_path / "mark"
    git.trap(mark)
    write(git.path, {".gitattributes": File(b"* filter=shot diff=shot merge=shot\n")})
    made.write({"a.txt": File(b"A\n")})
    before = {path: (git.path / path).stat().st_mtime_ns for path in read(git.path) if not path.startswith(".git/")}
    with Root.open(git.path) as root:
        assert head_of(root, git.path).commit == base
    steps = [StepCommit("s1", "s1\n", BEGAN, made.sets[0])]
    with Root.open(git.path) as root:
        branch = deliver_branch(
            root, git.path, "result", base, steps, made.blobs, author=AUTHOR, began=BEGAN, note="n\n"
        )
    assert not mark.exists()
    assert {path: (git.path / path).stat().st_mtime_ns for path in before} == before
    # The trap has teeth: git itself walks into it.
    git("-c", "alias.status=", "update-ref", "refs/heads/teeth", branch.commit)
    assert mark.exists()


# Branches that are there


def test_an_existing_branch_is_refused_and_stays(project: Project) -> None:
    git, made = set_up(project)
    git("branch", "result")
    made.write({"a.txt": File(b"A\n")})
    for packed in (False, True):
        if packed:
            git("pack-refs", "--all")
        with pytest.raises(Conflict) as refused:
            made.deliver()
        assert refused.value.reason_code == "branch_exists"
        assert git("rev-parse", "result") == git("rev-parse", "main")
    assert not list((git.path / ".git" / "refs").rglob("*.lock"))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("there", "wanted"), [("a", "a/b"), ("a/b", "a"), ("a/b/c", "a/b")])
def test_a_branch_above_or_below_another_is_refused(project: Project, there: str, wanted: str, packed: bool) -> None:
    git, made = set_up(project)
    git("branch", there)
    if packed:
        git("pack-refs", "--all")
    made.write({"a.txt": File(b"A\n")})
    with pytest.raises(Conflict) as refused:
        made.deliver(wanted)
    assert refused.value.reason_code == "branch_exists"
    assert git("for-each-ref", "--format=%(refname:short)", "refs/heads") == "\n".join(sorted([there, "main"]))
    assert git("fsck") == ""


def test_empty_folders_of_deleted_branches_are_in_nobody_s_way(project: Project) -> None:
    git, made = set_up(project)
    (git.path / ".git" / "refs" / "heads" / "result" / "below" / "deep").mkdir(parents=True)
    made.write({"a.txt": File(b"A\n")})
    made.deliver()
    assert git("rev-parse", "result^") == git("rev-parse", "main")


def test_a_branch_below_folders_is_made(project: Project) -> None:
    git, made = set_up(project)
    made.write({"a.txt": File(b"A\n")})
    made.deliver("team/ada/fix")
    assert git("rev-parse", "team/ada/fix^") == git("rev-parse", "main")


def test_a_locked_branch_is_left_to_who_locked_it(project: Project) -> None:
    git, made = set_up(project)
    made.write({"a.txt": File(b"A\n")})
    lock = git.path / ".git" / "refs" / "heads" / "result.lock"
    lock.touch()
    with pytest.raises(Conflict) as refused:
        made.deliver()
    assert refused.value.reason_code == "branch_locked"
    assert lock.exists()


def test_of_many_at_once_who_want_one_name_all_get_the_same_or_are_told(project: Project) -> None:
    git, made = set_up(project)
    made.write({"a.txt": File(b"A\n")})
    barrier = threading.Barrier(6)

    def deliver(_number: int) -> str:
        barrier.wait(30)
        try:
            return made.deliver().commit
        except Conflict as error:
            return error.reason_code

    with ThreadPoolExecutor(6) as pool:
        found = set(pool.map(deliver, range(6)))
    assert found - {"branch_locked"} == {git("rev-parse", "result")}
    assert git("fsck", "--strict") == ""


@pytest.mark.parametrize(
    "name",
    ["", "-x", "a..b", "a b", "a~b", "a^b", "a:b", "a\\b", "a.lock", ".a", "a/.b", "a/", "/a", "a//b", "@{", "HEAD",
     "a\nb", "a\x00b", "\u202e", "x" * 201, "../../config", "a/../b", "b.", "a*"],
)  # fmt: skip
def test_what_git_takes_for_no_branch_is_refused(project: Project, name: str) -> None:
    _, made = set_up(project)
    made.write({"a.txt": File(b"A\n")})
    with pytest.raises(InvalidValue) as refused:
        made.deliver(name)
    assert refused.value.field == "branch"


# Repositories of other forms


def refusal(made: Project, allowed: Path | None = None, base: str | None = "HEAD") -> str:
    commit = made.git("rev-parse", base, check=False) if base else None
    steps = [StepCommit("s1", "s1\n", BEGAN, made.sets[0])]
    with Root.open(made.git.path) as root, pytest.raises(Conflict) as refused:
        deliver_branch(
            root, allowed or made.git.path.parent, "result", commit, steps, made.blobs,
            author=AUTHOR, began=BEGAN, note="n\n",
        )  # fmt: skip
    assert refused.value.reason_code in ("repository_refused", "no_repository"), refused.value
    return refused.value.message


def test_a_folder_that_is_no_repository_is_said_to_be_none(tmp_path: Path, blobs: BlobStore) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "plain").mkdir()
    made = Project(Git(tmp_path / "plain"), tmp_path / "work", blobs)
    made.write({"a": File(b"a\n")})
    assert "no git repository" in refusal(made, base=None)


def test_a_bare_repository_is_none(tmp_path: Path, blobs: BlobStore) -> None:
    (tmp_path / "work").mkdir()
    made = Project(Git(tmp_path / "bare").init("--bare"), tmp_path / "work", blobs)
    made.write({"a": File(b"a\n")})
    assert "no git repository" in refusal(made, base=None)


def test_a_linked_git_folder_is_refused(project: Project, tmp_path: Path) -> None:
    _, made = set_up(project)
    made.write({"a.txt": File(b"A\n")})
    (project.git.path / ".git").rename(tmp_path / "elsewhere")
    (project.git.path / ".git").symlink_to(tmp_path / "elsewhere")
    assert "symlink" in refusal(made)
    with Root.open(project.git.path) as root:
        assert head_of(root, tmp_path) == Head(None, None)


def test_a_further_working_tree_is_served_where_its_repository_lies_inside_the_root(
    project: Project, tmp_path: Path, blobs: BlobStore
) -> None:
    main = project.git
    main("worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    (tmp_path / "other-work").mkdir()
    side, made = set_up(Project(Git(tmp_path / "side"), tmp_path / "other-work", blobs))
    with Root.open(side.path) as root:
        assert head_of(root, tmp_path) == Head("refs/heads/side", main("rev-parse", "side"))
        assert head_of(root, side.path) == Head(None, None)
    made.write({"a.txt": File(b"A\n")})
    assert "outside of the workspace root" in refusal(made, side.path)
    made.deliver(allowed=tmp_path)
    assert main("rev-parse", "result^") == main("rev-parse", "main")
    assert side("status", "--porcelain") == main("status", "--porcelain") == ""
    for checked_out in ("side", "main"):
        with pytest.raises(Conflict) as refused:
            made.deliver(checked_out)
        assert refused.value.reason_code == "branch_checked_out"


def damage_objects(git: Git) -> None:
    tree = git("rev-parse", "HEAD^{tree}")
    path = git.path / ".git" / "objects" / tree[:2] / tree[2:]
    path.chmod(0o644)
    path.write_bytes(b"nonsense")


def damage_pack(git: Git) -> None:
    git("repack", "-q", "-a", "-d")
    for path in (git.path / ".git" / "objects" / "pack").glob("*.pack"):
        path.chmod(0o644)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])


def swap_object(git: Git) -> None:
    tree = git("rev-parse", "HEAD^{tree}")
    path = git.path / ".git" / "objects" / tree[:2] / tree[2:]
    other = git("rev-parse", "HEAD:d")
    path.unlink()
    path.hardlink_to(git.path / ".git" / "objects" / other[:2] / other[2:])


def remove(*names: str) -> Callable[[Git], None]:
    def act(git: Git) -> None:
        for name in names:
            subprocess.run(["rm", "-rf", str(git.path / ".git" / name)], check=True)

    return act


def put(name: str, text: str) -> Callable[[Git], None]:
    def act(git: Git) -> None:
        path = git.path / ".git" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)

    return act


def link_objects(git: Git) -> None:
    objects = git.path / ".git" / "objects"
    objects.rename(git.path.parent / "objects")
    objects.symlink_to(git.path.parent / "objects")


def link_below(git: Git) -> None:
    heads = git.path / ".git" / "refs" / "heads"
    git("pack-refs", "--all")
    heads.rmdir()
    (git.path.parent / "away").mkdir()
    heads.symlink_to(git.path.parent / "away")


def pipe_head(git: Git) -> None:
    (git.path / ".git" / "HEAD").unlink()
    os.mkfifo(git.path / ".git" / "HEAD")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (damage_objects, "damaged"),
        (damage_pack, "damaged"),
        (swap_object, "damaged"),
        (remove("objects"), "objects"),
        (remove("refs"), "refs"),
        (remove("HEAD"), "HEAD"),
        (pipe_head, "fifo"),
        (put("commondir", "/nowhere\n"), "not there"),
        (put("commondir", "../../.."), "outside"),
        (put("objects/info/alternates", "/\n"), "outside"),
        (put("objects/info/alternates", "/nowhere/objects\n"), "not there"),
        (put("objects/info/alternates", "../../../../..\n"), "outside"),
        (put("reftable/tables.list", ""), "reftable"),
        (link_objects, "link"),
        (link_below, "link"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_what_is_not_sound_is_refused_with_the_reason(
    project: Project, spoil: Callable[[Git], None], reason: str
) -> None:
    git, made = set_up(project)
    base = git("rev-parse", "HEAD")
    made.write({"a.txt": File(b"A\n")})
    spoil(git)
    steps = [StepCommit("s1", "s1\n", BEGAN, made.sets[0])]
    with Root.open(git.path) as root, pytest.raises(Conflict) as refused:
        deliver_branch(root, git.path, "result", base, steps, made.blobs, author=AUTHOR, began=BEGAN, note="n\n")
    assert refused.value.reason_code == "repository_refused"
    assert reason in refused.value.message
    assert not (git.path.parent / "away" / "result").exists()


def test_a_repository_with_other_hashes_is_refused(tmp_path: Path, blobs: BlobStore) -> None:
    (tmp_path / "work").mkdir()
    git = Git(tmp_path / "project").init("--object-format=sha256")
    write(git.path, {"a": File(b"a\n")})
    git.commit()
    _, made = set_up(Project(git, tmp_path / "work", blobs))
    made.write({"a": File(b"A\n")})
    assert "SHA-256" in refusal(made)
    with Root.open(git.path) as root:
        assert head_of(root, tmp_path) == Head(None, None)


def test_alternates_inside_the_root_are_read(project: Project, tmp_path: Path, blobs: BlobStore) -> None:
    git = project.git
    git("clone", "-q", "--shared", str(git.path), str(tmp_path / "clone"))
    (tmp_path / "other-work").mkdir()
    clone, made = set_up(Project(Git(tmp_path / "clone"), tmp_path / "other-work", blobs))
    made.write({"d/b.txt": File(b"B\n")})
    made.deliver(allowed=tmp_path)
    assert clone("fsck", "--strict") == ""
    assert clone("diff", "--name-only", "main", "result") == "d/b.txt"
    assert git("branch", "--list", "result") == ""


def test_root_leaves_nothing_that_the_owner_could_not_remove(project: Project) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can write for others")
    git, made = set_up(project)
    made.write({"a.txt": File(b"A\n")})
    base = git("rev-parse", "HEAD")
    for path in [git.path, *git.path.rglob("*")]:
        os.chown(path, 1234, 4321, follow_symlinks=False)
    steps: Sequence[StepCommit] = [StepCommit("s1", "s1\n", BEGAN, made.sets[0])]
    with Root.open(git.path) as root:
        deliver_branch(root, git.path, "a/b", base, steps, made.blobs, author=AUTHOR, began=BEGAN, note="n\n")
    owners = {(path.lstat().st_uid, path.lstat().st_gid) for path in git.path.rglob("*")}
    assert owners == {(1234, 4321)}


def test_a_set_can_be_applied_to_what_git_checks_out(project: Project, tmp_path: Path) -> None:
    """The branch and the change sets tell the same."""
    git, made = set_up(project)
    made.write({"a.txt": File(b"A\n"), "d/c": File(b"c\n", 0o755)})
    made.deliver()
    other = tmp_path / "checked-out"
    git("worktree", "add", "-q", str(other), "main~0", "--detach")
    with Root.open(other) as root:
        apply(root, made.sets[0], made.blobs)
    Git(other)("add", "-A")
    assert Git(other)("diff", "--cached", "--stat", "result") == ""
