"""`doctor`: whether everything that runs need is here, and what mends it where it is not."""

from collections.abc import Sequence
from typing import Final

from rich.console import Console

from stepgate import __version__
from stepgate.cli import checks
from stepgate.cli.checks import Examined, Finding, Status
from stepgate.cli.exits import Exit
from stepgate.cli.session import Session
from stepgate.cli.terminal import say
from stepgate.cli.text import plain

STYLES: Final = {Status.OK: "green", Status.DEGRADED: "yellow", Status.FAILED: "bold red"}
OF_THE_SANDBOX: Final = frozenset({"sandbox", "capture", "limits"})


async def doctor(session: Session) -> Exit:
    """Exit 0, also where something is only degraded; 5 where the environment fails, 6 where there is no sandbox."""
    settings = session.settings
    examined = await checks.examine(settings)
    findings = [
        checks.python(),
        checks.package(settings),
        await checks.database(settings),
        checks.state_folder(settings),
        checks.workspace_root(settings),
        checks.sandbox(examined),
        checks.capture(examined),
        checks.limits(examined),
        *[finding async for finding in checks.kernel()],
        await checks.router(settings),
    ]
    if session.terminal.json:
        session.answer(
            {
                "status": worst(findings),
                "version": __version__,
                "checks": [
                    {"name": one.name, "status": one.status, "detail": one.detail, "fix": one.fix} for one in findings
                ],
                "sandbox": examined.health.model_dump(mode="json"),
            }
        )
    else:
        _show(session.terminal.out, findings, examined)
    return exit_of(findings)


def worst(findings: Sequence[Finding]) -> Status:
    """How it stands as a whole."""
    order = list(Status)
    return max((finding.status for finding in findings), key=order.index)


def exit_of(findings: Sequence[Finding]) -> Exit:
    """The environment's failures come first, since without it nothing runs at all."""
    failed = {finding.name for finding in findings if finding.status is Status.FAILED}
    if failed - OF_THE_SANDBOX:
        return Exit.ENVIRONMENT
    return Exit.NO_SANDBOX if failed else Exit.COMPLETED


def _show(out: Console, findings: Sequence[Finding], examined: Examined) -> None:
    for finding in findings:
        _line(out, finding.status, finding.name, finding.detail)
        if finding.fix:
            _more(out, f"fix: {finding.fix}")
        if finding.name == "sandbox":
            _sandbox(out, examined)


def _sandbox(out: Console, examined: Examined) -> None:
    health = examined.health
    for canary in health.canaries:
        held, style = ("held", "green") if canary.passed else ("open", "red" if canary.required else "yellow")
        say(out, " " * 11, (f"{held}  ", style), f"{canary.name}: {plain(canary.detail)}")
    told = {canary.name for canary in health.canaries}
    for weakness in health.weaknesses if health.level else ():
        if weakness.reason.partition(": ")[0] not in told:
            _more(out, f"weaker: {weakness.reason}" + (f" (fix: {weakness.fix})" if weakness.fix else ""))


def _line(out: Console, status: Status, name: str, detail: str) -> None:
    say(out, (f"{status:>9}  ", STYLES[status]), (f"{name:16}", "bold"), plain(detail))


def _more(out: Console, text: str) -> None:
    say(out, " " * 11, (plain(text), "dim"))
