"""A person's approvals, given to another person for a time: who may, who counts, and with which roles."""

from datetime import UTC, datetime, timedelta

from stepgate.domain import canonical
from stepgate.domain.errors import Conflict, Forbidden, InvalidValue, NotFound
from stepgate.domain.identity import LOCAL_ID, RESERVED, Kind, Principal, Role
from stepgate.domain.quorum import Authority
from stepgate.engine.deciding import check_reason
from stepgate.engine.shapes import moment
from stepgate.engine.views import Id, Time, View
from stepgate.storage.delegations import DelegationRow, DelegationRows
from stepgate.storage.keys import ApiKeys

LONGEST = timedelta(days=90)
TOKEN = "oidc:"  # noqa: S105 - what names of a token's callers begin with
_ID_CHARS = 36


class Delegation(View):
    """One person's approvals in another person's hands."""

    id: Id
    delegator: str
    delegate: str
    roles: list[str]
    reason: str | None
    starts_at: Time
    ends_at: Time
    created_at: Time
    revoked_at: Time | None
    revoked_by: str | None
    stands: bool


class Delegations:
    """The delegations of one installation."""

    def __init__(self, rows: DelegationRows, keys: ApiKeys) -> None:
        self._rows = rows
        self._keys = keys

    async def give(
        self, by: Principal, to: str, starts_at: datetime | None, ends_at: datetime, reason: str | None
    ) -> Delegation:
        """From now on unless `starts_at` says later. Raises Forbidden, InvalidValue by field, Conflict."""
        _check_person(by, "only a person can give approvals away, for the time they are theirs")
        now = datetime.now(UTC)
        begin = now if starts_at is None else max(starts_at, now)
        _check_time(now, begin, ends_at)
        await self._check_delegate(by, to)
        row = await self._rows.add(
            tenant=by.tenant,
            delegator=by.id,
            delegate=to,
            roles=by.deciding_roles,
            reason=check_reason(reason),
            starts_at=begin,
            ends_at=ends_at,
        )
        if row is None:
            raise Conflict(
                f"{to} has your approvals already at some of that time",
                code="already_delegated",
                field="to",
                fix="remove that delegation first, or choose another time",
            )
        return _shape(row)

    async def page(self, tenant: str, cursor: str | None, limit: int) -> list[Delegation]:
        """The newest first."""
        return [_shape(row) for row in await self._rows.page(tenant, cursor, limit)]

    async def end(self, by: Principal, delegation_id: str) -> Delegation:
        """By whose approvals they are, by the delegate, or by an administrator. Raises NotFound, Forbidden."""
        row = await self._rows.get(by.tenant, delegation_id)
        if row is None:
            raise NotFound("there is no delegation of this id", field="delegation_id", fix="list the delegations")
        if by.id not in (row.delegator, row.delegate) and not by.may(Role.ADMIN):
            raise Forbidden("this delegation is between others", code="not_yours", fix="ask one of them, or an admin")
        return _shape(await self._rows.revoke(by.tenant, row.id, by.id) or row)

    async def authority(self, caller: Principal, on_behalf_of: str | None) -> Authority:
        """What the caller decides with: its own roles, or those of the person it stands in for.

        Only that person's own delegation counts, never what was delegated to them. Raises Forbidden.
        """
        if on_behalf_of is None:
            return Authority(caller.deciding_roles)
        _check_person(caller, "only a person decides on behalf of another")
        canonical.check_text(on_behalf_of, "on_behalf_of")
        row = await self._rows.standing(caller.tenant, caller.id, on_behalf_of)
        roles = None if row is None else await self._roles_now(caller.tenant, row)
        if row is None or roles is None:
            raise Forbidden(
                f"{on_behalf_of[:100]} has not given approvals to {caller.id} for this time",
                code="not_delegated",
                field="on_behalf_of",
                fix="decide for yourself, or ask them for a delegation",
            )
        return Authority(roles, row.delegator, row.id, round(row.ends_at.timestamp() * 1_000_000))

    async def _roles_now(self, tenant: str, row: DelegationRow) -> tuple[str, ...] | None:
        """Those of then that the delegator's key still has; None where it counts no more. A token is not asked."""
        if row.delegator.startswith(TOKEN):
            return tuple(row.roles)
        key = await self._keys.named(tenant, row.delegator)
        if key is None or key.expired or key.revoked_at is not None:
            return None
        return tuple(sorted(set(row.roles) & set(key.roles)))

    async def _check_delegate(self, by: Principal, to: str) -> None:
        """A token's caller is known only when they come; then it must be a person."""
        if to == by.id:
            raise InvalidValue("they are yours already", field="to", fix="name another person")
        if to.startswith(TOKEN):
            return
        key = None if to in RESERVED else await self._keys.named(by.tenant, to)
        if key is None or key.expired or key.revoked_at is not None:
            raise InvalidValue(f"nobody named {to[:100]!r} has a key that counts", field="to", fix="list the keys")
        if key.kind != Kind.PERSON:
            raise InvalidValue(f"{to} is of the kind {key.kind}", field="to", fix="name a person")


def check_id(delegation_id: str) -> str:
    """Raises NotFound for what is no id."""
    plain = delegation_id.replace("-", "")
    if len(delegation_id) != _ID_CHARS or len(plain) != 32 or set(plain.lower()) - set("0123456789abcdef"):
        raise NotFound("there is no delegation of this id", field="delegation_id", fix="list the delegations")
    return delegation_id


def _check_person(who: Principal, message: str) -> None:
    if who.kind is not Kind.PERSON or who.id == LOCAL_ID:
        raise Forbidden(message, code="person_required", fix="use a person's own key or token")


def _check_time(now: datetime, begin: datetime, end: datetime) -> None:
    if end <= begin or end <= now:
        raise InvalidValue("it would be over before it begins", field="ends_at", fix="name a later time")
    if end - now > LONGEST:
        raise InvalidValue(
            f"more than {LONGEST.days} days from now", field="ends_at", fix="choose an earlier time, and renew it then"
        )


def _shape(row: DelegationRow) -> Delegation:
    times = {name: moment(getattr(row, name)) for name in ("starts_at", "ends_at", "created_at", "revoked_at")}
    return Delegation(**{**row._asdict(), **times, "roles": sorted(row.roles)})
