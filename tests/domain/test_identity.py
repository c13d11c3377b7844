"""Roles include each other as their table says, agents decide nothing, and a key is found by its prefix only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgate.domain.errors import InvalidValue
from stepgate.domain.identity import (
    KEY_BYTES,
    PREFIX_BYTES,
    Kind,
    Principal,
    Role,
    check_name,
    check_tenant,
    in_rules,
    new_key,
    read_key,
)

roles = st.frozensets(st.sampled_from(Role))


@pytest.mark.parametrize(
    ("role", "may"),
    [
        (Role.VIEWER, {Role.VIEWER}),
        (Role.OPERATOR, {Role.VIEWER, Role.OPERATOR}),
        (Role.APPROVER, {Role.VIEWER, Role.APPROVER}),
        (Role.ADMIN, set(Role)),
    ],
)
def test_what_a_role_includes(role: Role, may: set[Role]) -> None:
    assert {one for one in Role if Principal("ada", Kind.PERSON, frozenset({role})).may(one)} == may


@given(roles, st.sampled_from(Role))
def test_more_roles_never_allow_less(given_roles: frozenset[Role], more: Role) -> None:
    before = {one for one in Role if Principal("a", Kind.PERSON, given_roles).may(one)}
    assert before <= {one for one in Role if Principal("a", Kind.PERSON, given_roles | {more}).may(one)}


@given(roles)
def test_an_agent_never_decides_nor_gives_out_keys_to_decide_by(given_roles: frozenset[Role]) -> None:
    agent = Principal("bot", Kind.AGENT, given_roles)
    assert not agent.may(Role.APPROVER)
    assert not agent.may(Role.ADMIN)


@given(st.binary(min_size=PREFIX_BYTES + KEY_BYTES, max_size=PREFIX_BYTES + KEY_BYTES))
def test_a_key_is_read_back_and_its_prefix_tells_nothing_of_its_secret(random: bytes) -> None:
    key = new_key(random)
    assert read_key(key.text) == key
    other = new_key(random[:PREFIX_BYTES] + bytes(KEY_BYTES))
    assert other.prefix == key.prefix
    assert len(key.text.removeprefix(key.prefix)) == 44


@pytest.mark.parametrize("text", ["", "sgk_", "sgk_abcdefgh", "sgk_ABCDEFGH_" + "a" * 43, "sgk_abcdefgh_" + "a" * 44])
def test_what_only_looks_like_a_key_is_none(text: str) -> None:
    assert read_key(text) is None


@pytest.mark.parametrize(
    "name", ["", " ada", "a b", "a:b", "-a", "a" * 65, "a\n", "oidc:ada", "local", "policy", "worker"]
)
def test_a_name_that_a_journal_could_not_show_is_refused(name: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        check_name(name)
    assert caught.value.field == "name"


def test_rules_tell_people_of_the_same_name_in_two_tenants_apart() -> None:
    assert in_rules("default", "ada") == "ada"
    assert in_rules("acme", "ada") == "acme/ada"
    with pytest.raises(InvalidValue):
        check_name("acme/ada")


@pytest.mark.parametrize("name", ["acme", "a", "0-a.b_c", "a" * 64])
def test_a_tenant_has_a_plain_name(name: str) -> None:
    assert check_tenant(name) == name
