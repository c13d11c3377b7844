"""Always allow this: the rule that would let an action pass from now on, shown before anybody adds it."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from stepgate.api import documents
from stepgate.api.access import PrincipalDep
from stepgate.api.bodies import StrictRoute
from stepgate.api.policies import check_installation
from stepgate.api.requests import HASH, AskedDep, Body, Moment, ServicesDep
from stepgate.engine.always import FOR_DAYS, AllowRule
from stepgate.engine.policies import PolicyDetail

router = APIRouter(prefix="/v1/approvals/{request_id}", tags=["approvals"], route_class=StrictRoute)

UNTIL = f"RFC 3339, at most a year from now; not given: for {FOR_DAYS} days"
ANYONE = "true: in everybody's runs, not only in those of this run's requester"


class RuleQuery(BaseModel):
    """What the rule would be for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    until: Moment | None = Field(None, description=UNTIL)
    anyone: bool = Field(False, description=ANYONE)


class AddRule(Body):
    """With what the rule was shown for, so that nobody adds another one."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"action_hash": HASH, "until": "2027-01-31T12:00:00Z", "replaces": HASH}]}
    )

    action_hash: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the question that was looked at")
    until: Moment | None = Field(None, strict=False, description=UNTIL)
    anyone: bool = Field(False, description=ANYONE)
    replaces: str | None = Field(None, max_length=64, description="`policy_version` as it was shown with the rule")


@router.get("/rule", summary="The rule that would allow it", responses=documents.read(404, 409))
async def get_rule(
    asked: AskedDep, services: ServicesDep, principal: PrincipalDep, query: Annotated[RuleQuery, Query()]
) -> AllowRule:
    """The exact rule that "always allow this" would add, its scope and its end. Nothing is changed.

    409 `cannot_allow` where no rule can tell such an action from another, or where a rule asks or denies.
    """
    return await services.always.show(asked, principal.id, query.until, anyone=query.anyone)


@router.post(
    "/rule", response_model=PolicyDetail, status_code=201, summary="Always allow it", responses=documents.write(404)
)
async def add_rule(asked: AskedDep, body: AddRule, services: ServicesDep, principal: PrincipalDep) -> Response:
    """Adds that rule to the rules of now, as a version of its own. The question stays open for whoever decides it.

    409 `policy_changed` where `replaces` is not current any more, `policy_from_file` where a file alone counts.
    """
    check_installation(principal)
    applied = await services.always.add(
        asked,
        principal.id,
        action_hash=body.action_hash,
        until=body.until,
        anyone=body.anyone,
        replaces=body.replaces,
    )
    return Response(applied.model_dump_json(), 201, media_type="application/json")
