"""Real repositories for tests, made and looked at with the git program, which the product itself never runs."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAM = shutil.which("git")
needs_git = pytest.mark.skipif(PROGRAM is None, reason="what git makes of it can only be seen with git")
HOOKS = (
    *("pre-commit", "prepare-commit-msg", "commit-msg", "post-commit", "reference-transaction", "post-checkout"),
    *("pre-auto-gc", "post-rewrite", "post-index-change", "fsmonitor-watchman", "update", "pre-receive", "post-update"),
)


@dataclass(frozen=True, slots=True)
class Git:
    """A working tree, and git with no configuration but the repository's own."""

    path: Path

    def __call__(self, *words: str, data: bytes | None = None, check: bool = True) -> str:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CEILING_DIRECTORIES": str(self.path.parent),
        }
        for who in ("AUTHOR", "COMMITTER"):
            environment |= {f"GIT_{who}_NAME": "Ada", f"GIT_{who}_EMAIL": "ada@example.org"}
            environment |= {f"GIT_{who}_DATE": "1700000000 +0000"}
        done = subprocess.run(
            [str(PROGRAM), *words], cwd=self.path, env=environment, input=data, capture_output=True, check=False
        )
        assert not check or done.returncode == 0, (words, done.stderr.decode())
        return done.stdout.decode(errors="surrogateescape").strip()

    def init(self, *options: str) -> "Git":
        self.path.mkdir(exist_ok=True)
        self("init", "-q", "-b", "main", *options)
        return self

    def commit(self, message: str = "first") -> str:
        """Everything there is, committed; its id."""
        self("add", "-A", "-f")
        self("commit", "-q", "--allow-empty", "-m", message)
        return self("rev-parse", "HEAD")

    def show(self, commit: str, path: str) -> str:
        return self("show", f"{commit}:{path}")

    def tree(self, commit: str) -> dict[str, tuple[str, str]]:
        """Mode and object of every file of a commit."""
        found = {}
        for line in self("ls-tree", "-r", "-z", commit).split("\0"):
            if line:
                about, path = line.split("\t", 1)
                mode, _, name = about.split(" ")
                found[path] = (mode, name)
        return found

    def subjects(self, ref: str) -> list[str]:
        """Subjects of its commits, the first one first."""
        return self("log", "--reverse", "--format=%s", ref).splitlines()

    def state(self) -> tuple[str, str, bytes, str]:
        """All that a delivery may not change: status, HEAD, index and the working tree's own refs."""
        index = self.path / ".git" / "index"
        data = index.read_bytes() if index.is_file() else b""
        listed = self("for-each-ref", "--format=%(refname) %(objectname)").splitlines()
        refs = [line for line in listed if not line.startswith("refs/heads/result ")]
        head = self("rev-parse", "--abbrev-ref", "HEAD", check=False)
        return self("status", "--porcelain", "--ignored"), head, data, "\n".join(refs)

    def trap(self, mark: Path) -> None:
        """Makes the repository leave a mark wherever git, or a library that obeys it, would run or read something."""
        shot = mark.parent / "trap.sh"
        shot.write_text(f'#!/bin/sh\necho "$0 $*" >> {mark}\ncat\n')
        shot.chmod(0o755)
        hooks = self.path / ".git" / "hooks"
        hooks.mkdir(exist_ok=True)
        for name in HOOKS:
            shutil.copy(shot, hooks / name)
        with (self.path / ".git" / "config").open("a") as config:
            config.write(
                f"[core]\n\tfsmonitor = {shot}\n\tpager = {shot}\n\teditor = {shot}\n\tsshCommand = {shot}\n"
                f"\tattributesFile = {mark.parent}/attributes\n\thooksPath = {hooks}\n\tautocrlf = true\n"
                f"[commit]\n\tgpgSign = true\n[gpg]\n\tprogram = {shot}\n"
                f'[filter "shot"]\n\tclean = {shot}\n\tsmudge = {shot}\n\tprocess = {shot}\n\trequired = true\n'
                f'[diff "shot"]\n\ttextconv = {shot}\n\tcommand = {shot}\n[merge "shot"]\n\tdriver = {shot}\n'
                f"[include]\n\tpath = {mark.parent}/included\n[user]\n\tname = Mallory\n\temail = m@example.org\n"
                f"[alias]\n\tstatus = !{shot}\n"
            )
        (mark.parent / "included").write_text(f"[core]\n\tpager = {shot}\n")
        (mark.parent / "attributes").write_text("* filter=shot diff=shot merge=shot\n")
        (self.path / ".git" / "info").mkdir(exist_ok=True)
        (self.path / ".git" / "info" / "attributes").write_text("* filter=shot diff=shot merge=shot text eol=crlf\n")
