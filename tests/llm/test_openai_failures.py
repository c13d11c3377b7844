import httpx2
import pytest

from stepgate.domain.errors import ModelFailure
from stepgate.llm.wire import retry_hint
from tests.llm.captures import KEY, answering, ask, client, recorded


@pytest.mark.parametrize(
    ("capture", "code", "retryable", "billed"),
    [
        ("upstream-401", "model_auth", False, False),
        ("upstream-429", "model_rate_limited", True, False),
        ("upstream-500", "model_server_error", True, None),
        ("mock-400-context", "model_request_refused", False, False),
        ("mock-400-model", "model_request_refused", False, False),
        ("mock-400-key", "model_request_refused", False, False),
        ("mock-408", "model_timeout", True, None),
        ("mock-429", "model_rate_limited", True, False),
        ("mock-500", "model_server_error", True, None),
        ("mock-500-text", "model_server_error", True, None),
    ],
)
async def test_a_recorded_refusal_is_classified_by_its_status(
    capture: str, code: str, retryable: bool, billed: bool | None
) -> None:
    with pytest.raises(ModelFailure) as caught:
        await answering(recorded(capture)).complete(ask())
    failed = caught.value
    assert (failed.reason_code, failed.retryable, failed.billed) == (code, retryable, billed)
    assert failed.status == recorded(capture).status_code
    assert failed.answer is None


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (301, "model_redirected", False),
        (307, "model_redirected", False),
        (402, "model_credit", False),
        (403, "model_auth", False),
        (404, "model_not_found", False),
        (409, "model_conflict", True),
        (413, "model_request_refused", False),
        (422, "model_request_refused", False),
        (502, "model_server_error", True),
        (503, "model_server_error", True),
        (529, "model_server_error", True),
        (204, "model_request_refused", False),
    ],
)
async def test_every_other_status(status: int, code: str, retryable: bool) -> None:
    elsewhere = {"location": "http://elsewhere.test/"}
    with pytest.raises(ModelFailure) as caught:
        await answering(httpx2.Response(status, headers=elsewhere)).complete(ask())
    assert (caught.value.reason_code, caught.value.retryable, caught.value.status) == (code, retryable, status)


async def test_a_type_in_the_body_that_contradicts_the_status_changes_nothing() -> None:
    """A router may hand on what its provider said, under a status of its own."""
    body = {"error": {"message": "slow down", "type": "invalid_request_error", "code": "401"}}
    with pytest.raises(ModelFailure) as caught:
        await answering(httpx2.Response(429, json=body)).complete(ask())
    assert (caught.value.reason_code, caught.value.retryable) == ("model_rate_limited", True)


async def test_the_routers_own_words_are_shown_without_the_key_and_without_escapes() -> None:
    body = f'{{"error": {{"message": "bad key {KEY}\\u001b[31m {"x" * 5000}"}}}}'.encode()
    with pytest.raises(ModelFailure) as caught:
        await answering(httpx2.Response(401, content=body)).complete(ask())
    assert "bad key ***" in caught.value.message
    assert KEY not in str(caught.value)
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) < 700


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"llm_provider-retry-after": "7"}, 7.0),
        ({"retry-after": "soon", "llm_provider-retry-after": "3"}, 3.0),
        ({"retry-after": "Fri, 20 Nov 2026 06:43:38 GMT", "date": "Fri, 20 Nov 2026 06:43:08 GMT"}, 30.0),
        ({"retry-after": "Fri, 20 Nov 2026 06:43:38 GMT", "date": "Fri, 20 Nov 2026 07:43:08 GMT"}, 0.0),
        ({"retry-after": "Fri, 20 Nov 2026 06:43:38 GMT"}, None),
        ({"retry-after": "999999"}, 3600.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({}, None),
    ],
)
def test_hints_to_wait_are_read_in_seconds(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_hint(headers) == seconds


async def test_a_hint_reaches_the_failure() -> None:
    with pytest.raises(ModelFailure) as caught:
        await answering(recorded("upstream-429")).complete(ask())
    assert caught.value.retry_after_s == 7.0


@pytest.mark.parametrize(
    ("raised", "code", "retryable", "billed"),
    [
        (httpx2.ConnectError, "model_unreachable", True, False),
        (httpx2.ConnectTimeout, "model_unreachable", True, False),
        (httpx2.PoolTimeout, "model_unreachable", True, False),
        (httpx2.ReadError, "model_connection_lost", True, None),
        (httpx2.RemoteProtocolError, "model_connection_lost", True, None),
        (httpx2.LocalProtocolError, "model_unreachable", False, False),
        (httpx2.UnsupportedProtocol, "model_unreachable", False, False),
    ],
)
async def test_a_broken_connection_says_whether_anything_can_have_been_billed(
    raised: type[httpx2.TransportError], code: str, retryable: bool, billed: bool | None
) -> None:
    def refuse(request: httpx2.Request) -> httpx2.Response:
        raise raised("broken", request=request)

    with pytest.raises(ModelFailure) as caught:
        await client(refuse).complete(ask())
    failed = caught.value
    assert (failed.reason_code, failed.retryable, failed.billed) == (code, retryable, billed)
