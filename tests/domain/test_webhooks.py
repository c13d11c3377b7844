"""What both ends of a webhook agree on: signatures, waits, addresses and names of events."""

from typing import Any

import pytest

from stepgate.domain.errors import InvalidValue
from stepgate.domain.webhooks import EVENTS, LONGEST_HINT_S, RETRY_S, check_events, check_url, new_secret, retry_s, sign

SECRET, MESSAGE = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek"


def test_a_signature_is_the_one_that_receivers_libraries_expect() -> None:
    """The example that the libraries of Standard Webhooks test themselves with."""
    signed = sign(SECRET, MESSAGE, 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("other", [(SECRET, "msg", 1614265330, b"{}"), (SECRET, MESSAGE, 1614265331, b"{}")])
def test_a_signature_covers_id_time_and_body(other: Any) -> None:
    assert sign(*other) != sign(SECRET, MESSAGE, 1614265330, b"{}")


def test_a_secret_has_the_form_and_length_of_the_standard() -> None:
    secret = new_secret(bytes(range(32)))
    assert secret.startswith("whsec_")
    assert len(secret) == 6 + 44


def test_waits_grow_with_jitter_and_come_to_an_end() -> None:
    waits = [retry_s(number, 0.5) for number in range(1, len(RETRY_S) + 2)]
    assert waits == [*map(float, RETRY_S), None]
    assert (retry_s(1, 0.0), retry_s(1, 1.0)) == (4.0, 6.0)
    assert retry_s(1, 0.5, hint_s=60) == 60
    assert retry_s(5, 0.5, hint_s=60) == RETRY_S[4]
    assert retry_s(1, 0.5, hint_s=1e9) == LONGEST_HINT_S


@pytest.mark.parametrize(
    "url",
    [
        *("", "example.org", "ftp://example.org", "https://", "https:///x", "http://example.org", "file:///etc/passwd"),
        *("https://a:b@example.org", "https://a@example.org/", "https://example.org/#x", "https://example.org:99999/"),
        *(
            "https://example.org/ x",
            "https://example.org/\n",
            "https://exämple.org/",
            "https://example.org\\@evil.test/",
        ),
        *("https://[::1", "https://example.org/" + "x" * 2000),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused(url: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        check_url(url, private=False)
    assert caught.value.field == "url"


def test_plain_http_is_for_private_targets() -> None:
    assert check_url("https://example.org:8443/a?b=c", private=False)
    assert check_url("http://127.0.0.1:9/a", private=True)


def test_events_are_those_that_are_told() -> None:
    assert check_events(None) == tuple(type_.value for type_ in EVENTS)
    assert {"approval.requested", "approval.approved", "run.completed", "run.paused"} <= set(check_events(None))
    assert check_events(["run.failed", "approval.requested", "run.failed"]) == ("run.failed", "approval.requested")[::1]
