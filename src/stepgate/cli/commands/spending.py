"""What model calls may cost."""

from typing import TYPE_CHECKING, Annotated

import typer

from stepgate.cli.commands.options import Json, RunName, execute

if TYPE_CHECKING:
    from stepgate.cli.session import Verb

app = typer.Typer()


@app.command()
def budget(
    run: RunName,
    add_usd: Annotated[str | None, typer.Option(metavar="USD", help="Add so many US dollars, such as 0.50.")] = None,
    add_tokens: Annotated[int | None, typer.Option(min=1, metavar="N", help="Add so many tokens.")] = None,
    as_json: Json = False,
) -> None:
    """Show what a run may spend, or add to it; nothing is ever reset."""

    def load() -> "Verb":
        from stepgate.cli.budgets import of_run  # noqa: PLC0415

        return lambda session: of_run(session, run, add_usd, add_tokens)

    execute(load, as_json=as_json)


budgets = typer.Typer(help="Budgets that runs share: list them, set one, remove one.", invoke_without_command=True)
app.add_typer(budgets, name="budgets")


@budgets.callback()
def list_budgets(context: typer.Context, as_json: Json = False) -> None:
    """List the budgets that runs share, and what is spent of them."""
    if context.invoked_subcommand is not None:
        return

    def load() -> "Verb":
        from stepgate.cli.budgets import listed  # noqa: PLC0415

        return listed

    execute(load, as_json=as_json)


@budgets.command("set")
def set_(
    label: Annotated[
        str | None, typer.Option(metavar="NAME=VALUE", help="Of runs with this label; not given: of all.")
    ] = None,
    daily: Annotated[bool, typer.Option("--daily", help="For each day (UTC), not for all time.")] = False,
    usd: Annotated[str | None, typer.Option(metavar="USD", help="At most so many US dollars.")] = None,
    tokens: Annotated[int | None, typer.Option(min=0, metavar="N", help="At most so many tokens.")] = None,
    as_json: Json = False,
) -> None:
    """Make a budget, or change the limits of the one there is; what is spent of it stays spent."""

    def load() -> "Verb":
        from stepgate.cli.budgets import set_one  # noqa: PLC0415

        return lambda session: set_one(session, label, usd, tokens, daily=daily)

    execute(load, as_json=as_json)


@budgets.command()
def remove(
    budget_id: Annotated[str, typer.Argument(metavar="ID", help="A budget's id, as `budgets` lists it.")],
    as_json: Json = False,
) -> None:
    """Remove a budget; nothing is held to it any more."""

    def load() -> "Verb":
        from stepgate.cli.budgets import remove  # noqa: PLC0415

        return lambda session: remove(session, budget_id)

    execute(load, as_json=as_json)
