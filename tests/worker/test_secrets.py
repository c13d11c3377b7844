"""A step's secrets: shown and approved by name, given to its command, and found nowhere afterwards."""

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from stepgate.domain.ids import RunId
from stepgate.domain.state import Gate
from stepgate.executors.registry import BUILTIN, Registry
from stepgate.executors.run_command import RunCommand
from tests.worker.conftest import OpenLab
from tests.worker.lab import PERSON, Lab, step_of
from tests.worker.steps import Kit
from tests.worker.test_live_output import until_printed

VALUE = "s3cret/value+4711 ü"
KEY = "-----BEGIN KEY-----\nMIIBVQIBADANBgkqhkiG\n9w0BAQEFAASCAT8wggE7\n-----END KEY-----"
TRACES = [
    *(VALUE, KEY, "MIIBVQIBADANBgkqhkiG", "9w0BAQEFAASCAT8wggE7"),
    *(quote(VALUE), quote(VALUE, safe=""), json.dumps(VALUE)[1:-1]),
    *(base64.b64encode(one.encode()).decode().rstrip("=")[:-1] for one in (VALUE, KEY)),
]
TELL_ALL = """
import base64, os, sys, time, urllib.parse
for name in ("TOKEN", "KEY"):
    value = os.environ[name]
    print(value, flush=True)
    for char in value:
        sys.stderr.write(char)
        sys.stderr.flush()
    print(base64.b64encode(value.encode()).decode(), urllib.parse.quote(value), repr(value))
    for line in value.split("\\n"):
        print("line:", line)
print("length", len(os.environ["TOKEN"]), flush=True)
"""


def given(folder: Path, name: str, value: str) -> Path:
    """Makes or changes a secret of the worker."""
    secrets = folder / "secrets"
    secrets.mkdir(mode=0o700, exist_ok=True)
    path = secrets / name
    path.touch(0o600)
    path.write_text(value)
    return path


@pytest.fixture
async def lab(open_lab: OpenLab, tmp_path: Path) -> Lab:
    given(tmp_path, "TOKEN", VALUE + "\n")
    given(tmp_path, "KEY", KEY)
    return await open_lab(secrets_dir=tmp_path / "secrets", command_timeout_s=600.0)


def python(script: str, *names: str) -> dict[str, Any]:
    input_ = {"argv": ["python3", "-I", "-c", script], "secrets": list(names)}
    return {"key": "c", "type": "run_command", "input": input_, "timeout": "10m"}


def shell(script: str, *names: str, **more: Any) -> dict[str, Any]:
    return {"key": "c", "type": "run_command", "input": {"command": script, "secrets": list(names), **more}}


def on_disk(folder: Path) -> list[str]:
    """Every path and every content, but the secrets themselves."""
    found = []
    for path in folder.rglob("*"):
        found.append(str(path))
        if path.is_symlink():  # where it leads is found by itself, or is none of ours
            found.append(str(path.readlink()))
        elif path.is_file() and "secrets" not in path.parts:
            found.append(path.read_bytes().decode(errors="replace"))
    return found


async def nothing_is_found(lab: Lab, superuser: Any, tmp_path: Path, *logs: str) -> None:
    """No trace of a value in any table, in any file but the secrets themselves, or in what was logged."""
    tables = await superuser.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'stepgate'::regnamespace AND relkind IN ('r', 'p')"
    )
    found = list(logs)
    for table in tables:
        found += [row[0] for row in await superuser.fetch(f"SELECT t::text FROM stepgate.{table['relname']} AS t")]
    assert any("run_command" in text for text in found)
    found += on_disk(tmp_path)
    for trace in TRACES:
        # As rows and JSON may write it.
        for form in (trace, trace.replace("\n", "\\n"), trace.replace("\n", "\\\\n"), json.dumps(trace)[1:-1]):
            assert not [text[:200] for text in found if form in text], form
    assert any("spaces" in text for text in found)
    assert lab.workspace.exists()


async def test_a_command_gets_its_secrets_and_leaves_no_trace_of_them(
    lab: Lab, superuser: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_id = await lab.create([python(TELL_ALL, "TOKEN", "KEY"), {"key": "s", "type": "summarize", "input": {}}])
    asked = await lab.approve(run_id, "c")
    await lab.until_status(run_id, "completed")
    output = await lab.output(run_id, "c")
    assert f"length {len(VALUE)}\n" in output["stdout"]
    assert output["stdout"].count("[secret:TOKEN]") == 5
    assert output["stderr"].startswith("[secret:TOKEN][secret:KEY]")
    assert asked.approval is not None
    rendering = await lab.stack.queries.step(run_id, asked.id)
    assert rendering.approval is not None
    assert rendering.approval.rendering is not None
    assert set(rendering.approval.rendering["secrets"]) == {"TOKEN", "KEY"}
    captured = capfd.readouterr()
    await nothing_is_found(lab, superuser, tmp_path, captured.out, captured.err)
    await lab.verify(run_id)


async def test_what_is_shown_live_is_free_of_secrets_too(lab: Lab, superuser: Any, tmp_path: Path) -> None:
    run_id = await lab.create([python(TELL_ALL + "time.sleep(300)", "TOKEN", "KEY")])
    await lab.approve(run_id, "c")
    found = await until_printed(lab, run_id, "length")
    assert "[secret:TOKEN]" in "".join(item.text for item in found.items)
    await nothing_is_found(lab, superuser, tmp_path, *(item.text for item in found.items))
    await lab.engine.cancel(run_id, PERSON)
    await lab.until_status(run_id, "cancelled")


@pytest.mark.parametrize(
    ("script", "path"),
    [
        ('mkdir d; echo "x $TOKEN" > d/out.txt', "d/out.txt"),
        ('printf %s "$TOKEN" | base64 > out.b64', "out.b64"),
        ('ln -s -- "$KEY" link', "link"),
        ('mkdir "${TOKEN%%/*}"; touch "${TOKEN%%/*}/${TOKEN#*/}"', "[secret:TOKEN]"),
        ('mkfifo "d-${TOKEN#*/}-s3cret" || true; echo "$KEY" | tail -n 2 > part', "part"),
        ("rm held", "held"),
        ("echo line >> held", "held"),
    ],
)
async def test_a_value_that_would_be_stored_with_a_change_fails_the_step_and_names_the_path(
    lab: Lab, superuser: Any, tmp_path: Path, script: str, path: str
) -> None:
    if path == "held":
        (lab.workspace / "held").write_text(f"TOKEN={VALUE}\n")
    run_id = await lab.create([shell(script, "TOKEN", "KEY", allow_failure=True)])
    await lab.approve(run_id, "c")
    state = await lab.until_status(run_id, "failed")
    error = step_of(state, "c").error
    assert error is not None
    if path == "held":
        (lab.workspace / "held").unlink()
    assert (error["code"], error["field"]) == ("secret_in_change", "path")
    assert path in error["message"]
    assert error["paths"] == [path]
    assert list(lab.workspace.iterdir()) == []
    await nothing_is_found(lab, superuser, tmp_path)


async def test_a_command_that_fails_tells_no_secret_either(lab: Lab, superuser: Any, tmp_path: Path) -> None:
    run_id = await lab.create([shell('echo "$TOKEN" >&2; touch "$(printf "\\377")-${TOKEN#*/}"; exit 3', "TOKEN")])
    await lab.approve(run_id, "c")
    await lab.until_status(run_id, "failed")
    await nothing_is_found(lab, superuser, tmp_path)


async def test_a_changed_secret_is_a_new_question(open_lab: OpenLab, tmp_path: Path) -> None:
    given(tmp_path, "TOKEN", VALUE)
    asked = await open_lab(secrets_dir=tmp_path / "secrets")
    watching = await open_lab(worker=False)
    run_id = await asked.create([shell("true", "TOKEN")])
    first = await asked.until_step(run_id, "c", "awaiting_approval")
    await asked.worker.stop()
    await watching.approve(run_id, "c")
    given(tmp_path, "TOKEN", VALUE + "changed")
    successor = await open_lab(secrets_dir=tmp_path / "secrets")

    def asks_again(lab_state: Any) -> bool:
        approval = step_of(lab_state, "c").approval
        return approval is not None and approval.revision == 2

    state = await successor.until(run_id, asks_again)
    second = step_of(state, "c")
    assert first.approval is not None
    assert second.approval is not None
    assert second.approval.action_hash != first.approval.action_hash
    versions = [approval.rendering_sha256 for approval in second.approvals]
    assert versions[0] != versions[1]
    await successor.approve(run_id, "c")
    await successor.until_status(run_id, "completed")
    await successor.verify(run_id)


async def failing(lab: Lab, *names: str) -> tuple[RunId, Any]:
    run_id = await lab.create([shell("true", *names)])
    state = await lab.until_status(run_id, "failed")
    return run_id, step_of(state, "c").error


async def test_a_secret_that_is_not_there_fails_the_step_before_anybody_is_asked(lab: Lab) -> None:
    run_id, error = await failing(lab, "TOKEN", "MISSING")
    assert (error["code"], error["field"]) == ("secret_unavailable", "secrets[1]")
    assert "MISSING" in error["message"]
    assert "STEPGATE_SECRETS_DIR" in error["message"]
    assert "approval.requested" not in await lab.events(run_id)


async def test_without_a_source_the_error_says_which_setting_is_missing(open_lab: OpenLab) -> None:
    _, error = await failing(await open_lab(), "TOKEN")
    assert (error["code"], error["field"]) == ("secret_unavailable", "secrets[0]")
    assert "set STEPGATE_SECRETS_DIR" in error["message"]


class Loose(RunCommand):
    """As a policy would have it that lets commands run unasked."""

    gate = Gate.ALLOW


async def test_a_command_with_secrets_asks_whatever_its_gate_is(open_lab: OpenLab, tmp_path: Path) -> None:
    given(tmp_path, "TOKEN", VALUE)
    kit = Kit()
    kit.registry = Registry([Loose(), *(one for one in BUILTIN if one.type != "run_command")])
    lab = await open_lab(secrets_dir=tmp_path / "secrets", kit=kit)
    free = await lab.create([shell("true")])
    await lab.until_status(free, "completed")
    run_id = await lab.create([shell("true", "TOKEN")])
    await lab.approve(run_id, "c")
    await lab.until_status(run_id, "completed")
    await lab.verify(run_id)
