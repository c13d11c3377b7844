import pytest

from stepgate.executors.command_risk import reasons


def of(*argv: str, executable: str | None = "/usr/bin/x", **env: str) -> list[str]:
    return reasons(argv, None, env, executable)


@pytest.mark.parametrize(
    "argv",
    [
        ("ls", "-l"),
        ("python3", "-m", "unittest", "-v"),
        ("python3", "script.py", "--count", "3"),
        ("git", "status"),
        ("cp", "a", "b"),
        ("pytest", "-x"),
    ],
)
def test_a_plain_call_of_a_known_program_gives_no_reason(argv: tuple[str, ...]) -> None:
    assert of(*argv) == []


@pytest.mark.parametrize(
    "argv",
    [
        ("sh", "script"),
        ("/bin/bash", "-c", "ls"),
        ("env", "A=1", "ls"),
        ("xargs", "rm"),
        ("timeout", "5", "rm", "f"),
        ("nice", "rm", "f"),
        ("find", ".", "-exec", "rm", "{}", ";"),
        ("python3", "-c", "print(1)"),
        ("python3.11", "-Bc", "print(1)"),
        ("python3", "-W", "ignore", "-c", "print(1)"),
        ("/usr/bin/perl", "-ne", "print"),
        ("node", "--eval", "1"),
        ("awk", 'BEGIN{system("id")}'),
        ("git", "-c", "alias.x=!id", "x"),
        ("git", "--config-env=alias.x=A", "x"),
    ],
)
def test_wrappers_and_program_text_are_named(argv: tuple[str, ...]) -> None:
    assert len(of(*argv)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "a; b",
        "a && b",
        "a | b",
        "a > b",
        "a $(b)",
        "a `b`",
        "a\nb",
        "rm *",
        "echo $HOME",
        "a & b",
        "(a)",
        "~/x",
        "'open",
    ],
)
def test_shell_text_with_operators_or_expansions_is_named(text: str) -> None:
    assert reasons(("/bin/sh", "-c", text), text, {}, "/bin/sh")


def test_plain_shell_text_is_read_like_a_call() -> None:
    assert reasons(("/bin/sh", "-c", "ls -l"), "ls -l", {}, "/bin/sh") == []
    assert reasons(("/bin/sh", "-c", "sudo ls"), "sudo ls", {}, "/bin/sh") == ["sudo runs other programs"]


@pytest.mark.parametrize("name", ["PATH", "LD_PRELOAD", "PYTHONPATH", "GIT_SSH_COMMAND", "BASH_ENV", "NODE_OPTIONS"])
def test_an_environment_that_steers_programs_is_named(name: str) -> None:
    assert of("ls", **{name: "x"}) == [f"the environment steers programs: {name}"]


def test_an_unknown_program_is_named() -> None:
    assert of("mystery", executable=None) == ["the program cannot be told beforehand"]
