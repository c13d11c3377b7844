"""Options and arguments that several commands share, and how a command is carried out."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from stepgate.cli.session import Verb

RunName = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, or the beginning that only it has.")]
StepName = Annotated[str, typer.Argument(metavar="STEP", help="The step's key, number or id.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Approve everything without asking.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object to standard output, all else to standard error.")
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Only record it; a worker does the rest.")]
Reason = Annotated[str | None, typer.Option(help="Why, for the journal.")]
OnBehalfOf = Annotated[
    str | None, typer.Option("--on-behalf-of", metavar="NAME", help="The person who delegated approvals to you.")
]
Hash = Annotated[str | None, typer.Option("--hash", help="The action_hash you were shown; no question is asked then.")]
Labels = Annotated[list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="May be repeated.")]


def execute(load: Callable[[], "Verb"], **options: Any) -> NoReturn:
    """`load` imports what the command needs and gives the verb."""
    from stepgate.cli.session import execute as carry_out  # noqa: PLC0415 - `--help` does without

    carry_out(load, **options)
