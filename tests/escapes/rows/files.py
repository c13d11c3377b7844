"""Attacks on files outside."""

from typing import Final

from stepgate.workspace.sandbox.levels import Level
from tests.escapes.attack import Attack, Kind, Sign
from tests.escapes.programs import files

# What is there is seen by its name, whether or not it may be opened.
LANDLOCK: Final = {Level.LANDLOCK_SECCOMP: "Landlock does not keep names, sizes and times of files away"}

ATTACKS: Final = (
    Attack("absolute path", Kind.FILES, files.absolute_path, Sign.TOLD),
    Attack("path with ..", Kind.FILES, files.dotdot_path, Sign.TOLD),
    Attack("own symlink", Kind.FILES, files.own_symlink, Sign.TOLD),
    Attack("planted symlink to a folder", Kind.FILES, files.planted_symlink_to_a_folder, Sign.CHANGED),
    Attack("symlink to a magic link", Kind.FILES, files.symlink_to_a_magic_link, Sign.TOLD),
    Attack("own hard link", Kind.FILES, files.own_hard_link, Sign.TOLD),
    Attack("planted hard link", Kind.FILES, files.planted_hard_link, Sign.CHANGED),
    Attack("rename in", Kind.FILES, files.rename_in, Sign.CHANGED),
    Attack("rename out", Kind.FILES, files.rename_out, Sign.CHANGED),
    Attack("write outside", Kind.FILES, files.write_outside, Sign.CHANGED),
    Attack("create outside", Kind.FILES, files.create_outside, Sign.CHANGED),
    Attack("/proc/self/root", Kind.FILES, files.own_root_link, Sign.TOLD),
    Attack("/proc/1/root", Kind.FILES, files.first_process_root, Sign.TOLD),
    Attack("cwd links", Kind.FILES, files.cwd_link, Sign.TOLD),
    Attack("root of every process", Kind.FILES, files.root_of_every_process, Sign.TOLD),
    Attack("open files of every process", Kind.FILES, files.open_files_of_every_process, Sign.TOLD),
    Attack("mapped files", Kind.FILES, files.mapped_files, Sign.TOLD),
    Attack("running program of the host", Kind.FILES, files.running_program_of_the_host, Sign.HARMED),
    Attack("inherited folder", Kind.FILES, files.inherited_folder, Sign.TOLD),
    Attack("inherited file", Kind.FILES, files.inherited_file, Sign.TOLD),
    Attack("stat oracle", Kind.FILES, files.stat_oracle, Sign.CLAIM, open_at=LANDLOCK),
    Attack("access oracle", Kind.FILES, files.access_oracle, Sign.CLAIM, open_at=LANDLOCK),
    Attack("file handle", Kind.FILES, files.file_handle, Sign.TOLD),
    Attack("host's scratch", Kind.FILES, files.host_scratch, Sign.TOLD),
    Attack("old root", Kind.FILES, files.old_root, Sign.TOLD),
    Attack("moved from beneath", Kind.FILES, files.moved_from_beneath, Sign.TOLD),
    Attack("planted pipe", Kind.FILES, files.planted_pipe, Sign.HEARD),
    Attack("worker's environment", Kind.FILES, files.workers_environment, Sign.TOLD),
)
