"""The command `stepgate`: names, options and help; what they do is imported when it is asked for."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from stepgate import __version__
from stepgate.cli.exits import Exit

if TYPE_CHECKING:
    from stepgate.cli.session import Verb

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

RunName = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, or the beginning that only it has.")]
StepName = Annotated[str, typer.Argument(metavar="STEP", help="The step's key, number or id.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Approve everything without asking.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object to standard output, all else to standard error.")
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Only record it; a worker does the rest.")]
Reason = Annotated[str | None, typer.Option(help="Why, for the journal.")]
Hash = Annotated[str | None, typer.Option("--hash", help="The action_hash you were shown; no question is asked then.")]
Labels = Annotated[list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="May be repeated.")]


def _execute(load: Callable[[], "Verb"], **options: Any) -> NoReturn:
    """`load` imports what the command needs and gives the verb."""
    from stepgate.cli.session import execute  # noqa: PLC0415 - `--help` does without

    execute(load, **options)


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


@app.command()
def demo(
    yes: Yes = False,
    as_json: Json = False,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Work on a copy in this new or empty folder.")
    ] = None,
) -> None:
    """Run the main job on the sample project."""

    def load() -> "Verb":
        from stepgate.cli.demo import demo  # noqa: PLC0415

        return lambda session: demo(session, yes=yes, keep=keep)

    _execute(load, as_json=as_json)


@app.command()
def run(
    plan: Annotated[Path | None, typer.Argument(metavar="PLAN", help="A plan file, YAML or JSON.")] = None,
    continue_: Annotated[
        str | None, typer.Option("--continue", metavar="RUN", help="Go on with a run instead of making one.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", metavar="NAME=VALUE", help="A plan's parameter; may be repeated."),
    ] = None,
    workspace: Annotated[
        str | None, typer.Option(metavar="DIR", help="The folder to work in; not given: the workspace root.")
    ] = None,
    label: Labels = None,
    yes: Yes = False,
    as_json: Json = False,
    no_wait: NoWait = False,
) -> None:
    """Run a plan and follow it, or go on with a run."""

    def load() -> "Verb":
        from stepgate.cli import faults  # noqa: PLC0415
        from stepgate.cli.run import go_on, run_plan  # noqa: PLC0415

        if continue_ is not None and plan is None:
            if param or workspace or label or no_wait:
                raise faults.usage("--continue", "goes with --yes and --json only", "leave the other options out")
            return lambda session: go_on(session, continue_, yes=yes)
        if plan is None or continue_ is not None:
            raise faults.usage("PLAN", "name a plan, or a run with --continue, and not both", "stepgate run plan.yaml")
        return lambda session: run_plan(
            session, plan, params=param or (), workspace=workspace, labels=label or (), yes=yes, wait=not no_wait
        )

    _execute(load, as_json=as_json)


@app.command()
def show(run: RunName, as_json: Json = False) -> None:
    """Show a run: its steps, why it does not move, the open question."""

    def load() -> "Verb":
        from stepgate.cli.look import show  # noqa: PLC0415

        return lambda session: show(session, run)

    _execute(load, as_json=as_json)


@app.command()
def runs(
    status: Annotated[list[str] | None, typer.Option(help="Only runs of this status; may be repeated.")] = None,
    label: Labels = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, the newest first.")] = 20,
    as_json: Json = False,
) -> None:
    """List runs."""

    def load() -> "Verb":
        from stepgate.cli.look import runs  # noqa: PLC0415

        return lambda session: runs(session, statuses=status or (), labels=label or (), limit=limit)

    _execute(load, as_json=as_json)


@app.command()
def approve(
    run: RunName,
    step: StepName,
    hash_: Hash = None,
    reason: Reason = None,
    yes: Yes = False,
    as_json: Json = False,
    no_wait: NoWait = False,
) -> None:
    """Approve a step's action and follow the run."""

    def load() -> "Verb":
        from stepgate.cli.decide import approve  # noqa: PLC0415

        return lambda session: approve(session, run, step, hash_=hash_, reason=reason, yes=yes, wait=not no_wait)

    _execute(load, as_json=as_json)


@app.command()
def reject(
    run: RunName,
    step: StepName,
    then: Annotated[str, typer.Option(help="abort: the run ends; skip: it goes on without the step.")] = "abort",
    hash_: Hash = None,
    reason: Reason = None,
    as_json: Json = False,
    no_wait: NoWait = False,
) -> None:
    """Reject a step's action; the run ends unless --then skip."""

    def load() -> "Verb":
        from stepgate.cli.decide import reject  # noqa: PLC0415

        return lambda session: reject(session, run, step, hash_=hash_, reason=reason, then=then, wait=not no_wait)

    _execute(load, as_json=as_json)


@app.command()
def skip(run: RunName, step: StepName, reason: Reason = None, as_json: Json = False, no_wait: NoWait = False) -> None:
    """Leave a step out; those that need it go on."""

    def load() -> "Verb":
        from stepgate.cli.decide import skip  # noqa: PLC0415

        return lambda session: skip(session, run, step, reason=reason, wait=not no_wait)

    _execute(load, as_json=as_json)


@app.command()
def cancel(run: RunName, as_json: Json = False) -> None:
    """End a run; no half of a change stays."""

    def load() -> "Verb":
        from stepgate.cli.decide import cancel  # noqa: PLC0415

        return lambda session: cancel(session, run)

    _execute(load, as_json=as_json)


@app.command()
def undo(
    run: RunName,
    to: Annotated[
        str | None, typer.Option(metavar="STEP", help="The last step whose changes stay; not given: none does.")
    ] = None,
    yes: Yes = False,
    as_json: Json = False,
    no_wait: NoWait = False,
) -> None:
    """Take back what a run changed, after showing it."""

    def load() -> "Verb":
        from stepgate.cli.decide import undo  # noqa: PLC0415

        return lambda session: undo(session, run, to=to, yes=yes, wait=not no_wait)

    _execute(load, as_json=as_json)


@app.command()
def verify(run: RunName, as_json: Json = False) -> None:
    """Prove that a run's journal holds."""

    def load() -> "Verb":
        from stepgate.cli.look import verify  # noqa: PLC0415

        return lambda session: verify(session, run)

    _execute(load, as_json=as_json)


@app.command()
def cost(run: RunName, as_json: Json = False) -> None:
    """Show what a run's model calls cost."""

    def load() -> "Verb":
        from stepgate.cli.look import cost  # noqa: PLC0415

        return lambda session: cost(session, run)

    _execute(load, as_json=as_json)


@app.command()
def diff(
    run: RunName,
    step: Annotated[str | None, typer.Argument(metavar="[STEP]", help="A step's key, number or id.")] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="The exact text, nothing in it made visible; for `git apply`.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what a run, or one of its steps, changed."""

    def load() -> "Verb":
        from stepgate.cli.look import diff  # noqa: PLC0415

        return lambda session: diff(session, run, step, raw=raw)

    _execute(load, as_json=as_json)


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
    _execute(load, overrides=options, lasts=True)


@app.command()
def worker() -> None:
    """Run a worker on its own."""

    def load() -> "Verb":
        from stepgate.cli.server import work  # noqa: PLC0415

        return work

    _execute(load, lasts=True)


@app.command()
def migrate(as_json: Json = False) -> None:
    """Bring the database to the schema of this version."""

    def load() -> "Verb":
        from stepgate.cli.server import migrate  # noqa: PLC0415

        return migrate

    _execute(load, as_json=as_json)


@app.command()
def settings(as_json: Json = False) -> None:
    """List every setting with its value and where it came from."""

    def load() -> "Verb":
        from stepgate.cli.server import settings  # noqa: PLC0415

        return settings

    _execute(load, as_json=as_json)


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
