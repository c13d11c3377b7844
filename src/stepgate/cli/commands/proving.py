"""What can be shown about a run: that its journal holds, what it cost, evidence for others."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepgate.cli.commands.options import Json, RunName, execute

if TYPE_CHECKING:
    from stepgate.cli.session import Verb

app = typer.Typer()


@app.command()
def verify(run: RunName, as_json: Json = False) -> None:
    """Prove that a run's journal holds."""

    def load() -> "Verb":
        from stepgate.cli.look import verify  # noqa: PLC0415

        return lambda session: verify(session, run)

    execute(load, as_json=as_json)


@app.command()
def replay(
    run: RunName,
    ignore_printed: Annotated[
        bool, typer.Option("--ignore-printed", help="Do not compare what commands print, such as times.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Do a run again out of its record, without models, and compare."""

    def load() -> "Verb":
        from stepgate.cli.replay import replay  # noqa: PLC0415

        return lambda session: replay(session, run, printed=not ignore_printed)

    execute(load, as_json=as_json)


@app.command()
def cost(run: RunName, as_json: Json = False) -> None:
    """Show what a run's model calls cost."""

    def load() -> "Verb":
        from stepgate.cli.look import cost  # noqa: PLC0415

        return lambda session: cost(session, run)

    execute(load, as_json=as_json)


@app.command()
def costs(
    by: Annotated[str, typer.Option(help="day, model, label or requester.")] = "day",
    label: Annotated[str | None, typer.Option(help="With --by label: the label's name.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="NAME=VALUE: only runs with this label.")] = None,
    since: Annotated[str | None, typer.Option(help="Only calls made at or after it, RFC 3339.")] = None,
    until: Annotated[str | None, typer.Option(help="Only calls made before it, RFC 3339.")] = None,
    as_json: Json = False,
) -> None:
    """Show what the model calls of all runs cost."""

    def load() -> "Verb":
        from stepgate.cli.look import costs  # noqa: PLC0415

        return lambda session: costs(session, by, label, only or [], since, until)

    execute(load, as_json=as_json)


audit = typer.Typer(help="Signed evidence of a run, to be checked anywhere.", no_args_is_help=True)
app.add_typer(audit, name="audit")


@audit.command("export")
def audit_export(
    run: RunName,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="A new file; not given: audit-RUN.json.")] = None,
    as_json: Json = False,
) -> None:
    """Write everything about a run to a signed file."""

    def load() -> "Verb":
        from stepgate.cli.audit import export  # noqa: PLC0415

        return lambda session: export(session, run, out)

    execute(load, as_json=as_json)


@audit.command("verify")
def audit_verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `audit export` wrote.")],
    key: Annotated[
        str | None, typer.Option(metavar="FINGERPRINT", help="The only key that may have signed it: sha256:...")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check such a file, without a database."""

    def load() -> "Verb":
        from stepgate.cli.audit import verify  # noqa: PLC0415

        return lambda session: verify(session, file, key)

    execute(load, as_json=as_json)


@audit.command("key")
def audit_key(as_json: Json = False) -> None:
    """Show the public key that signs here."""

    def load() -> "Verb":
        from stepgate.cli.audit import key  # noqa: PLC0415

        return key

    execute(load, as_json=as_json)
