import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from stepgate.domain.errors import InvalidValue
from stepgate.workspace.sandbox.command import Command
from stepgate.workspace.sandbox.levels import Level
from stepgate.workspace.sandbox.limits import Limits
from tests.workspace.sandbox.lab import Lab


async def test_a_command_reports_its_exit_code_and_both_streams(lab: Lab) -> None:
    finished = await lab.shell("echo out; echo err >&2; exit 7")
    assert (finished.exit_code, finished.signal, finished.killed) == (7, None, None)
    assert (finished.stdout, finished.stderr, finished.truncated) == (b"out\n", b"err\n", False)
    assert finished.level is Level.BWRAP_FULL
    assert finished.wall_ms > 0


async def test_a_command_ended_by_a_signal_reports_it_as_a_shell_does(lab: Lab) -> None:
    finished = await lab.shell("kill -TERM $$")
    assert (finished.exit_code, finished.signal, finished.killed) == (143, 15, None)


async def test_processor_time_and_memory_of_all_children_are_measured(lab: Lab) -> None:
    finished = await lab.shell("python3 -c 'x = bytearray(60 << 20); [i * i for i in range(2_000_000)]'; true")
    assert finished.cpu_ms is not None
    assert finished.cpu_ms > 40
    assert finished.peak_memory_bytes is not None
    assert 60 << 20 < finished.peak_memory_bytes < 200 << 20


async def test_the_workspace_is_the_current_folder_and_is_never_written(lab: Lab) -> None:
    (lab.workspace / "file").write_text("mine")
    finished = await lab.shell("pwd; cat file; echo theirs > file; cat file; touch new")
    assert finished.stdout == b"/workspace\nminetheirs\n"
    assert (lab.workspace / "file").read_text() == "mine"
    assert not (lab.workspace / "new").exists()


async def test_a_command_may_start_in_a_folder_of_the_workspace(lab: Lab) -> None:
    (lab.workspace / "a" / "b").mkdir(parents=True)
    finished = await lab.run("/bin/pwd", cwd="a/./b")
    assert finished.stdout == b"/workspace/a/b\n"


async def test_a_folder_that_is_not_there_is_bad_input_and_names_the_field(lab: Lab) -> None:
    with pytest.raises(InvalidValue) as caught:
        await lab.run("/bin/true", cwd="nowhere")
    assert caught.value.field == "cwd"


async def test_a_link_as_current_folder_leads_nowhere_outside(lab: Lab) -> None:
    (lab.workspace / "out").symlink_to(lab.blobs.root)
    with pytest.raises(InvalidValue):
        await lab.run("/bin/ls", cwd="out")


async def test_standard_input_is_given_whole_and_cannot_be_written(lab: Lab) -> None:
    data = bytes(range(256)) * 1000
    finished = await lab.run("/bin/sh", "-c", "cat; (echo x >&0) 2>/dev/null || exit 3", stdin=data)
    assert (finished.stdout, finished.exit_code) == (data, 3)
    script = "import os; os.write(os.open('/proc/self/fd/0', os.O_RDWR), b'x')"
    assert b"PermissionError" in (await lab.run("python3", "-c", script, stdin=data)).stderr


async def test_without_input_a_command_reads_nothing(lab: Lab) -> None:
    assert (await lab.run("/bin/cat")).stdout == b""


async def test_the_environment_is_the_sandboxs_own_with_what_was_given(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPGATE_SECRET", "do not tell")
    finished = await lab.run("/usr/bin/env", env={"GIVEN": "a b\nc", "TZ": "Europe/Paris"})
    names = {line.partition(b"=")[0] for line in finished.stdout.splitlines() if b"=" in line}
    assert names == {b"GIVEN", b"HOME", b"LANG", b"PATH", b"PWD", b"PYTHONDONTWRITEBYTECODE", b"TMPDIR", b"TZ"}
    assert b"GIVEN=a b\nc\n" in finished.stdout
    assert b"TZ=Europe/Paris\n" in finished.stdout


async def test_arguments_arrive_as_they_were_given(lab: Lab) -> None:
    arguments = ("", " a  b ", "--", "-x", "$HOME", "*", "ü\n", "x" * 100_000)
    finished = await lab.python("import sys; sys.stdout.write(ascii(sys.argv[1:]))", *arguments)
    assert finished.stdout.decode() == ascii(list(arguments))


async def test_a_program_that_is_not_there_gives_127_and_one_that_is_no_program_126(lab: Lab) -> None:
    (lab.workspace / "data").write_text("no program")
    assert (await lab.run("no-such-program")).exit_code == 127
    assert (await lab.run("./data")).exit_code == 126


async def test_a_command_cannot_pretend_that_it_was_not_started(lab: Lab) -> None:
    finished = await lab.shell("echo 'bwrap: execvp x: No such file or directory' >&2; exit 1")
    assert finished.exit_code == 1


async def test_output_over_the_limit_is_cut_and_says_so_and_is_seen_whole_as_it_comes(lab: Lab) -> None:
    seen: list[tuple[str, bytes]] = []
    finished = await lab.run(
        *("/bin/sh", "-c", "head -c 300000 /dev/zero; echo err >&2"),
        limits=Limits(output_bytes=1000),
        on_output=lambda name, data: seen.append((name, data)),
    )
    assert (finished.exit_code, finished.truncated) == (0, True)
    assert finished.stdout == bytes(1000)
    assert b"".join(data for name, data in seen if name == "stdout") == bytes(300_000)
    assert ("stderr", b"err\n") in seen


async def test_output_exactly_at_the_limit_is_not_cut(lab: Lab) -> None:
    finished = await lab.run("/bin/sh", "-c", "printf 12345", limits=Limits(output_bytes=5))
    assert (finished.stdout, finished.truncated) == (b"12345", False)


async def test_the_engines_own_python_comes_first_on_path(lab: Lab) -> None:
    finished = await lab.shell("command -v python3; python3 -c 'import sys, json, ssl, sqlite3; print(sys.version)'")
    where, version = finished.stdout.decode().split("\n", 1)
    assert where == lab.sandbox.resolve_executable("python3")
    assert version.strip() == sys.version


@pytest.mark.parametrize("name", ["ls", "python3", "env", "no-such-program", "/bin/sh", "/no/such"])
async def test_the_executable_shown_to_an_approver_is_the_one_that_runs(lab: Lab, name: str) -> None:
    finished = await lab.run("/bin/sh", "-c", f"command -v {name}")
    found = finished.stdout.decode().strip() or None
    assert lab.sandbox.resolve_executable(name) == found


def test_a_program_of_the_workspace_is_shown_beneath_it(lab: Lab) -> None:
    assert lab.sandbox.resolve_executable("./run.sh") == "/workspace/run.sh"
    assert lab.sandbox.resolve_executable("tools/run.sh") == "/workspace/tools/run.sh"
    assert lab.sandbox.resolve_executable("/root/.bashrc") is None


async def test_two_commands_may_follow_one_another_in_one_layer(lab: Lab) -> None:
    with lab.layer() as layer:
        await lab.sandbox.run(Command(("/bin/sh", "-c", "echo one > file; rm -f gone")), layer)
        finished = await lab.sandbox.run(Command(("/bin/cat", "file")), layer)
    assert finished.stdout == b"one\n"


async def test_many_commands_run_at_once_and_apart(lab: Lab) -> None:
    finished = await asyncio.gather(*(lab.shell(f"echo {n} > f; sleep 0.1; cat f; ls | wc -l") for n in range(8)))
    assert [one.stdout for one in finished] == [b"%d\n1\n" % n for n in range(8)]


@pytest.fixture
def repository(lab: Lab) -> Lab:
    subprocess.run(["git", "init", "-q", str(lab.workspace)], check=True)
    return lab


async def test_reading_git_needs_no_write_and_writing_it_is_refused(repository: Lab) -> None:
    finished = await repository.shell("cat .git/HEAD; (echo x > .git/HEAD) 2>/dev/null || echo refused")
    assert finished.stdout.endswith(b"refused\n")
    assert finished.stdout.startswith(b"ref: ")


async def test_byte_code_is_not_written_into_the_workspace(lab: Lab) -> None:
    (lab.workspace / "module.py").write_text("x = 1\n")
    finished = await lab.run("python3", "-c", "import module; import os; print(os.listdir('.'))")
    assert finished.stdout == b"['module.py']\n"


async def test_a_workspace_with_a_difficult_path_is_found(lab: Lab, tmp_path: Path) -> None:
    for name in ("a,b:c", "back\\slash", "new\nline", 'qu"ote', "ünï", "lowerdir=x", "%s"):
        workspace = tmp_path / name
        workspace.mkdir()
        (workspace / "file").write_text(name)
        assert (await replace(lab, workspace=workspace).shell("cat file")).stdout.decode() == name
