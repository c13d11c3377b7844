"""The command `stepgate`: names, options and help; what they do is imported when it is asked for."""

import sys
from typing import Annotated

import typer

from stepgate import __version__
from stepgate.cli.commands import answering, deciding, operating, proving, ruling, running, spending, telling
from stepgate.cli.exits import Exit

app = typer.Typer(
    name="stepgate",
    help="Plans of steps, run in a sandboxed workspace, that stop before anything dangerous until you approved it.",
    epilog=(
        "Exit codes: 0 completed, 1 run failed, 2 bad input, 3 cancelled or rejected, 4 waiting, 5 environment, "
        "6 no sandbox, 7 verification failed, 130 interrupted."
    ),
    add_completion=False,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (running, deciding, answering, proving, spending, ruling, telling, operating):
    app.add_typer(part.app)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"stepgate {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Settings come from STEPGATE_* variables, DATABASE_URL and a .env file; `stepgate settings` lists them."""
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(int(Exit.USAGE))


def main() -> None:
    """The entry point; every way out has an exit code of `exits`."""
    try:
        code = app(standalone_mode=False, prog_name="stepgate")
    except typer.Abort:
        code = Exit.INTERRUPTED
    except Exception as error:
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        _refuse(message(), error)
        code = Exit.USAGE
    sys.exit(int(code or 0))


def _refuse(message: str, error: Exception) -> None:
    """What the parser of the command line says, in the form of every other error."""
    from stepgate.cli import faults  # noqa: PLC0415 - only here

    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", "stepgate")
    fault = faults.usage("", message, f"{path} --help shows how it is used")
    faults.show(fault)
    if "--json" in sys.argv[1:]:
        faults.answer(fault)
