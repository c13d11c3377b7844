"""The inbox: every question that waits for a person, over all runs."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BeforeValidator, Field

from stepgate.api import documents
from stepgate.api.bodies import StrictRoute
from stepgate.api.requests import PageQuery, ServicesDep, lower
from stepgate.domain.state import ApprovalStatus
from stepgate.engine import views

router = APIRouter(prefix="/v1/approvals", tags=["approvals"], route_class=StrictRoute)


class InboxQuery(PageQuery):
    """Which questions to list."""

    status: Annotated[ApprovalStatus, BeforeValidator(lower)] = Field(
        ApprovalStatus.OPEN, description="in any case; `open` waits for a decision"
    )


@router.get("", summary="The inbox", responses=documents.read())
async def list_approvals(services: ServicesDep, query: Annotated[InboxQuery, Query()]) -> views.Page[views.Approval]:
    """The oldest first, each with the action to decide on and its `action_hash`."""
    return await services.queries.approvals(query.status, cursor=query.cursor, limit=query.limit)
