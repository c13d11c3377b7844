"""The console over plain HTTP: who gets in, what pages show, and that nothing is decided but by a form of one's own."""

import html
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import httpx2
import pytest

from stepgate.api.attempts import FAILURES
from stepgate.domain.identity import Kind, Principal, Role
from stepgate.storage.embedded import EmbeddedServer
from tests.api import chromium
from tests.api.conftest import SECRET, Api, for_a_module
from tests.fixtures.database import Administrator
from tests.fixtures.patience import PATIENCE_S

ROOT = Principal("root", Kind.PERSON, frozenset({Role.ADMIN}))
PROGRAM = chromium.installed()
PICTURES = os.environ.get("CONSOLE_PICTURES")
"""A folder for pictures of every page, for whoever wants to look at them."""
NO_RUN = "9d3a1f0e-0000-4000-8000-000000000000"
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7*7 }}\u202e\x1b[2J"


class Forms(HTMLParser):
    """The forms of a page with their hidden fields, and every tag and attribute name."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.forms: list[tuple[dict[str, str], dict[str, str]]] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        self.attributes |= set(given)
        if tag == "form":
            self.forms.append((given, {}))
        elif tag == "input" and given.get("type") == "hidden":
            self.forms[-1][1][given["name"]] = given["value"]


class Browser:
    """One person's browser at the console: cookies, and forms as they stand on the page."""

    def __init__(self, api: Api, client: httpx2.Client) -> None:
        self.api = api
        self.client = client

    def get(self, path: str, expect: int = 200, **headers: str) -> httpx2.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        response = self.client.get(path, headers=named)
        assert response.status_code == expect, response.text
        return response

    def send(self, path: str, fields: dict[str, str], **headers: str) -> httpx2.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(path, data=fields, headers={"Origin": str(self.client.base_url), **named})

    def press(self, page: httpx2.Response, action: str, **fields: str) -> httpx2.Response:
        """Sends the page's form of this address with its hidden fields."""
        address, hidden = next(
            (given["action"], hidden) for given, hidden in Forms(page.text).forms if given["action"].endswith(action)
        )
        return self.send(address, {**hidden, **fields})

    def sign_in(self, proof: str, onward: str = "/console/approvals") -> httpx2.Response:
        page = self.get(f"/console/sign-in?next={onward}")
        return self.press(page, "/console/sign-in", proof=proof)


@contextmanager
def browsing(api: Api) -> Iterator[Browser]:
    with httpx2.Client(base_url=str(api.client.base_url).rstrip("/"), timeout=PATIENCE_S) as client:
        yield Browser(api, client)


@pytest.fixture(scope="module")
def shared(
    cluster: EmbeddedServer, administrator: Administrator, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("console")
    with for_a_module(cluster, administrator, template, folder, worker=True) as api:
        api.client.headers.update(api.secret)
        yield api


@pytest.fixture
def house(shared: Api) -> Api:
    return shared.elsewhere()


@pytest.fixture
def browser(house: Api) -> Iterator[Browser]:
    with browsing(house) as found:
        yield found


@pytest.fixture
def signed_in(browser: Browser) -> Browser:
    """With the local secret."""
    assert browser.sign_in(SECRET).status_code == 303
    return browser


def key(api: Api, *roles: Role, kind: Kind = Kind.PERSON, tenant: str | None = None) -> tuple[str, str]:
    name = f"k{uuid.uuid4().hex}"
    given = api.do(api.stack.keys.give(name, kind, roles, ROOT, None, tenant))
    return given.key, name


def console(path: str) -> str:
    return path.replace("/v1/agent-runs", "/console/runs")


def shown(response: httpx2.Response) -> str:
    return html.unescape(response.text)


@pytest.mark.parametrize("path", ["/console/approvals", "/console/runs", f"/console/runs/{NO_RUN}"])
def test_whoever_is_not_signed_in_is_led_there_and_back(browser: Browser, path: str) -> None:
    response = browser.get(path, 303)
    assert response.headers["location"] == "/console/sign-in?next=" + path.replace("/", "%2F")
    onward = browser.sign_in(SECRET, path)
    assert (onward.status_code, onward.headers["location"]) == (303, path)


@pytest.mark.parametrize(
    "elsewhere", ["https://evil.test/", "//evil.test/console/", "/console/..//evil.test", "/\\evil.test", "/docs", "x"]
)
def test_nobody_is_led_elsewhere_after_signing_in(browser: Browser, elsewhere: str) -> None:
    response = browser.sign_in(SECRET, elsewhere.replace("/", "%2F"))
    assert response.headers["location"] == "/console/approvals"


def test_a_session_is_a_cookie_that_no_script_and_no_other_site_gets(browser: Browser) -> None:
    cookie = browser.sign_in(SECRET).headers["set-cookie"]
    assert cookie.startswith("stepgate_session=")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert SECRET not in cookie


def test_a_question_is_shown_and_approved_exactly_as_it_was_shown(signed_in: Browser) -> None:
    path, step = signed_in.api.asking()
    inbox = signed_in.get("/console/approvals")
    assert f"{console(path)}/steps/{step['id']}" in inbox.text
    page = signed_in.get(f"{console(path)}/steps/{step['id']}")
    assert step["approval"]["action_hash"] in page.text
    assert '<span class="added">+new</span>' in page.text
    done = signed_in.press(page, "/decide", verdict="approve", reason="reads\r\nwell")
    assert (done.status_code, done.headers["location"]) == (303, str(page.url.path))
    run = signed_in.api.until(path, lambda run: run["status"] == "completed")
    decision = run["steps"][0]["approval"]["decision"]
    assert decision["actor"] == {"id": "local", "kind": "person", "channel": "console"}
    assert (decision["reason"], decision["implied"]) == ("reads\nwell", False)
    after = signed_in.get(f"{console(path)}/steps/{step['id']}")
    assert "approved by local (console)" in " ".join(after.text.split())
    assert "/decide" not in after.text
    assert signed_in.get(console(path)).text.count("completed") >= 2


@pytest.mark.parametrize(
    ("verdict", "status"), [("reject", "cancelled"), ("reject_skip", "completed"), ("skip", "completed")]
)
def test_the_other_answers(signed_in: Browser, verdict: str, status: str) -> None:
    path, step = signed_in.api.asking()
    page = signed_in.get(f"{console(path)}/steps/{step['id']}")
    assert signed_in.press(page, "/decide", verdict=verdict).status_code == 303
    signed_in.api.until(path, lambda run: run["status"] == status)


def test_what_is_not_the_action_now_asked_for_is_not_decided_but_shown(signed_in: Browser) -> None:
    path, step = signed_in.api.asking()
    page = signed_in.get(f"{console(path)}/steps/{step['id']}")
    for verdict in ("approve", "reject", "skip"):
        stale = signed_in.press(page, "/decide", verdict=verdict, action_hash="0" * 64)
        assert (stale.status_code, step["approval"]["action_hash"] in stale.text) == (409, True)
    for fields in ({"verdict": "approve", "action_hash": ""}, {"verdict": "maybe"}, {}):
        assert signed_in.press(page, "/decide", **fields).status_code == 422
    signed_in.press(page, "/decide", verdict="reject")
    late = signed_in.press(page, "/decide", verdict="approve")
    assert (late.status_code, "already" in late.text) == (409, True)


def test_a_form_without_its_sessions_token_decides_nothing(house: Api, signed_in: Browser) -> None:
    path, step = house.asking()
    address = f"{console(path)}/steps/{step['id']}/decide"
    fields = {"verdict": "approve", "action_hash": step["approval"]["action_hash"]}
    with browsing(house) as other:
        other.sign_in(SECRET)
        page = other.get(f"{console(path)}/steps/{step['id']}")
        foreign = Forms(page.text).forms[0][1]["csrf"]
    for token in ({}, {"csrf": ""}, {"csrf": "x"}, {"csrf": foreign}):
        assert signed_in.send(address, {**fields, **token}).status_code == 403
    own = Forms(signed_in.get(f"{console(path)}/steps/{step['id']}").text).forms[0][1]
    for headers in ({"Origin": "https://evil.test"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}):
        assert signed_in.send(address, {**fields, **own}, **headers).status_code == 403
    assert signed_in.client.post(address, json={**fields, **own}).status_code == 415
    assert signed_in.client.get(address, params={**fields, **own}).status_code == 405
    assert house.get(path)["status"] == "awaiting_approval"


def test_signing_in_needs_a_form_of_ones_own_too(browser: Browser) -> None:
    hidden = Forms(browser.get("/console/sign-in").text).forms[0][1]
    browser.client.cookies.clear()
    assert browser.send("/console/sign-in", {**hidden, "proof": SECRET}).status_code == 403
    assert browser.send("/console/sign-in", {"csrf": "", "proof": SECRET}).status_code == 403


def test_signing_out_ends_the_session_and_not_only_the_cookie(signed_in: Browser) -> None:
    page = signed_in.get("/console/runs")
    stolen = dict(signed_in.client.cookies)
    assert signed_in.press(page, "/console/sign-out").headers["location"] == "/console/sign-in"
    assert "stepgate_session" not in dict(signed_in.client.cookies)
    signed_in.client.cookies.update(stolen)
    signed_in.get("/console/runs", 303)


def test_a_session_ends_with_its_key_and_may_what_the_key_may(house: Api) -> None:
    text, name = key(house, Role.VIEWER)
    path, step = house.asking()
    with browsing(house) as viewer:
        assert viewer.sign_in(text).status_code == 303
        page = viewer.get(f"{console(path)}/steps/{step['id']}")
        assert ("/decide" in page.text, name in page.text) == (False, True)
        token = Forms(page.text).forms[0][1]
        fields = {**token, "verdict": "approve", "action_hash": step["approval"]["action_hash"]}
        assert viewer.send(f"{console(path)}/steps/{step['id']}/decide", fields).status_code == 403
        house.do(house.stack.keys.revoke(ROOT, name))
        viewer.get("/console/runs", 303)
        refused = viewer.sign_in(text)
        assert (refused.status_code, "does not count" in refused.text) == (401, True)


def test_a_delegate_decides_for_whom_gave_them_their_approvals(house: Api) -> None:
    ada, ada_name = key(house, Role.APPROVER)
    bob, bob_name = key(house, Role.APPROVER)
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    headers = {"Authorization": f"Bearer {ada}"}
    given = house.client.post("/v1/delegations", json={"to": bob_name, "ends_at": until}, headers=headers)
    assert given.status_code == 201, given.text
    path, step = house.asking()
    with browsing(house) as browser:
        browser.sign_in(bob)
        page = browser.get(f"{console(path)}/steps/{step['id']}")
        for who, status in (("nobody", 403), ("a\0b", 422)):
            assert browser.press(page, "/decide", verdict="approve", on_behalf_of=who).status_code == status
        assert browser.press(page, "/decide", verdict="approve", on_behalf_of=ada_name).status_code == 303
        shown_after = browser.get(f"{console(path)}/steps/{step['id']}").text
    assert f"{bob_name} for {ada_name}" in " ".join(shown_after.split())
    decision = house.get(path)["steps"][0]["approval"]["decision"]
    assert (decision["actor"]["id"], decision["on_behalf_of"]) == (bob_name, ada_name)


def test_an_agent_looks_and_decides_nothing(house: Api) -> None:
    text, _ = key(house, Role.OPERATOR, kind=Kind.AGENT)
    path, step = house.asking()
    with browsing(house) as agent:
        agent.sign_in(text)
        page = agent.get(f"{console(path)}/steps/{step['id']}")
        fields = {**Forms(page.text).forms[0][1], "verdict": "skip", "action_hash": step["approval"]["action_hash"]}
        assert agent.send(f"{console(path)}/steps/{step['id']}/decide", fields).status_code == 403


def test_another_tenants_runs_are_not_there(house: Api) -> None:
    text, _ = key(house, Role.ADMIN, tenant="acme")
    path, step = house.asking()
    with browsing(house) as stranger:
        stranger.sign_in(text)
        for page in (console(path), f"{console(path)}/steps/{step['id']}"):
            stranger.get(page, 404)
        for page in ("/console/runs", "/console/approvals"):
            assert step["run_id"] not in stranger.get(page).text
        token = Forms(stranger.get("/console/runs").text).forms[0][1]
        fields = {**token, "verdict": "approve", "action_hash": step["approval"]["action_hash"]}
        assert stranger.send(f"{console(path)}/steps/{step['id']}/decide", fields).status_code == 404


def test_nothing_that_a_plan_says_acts_on_a_page(signed_in: Browser) -> None:
    api = signed_in.api
    (api.workspace / "a.txt").write_text(EVIL.replace("\x1b", "") + "\n")
    step = {
        "key": "edit",
        "type": "edit_file",
        "why": EVIL.replace("\x1b", ""),
        "input": {"path": "a.txt", "content": EVIL + "\n</pre><script>x</script>\n"},
    }
    labels = {"a<b>": EVIL}
    run = api.run([step], start=True, goal=f"do {EVIL}", labels=labels)
    path = f"/v1/agent-runs/{run['id']}"
    found = api.until(path, lambda run: run["status"] == "awaiting_approval")["steps"][0]
    pages = ["/console/runs", "/console/approvals", console(path), f"{console(path)}/steps/{found['id']}"]
    for one in pages:
        page = signed_in.get(one)
        seen = Forms(page.text)
        assert not {"script", "img", "iframe", "style"} & seen.tags
        assert not [name for name in seen.attributes if name.startswith("on") or name == "style"]
        assert not {"\u202e", "\x1b"} & set(page.text)
        assert "49" not in re.findall(r"\S*7\*7\S*", shown(page))
    assert "\\u202e\\x1b[2J" in shown(signed_in.get(pages[-1]))
    assert "a claim, not the action" in signed_in.get(pages[-1]).text


def test_a_command_is_shown_whole_and_what_passes_for_something_else_is_written_out(signed_in: Browser) -> None:
    argv = ["python3", "-c", "print('\u0440\u0430\u0443')", "a b", "<i>"]
    run = signed_in.api.run([{"key": "run", "type": "run_command", "input": {"argv": argv}}], start=True)
    path = f"/v1/agent-runs/{run['id']}"
    step = signed_in.api.until(path, lambda run: run["status"] == "awaiting_approval")["steps"][0]
    page = shown(signed_in.get(f"{console(path)}/steps/{step['id']}"))
    for said in ("\\u0440\\u0430\\u0443", "'a b' '<i>'", "sandbox", "Program"):
        assert said.lower() in page.lower()
    signed_in.api.decide(path, step, "reject")


@pytest.mark.parametrize("path", ["/console/sign-in", "/console/style.css", "/console/runs"])
def test_every_page_forbids_scripts_frames_and_other_hosts(signed_in: Browser, path: str) -> None:
    response = signed_in.get(path)
    if path.endswith("css"):
        assert response.headers["content-type"].startswith("text/css")
        assert "http" not in response.text
        return
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert response.headers["cache-control"] == "no-store"
    assert not re.search(r"""(src|href|action)=["']?(https?:)?//""", response.text)


def test_a_link_from_elsewhere_is_followed_once_more_from_here(browser: Browser) -> None:
    """The cookie is kept back then, so the browser is told to ask for the page again by itself."""
    again = browser.get("/console/runs?cursor=x", Sec_Fetch_Site="cross-site")
    assert again.headers["refresh"] == "0; url=/console/runs?cursor=x"
    browser.get("/console/runs?cursor=x", 303, Sec_Fetch_Site="same-origin")


@pytest.mark.parametrize("path", ["/console/runs/x", "/console/runs?cursor=x", f"/console/runs/{NO_RUN}/steps/1"])
def test_what_is_not_there_is_said_on_a_page(signed_in: Browser, path: str) -> None:
    response = signed_in.client.get(path)
    assert response.status_code in (404, 422)
    assert response.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("body", [b"x" * 70_000, b"a=1&a=2", b"a=%ff", "ä=1".encode(), b"&".join([b"a%d=1"] * 20)])
def test_a_form_that_is_none_is_refused(browser: Browser, body: bytes) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    response = browser.client.post("/console/sign-in", content=body, headers=headers)
    assert response.status_code in (400, 403, 413)


def test_who_guesses_waits(api: Api) -> None:
    with browsing(api) as guesser:
        for _ in range(FAILURES):
            assert guesser.sign_in("sgk_aaaaaaaa_" + "a" * 43).status_code == 401
        assert guesser.sign_in("nonsense").status_code == 429
        assert guesser.sign_in(SECRET).status_code == 303
        assert guesser.client.get("/console/approvals").status_code == 200


def taken(tab: chromium.Tab, name: str) -> None:
    if PICTURES is not None:
        tab.picture(Path(PICTURES) / f"{name}.png")


@pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed")
def test_a_person_signs_in_reads_and_approves_in_a_real_browser(house: Api, tmp_path: Path) -> None:
    path, step = house.asking(
        why="It is <b>harmless</b> <script>document.title = 'caught'</script>",
        input={"path": "a.txt", "content": "new\n<script>document.title = 'caught'</script>\n\u202egnp.exe\n"},
    )
    base = str(house.client.base_url).rstrip("/")
    with chromium.opened(PROGRAM or "", tmp_path / "profile") as tab:
        page = f"{base}{path.replace('/v1/agent-runs', '/console/runs')}/steps/{step['id']}"
        tab.open(page)
        assert tab.ask("location.pathname") == "/console/sign-in"
        taken(tab, "sign_in")
        tab.write("#proof", SECRET)
        tab.press("main button")
        assert tab.ask("location.href") == page
        taken(tab, "question")
        assert tab.ask("document.title") == "edit · Stepgate"
        assert step["approval"]["action_hash"] in tab.ask("document.body.innerText")
        assert tab.ask("document.querySelectorAll('script, img, iframe').length") == 0
        assert "\\u202egnp.exe" in tab.ask("document.querySelector('pre.diff').innerText")
        assert tab.ask("getComputedStyle(document.querySelector('.added')).backgroundColor") != "rgba(0, 0, 0, 0)"
        assert tab.ask("document.cookie") == ""
        tab.open(f"{base}/console/approvals")
        assert "edit" in tab.ask("document.querySelector('table').innerText")
        taken(tab, "approvals")
        tab.open(page)
        tab.write("#reason", "reads well")
        tab.press("button[value=approve]")
        assert "approved by local (console)" in tab.ask("document.querySelector('.card').innerText")
        taken(tab, "decided")
        house.until(path, lambda run: run["status"] == "completed")
        tab.open(f"{base}{path.replace('/v1/agent-runs', '/console/runs')}")
        assert "completed" in tab.ask("document.querySelector('table').innerText")
        taken(tab, "run")
        tab.open(f"{base}/console/runs")
        taken(tab, "runs")
        tab.press("header button")
        assert tab.ask("location.pathname") == "/console/sign-in"
        tab.open(f"{base}/console/runs")
        assert tab.ask("location.pathname") == "/console/sign-in"
        assert [one for one in tab.complaints if "favicon" not in one] == []
