"""What people do with runs: start them, look at them, stop them, hand over or take back what they did."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepgate.cli.commands.options import Json, Labels, NoWait, RunName, Yes, execute

if TYPE_CHECKING:
    from stepgate.cli.session import Verb

app = typer.Typer()


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

    execute(load, as_json=as_json)


@app.command()
def run(
    plan: Annotated[Path | None, typer.Argument(metavar="PLAN", help="A plan file, YAML or JSON.")] = None,
    goal: Annotated[
        str | None, typer.Option("--goal", metavar="TEXT", help="Instead of a plan: a model writes the steps.")
    ] = None,
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
    workspace_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="A named workspace to work in, instead of --workspace.")
    ] = None,
    isolated: Annotated[
        bool, typer.Option("--isolated", help="Work on a private copy; `deliver` hands its result over.")
    ] = False,
    label: Labels = None,
    yes: Yes = False,
    as_json: Json = False,
    no_wait: NoWait = False,
) -> None:
    """Run a plan, or have a model plan a goal, and follow it; or go on with a run."""

    def load() -> "Verb":
        from stepgate.cli import faults  # noqa: PLC0415
        from stepgate.cli.run import Where, go_on, run_goal, run_plan  # noqa: PLC0415

        where = Where(workspace, workspace_name, isolated=isolated)
        if goal is not None:
            if plan is not None or continue_ is not None or param:
                raise faults.usage("--goal", "goes without a plan, its parameters and --continue", "leave them out")
            return lambda session: run_goal(session, goal, where=where, labels=label or (), yes=yes, wait=not no_wait)
        if continue_ is not None and plan is None:
            if param or workspace or workspace_name or isolated or label or no_wait:
                raise faults.usage("--continue", "goes with --yes and --json only", "leave the other options out")
            return lambda session: go_on(session, continue_, yes=yes)
        if plan is None or continue_ is not None:
            raise faults.usage("PLAN", "name a plan, or a run with --continue, and not both", "stepgate run plan.yaml")
        return lambda session: run_plan(
            session, plan, params=param or (), where=where, labels=label or (), yes=yes, wait=not no_wait
        )

    execute(load, as_json=as_json)


@app.command()
def plan(
    goal: Annotated[str, typer.Argument(metavar="GOAL", help="What the plan is for.")],
    workspace: Annotated[
        str | None, typer.Option(metavar="DIR", help="The folder whose file names the model sees.")
    ] = None,
    file: Annotated[
        list[str] | None, typer.Option(metavar="PATH", help="Show only this name; may be repeated.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model, as the router names it.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Keep the plan in a new file.")] = None,
    as_json: Json = False,
) -> None:
    """Have a model write a plan; nothing of it runs."""

    def load() -> "Verb":
        from stepgate.cli.plan import plan  # noqa: PLC0415

        return lambda session: plan(session, goal, workspace, file, model, out)

    execute(load, as_json=as_json)


@app.command()
def plans(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="A folder of plans; not given: plans/.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List plan files and the parameters that each takes."""

    def load() -> "Verb":
        from stepgate.cli.plans import plans  # noqa: PLC0415

        return lambda session: plans(session, folder)

    execute(load, as_json=as_json)


@app.command()
def show(
    run: RunName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Watch it to its end, with what it prints.")] = False,
    as_json: Json = False,
) -> None:
    """Show a run: its steps, why it does not move, the open question."""

    def load() -> "Verb":
        from stepgate.cli.look import show  # noqa: PLC0415

        return lambda session: show(session, run, follow=follow)

    execute(load, as_json=as_json)


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

    execute(load, as_json=as_json)


@app.command()
def cancel(run: RunName, as_json: Json = False) -> None:
    """End a run; no half of a change stays."""

    def load() -> "Verb":
        from stepgate.cli.decide import cancel  # noqa: PLC0415

        return lambda session: cancel(session, run)

    execute(load, as_json=as_json)


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

    execute(load, as_json=as_json)


@app.command()
def fork(
    run: RunName,
    from_step: Annotated[
        str, typer.Option("--from", metavar="STEP", help="The first step that begins anew, by key or number.")
    ],
    yes: Yes = False,
    as_json: Json = False,
    no_wait: NoWait = False,
) -> None:
    """Begin anew from a step, in a run of its own that keeps what ended before."""

    def load() -> "Verb":
        from stepgate.cli.fork import fork  # noqa: PLC0415

        return lambda session: fork(session, run, from_step=from_step, yes=yes, wait=not no_wait)

    execute(load, as_json=as_json)


@app.command()
def deliver(
    run: RunName,
    apply: Annotated[
        bool, typer.Option("--apply", help="Apply it to the folder, after showing it; for isolated runs.")
    ] = False,
    patch: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as a patch for `git apply`.")] = None,
    branch: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Make a branch of the folder's repository, a commit for each step."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="With --patch: replace an existing file.")] = False,
    yes: Yes = False,
    as_json: Json = False,
    no_wait: NoWait = False,
) -> None:
    """Hand over what a run changed: applied to the folder, as a patch or as a branch."""

    def load() -> "Verb":
        from stepgate.cli import deliver, faults  # noqa: PLC0415

        if [apply, patch is not None, branch is not None].count(True) != 1:
            raise faults.usage("--apply", "say in which one form", "--apply, --patch FILE or --branch NAME")
        if patch is not None:
            return lambda session: deliver.patch(session, run, patch, force=force)
        if branch is not None:
            return lambda session: deliver.branch(session, run, branch)
        return lambda session: deliver.apply(session, run, yes=yes, wait=not no_wait)

    execute(load, as_json=as_json)


@app.command()
def discard(run: RunName, yes: Yes = False, as_json: Json = False) -> None:
    """Remove the private copy of an isolated run; its recorded result can still be delivered."""

    def load() -> "Verb":
        from stepgate.cli.deliver import discard  # noqa: PLC0415

        return lambda session: discard(session, run, yes=yes)

    execute(load, as_json=as_json)


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

    execute(load, as_json=as_json)
