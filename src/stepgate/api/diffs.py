"""Diffs in two forms: a document for programs, and the bare text that `git apply` and people read."""

from typing import Annotated, Any, Literal

from fastapi import Query
from starlette.responses import JSONResponse, Response

from stepgate.engine import views

TEXT = "text/x-diff"
Form = Annotated[
    Literal["json", "text"],
    Query(alias="format", description="json: files, renames and the diff in a document; text: the diff alone"),
]
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The diff, in the form that was asked for",
        "content": {TEXT: {"schema": {"type": "string"}, "example": "diff --git a/log b/log\n--- a/log\n+++ b/log\n"}},
    }
}


def told(diff: views.Diff, form: Form) -> Response:
    match form:
        case "json":
            return JSONResponse(diff.model_dump(mode="json"))
        case "text":
            return Response(diff.diff, media_type=TEXT)
