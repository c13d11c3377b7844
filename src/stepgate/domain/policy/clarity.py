"""Whether a command is what its words say: many programs run other programs that their arguments only hint at.

A list of such programs is never whole. It decides in one direction only: what is on it is never allowed by a rule
about words, and what is missing from it still needs a rule of its own to be allowed.
"""

import posixpath
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

WRAPPERS: Final = frozenset(
    {
        *("bash", "busybox", "chroot", "dash", "doas", "env", "eval", "exec", "find", "flock", "ionice", "ksh", "make"),
        *("nice", "nohup", "npm", "npx", "parallel", "script", "setsid", "sh", "stdbuf", "strace", "su", "sudo"),
        *("time", "timeout", "unshare", "watch", "xargs", "zsh"),
    }
)
"""Programs whose name tells a reader nothing about what they will run."""
STEERING: Final = re.compile(
    r"(?:PATH|BASH_ENV|ENV|IFS|EDITOR|VISUAL|PAGER|SHELL|NODE_OPTIONS|PERL5LIB|PERL5OPT|RUBYOPT|RUBYLIB|"
    r"(?:LD|DYLD|GIT|PYTHON|BASH_FUNC).*)$"
)
"""Variables that make a program load or run something else than its name says."""

PLAIN: Final = re.compile(
    r"(?:LANG|LANGUAGE|LC_[A-Z]+|TZ|TERM|COLUMNS|LINES|NO_COLOR|FORCE_COLOR|CI|SOURCE_DATE_EPOCH)$"
)
"""Variables that change how a program shows what it does, and not what that is."""

_RUNNERS: Final = (WRAPPERS - {"find"}) | frozenset(
    {
        *("ant", "ash", "at", "batch", "builtin", "bun", "bundle", "bunx", "bwrap", "capsh", "chpst", "choom", "chrt"),
        *("cmake", "command", "coproc", "corepack", "cpulimit", "crontab", "csh", "dbus-run-session", "docker", "entr"),
        *("expect", "fakeroot", "faketime", "firejail", "fish", "gdb", "gmake", "go", "gradle", "hatch", "hyperfine"),
        *("just", "kubectl", "lldb", "ltrace", "mksh", "mvn", "ncat", "ninja", "nox", "nsenter", "numactl", "perf"),
        *("pipx", "pkexec", "pnpm", "podman", "poetry", "posh", "prlimit", "proot", "rake", "rlwrap", "rsync"),
        *("runcon", "runuser", "scp", "screen", "setarch", "setpriv", "sftp", "socat", "ssh", "start-stop-daemon"),
        *("systemd-run", "taskset", "tcsh", "tmux", "toybox", "tox", "trap", "unbuffer", "uv", "uvx", "valgrind"),
        *("xvfb-run", "yarn", "yash", "linux32", "linux64", "rbash", "source", ".", "cargo", "run-parts"),
    }
)
# Their program is text among their arguments, or can be started from it.
_CODE: Final = frozenset(
    {
        *("awk", "dc", "ed", "emacs", "ex", "gawk", "gsed", "m4", "mawk", "nawk", "nvim", "sed", "sqlite3", "vi"),
        *("view", "vim"),
    }
)
_INTERPRETERS: Final = re.compile(
    r"(?:python|pypy|perl|ruby|node|nodejs|deno|php|lua|luajit|tclsh|wish|guile|Rscript|R|julia|osascript|pwsh|erl|ghci|"
    r"jshell|java|groovy|scala|irb|ipython)[\d.]*$"
)
_LOADER: Final = re.compile(r"ld(?:-[\w.-]+)?\.so(?:\.\d+)?$")
# Options of otherwise harmless programs that name a program to run.
_RUNNING_OPTIONS: Final = {
    "find": re.compile(r"-(?:exec|execdir|ok|okdir|fls|fprint|fprintf|fprint0|delete)$"),
    "fd": re.compile(r"(?:-[A-Za-z]*[xX].*|--exec(?:-batch)?(?:=.*)?)$"),
    "fdfind": re.compile(r"(?:-[A-Za-z]*[xX].*|--exec(?:-batch)?(?:=.*)?)$"),
    # It takes abbreviations of its long options.
    "tar": re.compile(r"(?:--(?:ch|to-c|use|i|rs|info|new-v).*|-[A-Za-z]*[IF].*|[A-Za-z]*[IF][A-Za-z]*)$"),
    "zip": re.compile(r"(?:-TT|--unzip-command).*$"),
    "sort": re.compile(r"--com.*$"),
    "split": re.compile(r"--fi.*$"),
    "install": re.compile(r"--strip-p.*$"),
    "rg": re.compile(r"--(?:pre|hostname-bin).*$"),
    "gcc": re.compile(r"(?:-wrapper|-fplugin|-specs|--specs|-B|@).*$"),
    "less": re.compile(r".*$"),
    "man": re.compile(r".*$"),
    "pytest": re.compile(r"(?:-p|-c|-o|--override-ini|--rootdir|--confcutdir|--pyargs|--pdbcls).*$"),
}
_GIT_PLAIN: Final = frozenset(
    {
        *("add", "blame", "branch", "cat-file", "check-ignore", "describe", "diff-tree", "for-each-ref", "init", "log"),
        *("ls-files", "ls-tree", "merge-base", "mv", "name-rev", "reflog", "restore", "rev-list", "rev-parse", "rm"),
        *("shortlog", "show", "show-ref", "status", "stash", "tag", "diff", "grep", "commit", "switch", "checkout"),
    }
)
"""Commands of git itself, which no alias can replace."""
_GIT_RUNNING: Final = re.compile(
    r"(?:--(?:ext-diff|textconv|exec|upload-pack|receive-pack|open-files-in-pager|edit|editor|gpg-sign|output).*"
    r"|-O.*|-x.*|-e|-S.*)$"
)
MAX_SPELLINGS: Final = 20_000
MAX_SPELLED_WORDS: Final = 100
"""As many words as a rule can have."""
MAX_TEXT: Final = 131_072
"""Characters of text for a shell: reading them costs a microsecond each."""
_SHELL_BREAKS: Final = frozenset(";|&()<>\n")
_SUBSTITUTION: Final = re.compile(r"[`{}]|\$\(|\)")
_DEPTH: Final = 3
"""Text inside text inside text."""


def unclear(
    argv: Sequence[str] | None, shell: str | None, env: Iterable[str], *, stdin: bool, executable: str | None
) -> str | None:
    """Why nobody can tell from its words what the command will run; None where they say it.

    `executable` is the program found, "" where nobody looked for it.
    """
    if shell is not None:
        return "it is text for a shell"
    if not argv:
        return "it names no program"
    if executable is None:
        return "its program cannot be told beforehand"
    if steering := sorted(name for name in env if STEERING.match(name)):
        return f"its environment steers programs: {', '.join(steering)}"
    for name in dict.fromkeys((_base(argv[0]), _base(executable))):
        if name and (why := _of_program(name, argv[1:], stdin=stdin)) is not None:
            return why
    return None


def unsaid(env: Iterable[str], *, stdin: bool) -> str | None:
    """What the command is given beside its words that no rule about words can see; None where there is nothing."""
    if stdin:
        return "it is given standard input, which its words do not say"
    if others := sorted(name for name in env if not PLAIN.match(name)):
        return f"its plan gives it variables, which its words do not say: {', '.join(others)}"
    return None


def is_interpreter(name: str) -> bool:
    """Whether what it does is said by a file among its arguments."""
    return _INTERPRETERS.match(name) is not None


def _of_program(name: str, arguments: Sequence[str], *, stdin: bool) -> str | None:
    if name in _RUNNERS or _LOADER.match(name):
        return f"{name} runs other programs"
    if name in _CODE:
        return f"{name} runs program text from its arguments"
    if _INTERPRETERS.match(name) and (not arguments or arguments[0].startswith("-")):
        return f"{name} runs program text from its arguments or its input"
    if stdin and _INTERPRETERS.match(name):
        return f"{name} is given text on its standard input"
    options = _RUNNING_OPTIONS.get(_plain_name(name))
    if options is not None and (not arguments or any(options.match(one) for one in arguments)):
        return f"{name} is given options that can run programs"
    if name == "git":
        return _of_git(arguments)
    return None


def _plain_name(name: str) -> str:
    """Compilers are one family whatever their prefix and version."""
    return "gcc" if re.fullmatch(r"(?:[\w.-]*-)?(?:gcc|g\+\+|cc|c\+\+|clang|clang\+\+)(?:-[\d.]+)?", name) else name


def _of_git(arguments: Sequence[str]) -> str | None:
    if not arguments or arguments[0] not in _GIT_PLAIN:
        return "git is given options or a command that can name programs"
    if any(_GIT_RUNNING.match(one) for one in arguments[1:]):
        return f"git {arguments[0]} is given options that can run programs"
    return None


def spellings(argv: Sequence[str] | None, shell: str | None) -> Iterator[tuple[str, ...]]:
    """Everything that a command whose words hide something may run, as far as its words go on to say it.

    Each is the tail of a row of words, so that what a wrapper is given is seen however many options stand before it.
    """
    if argv:
        yield from _tails(argv)
    for text in (shell,) if shell is not None else filter(_is_text, argv or ()):
        for row in _rows(text):
            yield from _tails(row)


def _tails(row: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for start in range(len(row)):
        yield tuple(row[start : start + MAX_SPELLED_WORDS])


def _is_text(word: str) -> bool:
    return any(character.isspace() or character in _SHELL_BREAKS for character in word)


def _lexed(text: str) -> list[str]:
    """Words and operators as a shell reads them; without its quotes where these do not close."""
    lexer = shlex.shlex(text.replace("\n", " ; "), posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        return list(lexer)
    except ValueError:
        return [word for word in re.split(r"[\s'\"]+|([;|&()<>`]+)", text) if word]


def _texts(argv: Sequence[str], shell: str | None) -> Iterator[str]:
    if shell is not None:
        return iter((shell,))
    wrapped = bool(argv) and _base(argv[0]) in _RUNNERS
    return (word for word in argv if wrapped or _is_text(word))


def is_too_long(argv: Sequence[str], shell: str | None) -> bool:
    """Whether there is more text for a shell than `words_inside` looks at."""
    return sum(map(len, _texts(argv, shell))) > MAX_TEXT


def words_inside(argv: Sequence[str], shell: str | None, depth: int = _DEPTH) -> Iterator[str]:
    """Every word of text for a shell, and of such text among the words of it; nothing for words that are plain.

    What a shell would make other words of comes as it stands and in its parts.
    """
    room = MAX_TEXT
    for text in _texts(argv, shell):
        room -= len(text)
        if room < 0:
            return
        for word in _lexed(text):
            if set(word) <= _SHELL_BREAKS:
                continue
            yield word
            yield from (part for part in _SUBSTITUTION.split(word) if part and part != word)
            if depth and word != text and _is_text(word):
                yield from words_inside((), word, depth - 1)


def _rows(text: str) -> Iterator[list[str]]:
    """The words between a shell's operators."""
    row: list[str] = []
    for word in _lexed(text):
        if not word:
            continue
        if set(word) <= _SHELL_BREAKS:
            yield row
            row = []
        else:
            row += [part for part in _SUBSTITUTION.split(word) if part]
    yield row


def _base(word: str) -> str:
    return word.rpartition("/")[2]


def forms(word: str, *, program: bool) -> set[str]:
    """The ways to write a word that rules which ask or deny know it by; a program's own name is one."""
    found = {word, posixpath.normpath(word) if word else word}
    if program:
        found.add(_base(word))
    return found


def base_name(word: str) -> str:
    """The program's own name, without the folder it is called from."""
    return _base(word)
