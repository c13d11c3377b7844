"""Signing in with the issuer itself: the authorization code flow of OpenID Connect, with PKCE (RFC 7636)."""

import base64
import hmac
import secrets
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from urllib.parse import quote_plus, urlencode

import httpx2

from stepgate.api.tokens import OpenIdIssuer
from stepgate.domain.errors import Unauthenticated
from stepgate.domain.identity import Principal

SCOPE: Final = "openid profile"
_RANDOM_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Begun:
    """One way to the issuer and back; the browser keeps it, and only who has it can come back."""

    state: str
    nonce: str
    verifier: str

    @classmethod
    def new(cls) -> "Begun":
        return cls(*(secrets.token_urlsafe(_RANDOM_BYTES) for _ in range(3)))

    @classmethod
    def read(cls, text: str) -> "Begun | None":
        """From `text`; None for anything else."""
        parts = text.split(".")
        return cls(*parts) if len(parts) == 3 and all(parts) else None

    @property
    def text(self) -> str:
        return f"{self.state}.{self.nonce}.{self.verifier}"


class SignOn:
    """The console as a client of the issuer; `secret` None: a public client, proved by PKCE alone."""

    def __init__(self, issuer: OpenIdIssuer, client_id: str, secret: str | None, back: str) -> None:
        self._issuer = issuer
        self._client_id = client_id
        self._secret = secret
        self._back = back

    async def address(self, begun: Begun) -> str:
        """Where the browser goes. Raises Unavailable."""
        challenge = base64.urlsafe_b64encode(sha256(begun.verifier.encode()).digest()).decode().rstrip("=")
        asked = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self._back,
            "scope": SCOPE,
            "state": begun.state,
            "nonce": begun.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        place = await self._issuer.endpoint("authorization_endpoint")
        return f"{place}{'&' if '?' in place else '?'}{urlencode(asked)}"

    async def principal(self, begun: Begun, state: str, code: str) -> Principal:
        """Who came back. Raises Unauthenticated, Unavailable."""
        if not hmac.compare_digest(begun.state.encode(), state.encode()):
            raise _refused("it was begun by somebody else")
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._back,
            "client_id": self._client_id,
            "code_verifier": begun.verifier,
        }
        auth = httpx2.Auth()
        if self._secret is not None:  # each encoded by itself first (RFC 6749, 2.3.1)
            auth = httpx2.BasicAuth(quote_plus(self._client_id), quote_plus(self._secret))
        token = (await self._issuer.redeem(fields, auth)).get("id_token")
        if not isinstance(token, str):
            raise _refused("the issuer names nobody")
        claims = await self._issuer.claims(token, self._client_id)
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), begun.nonce.encode()):
            raise _refused("its token is of another sign-in")
        if claims.get("azp", self._client_id) != self._client_id:
            raise _refused("its token was given to somebody else")
        return self._issuer.named(claims)


def _refused(why: str) -> Unauthenticated:
    return Unauthenticated(f"this sign-in does not count: {why}", code="sign_in_refused", fix="begin again")
