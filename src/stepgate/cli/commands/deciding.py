"""A person's answers to a step's question."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepgate.cli.commands.options import Hash, Json, NoWait, OnBehalfOf, Reason, RunName, StepName, Yes, execute

if TYPE_CHECKING:
    from stepgate.cli.session import Verb

app = typer.Typer()


@app.command()
def approve(
    run: RunName,
    step: StepName,
    hash_: Hash = None,
    reason: Reason = None,
    on_behalf_of: OnBehalfOf = None,
    yes: Yes = False,
    as_json: Json = False,
    no_wait: NoWait = False,
) -> None:
    """Approve a step's action and follow the run."""

    def load() -> "Verb":
        from stepgate.cli.decide import Said, approve  # noqa: PLC0415

        said = Said(hash_, reason, on_behalf_of)
        return lambda session: approve(session, run, step, said, yes=yes, wait=not no_wait)

    execute(load, as_json=as_json)


@app.command()
def reject(
    run: RunName,
    step: StepName,
    then: Annotated[
        str, typer.Option(help="abort: the run ends; skip: it goes on; replan: the rest is planned anew.")
    ] = "abort",
    hash_: Hash = None,
    reason: Reason = None,
    on_behalf_of: OnBehalfOf = None,
    as_json: Json = False,
    no_wait: NoWait = False,
) -> None:
    """Reject a step's action; the run ends unless --then skip or replan."""

    def load() -> "Verb":
        from stepgate.cli.decide import Said, reject  # noqa: PLC0415

        said = Said(hash_, reason, on_behalf_of)
        return lambda session: reject(session, run, step, said, then=then, wait=not no_wait)

    execute(load, as_json=as_json)


@app.command()
def edit(
    run: RunName,
    step: StepName,
    fields: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A field of its input, JSON or text; may be repeated."),
    ] = None,
    removed: Annotated[
        list[str] | None, typer.Option("--unset", metavar="NAME", help="A field to leave out; may be repeated.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--input", metavar="FILE", help="The whole new input, YAML or JSON.")
    ] = None,
    hash_: Hash = None,
    reason: Reason = None,
    as_json: Json = False,
    no_wait: NoWait = False,
) -> None:
    """Change the action that is asked about; the new one is asked about anew."""

    def load() -> "Verb":
        from stepgate.cli.edit import edit  # noqa: PLC0415

        return lambda session: edit(
            session,
            run,
            step,
            hash_=hash_,
            file=file,
            fields=fields or (),
            removed=removed or (),
            reason=reason,
            wait=not no_wait,
        )

    execute(load, as_json=as_json)


@app.command()
def skip(run: RunName, step: StepName, reason: Reason = None, as_json: Json = False, no_wait: NoWait = False) -> None:
    """Leave a step out; those that need it go on."""

    def load() -> "Verb":
        from stepgate.cli.decide import skip  # noqa: PLC0415

        return lambda session: skip(session, run, step, reason=reason, wait=not no_wait)

    execute(load, as_json=as_json)


delegations = typer.Typer(help="One's approvals in another person's hands, for a time.", no_args_is_help=True)
app.add_typer(delegations, name="delegations")


@delegations.command("add")
def delegations_add(
    to: Annotated[str, typer.Argument(metavar="NAME", help="The person who may approve for you.")],
    until: Annotated[str, typer.Option(help="RFC 3339, at most 90 days from now.")],
    begin: Annotated[str | None, typer.Option("--from", help="RFC 3339; not given: now.")] = None,
    reason: Reason = None,
    as_json: Json = False,
) -> None:
    """Give your approvals to another person for a time."""

    def load() -> "Verb":
        from stepgate.cli.delegations import add  # noqa: PLC0415

        return lambda session: add(session, to, until, begin, reason)

    execute(load, as_json=as_json)


@delegations.command("list")
def delegations_list(as_json: Json = False) -> None:
    """List delegations, also those that are over."""

    def load() -> "Verb":
        from stepgate.cli.delegations import listed  # noqa: PLC0415

        return listed

    execute(load, as_json=as_json)


@delegations.command("remove")
def delegations_remove(
    delegation_id: Annotated[str, typer.Argument(metavar="ID", help="A delegation's id.")], as_json: Json = False
) -> None:
    """End a delegation at once; what was decided stands."""

    def load() -> "Verb":
        from stepgate.cli.delegations import remove  # noqa: PLC0415

        return lambda session: remove(session, delegation_id)

    execute(load, as_json=as_json)
