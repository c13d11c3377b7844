"""The questions over all runs, and a person's answers to several of them."""

from typing import TYPE_CHECKING, Annotated

import typer

from stepgate.cli.commands.options import Json, Reason, execute

if TYPE_CHECKING:
    from stepgate.cli.session import Verb

app = typer.Typer()

approvals = typer.Typer(help="Questions over all runs: list them, answer several.", invoke_without_command=True)
app.add_typer(approvals, name="approvals")
Several = Annotated[
    list[str], typer.Argument(metavar="APPROVAL[=HASH]...", help="Ids that `approvals` lists, at best with their hash.")
]
Sure = Annotated[bool, typer.Option("--yes", "-y", help="Do not show them; each must come with its hash.")]


@approvals.callback()
def list_approvals(context: typer.Context, as_json: Json = False) -> None:
    """List the questions that wait for a person."""
    if context.invoked_subcommand is not None:
        return

    def load() -> "Verb":
        from stepgate.cli.approvals import listed  # noqa: PLC0415

        return listed

    execute(load, as_json=as_json)


@approvals.command("approve")
def approve_several(names: Several, reason: Reason = None, yes: Sure = False, as_json: Json = False) -> None:
    """Show each question and approve those you say; a worker goes on with them."""

    def load() -> "Verb":
        from stepgate.cli.approvals import decide  # noqa: PLC0415

        return lambda session: decide(session, "approve", names, reason=reason, then="abort", yes=yes)

    execute(load, as_json=as_json)


@approvals.command("reject")
def reject_several(
    names: Several,
    then: Annotated[str, typer.Option(help="abort: the run ends; skip: it goes on without the step.")] = "abort",
    reason: Reason = None,
    yes: Sure = False,
    as_json: Json = False,
) -> None:
    """Show each question and reject those you say."""

    def load() -> "Verb":
        from stepgate.cli.approvals import decide  # noqa: PLC0415

        return lambda session: decide(session, "reject", names, reason=reason, then=then, yes=yes)

    execute(load, as_json=as_json)


One = Annotated[str, typer.Argument(metavar="APPROVAL", help="An id that `approvals` lists.")]
Until = Annotated[str | None, typer.Option(help="RFC 3339, at most a year from now; not given: for 30 days.")]
Anyone = Annotated[bool, typer.Option("--anyone", help="In everybody's runs, not only this requester's.")]


@approvals.command("rule")
def show_rule(name: One, until: Until = None, anyone: Anyone = False, as_json: Json = False) -> None:
    """Show the rule that would allow such an action from now on."""

    def load() -> "Verb":
        from stepgate.cli.always import rule  # noqa: PLC0415

        return lambda session: rule(session, name, until=until, anyone=anyone)

    execute(load, as_json=as_json)


@approvals.command("always")
def add_rule(
    name: Annotated[str, typer.Argument(metavar="APPROVAL[=HASH]", help="An id that `approvals` lists.")],
    until: Until = None,
    anyone: Anyone = False,
    yes: Sure = False,
    as_json: Json = False,
) -> None:
    """Show the action and that rule, ask, and add the rule as a new policy version."""

    def load() -> "Verb":
        from stepgate.cli.always import always  # noqa: PLC0415

        return lambda session: always(session, name, until=until, anyone=anyone, yes=yes)

    execute(load, as_json=as_json)
