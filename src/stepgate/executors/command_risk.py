"""How dangerous a command looks to somebody who has to read it: a hint for the approver, never a permission."""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Final

# A person who reads the program's name learns nothing about what these will run.
_WRAPPERS: Final = frozenset(
    {
        *("bash", "busybox", "chroot", "dash", "doas", "env", "eval", "exec", "find", "flock", "ionice", "ksh", "make"),
        *("nice", "nohup", "npm", "npx", "parallel", "script", "setsid", "sh", "stdbuf", "strace", "su", "sudo"),
        *("time", "timeout", "unshare", "watch", "xargs", "zsh"),
    }
)
_INTERPRETERS: Final = re.compile(r"(?:python|pypy|perl|ruby|node|deno|bun|php|lua|awk|gawk|mawk|tclsh)[\d.]*$")
_INLINE: Final = re.compile(r"-[A-Za-z]*[ce]|-[rRpE]|--eval|--print|--exec")
_OPERATORS: Final = re.compile(r"[;&|<>`$(){}\n*?\[~#!\\]")
# Variables that make a program load or run something else than its name says.
_STEERING: Final = re.compile(
    r"(?:PATH|BASH_ENV|ENV|IFS|EDITOR|VISUAL|PAGER|SHELL|NODE_OPTIONS|PERL5LIB|PERL5OPT|RUBYOPT|RUBYLIB|"
    r"(?:LD|DYLD|GIT|PYTHON|BASH_FUNC).*)$"
)


def reasons(argv: Sequence[str], shell: str | None, env: Mapping[str, str], executable: str | None) -> list[str]:
    """Why the command is more than its first word says; nothing for a plain call of a known program."""
    found = []
    words: Sequence[str] = argv
    if shell is not None:
        if _OPERATORS.search(shell):
            found.append("the shell text has operators or expansions")
        try:
            words = shlex.split(shell)
        except ValueError:
            found.append("the shell text has an open quote")
            words = ()
    if executable is None:
        found.append("the program cannot be told beforehand")
    found += _of_words(words)
    if steering := sorted(name for name in env if _STEERING.match(name)):
        found.append(f"the environment steers programs: {', '.join(steering)}")
    return found


def _of_words(words: Sequence[str]) -> list[str]:
    if not words:
        return []
    program = words[0].rpartition("/")[2]
    if program in _WRAPPERS:
        return [f"{program} runs other programs"]
    if _INTERPRETERS.match(program) and (program.endswith("awk") or any(_INLINE.fullmatch(one) for one in words[1:])):
        return [f"{program} runs program text from its arguments"]
    if program == "git" and any(one == "-c" or one.startswith("--config-env") for one in words[1:]):
        return ["git is given configuration, which can name programs"]
    return []
