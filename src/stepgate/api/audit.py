"""Signed evidence of what a run did, to be checked anywhere."""

import asyncio
from typing import Any

from fastapi import APIRouter, Response
from pydantic import Field

from stepgate.api import documents
from stepgate.api.bodies import StrictRoute
from stepgate.api.requests import RunPath, ServicesDep
from stepgate.engine.audits import AuditKey
from stepgate.engine.views import View

router = APIRouter(prefix="/v1", tags=["audit"], route_class=StrictRoute)


class AuditBundle(View):
    """Everything about one run, with the signature over all of it; `stepgate audit verify` checks it offline."""

    format: str
    version: int
    run: dict[str, Any]
    events: list[dict[str, Any]] = Field(description="in order: the hashed text and sha256(previous hash || text)")
    steps: list[dict[str, Any]]
    approvals: list[dict[str, Any]] = Field(description="questions with what was shown, and their decisions")
    change_sets: list[dict[str, Any]]
    policies: list[dict[str, str]] = Field(description="version and text of the rules that questions were asked under")
    key: dict[str, str]
    signature: str = Field(
        description="base64: Ed25519 over `stepgate-audit-v1`, a newline, and the rest as canonical JSON"
    )


@router.get(
    "/agent-runs/{run_id}/audit",
    response_model=AuditBundle,
    summary="A run's audit bundle",
    responses=documents.read(404),
)
async def get_audit(run_id: RunPath, services: ServicesDep) -> Response:
    """Events, step digests, approvals as shown, rules and change sets, signed with this installation's key."""
    return Response(await services.audits.export(run_id), media_type="application/json")


@router.get("/audit/key", summary="The key that signs audit bundles", responses=documents.read())
async def get_audit_key(services: ServicesDep) -> AuditKey:
    """Keep its fingerprint elsewhere: a bundle alone only shows that whoever signed it had some key."""
    return await asyncio.to_thread(services.audits.key)
