"""Giving out API keys, taking them back, and telling whose one is."""

import hmac
import secrets
from collections.abc import Collection
from datetime import UTC, datetime

from stepgate.domain.errors import Forbidden, InvalidValue, NotFound, Unauthenticated
from stepgate.domain.identity import (
    DEFAULT_TENANT,
    KEY_BYTES,
    NOT_FOR_AGENTS,
    PREFIX_BYTES,
    Kind,
    Principal,
    Role,
    check_name,
    check_roles,
    check_tenant,
    new_key,
    read_key,
)
from stepgate.engine.views import Time, View
from stepgate.storage.keys import ApiKeys, KeyRow

_NOBODY = bytes(32)


class ApiKey(View):
    """A key as people may see it; its text is shown once, when it is made."""

    name: str
    tenant: str
    kind: Kind
    roles: list[Role]
    prefix: str
    created_at: Time
    created_by: str
    expires_at: Time | None
    revoked_at: Time | None
    last_used_at: Time | None


class GivenKey(ApiKey):
    """A key that was just made."""

    key: str


class Keys:
    """The keys of one installation."""

    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys

    async def give(
        self,
        name: str,
        kind: Kind,
        roles: Collection[Role],
        by: Principal,
        expires_at: datetime | None = None,
        tenant: str | None = None,
    ) -> GivenKey:
        """A new key, of the giver's tenant unless another is named, which only those of the default tenant may.

        Raises InvalidValue by field, Forbidden, Conflict `name_taken`.
        """
        of = _of(by, tenant)
        wanted = check_roles(roles)
        if kind is Kind.AGENT and wanted & NOT_FOR_AGENTS:
            raise InvalidValue(
                "an agent neither decides nor gives out keys", field="roles", fix="viewer, operator, or another kind"
            )
        if expires_at is not None and expires_at <= datetime.now(UTC):
            raise InvalidValue("lies in the past", field="expires_at", fix="name a time to come")
        made = new_key(secrets.token_bytes(PREFIX_BYTES + KEY_BYTES))
        row = await self._keys.add(
            made,
            tenant=of,
            name=check_name(name),
            kind=kind.value,
            roles=sorted(role.value for role in wanted),
            created_by=by.id,
            expires_at=expires_at,
        )
        return GivenKey(**_shape(row).model_dump(), key=made.text)

    async def page(self, by: Principal, after: str, limit: int, tenant: str | None = None) -> list[ApiKey]:
        """In order of their names. Raises as `give` does where another tenant is named."""
        return [_shape(row) for row in await self._keys.page(_of(by, tenant), after, limit)]

    async def revoke(self, by: Principal, name: str, tenant: str | None = None) -> ApiKey:
        """It counts no more from the next request on. Raises NotFound, and as `give` where another tenant is named."""
        row = await self._keys.revoke(_of(by, tenant), name)
        if row is None:
            raise NotFound(f"there is no key named {name[:100]!r}", field="name", fix="list the keys")
        return _shape(row)

    async def any(self) -> bool:
        """Whether this installation ever gave out a key."""
        return await self._keys.any()

    async def principal(self, text: str) -> Principal:
        """Whose key it is. Raises Unauthenticated, which does not say what was wrong with it."""
        said = read_key(text)
        row = None if said is None else await self._keys.find(said.prefix)
        # Compared in any case, so that time does not tell which prefixes exist.
        fits = hmac.compare_digest(row.digest if row else _NOBODY, said.digest if said else bytes(32)[::-1])
        if said is None or row is None or not fits or row.expired or row.revoked_at is not None:
            raise Unauthenticated(
                "the key is not known, or no longer counts",
                code="key_refused",
                field="Authorization",
                fix="send Authorization: Bearer <key>, one that an administrator gave out",
            )
        await self._keys.used(row.id)
        return Principal(row.name, Kind(row.kind), frozenset(map(Role, row.roles)), row.tenant_id)


def _of(by: Principal, tenant: str | None) -> str:
    """Whose keys are meant: somebody must be able to give a tenant its first one, and to take back its last."""
    of = by.tenant if tenant is None else check_tenant(tenant)
    if of != by.tenant != DEFAULT_TENANT:
        raise Forbidden(
            f"keys of another tenant are for administrators of the tenant {DEFAULT_TENANT}",
            code="foreign_tenant",
            field="tenant",
            fix="leave it out",
        )
    return of


LOCAL = Principal("local", Kind.PERSON, frozenset({Role.ADMIN}), DEFAULT_TENANT)
"""Whoever calls while there are no keys, and whoever can read the local secret."""


def _shape(row: KeyRow) -> ApiKey:
    return ApiKey(
        name=row.name,
        tenant=row.tenant_id,
        kind=Kind(row.kind),
        roles=[Role(role) for role in row.roles],
        prefix=row.prefix,
        created_at=_time(row.created_at),
        created_by=row.created_by,
        expires_at=None if row.expires_at is None else _time(row.expires_at),
        revoked_at=None if row.revoked_at is None else _time(row.revoked_at),
        last_used_at=None if row.last_used_at is None else _time(row.last_used_at),
    )


def _time(moment: datetime) -> Time:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
