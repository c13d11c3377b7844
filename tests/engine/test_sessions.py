"""Sessions of the console end with what opened them."""

from datetime import UTC, datetime, timedelta

import pytest

from stepgate.domain.identity import Kind, Principal, Role
from stepgate.engine.keys import LOCAL, Keys
from stepgate.engine.sessions import Sessions
from stepgate.storage.keys import ApiKeys
from stepgate.storage.sessions import SessionRows
from tests.worker.lab import Lab

BEARER = Principal("oidc:ada", Kind.PERSON, frozenset({Role.APPROVER}), "acme")


@pytest.fixture
def sessions(lab: Lab) -> Sessions:
    return Sessions(SessionRows(lab.stack.database))


async def test_a_session_is_found_by_its_cookie_alone(sessions: Sessions) -> None:
    cookie = await sessions.sign_in(BEARER, "a.b.c", until=datetime.now(UTC) + timedelta(hours=1))
    found = await sessions.find(cookie, "secret")
    assert found is not None
    assert (found.principal, found.local) == (BEARER, False)
    assert await sessions.find(cookie[:-1] + ("A" if cookie[-1] != "A" else "B"), "secret") is None
    assert await sessions.find("x" * 10_000, "secret") is None
    other = await sessions.find(await sessions.sign_in(BEARER, "a.b.c", until=datetime.now(UTC) + timedelta(1)), "s")
    assert other is not None
    assert other.csrf != found.csrf


async def test_a_session_ends_with_its_token(sessions: Sessions) -> None:
    cookie = await sessions.sign_in(BEARER, "a.b.c", until=datetime.now(UTC) - timedelta(seconds=1))
    assert await sessions.find(cookie, "secret") is None


async def test_a_session_of_the_local_secret_ends_when_that_is_another_one(sessions: Sessions) -> None:
    cookie = await sessions.sign_in(LOCAL, "secret")
    found = await sessions.find(cookie, "secret")
    assert found is not None
    assert found.local
    assert await sessions.find(cookie, "another") is None


async def test_a_session_of_a_key_ends_with_it(lab: Lab, sessions: Sessions) -> None:
    keys = Keys(ApiKeys(lab.stack.database))
    given = await keys.give("ada", Kind.PERSON, [Role.APPROVER], LOCAL)
    cookie = await sessions.sign_in(await keys.principal(given.key), given.key)
    found = await sessions.find(cookie, "secret")
    assert found is not None
    assert (found.principal.id, found.principal.roles, found.local) == ("ada", frozenset({Role.APPROVER}), False)
    await keys.revoke(LOCAL, "ada")
    assert await sessions.find(cookie, "secret") is None
