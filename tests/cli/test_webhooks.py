"""Webhooks from the command line, without a server: added, listed without their secret, and removed."""

from tests.cli.conftest import Cli


def test_a_webhook_is_added_listed_and_removed(cli: Cli) -> None:
    made = cli("webhooks", "add", "https://example.org/hook", "--event", "run.failed", "--event", "approval.requested")
    secret = made.out.strip()
    assert (made.code, secret[:6], len(secret)) == (0, "whsec_", 50)
    assert "shown this once" in made.err
    listed = cli("webhooks", "--json")
    (row,) = listed.json["items"]
    assert (row["url"], row["events"]) == ("https://example.org/hook", ["run.failed", "approval.requested"])
    assert secret not in listed.out
    assert cli("webhooks", "deliveries", row["id"]).code == 0
    removed = cli("webhooks", "remove", row["id"])
    assert (removed.code, "is told nothing more" in removed.out) == (0, True)
    assert "nobody is told" in cli("webhooks").out


def test_an_address_inside_needs_the_setting(cli: Cli) -> None:
    refused = cli("webhooks", "add", "https://127.0.0.1/hook")
    assert refused.code == 2
    assert "STEPGATE_WEBHOOK_PRIVATE" in refused.err
