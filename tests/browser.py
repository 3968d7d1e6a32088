"""A real browser for the tests of pages: Chromium without a window, driven through its debugging protocol."""

from __future__ import annotations

import asyncio
import base64
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_WAIT_S = 60


@dataclass
class View:
    """A page as the browser shows it."""

    #: every address it asked for, the page itself included
    requested: list[str] = field(default_factory=list)
    #: what the browser complained about, violations of the page's policy among them
    complaints: list[str] = field(default_factory=list)
    screenshot: bytes = b""
    #: by expression
    values: dict[str, Any] = field(default_factory=dict)


class Browser:
    """One tab of a running Chromium."""

    def __init__(self, runner: asyncio.Runner, endpoint: str) -> None:
        self._runner, self._endpoint = runner, endpoint
        self._number = 0

    def view(self, url: str, *expressions: str, width: int = 1100, dark: bool = False, printed: bool = False) -> View:
        """Open an address, and return what was requested for it, how it looks, and the expressions' values."""
        return self._runner.run(self._view(url, expressions, width, dark, printed))

    def start(self, url: str) -> None:
        """Begin to open an address, without waiting for it."""
        self._runner.run(self._start(url))

    async def _start(self, url: str) -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(self._endpoint) as socket:
            await socket.send_json({"id": 0, "method": "Page.navigate", "params": {"url": url}})
            await socket.receive()

    async def _view(self, url: str, expressions: tuple[str, ...], width: int, dark: bool, printed: bool) -> View:
        view, loaded = View(), _Loaded()
        async with aiohttp.ClientSession() as session, session.ws_connect(self._endpoint, max_msg_size=0) as socket:
            answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
            listener = asyncio.create_task(_listen(socket, answers, view, loaded))

            async def ask(method: str, **parameters: Any) -> dict[str, Any]:
                self._number += 1
                number = self._number
                answers[number] = asyncio.get_running_loop().create_future()
                await socket.send_json({"id": number, "method": method, "params": parameters})
                return await asyncio.wait_for(answers[number], _WAIT_S)

            await ask("Log.clear")  # what the page before was about would be told again
            for domain in ("Page", "Network", "Log", "Runtime", "Audits"):
                await ask(f"{domain}.enable")
            await ask("Network.setCacheDisabled", cacheDisabled=True)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            await ask("Emulation.setEmulatedMedia", media="print" if printed else "", features=[scheme])
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
            await ask("Emulation.setDeviceMetricsOverride", **size)
            await ask("Page.setLifecycleEventsEnabled", enabled=True)
            loader = (await ask("Page.navigate", url=url))["loaderId"]
            await asyncio.wait_for(loaded.wait(loader), _WAIT_S)
            for expression in expressions:
                answer = await ask("Runtime.evaluate", expression=expression, returnByValue=True)
                assert "exceptionDetails" not in answer, answer
                view.values[expression] = answer["result"].get("value")
            shot = await ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
            view.screenshot = base64.b64decode(shot["data"])
            listener.cancel()
        return view


class _Loaded:
    """Which pages are complete; the one before may become so late."""

    def __init__(self) -> None:
        self._pages: set[str] = set()
        self._changed = asyncio.Event()

    def add(self, page: str) -> None:
        self._pages.add(page)
        self._changed.set()

    async def wait(self, page: str) -> None:
        while page not in self._pages:
            self._changed.clear()
            await self._changed.wait()


async def _listen(
    socket: aiohttp.ClientWebSocketResponse,
    answers: dict[int, asyncio.Future[dict[str, Any]]],
    view: View,
    loaded: _Loaded,
) -> None:
    async for message in socket:
        event = message.json()
        if "id" in event:
            answers.pop(event["id"]).set_result(event.get("result") or {})
            continue
        match event["method"]:
            case "Network.requestWillBeSent":
                view.requested.append(event["params"]["request"]["url"])
            case "Log.entryAdded":
                view.complaints.append(event["params"]["entry"]["text"])
            case "Audits.issueAdded":
                view.complaints.append(event["params"]["issue"]["code"])
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                view.complaints.append(str(event["params"]))
            case "Page.lifecycleEvent" if event["params"]["name"] == "load":
                loaded.add(event["params"]["loaderId"])


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Run Chromium with a profile of its own in `folder`; it is stopped at the end."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"]
    process = subprocess.Popen(
        [*command, f"--user-data-dir={folder}", "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with asyncio.Runner() as runner:
            yield Browser(runner, runner.run(_tab(_port(folder / "DevToolsActivePort", process))))
    finally:
        process.terminate()
        process.wait(_WAIT_S)


def _port(port_file: Path, process: subprocess.Popen[bytes]) -> str:
    """The port at which the debugger listens."""
    deadline = time.monotonic() + _WAIT_S
    while not (port_file.exists() and len(port_file.read_text().splitlines()) == 2):
        assert process.poll() is None, "chromium ended at once"
        assert time.monotonic() < deadline, "chromium does not start"
        time.sleep(0.05)
    return port_file.read_text().splitlines()[0]


async def _tab(port: str) -> str:
    """The address of the debugger of the first tab."""
    async with aiohttp.ClientSession() as session:
        for _ in range(_WAIT_S * 20):
            tabs = await (await session.get(f"http://127.0.0.1:{port}/json/list")).json()
            if pages := [tab for tab in tabs if tab["type"] == "page"]:
                address: str = pages[0]["webSocketDebuggerUrl"]
                return address
            await asyncio.sleep(0.05)
    raise AssertionError("chromium opens no page")
