"""Changing what is protected in a workspace: whatever makes the person's git run something."""

import os
import shutil

from tests.escapes.inside import FACTS, overwrite

HOOK = "#!/bin/sh\necho taken\n"


def _write(path: str, text: str = HOOK) -> None:
    folder = os.path.dirname(path)
    if folder:
        os.makedirs(folder, exist_ok=True)
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o755)
    os.write(descriptor, text.encode())
    os.close(descriptor)


def _repository(folder: str) -> None:
    _write(f"{folder}/HEAD", "ref: refs/heads/main\n")
    _write(f"{folder}/config", "[core]\n\tfsmonitor = touch /tmp/taken\n")
    for name in ("objects", "refs"):
        os.makedirs(f"{folder}/{name}", exist_ok=True)


def config() -> None:
    with open(".git/config", "a") as file:
        file.write("[core]\n\tfsmonitor = touch /tmp/taken\n")


def hook() -> None:
    _write(".git/hooks/pre-commit")


def hook_mode() -> None:
    os.chmod(".git/hooks/pre-push", 0o755)


def remove() -> None:
    shutil.rmtree(".git")


def rename_away() -> None:
    os.rename(".git", "was-git")


def exchange() -> None:
    os.rename(".git", "was-git")
    _repository(".git")


def absent() -> None:
    _repository(".git")


def absent_file() -> None:
    _write(".git", "gitdir: elsewhere\n")


def absent_link() -> None:
    _repository("elsewhere")
    os.symlink("elsewhere", ".git")


def other_case() -> None:
    _repository(".GIT")


def trailing_dot() -> None:
    _repository(".git.")


def trailing_blank() -> None:
    _repository(".git ")


def invisible_character() -> None:
    _repository(".g\u200cit")


def short_name() -> None:
    _repository("GIT~1")


def stream_name() -> None:
    _repository(".git::$INDEX_ALLOCATION")


def nested() -> None:
    with open("sub/.git/config", "a") as file:
        file.write("[core]\n\tfsmonitor = touch /tmp/taken\n")


def nested_absent() -> None:
    _repository("new/deep/.git")


def rename_folder_above() -> None:
    os.rename("sub", "moved")


def replace_folder_above() -> None:
    shutil.rmtree("sub")
    os.makedirs("evil")
    _repository("evil/.git")
    os.symlink("evil", "sub")


def by_hard_link() -> None:
    os.link("sub/.git/config", "innocent")
    with open("innocent", "a") as file:
        file.write("[core]\n\tfsmonitor = touch /tmp/taken\n")


def by_symlink() -> None:
    os.symlink("sub/.git", "innocent")
    _write("innocent/hooks/pre-commit")


def through_git_link() -> None:
    _write("real/hooks/pre-commit")


def through_git_file() -> None:
    with open("real/config", "a") as file:
        file.write("[core]\n\tfsmonitor = touch /tmp/taken\n")


def change_git_file() -> None:
    _write(".git", "gitdir: evil\n")


def change_git_link() -> None:
    os.unlink(".git")
    os.symlink("evil", ".git")


def bare_repository() -> None:
    with open("bare.git/config", "a") as file:
        file.write("[core]\n\tfsmonitor = touch /tmp/taken\n")


def new_bare_repository() -> None:
    _repository("docs/fixture")


def policy_file() -> None:
    overwrite(FACTS["policy"])


def mount_point_tricks() -> None:
    # Renaming over a mount, through a second name of the folder that holds it.
    os.makedirs("other")
    _repository("other/.git")
    for name in ("..", "/workspace", "/proc/self/cwd"):
        try:
            os.rename(f"{name}/workspace/other/.git" if name == ".." else f"{name}/other/.git", f"{name}/.git")
        except OSError:
            continue
