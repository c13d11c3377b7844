"""Bearer tokens (JWT) of an OpenID Connect issuer: checked by its published keys, never by asking it about a caller."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

import httpx2
import jwt
from jwt.types import Options

from stepgate.domain.errors import InvalidValue, Unauthenticated, Unavailable
from stepgate.domain.identity import DEFAULT_TENANT, Kind, Principal, Role, check_tenant

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures that only the issuer can make: a shared secret or none at all is not accepted."""
KEYS_FOR_S: Final = 600.0
AGAIN_S: Final = 30.0
"""How soon the keys may be fetched again for a token that names a key we do not know."""
LEEWAY_S: Final = 30
MAX_BYTES: Final = 1 << 20
_DEADLINE_S: Final = 5.0
_MAX_NAME: Final = 200
_REQUIRED: Final[Options] = {"require": ["exp", "iss", "aud", "sub"]}


class OpenIdIssuer:
    """`roles_claim` names a claim that lists roles; dots lead into objects. Roles that are none of ours are ignored.

    `tenant_claim` names the one that says the tenant; where it is set, a token without a tenant does not count.
    """

    def __init__(
        self,
        issuer: str,
        audience: str,
        *,
        jwks_url: str | None = None,
        roles_claim: str = "roles",
        tenant_claim: str | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._jwks_url = jwks_url
        self._roles_claim = roles_claim.split(".")
        self._tenant_claim = None if tenant_claim is None else tenant_claim.split(".")
        self._client = httpx2.AsyncClient(transport=transport, timeout=_DEADLINE_S, follow_redirects=False)
        self._clock = clock
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetched: float | None = None
        self._configuration: tuple[float, Mapping[str, Any]] | None = None
        self._fetching = asyncio.Lock()

    async def principal(self, token: str) -> Principal:
        """Whom the token names. Raises Unauthenticated, or Unavailable where the issuer's keys cannot be had."""
        return self.named(await self.claims(token, self._audience))

    async def claims(self, token: str, audience: str) -> Mapping[str, Any]:
        """What a token for this audience says. Raises as `principal` does."""
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                raise _refused("its algorithm is not accepted")
            key = await self._key(str(header.get("kid", "")))
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[str(header["alg"])],
                audience=audience,
                issuer=self._issuer,
                leeway=LEEWAY_S,
                options=_REQUIRED,
            )
        except jwt.PyJWTError as error:
            raise _refused(str(error)) from error
        return claims

    def named(self, claims: Mapping[str, Any]) -> Principal:
        """Whom claims that were checked name. Raises Unauthenticated."""
        subject = claims["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= _MAX_NAME or not subject.isprintable():
            raise _refused("its subject is no name")
        listed = _claim(claims, self._roles_claim)
        names = listed.split() if isinstance(listed, str) else listed if isinstance(listed, list) else []
        roles = frozenset(role for role in Role if role.value in names)
        kind = claims.get("kind", Kind.PERSON.value)
        if kind not in tuple(Kind):  # whatever else is meant, it may be something that must not decide
            raise _refused(f"its claim kind is none of {', '.join(Kind)}")
        # Names of keys have no colon: nobody can be taken for somebody with a key.
        return Principal(f"oidc:{subject}", Kind(kind), roles, self._tenant(claims))

    def _tenant(self, claims: Mapping[str, Any]) -> str:
        if self._tenant_claim is None:
            return DEFAULT_TENANT
        named = _claim(claims, self._tenant_claim)
        try:
            return check_tenant(named if isinstance(named, str) else "")
        except InvalidValue as error:
            raise _refused(f"its claim {'.'.join(self._tenant_claim)} names no tenant") from error

    async def _key(self, kid: str) -> jwt.PyJWK:
        if kid not in self._keys or self._age() > KEYS_FOR_S:
            async with self._fetching:
                if self._age() > (KEYS_FOR_S if kid in self._keys else AGAIN_S):
                    await self._fetch()
        if kid not in self._keys:
            raise _refused("it was signed with a key that the issuer does not publish")
        return self._keys[kid]

    def _age(self) -> float:
        return float("inf") if self._fetched is None else self._clock() - self._fetched

    async def _fetch(self) -> None:
        """Keeps the keys at hand where new ones cannot be had."""
        self._fetched = self._clock()
        try:
            if self._jwks_url is None:
                self._jwks_url = (await self._configured())["jwks_uri"]
            keys = jwt.PyJWKSet.from_dict(await self._get(self._jwks_url)).keys
        except (httpx2.HTTPError, httpx2.InvalidURL, jwt.PyJWTError, InvalidValue, ValueError) as error:
            if self._keys:
                return
            self._fetched = None
            raise _away(f"the issuer's keys cannot be had: {str(error)[:200]}") from error
        self._keys = {key.key_id or "": key for key in keys}

    async def endpoint(self, name: str) -> str:
        """An address of the issuer, such as `token_endpoint`. Raises Unavailable."""
        try:
            found = (await self._configured())[name]
        except (httpx2.HTTPError, httpx2.InvalidURL, InvalidValue, ValueError, KeyError) as error:
            raise _away(f"the issuer's {name} cannot be had: {str(error)[:200]}") from error
        return str(found)

    async def redeem(self, fields: Mapping[str, str], auth: httpx2.Auth) -> dict[str, Any]:
        """What the issuer gives for a code. Raises Unauthenticated where it gives nothing, Unavailable."""
        address = await self.endpoint("token_endpoint")
        try:
            response = await self._client.post(address, data=dict(fields), auth=auth)
            if response.status_code in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED):
                raise _refused("the issuer does not accept the code")
            return _object(response)
        except (httpx2.HTTPError, InvalidValue, ValueError) as error:
            raise _away(f"the issuer gives no token: {str(error)[:200]}") from error

    async def _configured(self) -> Mapping[str, Any]:
        """As the issuer itself says (OpenID Connect Discovery); asked for anew now and then."""
        if self._configuration is None or self._clock() - self._configuration[0] > KEYS_FOR_S:
            found = await self._get(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
            if found.get("issuer") != self._issuer or not isinstance(found.get("jwks_uri"), str):
                raise InvalidValue("the issuer's configuration names another issuer, or no keys")
            self._configuration = (self._clock(), found)
        return self._configuration[1]

    async def _get(self, url: str) -> dict[str, Any]:
        return _object(await self._client.get(url))

    async def aclose(self) -> None:
        await self._client.aclose()


def _object(response: httpx2.Response) -> dict[str, Any]:
    response.raise_for_status()
    if len(response.content) > MAX_BYTES:
        raise InvalidValue("the answer is too large")
    value = response.json()
    if not isinstance(value, dict):
        raise InvalidValue("the answer is no object")
    return value


def _away(message: str) -> Unavailable:
    return Unavailable(
        message, code="issuer_unavailable", field="STEPGATE_OIDC_ISSUER", fix="check that the issuer answers"
    )


def expiry_of(token: str) -> datetime:
    """When a token that was accepted counts no more."""
    claims = jwt.decode(token, options={"verify_signature": False})
    return datetime.fromtimestamp(int(claims["exp"]), UTC)


def _claim(claims: Mapping[str, Any], path: Sequence[str]) -> Any:
    found: Any = claims
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _refused(why: str) -> Unauthenticated:
    return Unauthenticated(
        f"the token does not count: {why}"[:300],
        code="token_refused",
        field="Authorization",
        fix="sign in again, with the issuer and audience that this service expects",
    )
