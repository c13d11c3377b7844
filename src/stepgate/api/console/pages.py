"""The console's pages, each one look or one decision; who may see what is said by the session's tenant and roles."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from starlette.responses import FileResponse, RedirectResponse

from stepgate.api.console.entering import HOME, ConsoleRoute, SessionDep
from stepgate.api.console.forms import check_token, fields_of
from stepgate.api.console.rendering import FOLDER, HEADERS, diff_lines, json_text, page, rest_of
from stepgate.api.requests import ServicesDep, canonical_id
from stepgate.domain.errors import Expired, Forbidden, InvalidValue, NotFound, StaleApproval, StepgateError
from stepgate.domain.identity import Role
from stepgate.domain.ids import RunId, StepId
from stepgate.domain.state import Actor, ApprovalStatus
from stepgate.engine.queries import RunFilter
from stepgate.engine.sessions import Session

router = APIRouter(prefix="/console", include_in_schema=False, route_class=ConsoleRoute)

CHANNEL: Final = "console"
PAGE: Final = 50
_STEPS: Final = 200

Cursor = Annotated[str | None, Query(max_length=100)]


async def _looking(session: SessionDep) -> Session:
    return _having(session, Role.VIEWER)


def _having(session: Session, role: Role) -> Session:
    if not session.principal.may(role):
        raise Forbidden(f"this needs the role {role}", code="role_required")
    return session


LookingDep = Annotated[Session, Depends(_looking)]


async def _run_id(services: ServicesDep, session: LookingDep, run_id: Annotated[str, Path()]) -> RunId:
    """Another tenant's run is none."""
    found = RunId(canonical_id(run_id, "run"))
    await services.tenants.check(session.principal.tenant, found)
    return found


RunPath = Annotated[RunId, Depends(_run_id)]


@router.get("")
async def home() -> Response:
    return RedirectResponse(HOME, 303, dict(HEADERS))


@router.get("/style.css")
async def style() -> Response:
    return FileResponse(FOLDER / "style.css", media_type="text/css", headers={"Cache-Control": "max-age=300"})


@router.get("/approvals")
async def list_approvals(services: ServicesDep, session: LookingDep, cursor: Cursor = None) -> Response:
    found = await services.queries.approvals(session.principal.tenant, ApprovalStatus.OPEN, cursor=cursor, limit=PAGE)
    return page("approvals.html", session=session, here="approvals", page=found)


@router.get("/runs")
async def list_runs(services: ServicesDep, session: LookingDep, cursor: Cursor = None) -> Response:
    found = await services.queries.runs(RunFilter(session.principal.tenant), cursor=cursor, limit=PAGE)
    return page("runs.html", session=session, here="runs", page=found)


@router.get("/runs/{run_id}")
async def show_run(run_id: RunPath, services: ServicesDep, session: LookingDep, cursor: Cursor = None) -> Response:
    run = await services.queries.run(run_id)
    steps = await services.queries.steps(run_id, cursor=cursor, limit=_STEPS)
    cost = await services.costs.of_run(run_id)
    return page("run.html", session=session, here="runs", run=run, steps=steps, cost=cost)


@router.get("/runs/{run_id}/steps/{step_id}")
async def show_step(run_id: RunPath, step_id: str, services: ServicesDep, session: LookingDep) -> Response:
    return await _step_page(services, session, run_id, StepId(canonical_id(step_id, "step")))


async def _step_page(
    services: ServicesDep, session: Session, run_id: RunId, step_id: StepId, status: int = 200, fault: str | None = None
) -> Response:
    run, step = await services.queries.run(run_id), await services.queries.step(run_id, step_id)
    asked = step.approval
    shown = {} if asked is None or asked.rendering is None else dict(asked.rendering)
    diff = shown.get("diff")
    return page(
        "step.html",
        status,
        session=session,
        here="approvals",
        run=run,
        step=step,
        asked=asked,
        open=asked is not None and asked.status is ApprovalStatus.OPEN,
        may_decide=session.principal.may(Role.APPROVER),
        shown=shown,
        diff=diff_lines(diff) if isinstance(diff, str) else [],
        rest=rest_of(shown),
        input=json_text(step.input),
        output=json_text(step.output),
        fault=fault,
    )


@router.post("/runs/{run_id}/steps/{step_id}/decide")
async def decide(
    request: Request, run_id: RunPath, step_id: str, services: ServicesDep, session: LookingDep
) -> Response:
    """The decision on exactly the action that the page showed; where that has changed, the new one is shown."""
    fields = await fields_of(request)
    check_token(fields, session.csrf)
    _having(session, Role.APPROVER)
    found = StepId(canonical_id(step_id, "step"))
    try:
        await _decide(services, session, run_id, found, fields)
    except (NotFound, Forbidden):
        raise
    except StepgateError as error:
        status = 410 if isinstance(error, Expired) else 422 if isinstance(error, InvalidValue) else 409
        return await _step_page(services, session, run_id, found, status, f"{error.title}: {error.message}")
    return RedirectResponse(f"/console/runs/{run_id}/steps/{found}", 303, dict(HEADERS))


async def _decide(
    services: ServicesDep, session: Session, run_id: RunId, step_id: StepId, fields: dict[str, str]
) -> None:
    principal, action_hash, reason = session.principal, fields.get("action_hash") or None, fields.get("reason") or None
    actor = Actor(principal.id, principal.kind.value, CHANNEL)
    if action_hash is None:
        raise InvalidValue("the form names no action", field="action_hash", fix="open the page again")
    verdict, engine = fields.get("verdict"), services.engine
    authority = await services.delegations.authority(principal, fields.get("on_behalf_of") or None)
    match verdict:
        case "approve":
            await engine.approve(run_id, step_id, actor, action_hash=action_hash, reason=reason, authority=authority)
        case "reject" | "reject_skip":
            then = "abort" if verdict == "reject" else "skip"
            await engine.reject(
                run_id, step_id, actor, action_hash=action_hash, reason=reason, then=then, authority=authority
            )
        case "skip":
            await _check_shown(services, run_id, step_id, action_hash)
            await services.engine.skip(run_id, step_id, actor, reason)
        case _:
            raise InvalidValue("the form names no decision", field="verdict", fix="press one of its buttons")


async def _check_shown(services: ServicesDep, run_id: RunId, step_id: StepId, action_hash: str) -> None:
    """Leaving a step out takes no hash elsewhere; here somebody decides on what a page showed."""
    asked = (await services.queries.step(run_id, step_id)).approval
    if asked is None or asked.action_hash != action_hash:
        raise StaleApproval("the action has changed since the page was made", fix="look at it again")
