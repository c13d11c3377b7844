"""Swagger UI, ReDoc and the OpenAPI document, all without any other host."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from tests.api.conftest import Api

ADDRESS = re.compile(r"(?:https?:)?//[^\s'\"]*", re.IGNORECASE)
"""A reference that leaves the host."""


class References(HTMLParser):
    """What a page loads or leads to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("href", "src", "spec-url", "action") and value]


def references(page: str) -> list[str]:
    parser = References()
    parser.feed(page)
    return parser.found


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_a_page_names_no_other_host_and_everything_it_needs_is_here(quiet: Api, path: str) -> None:
    response = quiet.client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    found = references(response.text)
    assert len(found) >= 3
    assert [one for one in found if ADDRESS.match(one)] == []
    # Nor in the page's own script and styles.
    assert ADDRESS.findall(response.text) == []
    urls = found + re.findall(r"url: '([^']+)'", response.text)
    assert "/openapi.json" in urls
    for one in urls:
        asset = quiet.client.get(one)
        assert asset.status_code == 200, one
        assert asset.content
        styles = asset.text if asset.headers["content-type"].startswith("text/css") else ""
        assert [url for url in re.findall(r"url\(([^)]*)\)", styles) if ADDRESS.match(url.strip("'\""))] == []


def test_the_browser_itself_is_told_to_load_from_nowhere_else(quiet: Api) -> None:
    for path in ("/docs", "/redoc"):
        policy = quiet.client.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "http" not in policy
        assert "*" not in policy


def test_redoc_does_not_fetch_its_makers_logo(quiet: Api) -> None:
    script = quiet.client.get("/docs/assets/redoc.standalone.js").text
    assert "cdn.redoc.ly" not in script


def test_the_bundle_reads_the_documents_version(quiet: Api) -> None:
    """Swagger UI 4 does not know OpenAPI 3.1."""
    assert quiet.get("/openapi.json")["openapi"].startswith("3.1")
    assert "openapi: 3.1.x" in quiet.client.get("/docs/assets/swagger-ui-bundle.js").text


def test_assets_cannot_lead_out_of_their_folder(quiet: Api) -> None:
    for path in ("/docs/assets/../core.py", "/docs/assets/%2e%2e/core.py", "/docs/assets/..%2fcore.py"):
        assert quiet.client.get(path).status_code == 404


def operations(document: Any) -> list[tuple[str, str, Any]]:
    return [(method, path, operation) for path, item in document["paths"].items() for method, operation in item.items()]


def test_the_document_has_every_endpoint_of_this_stage_and_no_other(quiet: Api) -> None:
    run, step = "/v1/agent-runs/{run_id}", "/v1/agent-runs/{run_id}/steps/{step_id}"
    hook = "/v1/webhooks/{webhook_id}"
    assert {f"{method.upper()} {path}" for method, path, _ in operations(quiet.get("/openapi.json"))} == {
        *("POST /v1/agent-runs", "GET /v1/agent-runs", f"GET {run}"),
        *(f"POST {run}/steps", f"GET {run}/steps", f"GET {step}", f"GET {step}/output", f"GET {step}/diff"),
        f"GET {step}/output/live",
        *(
            f"POST {run}/{verb}"
            for verb in (
                "execute",
                "start",
                "pause",
                "resume",
                "cancel",
                "undo",
                "deliver",
                "discard",
                "fork",
                "replay",
                "budget",
            )
        ),
        *(f"POST {step}/{verb}" for verb in ("approve", "reject", "skip", "edit")),
        *(f"GET {run}/{what}" for what in ("cost", "events", "verify", "diff")),
        *(
            *("GET /v1/approvals", "POST /v1/approvals/bulk", "GET /v1/approvals/{request_id}"),
            *("GET /v1/approvals/{request_id}/rule", "POST /v1/approvals/{request_id}/rule"),
            *("POST /v1/delegations", "GET /v1/delegations", "DELETE /v1/delegations/{delegation_id}"),
            *("POST /v1/keys", "GET /v1/keys", "POST /v1/keys/{name}/revoke", "GET /v1/whoami"),
            *("POST /v1/webhooks", "GET /v1/webhooks", f"GET {hook}", f"DELETE {hook}", f"GET {hook}/deliveries"),
            f"POST {hook}/deliveries/{{delivery_id}}/redeliver",
            "POST /v1/plan",
            "GET /v1/costs",
            *("GET /v1/budgets", "POST /v1/budgets", "DELETE /v1/budgets/{budget_id}"),
            f"GET {run}/audit",
            "GET /v1/audit/key",
            "GET /v1/step-types",
            "POST /v1/policies/explain",
            *("GET /v1/policies", "POST /v1/policies", "GET /v1/policies/{version}"),
            "GET /worker/status",
            "POST /worker/process",
            "GET /health",
        ),
        *("POST /v1/workspaces", "GET /v1/workspaces"),
        *("GET /v1/workspaces/{name}", "DELETE /v1/workspaces/{name}"),
    }


WEBHOOKS = ("/v1/webhooks", "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver")
MAKE_NOTHING = {
    "/v1/budgets",
    "/v1/policies/explain",
    "/v1/policies",
    "/v1/approvals/bulk",
    "/v1/approvals/{request_id}/rule",
    "/v1/keys",
    "/v1/keys/{name}/revoke",
    "/v1/delegations",
    *WEBHOOKS,
}
"""Asked twice they answer alike, or (a key: it is named, and shown once; a delegation: two people have one at a time)
cannot be repeated; so they take no key."""


def test_every_operation_is_described_and_says_how_it_fails(quiet: Api) -> None:
    document = quiet.get("/openapi.json")
    for method, path, operation in operations(document):
        assert operation["summary"], path
        assert operation["description"], path
        good = [operation["responses"][status] for status in operation["responses"] if status.startswith("2")]
        assert all("$ref" in answer["content"]["application/json"]["schema"] for answer in good), path
        for status, answer in operation["responses"].items():
            if status.startswith(("4", "5")) and path != "/health":
                assert list(answer["content"]) == ["application/problem+json"], (path, status)
        if method == "post" and path.startswith("/v1/") and path not in MAKE_NOTHING:
            assert any(parameter["name"].lower() == "idempotency-key" for parameter in operation["parameters"]), path
            assert {"400", "403", "409", "413", "415", "422", "503"} <= set(operation["responses"]), path


def test_every_reference_of_the_document_leads_somewhere(quiet: Api) -> None:
    document = quiet.get("/openapi.json")
    schemas = set(document["components"]["schemas"])
    used = set(re.findall(r"#/components/schemas/([A-Za-z0-9_]+)", quiet.client.get("/openapi.json").text))
    assert used <= schemas
    assert "ProblemDocument" in used
    assert not {"HTTPValidationError", "ValidationError"} & schemas
