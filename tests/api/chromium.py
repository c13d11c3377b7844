"""A real headless Chromium, driven over its DevTools protocol; only for tests, which do without where it is missing."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from websockets.sync.client import ClientConnection, connect

from tests.fixtures.patience import PATIENCE_S

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = (
    *("--headless=new", "--remote-debugging-port=0", "--disable-gpu", "--no-first-run", "--no-default-browser-check"),
    *("--disable-extensions", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--window-size=1200,1600", "--hide-scrollbars"),
)


def installed() -> str | None:
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Tab:
    """One page of the browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.complaints: list[str] = []
        """What the browser refused or a page said, such as breaches of the page's policy."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            told = json.loads(self._socket.recv(timeout=PATIENCE_S))
            if told.get("id") == number:
                assert "error" not in told, told
                return told["result"]
            if told.get("method") in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
                self.complaints.append(json.dumps(told["params"]))

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; the tools' own, which its policy does not bind."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, expression: str) -> Any:
        """Its value, once there is one that counts as true."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                found = self.ask(expression)
            except AssertionError:  # the page is just being exchanged for another one
                found = None
            if found:
                return found
            assert time.monotonic() < deadline, (expression, self.ask("document.documentElement.outerHTML"))

    def open(self, url: str) -> None:
        self.ask("window.left = true")
        self.call("Page.navigate", url=url)
        self.until("!window.left && document.readyState === 'complete'")

    def press(self, selector: str) -> None:
        """Clicks a button and waits for the page that comes of it."""
        self.ask("window.left = true")
        self.ask(f"document.querySelector({json.dumps(selector)}).click()")
        self.until("!window.left && document.readyState === 'complete'")

    def write(self, selector: str, text: str) -> None:
        self.ask(f"document.querySelector({json.dumps(selector)}).focus()")
        self.call("Input.insertText", text=text)

    def picture(self, path: Path) -> None:
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def opened(program: str, folder: Path) -> Iterator[Tab]:
    """A browser with a profile of its own, until the block ends."""
    options = [*OPTIONS, f"--user-data-dir={folder}"]
    if os.geteuid() == 0:
        options.append("--no-sandbox")
    process = subprocess.Popen([program, *options, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = _port(process, folder / "DevToolsActivePort")
        pages = httpx2.get(f"http://127.0.0.1:{port}/json/list", trust_env=False).json()
        address = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
        with connect(address, max_size=None, proxy=None) as socket:
            yield Tab(socket)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _port(process: "subprocess.Popen[bytes]", told: Path) -> int:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        if told.exists() and (text := told.read_text()):
            return int(text.splitlines()[0])
        assert process.poll() is None
        assert time.monotonic() < deadline
