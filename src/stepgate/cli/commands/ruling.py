"""What may happen without a question, who may call, and which folders have names."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepgate.cli.commands.options import Json, Labels, execute

if TYPE_CHECKING:
    from stepgate.cli.session import Verb

app = typer.Typer()


policy = typer.Typer(help="Rules that say what may happen without a question.", no_args_is_help=True)
app.add_typer(policy, name="policy")


@policy.command("check")
def policy_check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A policy file, YAML or JSON.")], as_json: Json = False
) -> None:
    """Check a policy file and run its examples."""

    def load() -> "Verb":
        from stepgate.cli.policy import check  # noqa: PLC0415

        return lambda session: check(session, file)

    execute(load, as_json=as_json)


@policy.command("explain")
def policy_explain(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan file, YAML or JSON.")],
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", metavar="NAME=VALUE", help="A plan's parameter; may be repeated."),
    ] = None,
    label: Labels = None,
    as_json: Json = False,
) -> None:
    """Say what of a plan would be allowed, asked or denied, and by which rule."""

    def load() -> "Verb":
        from stepgate.cli.policy import explain  # noqa: PLC0415

        return lambda session: explain(session, plan, params=param or (), labels=label or ())

    execute(load, as_json=as_json)


@policy.command("list")
def policy_list(as_json: Json = False) -> None:
    """List the versions of the rules that any process went by."""

    def load() -> "Verb":
        from stepgate.cli.policy_versions import listed  # noqa: PLC0415

        return listed

    execute(load, as_json=as_json)


@policy.command("show")
def policy_show(
    version: Annotated[str, typer.Argument(metavar="[VERSION]", help="As `list` gives it with --json.")] = "current",
    as_json: Json = False,
) -> None:
    """Print the rules in force, or those of a version."""

    def load() -> "Verb":
        from stepgate.cli.policy_versions import show  # noqa: PLC0415

        return lambda session: show(session, version)

    execute(load, as_json=as_json)


@policy.command("apply")
def policy_apply(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A policy file, YAML or JSON.")],
    replaces: Annotated[
        str | None, typer.Option(help="The version it was made from; refused where another one is current.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Put the rules of a file in force wherever no policy file is configured."""

    def load() -> "Verb":
        from stepgate.cli.policy_versions import apply  # noqa: PLC0415

        return lambda session: apply(session, file, replaces)

    execute(load, as_json=as_json)


keys = typer.Typer(help="API keys: give one out, list them, take one back.", no_args_is_help=True)
app.add_typer(keys, name="keys")


Tenant = Annotated[str | None, typer.Option(help="Whose keys; not given: those of the caller's tenant.")]


@keys.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whom the journal will name.")],
    role: Annotated[list[str], typer.Option(help="viewer, operator, approver or admin; may be repeated.")],
    kind: Annotated[str, typer.Option(help="person, service or agent; an agent never decides.")] = "person",
    expires_at: Annotated[str | None, typer.Option(help="RFC 3339; not given: it does not expire.")] = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Give out a key; it is shown once."""

    def load() -> "Verb":
        from stepgate.cli.keys import create  # noqa: PLC0415

        return lambda session: create(session, name, kind, role, expires_at, tenant)

    execute(load, as_json=as_json)


@keys.command("list")
def keys_list(tenant: Tenant = None, as_json: Json = False) -> None:
    """List keys, also those that no longer count."""

    def load() -> "Verb":
        from stepgate.cli.keys import listed  # noqa: PLC0415

        return lambda session: listed(session, tenant)

    execute(load, as_json=as_json)


@keys.command("revoke")
def keys_revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The key's name.")],
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Take a key back; from its next request on it counts no more."""

    def load() -> "Verb":
        from stepgate.cli.keys import revoke  # noqa: PLC0415

        return lambda session: revoke(session, name, tenant)

    execute(load, as_json=as_json)


workspaces = typer.Typer(help="Folders with names: list them, name one, forget a name.", invoke_without_command=True)
app.add_typer(workspaces, name="workspaces")


@workspaces.callback()
def list_workspaces(context: typer.Context, as_json: Json = False) -> None:
    """List the named workspaces."""
    if context.invoked_subcommand is not None:
        return

    def load() -> "Verb":
        from stepgate.cli.workspaces import list_all  # noqa: PLC0415

        return list_all

    execute(load, as_json=as_json)


@workspaces.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, dots, underscores and hyphens.")],
    folder: Annotated[str, typer.Argument(metavar="DIR", help="An existing folder below the workspace root.")],
    isolated: Annotated[
        bool, typer.Option("--isolated", help="Its runs work on private copies unless they say otherwise.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Give a folder a name, to run in it by `run --workspace-name`."""

    def load() -> "Verb":
        from stepgate.cli.workspaces import add  # noqa: PLC0415

        return lambda session: add(session, name, folder, isolated=isolated)

    execute(load, as_json=as_json)


@workspaces.command()
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name that `workspaces` lists.")], as_json: Json = False
) -> None:
    """Forget a name; the folder, its runs and their results stay."""

    def load() -> "Verb":
        from stepgate.cli.workspaces import remove  # noqa: PLC0415

        return lambda session: remove(session, name)

    execute(load, as_json=as_json)
