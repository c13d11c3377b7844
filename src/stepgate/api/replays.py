"""`Idempotency-Key`: a request that is sent again is answered again and never carried out twice.

The key is recorded in the transaction of what it asked for. The answer to a repetition has the same status and
names the same run and steps; they are shown as they are now, and `Idempotency-Replayed: true` says so. A key is its
caller's own: another caller's key of the same text is another key. A request
that was refused left no record, so it may be corrected and sent again under its key.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from fastapi import Depends, Header, Request
from pydantic import BaseModel
from starlette.responses import Response

from stepgate.api.access import PrincipalDep
from stepgate.api.services import services_of
from stepgate.domain import canonical
from stepgate.domain.errors import Conflict, IdempotencyMismatch, InvalidValue
from stepgate.domain.ids import RunId, StepId
from stepgate.engine.queries import Queries
from stepgate.storage.attachments import IdempotencyRow

SCOPE: Final = "api"
IN_USE: Final = "idempotency_in_use"
MAX_KEY_CHARS: Final = 255


@dataclass(frozen=True, slots=True)
class Answer:
    """What a POST gives: a status, a body and headers of its own."""

    status: int
    body: BaseModel
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Done:
    """What was carried out: the run it concerns and the steps it named, in the order of the journal.

    `workspace` is the name that was given, where the request was about no run.
    """

    run_id: RunId
    steps: Sequence[StepId] = ()
    workspace: str = ""


Act = Callable[[IdempotencyRow | None], Awaitable[Done]]
Tell = Callable[[Done], Awaitable[Answer]]


class Once:
    """Carries one request out at most once under its key, and tells what came of it."""

    def __init__(self, queries: Queries, row: IdempotencyRow | None) -> None:
        self._queries = queries
        self._row = row

    async def __call__(self, act: Act, tell: Tell) -> Response:
        """`act` carries the request out, `tell` makes the answer from what was done, now or the first time."""
        row = self._row
        if row is None:
            return _response(await tell(await act(None)))
        done = await self._done_before(row)
        if done is not None:
            return _response(await tell(done), replayed=True)
        try:
            done = await act(row)
        except Conflict as error:
            # The same request came twice at once, and the other one was carried out.
            first = await self._done_before(row) if error.reason_code == IN_USE else None
            if first is None:
                raise
            return _response(await tell(first), replayed=True)
        return _response(await tell(done))

    async def _done_before(self, row: IdempotencyRow) -> Done | None:
        found = await self._queries.idempotent(row.tenant, row.scope, row.key)
        if found is None:
            return None
        if found.request_sha256 != row.request_sha256:
            raise IdempotencyMismatch(
                "this key was used with another request",
                field="Idempotency-Key",
                fix="use a new key for a new request",
            )
        return Done(found.run_id or RunId(""), found.step_ids, found.named or "")


def _response(answer: Answer, *, replayed: bool = False) -> Response:
    headers = dict(answer.headers)
    if replayed:
        headers["Idempotency-Replayed"] = "true"
    return Response(answer.body.model_dump_json(), answer.status, headers, media_type="application/json")


async def _once(
    request: Request,
    principal: PrincipalDep,
    idempotency_key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="1 to 255 printable ASCII characters, new for each new request; a repetition is answered again",
            examples=["6f1d9c0e-create-run"],
        ),
    ] = None,
) -> Once:
    queries = services_of(request).queries
    if idempotency_key is None:
        return Once(queries, None)
    if not 0 < len(idempotency_key) <= MAX_KEY_CHARS or not all(" " <= char <= "~" for char in idempotency_key):
        raise InvalidValue(
            f"must be 1 to {MAX_KEY_CHARS} printable ASCII characters",
            field="Idempotency-Key",
            fix="use a UUID, for example",
        )
    asked: list[Any] = [request.method, request.url.path, await request.json() if await request.body() else None]
    digest = canonical.digest(canonical.dumps(asked))
    scope = f"{SCOPE}:{principal.id}"
    return Once(queries, IdempotencyRow(scope, idempotency_key, digest, 0, tenant=principal.tenant))


OnceDep = Annotated[Once, Depends(_once)]
