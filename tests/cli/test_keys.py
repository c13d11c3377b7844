"""Keys are given out, listed and taken back from the command line; a server others reach needs one first."""

from tests.cli.conftest import READ, Cli


def test_a_key_is_shown_once_listed_without_its_secret_and_revoked(cli: Cli) -> None:
    assert "there are no keys" in cli("keys", "list").out
    given = cli("keys", "create", "ada", "--role", "operator", "--role", "approver")
    key = given.out.strip()
    assert (given.code, key[:4], len(key)) == (0, "sgk_", 56)
    assert "shown once" in given.err
    listed = cli("keys", "list")
    assert "ada" in listed.out
    assert key[13:] not in listed.out
    assert cli("keys", "create", "ada", "--role", "viewer").code == 2
    assert cli("keys", "revoke", "ada").code == 0
    (row,) = cli("keys", "list", "--json").json["items"]
    assert row["revoked_at"]
    assert cli("keys", "revoke", "nobody").code == 2


def test_a_role_that_is_none_is_named(cli: Cli) -> None:
    refused = cli("keys", "create", "ada", "--role", "king")
    assert refused.code == 2
    assert "roles" in refused.err


def test_the_command_line_of_this_machine_goes_on_after_the_first_key(cli: Cli) -> None:
    cli("keys", "create", "ada", "--role", "admin")
    (cli.cwd / "note.txt").write_text("x")
    assert cli("run", cli.plan(READ)).code == 0


def test_an_address_that_others_reach_is_refused_until_there_is_a_key(cli: Cli) -> None:
    refused = cli.having(STEPGATE_HOST="0.0.0.0", STEPGATE_PORT="0")("serve")
    assert refused.code == 5
    assert "no key is configured" in refused.err
    assert "stepgate keys create" in refused.err
