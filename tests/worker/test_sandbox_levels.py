"""Where a setting permits commands without a sandbox, every surface says so."""

from structlog.testing import capture_logs

from stepgate.compose import services_of_stack
from stepgate.engine.sandbox_health import UNSAFE
from stepgate.workspace.sandbox.levels import CANARIES, Level
from tests.worker.conftest import OpenLab


async def test_without_a_sandbox_every_question_output_and_report_says_so(open_lab: OpenLab) -> None:
    with capture_logs() as logs:
        lab = await open_lab(sandbox_levels=(Level.UNSAFE_NONE,))
    assert [entry["log_level"] for entry in logs if entry["event"] == UNSAFE] == ["warning"]
    shown = services_of_stack(lab.stack).sandbox
    assert (shown.level, shown.degraded) == ("unsafe-none", True)
    assert {canary.name for canary in shown.canaries} == CANARIES
    assert not any(canary.required for canary in shown.canaries)
    assert any(not canary.passed for canary in shown.canaries)
    assert "there is no sandbox" in shown.weaknesses[0].reason
    run_id = await lab.create([{"key": "c", "type": "run_command", "input": {"command": "echo yes > done.txt"}}])
    await lab.until_step(run_id, "c", "awaiting_approval")
    (step,) = (await lab.stack.queries.run(run_id)).steps
    assert step.approval is not None
    assert step.approval.risk == "high"
    assert step.approval.rendering is not None
    assert "WITHOUT A SANDBOX" in step.approval.rendering["title"]
    await lab.approve(run_id, "c")
    await lab.until_status(run_id, "completed")
    (step,) = (await lab.stack.queries.run(run_id)).steps
    assert step.output is not None
    assert step.output["level"] == "unsafe-none"
    assert (lab.workspace / "done.txt").read_text() == "yes\n"


async def test_a_weaker_level_is_logged_with_its_reasons(open_lab: OpenLab) -> None:
    with capture_logs() as logs:
        lab = await open_lab(sandbox_levels=(Level.LANDLOCK_SECCOMP,))
    (entry,) = [entry for entry in logs if entry["event"] == "the sandbox is weaker than it could be"]
    assert (entry["log_level"], entry["level"]) == ("warning", "landlock-seccomp")
    shown = services_of_stack(lab.stack).sandbox
    assert len(shown.weaknesses) == len(entry["reasons"]) > 0
    assert all(canary.passed for canary in shown.canaries if canary.required)
