"""The HTTP API as the command line calls it: the same requests to a server and to the app in this process."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from stepgate.cli import faults
from stepgate.cli.exits import Exit
from stepgate.cli.faults import CliError
from stepgate.domain.errors import Problem
from stepgate.engine import views

RUNS = "/v1/agent-runs"
WORKSPACES = "/v1/workspaces"
PAGE = 200

Shape = TypeVar("Shape", bound=BaseModel)


class Api:
    """One connection. Every method raises CliError for what the API refuses and for a server that does not answer.

    `get` and `post` give the answer as it came; `read` makes one of `views`, whose unknown members are left out, so
    that a newer server can be talked to.
    """

    def __init__(self, http: httpx2.AsyncClient, place: str) -> None:
        self._http = http
        self._place = place

    async def get(self, path: str, **params: Any) -> Any:
        return await self._send("GET", path, params=params)

    async def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return await self._send("POST", path, content=None if body is None else json.dumps(body).encode())

    async def delete(self, path: str) -> Any:
        return await self._send("DELETE", path)

    async def every(self, path: str, **params: Any) -> list[Any]:
        """The items of all pages of a list, as they came."""
        page = await self.get(path, limit=PAGE, **params)
        items = list(page["items"])
        while page["next_cursor"] is not None:
            page = await self.get(path, limit=PAGE, cursor=page["next_cursor"], **params)
            items += page["items"]
        return items

    async def read(self, shape: type[Shape], path: str, **params: Any) -> Shape:
        return read(shape, await self.get(path, **params))

    # Runs and steps

    async def run(self, name: str) -> views.RunDetail:
        """The run of this id, or of the only id that begins so."""
        return await self.read(views.RunDetail, f"{RUNS}/{segment(name, 'RUN')}")

    async def step(self, run_id: str, name: str) -> views.Step:
        """The step of this key, number or id, whole."""
        return await self.read(views.Step, f"{RUNS}/{run_id}/steps/{segment(name, 'STEP')}")

    async def create(self, body: Mapping[str, Any]) -> views.RunDetail:
        return read(views.RunDetail, await self.post(RUNS, body))

    async def verb(self, run_id: str, verb: str) -> views.RunDetail:
        """start, pause, resume or cancel."""
        return read(views.RunDetail, await self.post(f"{RUNS}/{run_id}/{verb}"))

    async def decide(self, step: views.Step, decision: str, body: Mapping[str, Any]) -> views.Step:
        """approve, reject or skip."""
        given = {name: value for name, value in body.items() if value is not None}
        return read(views.Step, await self.post(f"{RUNS}/{step.run_id}/steps/{step.id}/{decision}", given))

    async def undo(self, run_id: str, to: str | None) -> views.Undone:
        return read(views.Undone, await self.post(f"{RUNS}/{run_id}/undo", {} if to is None else {"to_step": to}))

    async def fork(self, run_id: str, body: Mapping[str, Any]) -> views.RunDetail:
        return read(views.RunDetail, await self.post(f"{RUNS}/{run_id}/fork", body))

    async def deliver(self, run_id: str, body: Mapping[str, Any]) -> views.Delivered:
        return read(views.Delivered, await self.post(f"{RUNS}/{run_id}/deliver", body))

    async def health(self) -> views.Health:
        return read(views.Health, await self._send("GET", "/health", accept=HTTPStatus.SERVICE_UNAVAILABLE))

    # The wire

    async def _send(self, method: str, path: str, *, accept: int | None = None, **request: Any) -> Any:
        if request.get("content") is not None:
            request["headers"] = {"content-type": "application/json"}
        try:
            response = await self._http.request(method, path, **request)
        except httpx2.InvalidURL as error:
            raise CliError(f"not a usable address: {error}", exit=Exit.USAGE, code="usage") from error
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error
        document = _json_of(response)
        if response.is_success or (accept == response.status_code and document is not None):
            if document is None:
                raise self._stranger(response.status_code)
            return document
        if not isinstance(document, dict) or "type" not in document:
            raise self._stranger(response.status_code)
        raise faults.of_problem(response.status_code, document)

    def _unreachable(self, error: httpx2.TransportError) -> CliError:
        reason = str(error) or type(error).__name__
        return CliError(
            f"{self._place} does not answer: {reason}",
            exit=Exit.ENVIRONMENT,
            code="server_unreachable",
            problems=(
                Problem(
                    "STEPGATE_URL",
                    f"{self._place} does not answer: {reason}",
                    "start the server (stepgate serve), correct the URL, or unset it to work without a server",
                ),
            ),
        )

    def _stranger(self, status: int) -> CliError:
        message = f"{self._place} answered {status} with something that is not Stepgate's"
        fix = "set it to the base URL of a Stepgate server, such as http://127.0.0.1:8002"
        return CliError(
            message,
            exit=Exit.ENVIRONMENT,
            code="not_stepgate",
            problems=(Problem("STEPGATE_URL", message, fix),),
        )


def read(shape: type[Shape], document: Any) -> Shape:
    """The document in this shape."""
    try:
        return shape.model_validate(document, extra="ignore")
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise CliError(
            f"the server's answer is not understood ({where}: {fault['msg']})",
            exit=Exit.ENVIRONMENT,
            code="not_understood",
            fix="use the same version of Stepgate on both sides",
        ) from error


def _json_of(response: httpx2.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def segment(name: str, argument: str) -> str:
    """A name as one part of a path; one that cannot be there names nothing."""
    usual = all(char.isascii() and (char.isalnum() or char in "-_.") for char in name)
    if not name or not usual or set(name) == {"."} or len(name) > 200:
        raise faults.usage(argument, f"{name!r} names nothing", "give an id as it is shown")
    return name
