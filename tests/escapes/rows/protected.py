"""Attacks on what is protected in a workspace."""

from typing import Final

from tests.escapes import plants
from tests.escapes.attack import Attack, Kind, Sign
from tests.escapes.programs import protected

ATTACKS: Final = (
    Attack(".git/config", Kind.PROTECTED, protected.config, Sign.PROTECTED),
    Attack(".git/hooks", Kind.PROTECTED, protected.hook, Sign.PROTECTED),
    Attack("mode of a hook", Kind.PROTECTED, protected.hook_mode, Sign.PROTECTED),
    Attack("remove .git", Kind.PROTECTED, protected.remove, Sign.PROTECTED),
    Attack("rename .git", Kind.PROTECTED, protected.rename_away, Sign.PROTECTED),
    Attack("exchange .git", Kind.PROTECTED, protected.exchange, Sign.PROTECTED),
    Attack("absent .git", Kind.PROTECTED, protected.absent, Sign.PROTECTED, plant=plants.no_git),
    Attack("absent .git as a file", Kind.PROTECTED, protected.absent_file, Sign.PROTECTED, plant=plants.no_git),
    Attack("absent .git as a link", Kind.PROTECTED, protected.absent_link, Sign.PROTECTED, plant=plants.no_git),
    Attack(".GIT", Kind.PROTECTED, protected.other_case, Sign.PROTECTED),
    Attack(".git with a dot", Kind.PROTECTED, protected.trailing_dot, Sign.PROTECTED),
    Attack(".git with a blank", Kind.PROTECTED, protected.trailing_blank, Sign.PROTECTED),
    Attack(".git with an invisible character", Kind.PROTECTED, protected.invisible_character, Sign.PROTECTED),
    Attack("git~1", Kind.PROTECTED, protected.short_name, Sign.PROTECTED),
    Attack("stream of .git", Kind.PROTECTED, protected.stream_name, Sign.PROTECTED),
    Attack("nested .git", Kind.PROTECTED, protected.nested, Sign.PROTECTED),
    Attack("nested .git, absent", Kind.PROTECTED, protected.nested_absent, Sign.PROTECTED),
    Attack("rename a folder that holds .git", Kind.PROTECTED, protected.rename_folder_above, Sign.PROTECTED),
    Attack("replace a folder that holds .git", Kind.PROTECTED, protected.replace_folder_above, Sign.PROTECTED),
    Attack("hard link of .git/config", Kind.PROTECTED, protected.by_hard_link, Sign.PROTECTED),
    Attack("symlink to .git", Kind.PROTECTED, protected.by_symlink, Sign.PROTECTED),
    Attack("folder .git links to", Kind.PROTECTED, protected.through_git_link, Sign.PROTECTED, plant=plants.git_link),
    Attack("folder .git names", Kind.PROTECTED, protected.through_git_file, Sign.PROTECTED, plant=plants.git_file),
    Attack(".git as a file", Kind.PROTECTED, protected.change_git_file, Sign.PROTECTED, plant=plants.git_file),
    Attack(".git as a link", Kind.PROTECTED, protected.change_git_link, Sign.PROTECTED, plant=plants.git_link),
    Attack("bare repository", Kind.PROTECTED, protected.bare_repository, Sign.PROTECTED, plant=plants.bare),
    Attack("new bare repository", Kind.PROTECTED, protected.new_bare_repository, Sign.PROTECTED),
    Attack("rename over the mount of .git", Kind.PROTECTED, protected.mount_point_tricks, Sign.PROTECTED),
    Attack("policy file", Kind.PROTECTED, protected.policy_file, Sign.CHANGED),
)
