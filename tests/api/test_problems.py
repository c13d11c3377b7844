"""Every error has a status, and every answer that is one has the same shape."""

import inspect
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from stepgate.api import problems
from stepgate.api.problems import MEDIA_TYPE, STATUS, status_of
from stepgate.domain import errors
from stepgate.domain.errors import NotFound, StepgateError
from tests.api.conftest import Api


def classes() -> Iterator[type[StepgateError]]:
    for _, found in inspect.getmembers(errors, inspect.isclass):
        if issubclass(found, StepgateError):
            yield found


def test_every_class_of_errors_has_a_row_and_every_row_a_class() -> None:
    assert set(STATUS) == set(classes())


def test_a_class_of_another_package_takes_the_status_of_its_nearest_ancestor() -> None:
    class Lost(NotFound):
        code = "lost"

    assert status_of(Lost("it is gone")) == 404


def test_an_unexpected_error_is_a_problem_that_tells_nothing_of_the_inside() -> None:
    app = FastAPI()
    problems.install(app)

    @app.get("/")
    def fail() -> None:
        raise RuntimeError("the password is 1234")

    with TestClient(app, raise_server_exceptions=False) as client:
        response = client.get("/")
    assert response.status_code == 500
    assert response.headers["content-type"] == MEDIA_TYPE
    assert response.json()["type"] == "urn:stepgate:error:internal"
    assert "1234" not in response.text


def test_an_unknown_address_is_a_problem(quiet: Api) -> None:
    response = quiet.client.get("/v1/nothing")
    assert response.status_code == 404
    assert response.headers["content-type"] == MEDIA_TYPE
    assert response.json() == {
        "type": "urn:stepgate:error:not_found",
        "title": "Not found",
        "status": 404,
        "detail": "there is no such address",
        "errors": [],
    }


def test_a_method_that_is_not_taken_names_those_that_are(quiet: Api) -> None:
    response = quiet.client.delete("/v1/agent-runs")
    assert response.status_code == 405
    assert response.headers["content-type"] == MEDIA_TYPE
    assert response.headers["allow"] == "GET, POST"
    assert quiet.client.post("/docs").headers["allow"] == "GET"


def test_a_trailing_slash_is_another_address(quiet: Api) -> None:
    assert quiet.client.get("/v1/agent-runs/").status_code == 404


@pytest.mark.parametrize("run_id", ["nothing", "019A9F1E", "%00", "..", "019a9f1e-6a3c-7c55-8d7e-3f0f5f0a9b1z"])
def test_what_is_no_id_names_nothing(quiet: Api, run_id: str) -> None:
    response = quiet.client.get(f"/v1/agent-runs/{run_id}/cost")
    assert response.status_code == 404
    assert response.headers["content-type"] == MEDIA_TYPE


@pytest.mark.parametrize("path", ["", "/steps", "/cost", "/events", "/verify", "/diff"])
def test_an_unknown_run_is_a_problem_that_names_the_field(quiet: Api, path: str) -> None:
    response = quiet.client.get(f"/v1/agent-runs/019a9f1e-6a3c-7c55-8d7e-3f0f5f0a9b10{path}")
    assert response.status_code == 404
    assert response.json()["errors"][0]["field"] == "run_id"


@pytest.mark.parametrize("verb", ["start", "execute", "pause", "resume", "cancel", "undo"])
def test_no_verb_finds_an_unknown_run(quiet: Api, verb: str) -> None:
    assert quiet.send(f"/v1/agent-runs/019a9f1e-6a3c-7c55-8d7e-3f0f5f0a9b10/{verb}").status_code == 404


def test_an_id_in_capitals_is_the_same_id(api: Api) -> None:
    run = api.run()
    assert api.get(f"/v1/agent-runs/{run['id'].upper()}")["id"] == run["id"]
