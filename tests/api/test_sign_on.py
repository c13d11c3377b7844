"""Signing in at the console with an issuer: a real one on another site, real redirects, and forged ways back."""

import base64
import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from stepgate.storage.embedded import EmbeddedServer
from tests.api import chromium
from tests.api.conftest import Api, served
from tests.fixtures.database import Administrator
from tests.fixtures.database import _database as database
from tests.fixtures.patience import PATIENCE_S

KEY = ec.generate_private_key(ec.SECP256R1())
CLIENT, SECRET = "stepgate console", "s:e&c ret"
PROGRAM = chromium.installed()


class Login(ThreadingHTTPServer):
    """The issuer, which knows one person and asks them nothing."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.claims: dict[str, Any] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.clients: list[str] = []

    @property
    def name(self) -> str:
        return f"http://localhost:{self.server_port}"

    def token(self, asked: Mapping[str, str]) -> str:
        now = int(time.time())
        claims = {"iss": self.name, "aud": CLIENT, "sub": "ada", "exp": now + 60, "nonce": asked["nonce"]}
        given = {**claims, "roles": ["approver"], **self.claims}
        return jwt.encode(given, KEY, algorithm="ES256", headers={"kid": "k1"})


class Answering(BaseHTTPRequestHandler):
    server: Login

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        name = self.server.name
        match parts.path:
            case "/.well-known/openid-configuration":
                places = {"authorization_endpoint": f"{name}/authorize", "token_endpoint": f"{name}/token"}
                self.tell({"issuer": name, "jwks_uri": f"{name}/keys", **places})
            case "/keys":
                public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(KEY.public_key()))
                self.tell({"keys": [{**public, "kid": "k1", "alg": "ES256"}]})
            case "/authorize":
                asked = dict(parse_qsl(parts.query))
                code = uuid.uuid4().hex
                self.server.codes[code] = asked
                back = f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"
                self.send_response(303)
                self.send_header("Location", back)
                self.end_headers()
            case _:
                self.tell({}, 404)

    def do_POST(self) -> None:
        fields = dict(parse_qsl(self.rfile.read(int(self.headers["content-length"])).decode()))
        asked = self.server.codes.pop(fields.get("code", ""), None)
        self.server.clients.append(base64.b64decode(self.headers["authorization"].removeprefix("Basic ")).decode())
        proved = base64.urlsafe_b64encode(sha256(fields["code_verifier"].encode()).digest()).decode().rstrip("=")
        if asked is None or asked["code_challenge"] != proved or asked["redirect_uri"] != fields["redirect_uri"]:
            self.tell({"error": "invalid_grant"}, 400)
        else:
            self.tell({"id_token": self.server.token(asked), "access_token": "x", "token_type": "Bearer"})

    def tell(self, body: Any, status: int = 200) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Nothing for the terminal."""


@pytest.fixture(scope="module")
def issuer() -> Iterator[Login]:
    with Login() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join(30)


@pytest.fixture
def login(issuer: Login) -> Login:
    """The issuer, which says nothing of its own."""
    issuer.claims = {}
    issuer.clients.clear()
    return issuer


@pytest.fixture(scope="module")
def api(
    issuer: Login,
    cluster: EmbeddedServer,
    administrator: Administrator,
    template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Api]:
    def known(port: int) -> dict[str, Any]:
        names = {"oidc_issuer": issuer.name, "oidc_audience": "stepgate", "oidc_client_id": CLIENT}
        return {**names, "oidc_client_secret": SECRET, "url": f"http://127.0.0.1:{port}"}

    folder = tmp_path_factory.mktemp("sign-on")
    with contextmanager(database)(cluster, administrator, template) as url, served(url, folder, more=known) as found:
        yield found


@pytest.fixture
def client(api: Api) -> Iterator[httpx2.Client]:
    """A browser's cookies; each redirect is followed by hand."""
    with httpx2.Client(base_url=str(api.client.base_url), timeout=PATIENCE_S) as found:
        yield found


def begun(client: httpx2.Client) -> tuple[str, dict[str, str]]:
    """The way back, and what was asked of the issuer."""
    away = client.get("/console/sign-on?next=/console/runs")
    assert away.status_code == 303, away.text
    asked = {name: values[0] for name, values in parse_qs(urlsplit(away.headers["location"]).query).items()}
    back = httpx2.get(away.headers["location"], follow_redirects=False).headers["location"]
    return back, asked


def test_a_person_comes_back_as_whom_the_issuer_names(client: httpx2.Client, login: Login) -> None:
    assert "/console/sign-on?next=" in client.get("/console/sign-in?next=/console/runs").text
    back, asked = begun(client)
    assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
    done = client.get(back)
    assert (done.status_code, done.headers["location"]) == (303, "/console/runs"), done.text
    assert login.clients == ["stepgate+console:s%3Ae%26c+ret"]
    page = client.get("/console/runs")
    assert (page.status_code, "oidc:ada" in page.text) == (200, True)
    kept = {cookie.name for cookie in client.cookies.jar}
    assert kept == {"stepgate_session"}


def test_a_way_back_is_good_once_and_for_who_began_it(client: httpx2.Client, api: Api, login: Login) -> None:
    back, _ = begun(client)
    with httpx2.Client(base_url=str(api.client.base_url)) as other:
        assert other.get(back).status_code == 401
        begun(other)
        assert other.get(back).status_code == 401
        assert other.get("/console/runs").status_code == 303
    assert client.get(back.replace("state=", "state=x")).status_code == 401
    assert client.get(back).status_code == 303
    client.cookies.clear()
    assert client.get(back).status_code == 401


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": "another"},
        {"aud": "stepgate"},
        {"aud": [CLIENT, "x"], "azp": "x"},
        {"exp": 1},
        {"iss": "x"},
        {"sub": ""},
    ],
)
def test_a_token_that_is_not_of_this_sign_in_does_not_count(
    client: httpx2.Client, login: Login, change: dict[str, Any]
) -> None:
    login.claims = change
    back, _ = begun(client)
    assert client.get(back).status_code == 401
    assert client.get("/console/runs").status_code == 303


def test_an_issuer_that_refuses_or_is_away_leads_back_to_the_form(client: httpx2.Client, login: Login) -> None:
    begun(client)
    refused = client.get("/console/callback?error=access_denied&state=x")
    assert (refused.status_code, "begin again" in refused.text) == (401, True)


@pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed")
def test_a_browser_that_comes_back_from_another_site_is_signed_in(api: Api, login: Login, tmp_path: Path) -> None:
    """Its strict cookies stay back on the way from there, so the page is asked for once more from here."""
    base = str(api.client.base_url).rstrip("/")
    with chromium.opened(PROGRAM or "", tmp_path / "profile") as tab:
        tab.open(f"{base}/console/runs")
        tab.press("a.button")
        assert tab.until("document.querySelector('.who span') && document.querySelector('.who span').innerText")
        assert tab.ask("location.pathname") == "/console/runs"
        assert "oidc:ada" in tab.ask("document.querySelector('.who').innerText")
