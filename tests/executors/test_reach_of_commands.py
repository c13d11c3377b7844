"""Which paths a command is taken to reach where a rule asks or denies: however they are written, and with the doubt."""

import time

import pytest

from stepgate.domain.policy.action import Action, Ruling
from stepgate.domain.policy.globs import may_meet
from stepgate.executors.command_params import RunCommandParams
from stepgate.executors.run_command import RunCommand
from tests.domain.policy.rules import decide_policy, policy, rule

DENY = rule("deny", "keys", paths=["keys/**", "*.pem", "conf/.env"])
KEYS = policy(DENY, rule("allow", "all", executor="run_command"))


def gate(*argv: str, text: str | None = None, cwd: str = ".") -> str:
    given = {"command": text} if text is not None else {"argv": list(argv)}
    reach = RunCommand().reach(RunCommandParams.model_validate({**given, "cwd": cwd}))
    return decide_policy(KEYS, Action("run_command", Ruling.ASK, reach=reach)).gate.value


@pytest.mark.parametrize(
    "argv",
    [
        ("cat", "keys/a"),
        ("cat", "./keys//a"),
        ("cat", "src/../keys/a"),
        ("cat", "/workspace/keys/a"),
        ("cp", "-r", "keys", "out"),
        ("grep", "-fkeys/a", "x"),
        ("tar", "-xzfkeys/a.tar"),
        ("tool", "--file=keys/a"),
        ("tool", "--file=@keys/a"),
        ("tool", "--opts=mode:r,file:keys/a"),
        ("tool", "-I=keys/a"),
        ("tool", "--files=" + "src/b," * 1_000 + "keys/a"),
        ("dd", "if=keys/a", "of=out"),
        ("curl", "--data", "@keys/a"),
        ("curl", "file:///workspace/keys/a"),
        ("openssl", "-in", "id.pem"),
        ("sh", "-c", "cat keys/a"),
        ("sh", "-c", "cat<keys/a"),
        ("bash", "-lc", "cd src && cat ../keys/a"),
        ("bash", "-c", "sh -c 'cat keys/a'"),
        ("bash", "-c", "sh -c \"sh -c 'cat keys/a'\""),
        ("env", "-S", "cat keys/a"),
        ("sh", "-c", "cd conf && cat .env"),
        ("sh", "-c", "cd src; cd ../conf; cat .env"),
        ("git", "-C", "conf", "show", ".env"),
        ("tar", "--directory=conf", "-cf", "x", ".env"),
        ("timeout", "5", "sh", "-c", "echo x>keys/a"),
        ("python3", "-c", "print(open('keys/a').read())"),
        ("perl", "-e", 'open(F, "<keys/a")'),
        ("sh", "-c", "cat k'ey's/a"),
        ("sh", "-c", "cat ke\\ys/a"),
        ("sh", "-c", "echo $(cat keys/a)"),
        ("sh", "-c", "echo `cat keys/a`"),
        ("sh", "-c", "tool --file=keys/a|wc"),
        ("sh", "-c", "cat 'unclosed keys/a"),
        ("sh", "-c", "A=keys/a cat"),
        ("sh", "-c", "{ cat keys/a; }"),
        ("sh", "-c", "true\ncat keys/a"),
    ],
)
def test_a_path_is_denied_however_it_is_written(argv: tuple[str, ...]) -> None:
    assert gate(*argv) == "deny"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "cat key*/a",
            "cat ke?s/a",
            "cat */a",
            "cat k[e]ys/a",
            "rm -r *",
            "cat *",
            "cat **/a",
            "cat */*",
            "cat ./k*/*",
        ),
        *("cat $X", "cat $X/a", "cat ${X}s/a", "cat ~/a", "cat {keys,src}/b", "cat k{e,}ys/a", "cat $'\\x6beys'/a"),
        *("cat /w*/keys/a", "cat /*/keys/a", "cat src/../k*/a", "cat `echo keys`/a", "cat *.pe*", "cat id.p[e]m"),
    ],
)
def test_what_a_shell_may_make_such_a_path_of_is_asked_about(text: str) -> None:
    assert gate(text=text) in ("ask", "deny")
    assert gate("sh", "-c", text) in ("ask", "deny")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "cat src/a",
            "cat src/*",
            "rm -f *.pyc",
            "ls docs/**",
            "cat s?c/a",
            "cat keyset",
            "cat keys.md",
            "make -C src",
        ),
        *("tool --file=src/a", "echo a.pem.txt", "cat /etc/*", "ls src/$X", "git log --format=%H"),
    ],
)
def test_other_paths_are_left_alone(text: str) -> None:
    assert gate(text=text) == "allow"
    assert gate("sh", "-c", text) == "allow"


def test_a_command_without_a_shell_expands_nothing() -> None:
    assert gate("grep", "key$", "src/a") == "allow"
    assert gate("find", "src", "-name", "*.py") == "allow"


def test_paths_are_seen_from_the_folder_of_the_command() -> None:
    assert gate("cat", "a", cwd="keys") == "deny"
    assert gate("cat", "../keys/a", cwd="src") == "deny"
    assert gate("cat", "keys/a", cwd="src") == "allow"
    assert gate(text="cat *", cwd="keys") == "deny"
    assert gate(text="cat *", cwd="src") == "allow"


def test_more_names_than_anybody_reads_are_asked_about_and_cost_little() -> None:
    began = time.process_time()
    assert gate(text=": " + "a " * 15_000 + "keys/a") == "deny"
    assert gate(text=": " + " ".join(f"a{n}*" for n in range(3_000))) == "ask"
    assert gate(text=": " + "x" * 9_000 + "*/" * 5_000) == "allow"
    assert gate("bash", *(f"x{n} " + "a b " * 7_900 for n in range(200))) == "ask"
    assert gate("bash", *("x" * 31_000 for _ in range(200))) == "ask"
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    ("pattern", "word", "expected"),
    [
        ("keys/**", "keys", True),
        ("keys/**", "k*", True),
        ("keys/**", "*.py", False),
        ("keys/**", "*/x/y", True),
        ("keys/a", "keys/b*", False),
        ("**/secret", "src/**", True),
        ("**/secret", "src/s*", True),
        ("src/*.key", "src/*", True),
        ("src/*.key", "src/a/*", False),
        ("src/*.key", "s*/x.key", True),
        ("a/b/c", "a", True),
        ("a", "a/b*", False),
    ],
)
def test_two_patterns_meet_where_a_path_fits_both_or_lies_below_the_word(
    pattern: str, word: str, expected: bool
) -> None:
    assert may_meet(pattern, word) is expected
