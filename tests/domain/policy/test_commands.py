"""What a command hides is never allowed by its words, and never hides from a rule that denies."""

import time

import pytest

from stepgate.domain.policy.action import Action
from stepgate.domain.policy.clarity import WRAPPERS
from tests.domain.policy.rules import command, edit, gate, rule

ALLOW_ANY = [
    rule("allow", name=f"allow-{index}", argv=[{"glob": "*"}] if index else ["git"], rest="any") for index in (0, 1)
]


@pytest.mark.parametrize(
    "argv",
    [
        ("git", "status"),
        ("git", "log", "--oneline", "-5"),
        ("ls", "-la"),
        ("cat", "a.txt"),
        ("python3", "tool.py", "-c", "x"),
        ("find", ".", "-name", "*.py"),
        ("tar", "-tf", "a.tar"),
        ("grep", "-r", "x", "src"),
        ("pytest", "-q"),
    ],
)
def test_a_plain_command_can_be_allowed_by_its_words(argv: tuple[str, ...]) -> None:
    assert gate(command(*argv), rule("allow", argv=[argv[0]], rest="any")) == "allow"
    assert gate(command(*argv), rule("allow", argv=list(argv))) == "allow"


@pytest.mark.parametrize(
    "argv",
    [
        *((wrapper, "git", "status") for wrapper in sorted(WRAPPERS - {"find"})),
        ("/usr/bin/env", "git", "status"),
        ("sh", "-c", "git status"),
        ("python3", "-c", "print()"),
        ("python3", "-m", "unittest"),
        ("python3.12", "-Ic", "print()"),
        ("python3",),
        ("perl", "-e", "1"),
        ("node", "--eval", "1"),
        ("ruby", "-rx", "a.rb"),
        ("awk", "BEGIN { system(1) }"),
        ("sed", "-n", "1e id"),
        ("vim", "-c", "!id"),
        ("git", "-c", "alias.x=!id", "x"),
        ("git", "--exec-path=/tmp", "status"),
        ("git", "--config-env=a=b", "status"),
        ("git", "-C", "other", "status"),
        ("git", "x"),
        ("git", "submodule", "foreach", "id"),
        ("git", "bisect", "run", "id"),
        ("git", "grep", "--open-files-in-pager=id", "x"),
        ("git", "grep", "-Oid", "x"),
        ("git", "diff", "--ext-diff"),
        ("git",),
        ("find", ".", "-exec", "id", ";"),
        ("find", ".", "-execdir", "id", "+"),
        ("find", ".", "-ok", "id", ";"),
        ("find", ".", "-delete"),
        ("tar", "-cf", "a.tar", "--checkpoint=1", "--checkpoint-action=exec=id", "."),
        ("tar", "--to-command=id", "-xf", "a.tar"),
        ("tar", "--to-comm", "id", "-xf", "a.tar"),
        ("tar", "-I", "id", "-xf", "a.tar"),
        ("tar", "xIf", "id", "a.tar"),
        ("sort", "--compress-program=id", "a"),
        ("split", "--filter=id", "a"),
        ("rsync", "-e", "id", "a", "b"),
        ("rg", "--pre", "id", "x"),
        ("gcc", "-wrapper", "id", "a.c"),
        ("x86_64-linux-gnu-g++-12", "-fplugin=x.so", "a.cc"),
        ("/lib64/ld-linux-x86-64.so.2", "/usr/bin/id"),
        ("busybox", "sh"),
        ("npx", "x"),
    ],
)
def test_a_command_that_runs_something_else_is_never_allowed_by_its_words(argv: tuple[str, ...]) -> None:
    assert gate(command(*argv), rule("allow", argv=list(argv))) == "ask"
    assert gate(command(*argv), rule("allow", argv=[argv[0]], rest="any")) == "ask"
    assert gate(command(*argv), rule("allow", executable=command(*argv).reach.executable)) == "ask"


def test_a_shell_string_is_never_allowed_by_words_however_plain() -> None:
    for text in ("git status", "ls", "true"):
        rules = [rule("allow", argv=["/bin/sh", "-c", text]), rule("allow", name="b", executable="/bin/sh")]
        assert gate(command(text=text), *rules) == "ask"


def test_what_the_environment_or_standard_input_steers_is_never_allowed_by_words() -> None:
    allow = rule("allow", argv=["git", "status"])
    assert gate(command("git", "status", env=("LANG",)), allow) == "allow"
    for name in ("PATH", "LD_PRELOAD", "GIT_SSH_COMMAND", "PYTHONSTARTUP", "BASH_ENV"):
        assert gate(command("git", "status", env=(name,)), allow) == "ask"
    for name in ("HOME", "XDG_CONFIG_HOME", "PYTEST_ADDOPTS", "MAKEFLAGS", "NODE_PATH", "FOO"):
        assert gate(command("git", "status", env=(name,)), allow) == "ask"
        assert gate(command("git", "status", env=(name,), planned_env=()), allow) == "allow", "the operator's own"
        executable = rule("allow", executable="/usr/bin/git")
        assert gate(command("git", "status", env=(name,)), executable) == "ask"
    assert gate(command("git", "apply", stdin=True), rule("allow", argv=["git", "apply"])) == "ask"
    assert gate(command("tee", "a", stdin=True), rule("allow", argv=["tee", "a"])) == "ask"
    assert gate(command("tee", "a", stdin=True), rule("allow", executor="run_command")) == "allow"
    interpreter = rule("allow", argv=["python3", "tool.py"])
    assert gate(command("python3", "tool.py"), interpreter) == "allow"
    assert gate(command("python3", "tool.py", stdin=True), interpreter) == "ask"


def test_a_program_that_was_not_found_is_never_allowed() -> None:
    assert gate(command("git", "status", executable=None), rule("allow", argv=["git", "status"])) == "ask"


def test_a_name_that_leads_to_an_interpreter_is_taken_for_it() -> None:
    action = command("tool", "-c", "x", executable="/usr/bin/python3")
    assert gate(action, rule("allow", argv=["tool", "-c", "x"])) == "ask"


def test_a_rule_without_words_may_allow_any_command() -> None:
    assert gate(command(text="a | b"), rule("allow", executor="run_command", sandbox_level="bwrap-full")) == "allow"
    assert gate(command(text="a | b"), rule("allow", executor="run_command", sandbox_level="unsafe-none")) == "ask"


def test_words_are_matched_one_by_one_and_to_the_end() -> None:
    exact = rule("allow", argv=["git", "status"])
    assert gate(command("git", "status"), exact) == "allow"
    assert gate(command("git", "status", "-s"), exact) == "ask"
    assert gate(command("git"), exact) == "ask"
    assert gate(command("git", "status x"), exact) == "ask"
    assert gate(command("/usr/bin/git", "status"), exact) == "ask"
    either = rule("allow", argv=["git", {"one_of": ["status", "log"]}])
    assert gate(command("git", "log"), either) == "allow"
    assert gate(command("git", "show"), either) == "ask"


def test_a_glob_word_is_no_option_and_leads_nowhere_else() -> None:
    allow = rule("allow", argv=["cat", {"glob": "docs/**"}])
    assert gate(command("cat", "docs/a/b.md"), allow) == "allow"
    for word in ("-docs/a", "docs/../secret", "docs//a", "/docs/a", "docs/./a", "../docs/a", "docs"):
        assert gate(command("cat", word), allow) == "ask", word
    anything = rule("allow", argv=["cat", {"glob": "*"}])
    assert gate(command("cat", "--help"), anything) == "ask"
    assert gate(command("cat", ".."), anything) == "ask"


@pytest.mark.parametrize(
    "action",
    [
        command("curl", "x"),
        command("/usr/bin/curl", "x"),
        command("env", "A=1", "curl", "x"),
        command("timeout", "-s", "9", "5", "nice", "/usr/local/bin/curl", "x"),
        command("xargs", "-0", "curl"),
        command("sh", "-c", "echo; curl x"),
        command("bash", "-lc", "true && 'curl' x"),
        command("env", "-S", "curl x"),
        command(text="echo a | curl x"),
        command(text="echo $(curl x)"),
        command(text="echo `curl x`"),
        command(text="(curl x)"),
        command(text="{ curl x; }"),
        command(text="true\ncurl x"),
        command(text="c'ur'l x"),
        command(text="echo 'unclosed; curl x"),
        command(text="A=1 curl x"),
        command("find", ".", "-exec", "curl", "{}", ";"),
    ],
    ids=lambda action: str(action.reach.argv or action.reach.shell),
)
def test_a_wrapper_hides_no_command_from_a_rule_that_denies(action: object) -> None:
    allow_all = rule("allow", name="all", executor="run_command")
    assert gate(action, allow_all, rule("deny", argv=["curl"], rest="any")) == "deny"  # type: ignore[arg-type]
    assert gate(action, allow_all, rule("deny", executable="/usr/bin/curl")) == "deny"  # type: ignore[arg-type]


def test_a_rule_that_denies_leaves_other_commands_alone() -> None:
    deny = rule("deny", argv=["curl"], rest="any")
    assert (
        gate(command("git", "log", "curl"), deny, rule("allow", name="b", argv=["git", "log"], rest="any")) == "allow"
    )
    assert gate(command("cat", "curl"), deny) == "ask"
    given = command("git", "log", "curl", env=("FOO",), stdin=True)
    assert gate(given, deny) == "ask", "what else it is given makes its words no other words"
    exact = rule("deny", argv=["cat", "a"])
    assert gate(command("cat", "a", "b"), exact) == "ask"
    assert gate(command("nice", "cat", "a", "b"), exact) == "deny"


def test_more_words_than_anybody_reads_are_asked_about() -> None:
    rules = [rule("allow", name="all", executor="run_command"), rule("deny", argv=["curl"], rest="any")]
    assert gate(command(text=": " + "a " * 25_000 + "; curl x"), *rules) == "ask"
    assert gate(command(text=": " + "a " * 5_000 + "; curl x"), *rules) == "deny"


def test_a_program_that_nobody_found_is_asked_about_where_a_rule_denies_one() -> None:
    rules = [rule("allow", name="all", executor="run_command"), rule("deny", executable="/usr/bin/curl")]
    assert gate(command("x", executable=None), *rules) == "ask"
    assert gate(command("curl", executable=None), *rules) == "deny"
    assert gate(command("x"), *rules) == "allow"
    assert gate(command("curl", executable="/bin/curl"), *rules) == "deny"


@pytest.mark.parametrize(
    "action", [command(text="a " * 15_999), command("bash", *["a b" * 300] * 900)], ids=["text", "words"]
)
def test_many_words_cost_little_however_many_rules_there_are(action: Action) -> None:
    rules = [rule("deny", name=f"r{number}", argv=[f"program-{number}", "x"], rest="any") for number in range(300)]
    began = time.process_time()
    assert gate(action, *rules) == "ask"
    assert time.process_time() - began < 5


def test_a_command_that_names_a_folder_does_not_get_past_a_rule_about_what_lies_in_it() -> None:
    deny = rule("deny", paths=["keys/**"])
    assert gate(command("cp", "-r", "keys", "/tmp", paths=("keys",)), deny) == "deny"
    assert gate(command("cat", "keyset", paths=("keyset",)), deny) == "ask"
    assert gate(edit("keys"), deny) == "ask"
