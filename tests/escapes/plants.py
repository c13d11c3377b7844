"""What lies in a workspace before some attacks, in the place of a plain `.git`."""

import shutil
from pathlib import Path


def no_git(workspace: Path) -> None:
    """No repository."""
    shutil.rmtree(workspace / ".git")


def git_link(workspace: Path) -> None:
    """`.git` as a link to a repository in the workspace."""
    (workspace / ".git").rename(workspace / "real")
    _complete(workspace / "real")
    (workspace / ".git").symlink_to("real")


def git_file(workspace: Path) -> None:
    """`.git` as a file that names a repository in the workspace, as `git init --separate-git-dir` writes it."""
    (workspace / ".git").rename(workspace / "real")
    _complete(workspace / "real")
    (workspace / ".git").write_text("gitdir: real\n")


def bare(workspace: Path) -> None:
    """A bare repository beside it."""
    shutil.copytree(workspace / ".git", workspace / "bare.git")
    _complete(workspace / "bare.git")


def _complete(repository: Path) -> None:
    (repository / "HEAD").write_text("ref: refs/heads/main\n")
    for name in ("objects", "refs"):
        (repository / name).mkdir()
    for path in (repository, *repository.rglob("*")):
        path.chmod(0o777)
