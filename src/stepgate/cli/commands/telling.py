"""Who is told what happens."""

from typing import TYPE_CHECKING, Annotated

import typer

from stepgate.cli.commands.options import Json, execute

if TYPE_CHECKING:
    from stepgate.cli.session import Verb

app = typer.Typer()

webhooks = typer.Typer(
    help="Who is told what happens: list webhooks, add or remove one, see what was sent.", invoke_without_command=True
)
app.add_typer(webhooks, name="webhooks")

Id = Annotated[str, typer.Argument(metavar="ID", help="A webhook's id, as `webhooks` lists it.")]


@webhooks.callback()
def list_webhooks(context: typer.Context, as_json: Json = False) -> None:
    """List the webhooks."""
    if context.invoked_subcommand is not None:
        return

    def load() -> "Verb":
        from stepgate.cli.webhooks import listed  # noqa: PLC0415

        return listed

    execute(load, as_json=as_json)


@webhooks.command()
def add(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where messages are posted to.")],
    event: Annotated[
        list[str] | None, typer.Option(help="Such as approval.requested; may be repeated; not given: all.")
    ] = None,
    format_: Annotated[str, typer.Option("--format", help="json (Standard Webhooks) or slack.")] = "json",
    as_json: Json = False,
) -> None:
    """Add a webhook; the secret that its messages are signed with is shown once."""

    def load() -> "Verb":
        from stepgate.cli.webhooks import add  # noqa: PLC0415

        return lambda session: add(session, url, event or (), format_)

    execute(load, as_json=as_json)


@webhooks.command()
def remove(webhook: Id, as_json: Json = False) -> None:
    """Remove a webhook and what it was still to be told."""

    def load() -> "Verb":
        from stepgate.cli.webhooks import remove  # noqa: PLC0415

        return lambda session: remove(session, webhook)

    execute(load, as_json=as_json)


@webhooks.command()
def deliveries(webhook: Id, as_json: Json = False) -> None:
    """Show what was sent, what was answered, and what is tried again when."""

    def load() -> "Verb":
        from stepgate.cli.webhooks import deliveries  # noqa: PLC0415

        return lambda session: deliveries(session, webhook)

    execute(load, as_json=as_json)


@webhooks.command()
def redeliver(
    webhook: Id,
    delivery: Annotated[str, typer.Argument(metavar="DELIVERY", help="A delivery's id.")],
    as_json: Json = False,
) -> None:
    """Send a message once more."""

    def load() -> "Verb":
        from stepgate.cli.webhooks import redeliver  # noqa: PLC0415

        return lambda session: redeliver(session, webhook, delivery)

    execute(load, as_json=as_json)
