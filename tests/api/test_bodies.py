"""Bodies that must not get further than the edge, each refused by the name of what is wrong with it."""

import json
import socket
from typing import Any

import pytest

from stepgate.api.bodies import MAX_BODY_BYTES, parse
from stepgate.api.problems import Refused
from stepgate.domain.errors import InvalidValue
from tests.api.conftest import Api
from tests.fixtures.patience import PATIENCE_S

PATH = "/v1/agent-runs"
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("text", "field", "said"),
    [
        (b'{"goal": "a\\u0000b"}', "goal", "NUL"),
        (b'{"goal": "\\ud800"}', "goal", "surrogate"),
        (b'{"metadata": {"a": ["\\udfff"]}}', "metadata.a[0]", "surrogate"),
        (b'{"metadata": {"\\ud800": 1}}', "metadata (a key)", "surrogate"),
        (b'{"\\u0000": 1}', "body (a key)", "NUL"),
        (b'{"metadata": {"a": NaN}}', "metadata.a", "finite"),
        (b'{"metadata": {"a": -Infinity}}', "metadata.a", "finite"),
        (b'{"metadata": {"a": 1e999}}', "metadata.a", "finite"),
        (b'{"metadata": {"a": 9223372036854775808}}', "metadata.a", "64 bits"),
        (b'{"metadata": {"a": -9223372036854775809}}', "metadata.a", "64 bits"),
        (b'{"metadata": {"a": ' + b"9" * 5000 + b"}}", "metadata.a", "64 bits"),
        (b'{"metadata": ' + b'{"a":' * 70 + b"1" + b"}" * 70 + b"}", "metadata", "deep"),
        (b'{"metadata": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "body", "deep"),
        (b'{"goal": "one", "goal": "two"}', "goal", "twice"),
        (b'{"steps": [{"type": "a", "type": "b"}]}', "type", "twice"),
    ],
)
def test_a_value_that_cannot_be_kept_is_refused_by_its_field(text: bytes, field: str, said: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse(text)
    assert caught.value.field is not None
    assert caught.value.field.startswith(field)
    assert said in caught.value.message


@pytest.mark.parametrize("text", [b"{", b"'a'", b"\xff", b'{"a": 1}x', b"\xef\xbb\xbf{}", b'{"a": 01}', b'"\t"'])
def test_what_is_no_json_is_malformed(text: bytes) -> None:
    with pytest.raises(Refused) as caught:
        parse(text)
    assert caught.value.status == 400


@pytest.mark.parametrize("value", [9223372036854775807, -9223372036854775808, "\U0001f600 \x7f\u2028", 1.5, None, True])
def test_a_value_at_the_edge_is_kept_as_it_is(value: Any) -> None:
    assert parse(json.dumps({"a": value}).encode()) == {"a": value}


def test_malformed_json_is_a_400(quiet: Api) -> None:
    response = quiet.client.post(PATH, content=b'{"goal": ', headers=JSON)
    assert response.status_code == 400
    assert response.json()["type"] == "urn:stepgate:error:invalid_json"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"goal": "\\ud800"}', "goal"),
        (b'{"goal": "a\\u0000"}', "goal"),
        (b'{"goal": "x", "metadata": {"n": NaN}}', "metadata.n"),
        (b'{"goal": "x", "metadata": {"n": 18446744073709551616}}', "metadata.n"),
        (b'{"goal": "x", "surprise": 1}', "surprise"),
        (b'{"goal": 7}', "goal"),
        (b'{"goal": "x", "start": "yes"}', "start"),
        (b'{"goal": "x", "labels": {"a": 1}}', "labels.a"),
        (b'{"goal": "x", "labels": []}', "labels"),
        (b'["x"]', "body"),
        (b"null", "body"),
        (b'"x"', "body"),
    ],
)
def test_a_bad_body_creates_nothing_and_names_the_field(quiet: Api, body: bytes, field: str) -> None:
    response = quiet.client.post(PATH, content=body, headers=JSON)
    assert response.status_code == 422, response.text
    assert field in [fault["field"] for fault in response.json()["errors"]]
    assert quiet.get(PATH)["items"] == []


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json-seq", "x"],
)
def test_a_body_that_does_not_say_it_is_json_is_not_read(quiet: Api, content_type: str) -> None:
    response = quiet.client.post(PATH, content=b'{"goal": "x"}', headers={"Content-Type": content_type})
    assert response.status_code == 415
    assert response.json()["errors"][0]["field"] == "Content-Type"
    assert quiet.get(PATH)["items"] == []


def test_a_body_without_a_content_type_is_not_read(quiet: Api) -> None:
    assert quiet.client.post(PATH, content=b'{"goal": "x"}').status_code == 415


def test_a_charset_other_than_utf_8_is_refused(quiet: Api) -> None:
    headers = {"Content-Type": "application/json; charset=utf-16"}
    assert quiet.client.post(PATH, content=b'{"goal": "x"}', headers=headers).status_code == 415
    headers = {"Content-Type": "application/json; charset=UTF-8"}
    assert quiet.client.post(PATH, content=b'{"goal": "x"}', headers=headers).status_code != 415


def test_a_body_over_the_limit_is_refused_before_it_is_read_whole(quiet: Api) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {MAX_BODY_BYTES + 1}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", quiet.port), timeout=PATIENCE_S) as connection:
        connection.sendall(head.encode())
        assert connection.makefile("rb").readline().split()[1] == b"413"


def test_a_body_over_the_limit_is_refused_also_where_nobody_said_how_long_it_is(quiet: Api) -> None:
    chunks = (b" " * 65_536 for _ in range(MAX_BODY_BYTES // 65_536 + 1))
    response = quiet.client.post(PATH, content=chunks, headers=JSON)
    assert response.status_code == 413
    assert response.json()["type"] == "urn:stepgate:error:too_large"


def test_a_missing_body_is_named(quiet: Api) -> None:
    response = quiet.client.post(PATH)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "body"
