"""The rules: which count and counted, sending new ones, and what they say before anything runs."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import ConfigDict, Field, JsonValue, SkipValidation
from starlette.responses import Response

from stepgate.api import documents
from stepgate.api.access import PrincipalDep
from stepgate.api.bodies import StrictRoute
from stepgate.api.requests import Body, ExplainPlan, Paging, ServicesDep, Text
from stepgate.domain.errors import Forbidden, NotFound
from stepgate.domain.identity import DEFAULT_TENANT, Principal, in_rules
from stepgate.domain.policy.model import PolicyDocument
from stepgate.engine import views
from stepgate.engine.explaining import Imagined, explain
from stepgate.engine.policies import PolicyDetail, PolicyVersion

router = APIRouter(prefix="/v1/policies", tags=["policies"], route_class=StrictRoute)

EXAMPLE: JsonValue = {
    "version": 1,
    "rules": [{"name": "no-keys", "match": {"paths": ["keys/**"]}, "verdict": "deny"}],
}
VersionPath = Annotated[Text, Path(max_length=64, description="a version, or `current`", examples=["current"])]


class ApplyPolicy(Body):
    """A whole policy, as in a policy file. It takes the place of the one before, rule for rule."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"policy": EXAMPLE}]})

    policy: SkipValidation[PolicyDocument] = Field(description="what a policy file holds")
    replaces: str | None = Field(
        None, max_length=64, description="the version that it was made from; not given: whichever is current"
    )


@router.get("", summary="List policy versions", responses=documents.read())
async def list_policies(services: ServicesDep, principal: PrincipalDep, query: Paging) -> views.Page[PolicyVersion]:
    """Every version that any process went by, the newest first."""
    if principal.tenant != DEFAULT_TENANT:
        return views.Page[PolicyVersion](items=[], next_cursor=None)
    return await services.policies.page(query.cursor, query.limit)


@router.post("", response_model=PolicyDetail, status_code=201, summary="Apply a policy", responses=documents.write())
async def apply_policy(body: ApplyPolicy, services: ServicesDep, principal: PrincipalDep) -> Response:
    """Checked with its examples, kept for good, and in force in every process that has no policy file.

    409 `policy_from_file` where this process has one, `policy_changed` where `replaces` is not current any more.
    """
    check_installation(principal)
    applied = await services.policies.apply(body.policy, principal.id, body.replaces)
    return Response(applied.model_dump_json(), 201, media_type="application/json")


@router.get("/{version}", summary="One policy version", responses=documents.read(404))
async def get_policy(version: VersionPath, services: ServicesDep, principal: PrincipalDep) -> PolicyDetail:
    """With its rules. `current` is the one that this process goes by."""
    if principal.tenant != DEFAULT_TENANT:
        raise NotFound(f"there is no policy {version!r}", field="version", fix="list the policies")
    return await services.policies.get(version)


@router.post("/explain", summary="Explain a plan", responses=documents.problems(400, 413, 415, 422))
async def explain_plan(body: ExplainPlan, services: ServicesDep, principal: PrincipalDep) -> views.Explanation:
    """For each step what would be allowed, asked or denied, and by which rule. Nothing is made and nothing runs."""
    level = services.sandbox.level
    imagined = Imagined(
        plan=body.plan,
        steps=body.steps,
        params=body.params,
        labels=body.labels,
        requester=in_rules(principal.tenant, principal.id),
        sandbox_level=None if level is None else str(level),
        now=services.engine.database.clock.now(),
    )
    policy = await services.policies.load()
    return await asyncio.to_thread(explain, policy, services.engine.registry, imagined)


def check_installation(principal: Principal) -> None:
    """Raises Forbidden: workers go by one set of rules, so only those whose installation it is may change them."""
    if principal.tenant != DEFAULT_TENANT:
        raise Forbidden("rules are those of the whole installation", code="other_tenant", fix="ask its administrator")
