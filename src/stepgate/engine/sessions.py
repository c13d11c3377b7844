"""Signing in at the console with a key, a token or the local secret, and out again."""

import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final

from stepgate.domain.identity import Kind, Principal, Role, read_key
from stepgate.storage.sessions import SessionRow, SessionRows

SESSION_S: Final = 8 * 3600
_MAX_COOKIE: Final = 100


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody at the console; `csrf` stands in each of their forms, `local` says that only this machine may use it."""

    principal: Principal
    csrf: str
    local: bool


class Sessions:
    """The sessions of one installation."""

    def __init__(self, rows: SessionRows) -> None:
        self._rows = rows

    async def sign_in(self, principal: Principal, proof: str, *, until: datetime | None = None) -> str:
        """What the browser keeps; it counts for eight hours, until `until`, or as long as the key that proved it."""
        cookie, key = secrets.token_urlsafe(32), read_key(proof)
        row = SessionRow(
            tenant_id=principal.tenant,
            name=principal.id,
            kind=principal.kind.value,
            roles=sorted(role.value for role in principal.roles),
            proof=sha256(proof.encode()).digest() if key is None and until is None else None,
            csrf=secrets.token_urlsafe(32),
        )
        prefix = None if key is None else key.prefix
        await self._rows.add(_digest(cookie), row, key_prefix=prefix, lasts_s=SESSION_S, until=until)
        return cookie

    async def find(self, cookie: str, secret: str) -> Session | None:
        """Whose it is; a session that was opened with a secret counts only while that is the installation's."""
        if len(cookie) > _MAX_COOKIE:
            return None
        row = await self._rows.find(_digest(cookie))
        if row is None:
            return None
        local = row.proof is not None
        if row.proof is not None and not hmac.compare_digest(row.proof, sha256(secret.encode()).digest()):
            return None
        principal = Principal(row.name, Kind(row.kind), frozenset(map(Role, row.roles)), row.tenant_id)
        return Session(principal, row.csrf, local)

    async def sign_out(self, cookie: str) -> None:
        """It counts no more, whoever holds it."""
        await self._rows.remove(_digest(cookie))


def _digest(cookie: str) -> bytes:
    return sha256(cookie.encode()).digest()
