"""A headless Chromium that opens pages of the disk, driven through a pipe: no driver, no port and no network."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

__all__ = ["Browser", "browser"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Run Chromium with a new profile in the directory ``profile``; without Chromium the test is skipped."""
    program = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium is installed")
    # Chromium reads commands from descriptor 3 and answers to descriptor 4.
    command_read, command_write = os.pipe()
    answer_read, answer_write = os.pipe()
    script = f'exec "$0" "$@" 3<&{command_read} 4>&{answer_write}'
    child = subprocess.Popen(
        ["bash", "-c", script, program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
        pass_fds=(command_read, answer_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(command_read)
    os.close(answer_write)
    try:
        yield Browser(command_write, answer_read)
    finally:
        os.close(command_write)
        os.close(answer_read)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


class Browser:
    """One tab, and the commands of the DevTools protocol that tests of pages need.

    Args:
        commands: the descriptor that takes commands.
        answers: the descriptor that gives answers and events.
    """

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._unread = b""
        self._count = 0
        self._session: str | None = None
        self._loaded = False
        self.messages: list[str] = []
        """What the page, the policy and the network layer reported since the last `open`."""
        targets = self.call("Target.getTargets")["targetInfos"]
        tab = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)

    def open(self, page: Path, *, width: int, scheme: Literal["light", "dark"] = "light", script: bool = True) -> None:
        """Load a file at a width of the window, offline."""
        self.messages.clear()
        self._loaded = False
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        answer = self.call("Page.navigate", url=page.absolute().as_uri())
        assert "errorText" not in answer, answer["errorText"]
        while not self._loaded:
            self._receive()

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def wait(self) -> None:
        """Wait until the page has reacted to what `evaluate` did to it, and was laid out anew."""
        frames = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))"
        self.call("Runtime.evaluate", expression=frames, awaitPromise=True)

    def screenshot(self, path: Path, *, clip: dict[str, float] | None = None) -> None:
        """Write a picture of the whole page, or of a part of it, as PNG."""
        if clip is None:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"]}
        answer = self.call(
            "Page.captureScreenshot", format="png", captureBeyondViewport=True, clip={"scale": 1, **clip}
        )
        path.write_bytes(base64.b64decode(answer["data"]))

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send a command, and return its result."""
        self._count += 1
        command = {"id": self._count, "method": method, "params": parameters}
        if self._session is not None:
            command["sessionId"] = self._session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._count:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result

    def _receive(self) -> dict[str, Any]:
        """Return the next answer or event."""
        while b"\0" not in self._unread:
            block = os.read(self._answers, 1 << 20)
            assert block, "Chromium ended"
            self._unread += block
        message, _, self._unread = self._unread.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        given = answer.get("params", {})
        match answer.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Runtime.consoleAPICalled":
                self.messages.append(f"console.{given['type']}: {given['args']}")
            case "Runtime.exceptionThrown":
                self.messages.append(str(given["exceptionDetails"]))
            case "Log.entryAdded":
                self.messages.append(f"{given['entry']['level']}: {given['entry']['text']}")
            case "Network.requestWillBeSent" if not given["request"]["url"].startswith("file:"):
                self.messages.append(f"request: {given['request']['url']}")
        return answer
