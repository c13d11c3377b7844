"""Tokens of an issuer count by its published keys alone, and only for this audience and time."""

import json
import time
from collections.abc import Mapping
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from stepgate.api.tokens import AGAIN_S, KEYS_FOR_S, OpenIdIssuer
from stepgate.domain.errors import Unauthenticated, Unavailable
from stepgate.domain.identity import Kind, Role

ISSUER, AUDIENCE = "https://login.test/realm", "stepgate"
KEY, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())


class Login:
    """The issuer's pages."""

    def __init__(self) -> None:
        self.keys: dict[str, EllipticCurvePrivateKey] = {"k1": KEY}
        self.named = ISSUER
        self.down = False
        self.asked: list[str] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request.url.path)
        if self.down:
            return httpx2.Response(503)
        if request.url.path.endswith("openid-configuration"):
            return httpx2.Response(200, json={"issuer": self.named, "jwks_uri": "https://login.test/keys"})
        keys = [
            {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())), "kid": kid, "alg": "ES256"}
            for kid, key in self.keys.items()
        ]
        return httpx2.Response(200, json={"keys": keys})


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def login() -> Login:
    return Login()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def issuer(login: Login, clock: Clock) -> OpenIdIssuer:
    return OpenIdIssuer(ISSUER, AUDIENCE, transport=httpx2.MockTransport(login), clock=clock)


def token(key: Any = KEY, kid: str = "k1", algorithm: str = "ES256", **changes: Any) -> str:
    now = int(time.time())
    claims: Mapping[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": now + 60, "roles": ["approver"]}
    kept = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    return jwt.encode(kept, key, algorithm=algorithm, headers={"kid": kid})


async def refused(issuer: OpenIdIssuer, text: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        await issuer.principal(text)
    assert (caught.value.reason_code, caught.value.field) == ("token_refused", "Authorization")
    return caught.value.message


async def test_a_token_names_its_bearer_and_roles(issuer: OpenIdIssuer, login: Login) -> None:
    found = await issuer.principal(token(roles=["approver", "king"]))
    assert (found.id, found.kind, found.roles) == ("oidc:ada", Kind.PERSON, frozenset({Role.APPROVER}))
    assert (await issuer.principal(token(kind="agent"))).kind is Kind.AGENT
    assert (await issuer.principal(token(roles="viewer operator"))).roles == {Role.VIEWER, Role.OPERATOR}
    assert (await issuer.principal(token(roles=None))).roles == frozenset()
    assert login.asked == ["/realm/.well-known/openid-configuration", "/keys"]


async def test_roles_may_lie_deeper(login: Login) -> None:
    issuer = OpenIdIssuer(ISSUER, AUDIENCE, roles_claim="realm_access.roles", transport=httpx2.MockTransport(login))
    assert (await issuer.principal(token(realm_access={"roles": ["admin"]}))).roles == {Role.ADMIN}
    assert (await issuer.principal(token(realm_access=["admin"]))).roles == frozenset()


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.test"},
        {"aud": "another"},
        {"exp": 1},
        {"exp": None},
        {"sub": None},
        {"aud": None},
        {"iss": None},
        {"nbf": int(time.time()) + 3600},
        {"sub": "a\nb"},
        {"sub": "a" * 201},
        {"kind": "Agent"},
        {"kind": ["agent"]},
    ],
)
async def test_a_token_that_is_not_for_here_and_now_does_not_count(
    issuer: OpenIdIssuer, changes: dict[str, Any]
) -> None:
    await refused(issuer, token(**changes))


async def test_only_what_the_issuer_signed_counts(issuer: OpenIdIssuer) -> None:
    await refused(issuer, token(OTHER))
    good = token()
    head, body, signature = good.split(".")
    await refused(issuer, f"{head}.{body}.{signature[:-4]}AAAA")
    await refused(issuer, f"{head}.{token(sub='root').split('.')[1]}.{signature}")
    for text in ("a.b.c", "..", f"{head}.{body}."):
        await refused(issuer, text)


async def test_neither_no_signature_nor_a_shared_secret_is_one(issuer: OpenIdIssuer) -> None:
    await refused(issuer, token("", algorithm="none"))
    await refused(issuer, token("k" * 64, algorithm="HS256"))


async def test_a_new_key_is_fetched_but_not_for_every_guess(issuer: OpenIdIssuer, login: Login, clock: Clock) -> None:
    await issuer.principal(token())
    login.keys["k2"] = OTHER
    await refused(issuer, token(OTHER, "k2"))
    fetched = len(login.asked)
    clock.now += AGAIN_S + 1
    await issuer.principal(token(OTHER, "k2"))
    for kid in ("x", "y", "z"):
        await refused(issuer, token(OTHER, kid))
    assert len(login.asked) == fetched + 1


async def test_a_key_that_was_taken_back_counts_no_more(issuer: OpenIdIssuer, login: Login, clock: Clock) -> None:
    await issuer.principal(token())
    login.keys = {"k2": OTHER}
    clock.now += KEYS_FOR_S + 1
    await refused(issuer, token())


async def test_an_issuer_that_is_away_is_told_until_its_keys_are_known(
    issuer: OpenIdIssuer, login: Login, clock: Clock
) -> None:
    login.down = True
    with pytest.raises(Unavailable) as caught:
        await issuer.principal(token())
    assert caught.value.field == "STEPGATE_OIDC_ISSUER"
    login.down = False
    await issuer.principal(token())
    login.down = True
    clock.now += KEYS_FOR_S + 1
    await issuer.principal(token())


async def test_a_configuration_of_another_issuer_is_not_believed(issuer: OpenIdIssuer, login: Login) -> None:
    login.named = "https://evil.test"
    with pytest.raises(Unavailable):
        await issuer.principal(token())


async def test_a_claim_names_the_tenant_and_without_one_a_token_does_not_count(login: Login) -> None:
    issuer = OpenIdIssuer(ISSUER, AUDIENCE, tenant_claim="org.name", transport=httpx2.MockTransport(login))
    assert (await issuer.principal(token(org={"name": "acme"}))).tenant == "acme"
    for org in (None, "acme", {"name": ""}, {"name": "A b"}, {"name": ["acme"]}):
        assert "names no tenant" in await refused(issuer, token(org=org))


async def test_without_that_setting_every_token_is_of_the_default_tenant(issuer: OpenIdIssuer) -> None:
    assert (await issuer.principal(token(tenant="acme", org={"name": "acme"}))).tenant == "default"
