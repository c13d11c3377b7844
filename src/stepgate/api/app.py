"""The FastAPI application: routes, rules and documents put together around services that somebody else opens."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from stepgate import __version__
from stepgate.api import (
    approvals,
    audit,
    budgets,
    costs,
    decisions,
    delegations,
    deliveries,
    forks,
    health,
    journal,
    keys,
    live,
    pages,
    plans,
    policies,
    problems,
    rules,
    runs,
    step_types,
    steps,
    verbs,
    webhooks,
    worker,
    workspaces,
)
from stepgate.api.access import ACCESS
from stepgate.api.console import entering
from stepgate.api.console import pages as console_pages
from stepgate.api.local import LocalRules
from stepgate.api.problems import ProblemDocument
from stepgate.api.services import Opening

DESCRIPTION = """
Give it a goal and a plan of steps; it runs them in a sandboxed workspace, stops before anything dangerous until a
person has approved exactly that action, and records what every step did and cost.

Errors are `application/problem+json` (RFC 9457). Lists are `{items, next_cursor}`. POSTs take `Idempotency-Key`.
Times are RFC 3339 in UTC, money is decimal text in USD (null: unknown), ids are UUIDv7.

Decisions (approve, reject, edit, skip) need the local secret as a bearer token.
"""
REFERENCE = "#/components/schemas/{model}"
TAGS = [
    {"name": "runs", "description": "Make one, find one, look at one."},
    {"name": "verbs", "description": "What may be asked of a whole run."},
    {"name": "steps", "description": "What a run does, one after another or side by side."},
    {"name": "approvals", "description": "Questions to people, and their decisions."},
    {"name": "deliveries", "description": "What becomes of a run's result."},
    {"name": "journal", "description": "What happened, and the proof."},
    {"name": "audit", "description": "Signed evidence, to be checked anywhere."},
    {"name": "costs", "description": "What model calls cost."},
    {"name": "budgets", "description": "What model calls may cost."},
    {"name": "workspaces", "description": "Folders with names."},
    {"name": "keys", "description": "Who may call."},
    {"name": "delegations", "description": "Whose approvals others may give, and when."},
    {"name": "webhooks", "description": "Who is told what happens."},
    {"name": "plans", "description": "What plans may be made of."},
    {"name": "policies", "description": "What may happen, what is asked about, what never happens."},
    {"name": "worker", "description": "Who executes."},
    {"name": "health", "description": "Whether it works."},
]


class _Api(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, with the one shape that every problem has."""
        if self.openapi_schema is None:
            schemas = super().openapi()["components"]["schemas"]
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            _, extra = models_json_schema([(ProblemDocument, "serialization")], ref_template=REFERENCE)
            schemas.update(extra["$defs"])
            _say_who_may(self.openapi_schema)
            _drop_titles(self.openapi_schema)
        return super().openapi()


def _say_who_may(document: Any) -> None:
    document["components"]["securitySchemes"] = {
        "Key": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key, a token of the configured issuer, or the content of the file `local-secret`",
        }
    }
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if (role := ACCESS[method.upper(), path]) is not None:
                operation["security"] = [{"Key": []}]
                operation["x-required-role"] = role.value


def _drop_titles(node: Any) -> None:
    """Titles made from field names say nothing that the names do not."""
    if isinstance(node, list):
        for item in node:
            _drop_titles(item)
        return
    if not isinstance(node, dict):
        return
    for name, item in node.items():
        match name:
            case "example" | "examples" | "default" | "info":
                continue
            case "properties" if isinstance(item, dict):
                for schema in item.values():
                    schema.pop("title", None)
                    _drop_titles(schema)
            case "schema":
                item.pop("title", None)
                _drop_titles(item)
            case _:
                _drop_titles(item)


def create_app(opening: Opening) -> FastAPI:
    """The application; `opening` is entered when the server starts and left when it stops."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with opening() as services:
            app.state.services = services
            yield

    app = _Api(
        title="Stepgate",
        version=__version__,
        summary="A PostgreSQL-backed deterministic step engine with approval gates",
        description=DESCRIPTION,
        openapi_tags=TAGS,
        openapi_url=pages.OPENAPI,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.add_middleware(LocalRules)
    problems.install(app)
    of_runs = (runs, verbs, steps, live, decisions, approvals, rules, deliveries, forks, journal, audit, costs, budgets)
    for module in (
        *of_runs,
        workspaces,
        keys,
        delegations,
        webhooks,
        plans,
        step_types,
        policies,
        worker,
        health,
    ):
        app.include_router(module.router)
    for part in (entering.router, console_pages.router):
        app.include_router(part)
    pages.install(app)
    return app
