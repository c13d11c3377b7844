"""The inbox: every question that waits for a person, over all runs, and answers to several of them at once."""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self

from fastapi import APIRouter, Query
from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from stepgate.api import documents
from stepgate.api.access import CallerDep, PrincipalDep
from stepgate.api.bodies import StrictRoute
from stepgate.api.decisions import telling_what_stands
from stepgate.api.problems import domain_problem
from stepgate.api.requests import (
    EXAMPLE_ID,
    HASH,
    AskedDep,
    Body,
    OnBehalfOf,
    PageQuery,
    ServicesDep,
    lower,
    question_of,
)
from stepgate.api.services import Services
from stepgate.domain.errors import StaleApproval, StepgateError
from stepgate.domain.identity import Principal
from stepgate.domain.ids import RunId, StepId
from stepgate.domain.state import Actor, ApprovalStatus
from stepgate.engine import views

router = APIRouter(prefix="/v1/approvals", tags=["approvals"], route_class=StrictRoute)


MOST_AT_ONCE: Final = 100


class InboxQuery(PageQuery):
    """Which questions to list."""

    status: Annotated[ApprovalStatus, BeforeValidator(lower)] = Field(
        ApprovalStatus.OPEN, description="in any case; `open` waits for a decision"
    )


@router.get("", summary="The inbox", responses=documents.read())
async def list_approvals(
    services: ServicesDep, principal: PrincipalDep, query: Annotated[InboxQuery, Query()]
) -> views.Page[views.Approval]:
    """The oldest first, each with the action to decide on and its `action_hash`."""
    return await services.queries.approvals(principal.tenant, query.status, cursor=query.cursor, limit=query.limit)


@router.get("/{request_id}", summary="One question", responses=documents.read(404))
async def get_approval(asked: AskedDep) -> views.Approval:
    """With all that an approver must see, and what became of it."""
    return asked


class DecideOne(Body):
    """One answer: to the question of this id, for exactly the action of this hash."""

    request_id: str = Field(examples=[EXAMPLE_ID])
    action_hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    verdict: Literal["approve", "reject"] = "approve"
    reason: str | None = Field(None, description="at most 2,000 characters")
    on_behalf_of: OnBehalfOf = None
    then: Literal["abort", "skip", "replan"] = Field(
        "abort", description="of a rejection: the run ends, goes on without it, or what is left is planned anew"
    )


class DecideMany(Body):
    """Every question is named with its hash, so nobody says yes to what they did not list."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"decisions": [{"request_id": EXAMPLE_ID, "action_hash": HASH}]}]}
    )

    decisions: list[DecideOne] = Field(min_length=1, max_length=MOST_AT_ONCE)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        named = [one.request_id for one in self.decisions]
        if len(set(named)) != len(named):
            raise ValueError("a question is named twice")
        return self


class Decided(views.View):
    """What became of one decision: the question with its receipt, or why it was refused."""

    request_id: str
    status: int = Field(description="what the decision alone would have been answered with")
    approval: views.Approval | None
    problem: dict[str, Any] | None = Field(description="of a refused one, as `application/problem+json` has it")


class DecidedMany(views.View):
    """In the order that they came in."""

    items: list[Decided]


@dataclass(frozen=True, slots=True)
class _Decider:
    services: Services
    principal: Principal
    actor: Actor

    async def answer(self, one: DecideOne) -> Decided:
        try:
            receipt = await self._decide(one)
        except StepgateError as error:
            refused = domain_problem(error)
            told = json.loads(bytes(refused.body))
            return Decided(request_id=one.request_id, status=refused.status_code, approval=None, problem=told)
        return Decided(request_id=one.request_id, status=200, approval=receipt, problem=None)

    async def _decide(self, one: DecideOne) -> views.Approval:
        asked = await question_of(self.services, self.principal.tenant, one.request_id)
        named = (RunId(asked.run_id), StepId(asked.step_id))
        authority = await self.services.delegations.authority(self.principal, one.on_behalf_of)
        given: Any = {"action_hash": one.action_hash, "reason": one.reason, "authority": authority}
        async with telling_what_stands(self.services, *named):
            if asked.action_hash != one.action_hash:
                raise StaleApproval(
                    "this hash is not the action that the question is about",
                    field="action_hash",
                    fix="look at the action again and decide on its present hash",
                )
            if one.verdict == "approve":
                await self.services.engine.approve(*named, self.actor, **given)
            else:
                await self.services.engine.reject(*named, self.actor, **given, then=one.then)
        return await question_of(self.services, self.principal.tenant, one.request_id)


@router.post("/bulk", summary="Decide several questions", responses=documents.write())
async def decide_many(
    body: DecideMany, services: ServicesDep, principal: PrincipalDep, caller: CallerDep
) -> DecidedMany:
    """At most 100, each named with its hash and decided on its own: one that is refused leaves the others as they are.

    Answered with 200 whatever became of them; each item has the status that it would have had alone. The same request
    again gives the same receipts.
    """
    decider = _Decider(services, principal, caller)
    return DecidedMany(items=[await decider.answer(one) for one in body.decisions])
