"""Swagger UI and ReDoc from files that ship with the installation, so that they work with no internet."""

from pathlib import Path
from typing import Final

import fastapi_offline
from fastapi import FastAPI
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

OPENAPI: Final = "/openapi.json"
ASSETS: Final = "/docs/assets"
REDOC: Final = "redoc.standalone.js"
REMOTE_LOGO: Final = "https://cdn.redoc.ly/redoc/logo-mini.svg"
POLICY: Final = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data:; font-src 'self' data:; worker-src blob:; "
    "script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""The pages' inline start scripts are needed; whatever would come from another host is refused by the browser."""


def install(app: FastAPI) -> None:
    """Serves `/docs`, `/redoc` and what they load."""
    folder = Path(fastapi_offline.__file__).parent / "static"
    # ReDoc would load its maker's logo from the maker's host; everything else of it is in the file.
    script = (folder / REDOC).read_text("utf-8").replace(REMOTE_LOGO, f"{ASSETS}/favicon.png")
    title = app.title

    @app.get("/docs", include_in_schema=False)
    async def swagger_ui() -> HTMLResponse:
        page = get_swagger_ui_html(
            openapi_url=OPENAPI,
            title=f"{title}: Swagger UI",
            swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{ASSETS}/favicon.png",
            swagger_ui_parameters={"validatorUrl": None, "docExpansion": "list", "tryItOutEnabled": True},
        )
        return _guarded(page)

    @app.get("/redoc", include_in_schema=False)
    async def redoc() -> HTMLResponse:
        page = get_redoc_html(
            openapi_url=OPENAPI,
            title=f"{title}: ReDoc",
            redoc_js_url=f"{ASSETS}/{REDOC}",
            redoc_favicon_url=f"{ASSETS}/favicon.png",
            with_google_fonts=False,
        )
        return _guarded(page)

    @app.get(f"{ASSETS}/{REDOC}", include_in_schema=False)
    async def redoc_script() -> Response:
        return Response(script, media_type="text/javascript")

    app.mount(ASSETS, StaticFiles(directory=folder), name="docs-assets")


def _guarded(page: HTMLResponse) -> HTMLResponse:
    page.headers["Content-Security-Policy"] = POLICY
    return page
