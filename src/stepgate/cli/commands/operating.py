"""What an operator starts and looks at."""

from typing import TYPE_CHECKING, Annotated

import typer

from stepgate.cli.commands.options import Json, execute

if TYPE_CHECKING:
    from stepgate.cli.session import Verb

app = typer.Typer()


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="The address to listen on (STEPGATE_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="The port, 0 for a free one (STEPGATE_PORT).")] = None,
    no_worker: Annotated[
        bool, typer.Option("--no-worker", help="Execute nothing here (STEPGATE_EMBEDDED_WORKER=false).")
    ] = False,
) -> None:
    """Serve the HTTP API, with a worker in it."""

    def load() -> "Verb":
        from stepgate.cli.server import serve  # noqa: PLC0415

        return serve

    options = {"host": host, "port": port, "embedded_worker": False if no_worker else None}
    execute(load, overrides=options, lasts=True)


@app.command()
def worker() -> None:
    """Run a worker on its own."""

    def load() -> "Verb":
        from stepgate.cli.server import work  # noqa: PLC0415

        return work

    execute(load, lasts=True)


@app.command()
def migrate(as_json: Json = False) -> None:
    """Bring the database to the schema of this version."""

    def load() -> "Verb":
        from stepgate.cli.server import migrate  # noqa: PLC0415

        return migrate

    execute(load, as_json=as_json)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check everything that runs need on this machine, and say what mends it; starts and changes nothing."""

    def load() -> "Verb":
        from stepgate.cli.doctor import doctor  # noqa: PLC0415

        return doctor

    execute(load, as_json=as_json)


@app.command()
def settings(as_json: Json = False) -> None:
    """List every setting with its value and where it came from."""

    def load() -> "Verb":
        from stepgate.cli.server import settings  # noqa: PLC0415

        return settings

    execute(load, as_json=as_json)
