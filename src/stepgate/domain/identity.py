"""Who asks and what they may: roles, kinds of callers, and the form of API keys."""

import base64
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Final, NamedTuple

from stepgate.domain.errors import InvalidValue

KEY_BYTES: Final = 32
"""256 random bits: nobody finds one by trying, so a plain sha256 keeps it."""
PREFIX_BYTES: Final = 5
DEFAULT_TENANT: Final = "default"
LOCAL_ID: Final = "local"
"""Whoever can read the local secret."""
RESERVED: Final = frozenset({LOCAL_ID, "policy", "worker"})
"""Whoever holds the local secret, what rules allowed, and who carries runs out."""
_FORM: Final = re.compile(r"(sgk_[a-z2-7]{8})_[A-Za-z0-9_-]{43}\Z")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")
_TENANT: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")


class Role(StrEnum):
    """What somebody may do. Each includes `viewer`; `admin` includes all."""

    VIEWER = "viewer"
    """Looks at everything."""
    OPERATOR = "operator"
    """Creates runs and moves them."""
    APPROVER = "approver"
    """Decides questions."""
    ADMIN = "admin"
    """Gives out keys."""


class Kind(StrEnum):
    """What a caller is. An agent never decides a question, whatever its roles."""

    PERSON = "person"
    SERVICE = "service"
    AGENT = "agent"


NOT_FOR_AGENTS: Final = frozenset({Role.APPROVER, Role.ADMIN})

_INCLUDES: Final[Mapping[Role, frozenset[Role]]] = {
    Role.VIEWER: frozenset({Role.VIEWER}),
    Role.OPERATOR: frozenset({Role.VIEWER, Role.OPERATOR}),
    Role.APPROVER: frozenset({Role.VIEWER, Role.APPROVER}),
    Role.ADMIN: frozenset(Role),
}


def included(roles: Iterable[str]) -> frozenset[str]:
    """These roles, and those that they include; what is none of ours includes nothing."""
    return frozenset(role.value for own in roles if own in set(Role) for role in _INCLUDES[Role(own)])


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller whose name was proved; `id` stands in the journal."""

    id: str
    kind: Kind
    roles: frozenset[Role]
    tenant: str = DEFAULT_TENANT

    def may(self, role: Role) -> bool:
        """Whether one of the roles includes it; deciding, and giving out keys to decide by, is for no agent."""
        if self.kind is Kind.AGENT and role in NOT_FOR_AGENTS:
            return False
        return any(role in _INCLUDES[own] for own in self.roles)

    @property
    def deciding_roles(self) -> tuple[str, ...]:
        """With which roles its decisions count: the local secret is an approver's and no more, whatever it may do."""
        roles = {Role.APPROVER} if self.id == LOCAL_ID else self.roles
        return tuple(sorted(role.value for role in roles))


class NewKey(NamedTuple):
    """A key as it is given out once: its text, and what is kept of it."""

    text: str
    prefix: str
    digest: bytes


def new_key(random: bytes) -> NewKey:
    """A key from `KEY_BYTES` + `PREFIX_BYTES` random bytes. Its public prefix finds it; `sgk_` lets scanners see it."""
    prefix = "sgk_" + base64.b32encode(random[:PREFIX_BYTES]).decode().lower()
    secret = base64.urlsafe_b64encode(random[PREFIX_BYTES : PREFIX_BYTES + KEY_BYTES]).decode().rstrip("=")
    text = f"{prefix}_{secret}"
    return NewKey(text, prefix, sha256(text.encode()).digest())


def read_key(text: str) -> NewKey | None:
    """The parts of what looks like a key; None for anything else."""
    match = _FORM.match(text)
    return None if match is None else NewKey(text, match[1], sha256(text.encode()).digest())


def check_name(name: str) -> str:
    """Raises InvalidValue for a name that a journal could not show plainly, or that stands for somebody else there."""
    if name in RESERVED:
        raise InvalidValue(f"{name} in a journal is nobody with a key", field="name", fix="choose another name")
    if not _NAME.match(name):
        raise InvalidValue(
            f"{name[:100]!r} is no name for a key",
            field="name",
            fix="1 to 64 letters, digits, dots, at signs, hyphens and underscores, starting with a letter or digit",
        )
    return name


def check_tenant(tenant: str) -> str:
    """Raises InvalidValue for what is no name of a tenant; letters are small, so that no two names look the same."""
    if not _TENANT.match(tenant):
        raise InvalidValue(
            f"{tenant[:100]!r} is no name for a tenant",
            field="tenant",
            fix="1 to 64 small letters, digits, dots, hyphens and underscores, starting with a letter or digit",
        )
    return tenant


def in_rules(tenant: str, name: str) -> str:
    """How rules, which are those of the whole installation, name somebody: two tenants may each have an `ada`."""
    return name if tenant == DEFAULT_TENANT else f"{tenant}/{name}"


def check_roles(roles: Collection[Role]) -> frozenset[Role]:
    """Raises InvalidValue where there is none."""
    if not roles:
        raise InvalidValue("a key needs a role", field="roles", fix=f"one or more of {', '.join(Role)}")
    return frozenset(roles)
