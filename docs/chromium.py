"""Drives a Chromium that nobody sees, for pictures of a page and for tests of it; the standard library is enough.

The DevTools protocol is spoken over a pipe (``--remote-debugging-pipe``): JSON messages, each ended by a zero byte.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
"""Programs that are looked for."""
TIMEOUT_S = 60.0
SHIFT = 8
"""The protocol's bit for the Shift key."""
# Chromium reads from descriptor 3 and writes to 4; a Popen can only hand descriptors on under their own numbers.
_START = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
_EVALUATION = {"returnByValue": True, "awaitPromise": True, "userGesture": True}


def find_chromium() -> str | None:
    """Find a browser on the path; None if there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Chromium:
    """One page in a headless browser. Use it as a context manager: leaving it ends the browser.

    Args:
        browser: The program.
        size: Width and height of the page in CSS pixels.
        scale: Device pixels to a CSS pixel.
    """

    def __init__(self, browser: str, size: tuple[int, int] = (1200, 900), scale: float = 1.0) -> None:
        self.errors: list[str] = []
        """What the page's scripts threw or logged as an error."""
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        # Numbers of 10 and more cannot be the 3 and 4 that they become.
        (read, self._write), (self._read, write) = os.pipe(), os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (read, write)]
        os.close(read)
        os.close(write)
        command = [sys.executable, "-c", _START, *map(str, ends), browser, "--headless", "--remote-debugging-pipe"]
        options = ["--disable-gpu", "--hide-scrollbars", "--no-first-run", f"--user-data-dir={self._profile.name}"]
        # The sandbox refuses to run as root; what is opened here is a page of our own.
        options += ["--no-sandbox"] if os.geteuid() == 0 else []
        self._process = subprocess.Popen(  # noqa: S603 - the browser found on the path
            [*command, *options, "about:blank"], pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for end in ends:
            os.close(end)
        self._number, self._buffer, self._session = 0, b"", ""
        try:
            self._attach()
            self.resize(size, scale)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Return the page."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the browser."""
        self.close()

    def close(self) -> None:
        """End the browser and forget its profile."""
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)
        self._profile.cleanup()

    def open(self, page: Path) -> None:
        """Load a file and wait until its scripts have run."""
        self.errors.clear()
        self.send("Page.navigate", url=page.resolve().as_uri())
        deadline = time.monotonic() + TIMEOUT_S
        while self.run("document.readyState + location.protocol") != "completefile:":
            if time.monotonic() > deadline:
                raise TimeoutError(f"{page} was not loaded within {TIMEOUT_S:g} s.")
            time.sleep(0.02)

    def resize(self, size: tuple[int, int], scale: float = 1.0) -> None:
        """Give the page another size, in CSS pixels."""
        width, height = size
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )

    def prefer(self, colours: str) -> None:
        """Choose ``light`` or ``dark``, as the person's system would."""
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": colours}])

    def run(self, script: str) -> Any:
        """Evaluate an expression in the page.

        Returns:
            Its value, as JSON has it.

        Raises:
            RuntimeError: If it throws.
        """
        answer = self.send("Runtime.evaluate", expression=script, **_EVALUATION)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script!r} threw: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        """Return the visible text of the first element that a CSS selector finds."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def point(self, selector: str) -> None:
        """Move the mouse to the middle of an element."""
        self._mouse(selector, "mouseMoved")

    def click(self, selector: str) -> None:
        """Click on the middle of an element, with the mouse."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self._mouse(selector, kind, button="none" if kind == "mouseMoved" else "left", clickCount=1)

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press a key and let it go, by its name in the DOM, e.g. ``ArrowRight`` or ``c``."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if len(key) == 1 and kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, modifiers=SHIFT * shift, **text)

    def picture(self, selector: str | None = None, margin: int = 0) -> bytes:
        """Take a picture of what the window shows, or of a whole element wherever it lies, as PNG."""
        if selector is None:
            return base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])
        x, y, width, height = self._box(selector)
        clip = {
            "x": x - margin,
            "y": y - margin,
            "width": width + 2 * margin,
            "height": height + 2 * margin,
            "scale": 1,
        }
        taken = self.send("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(taken["data"])

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command of the protocol and wait for its answer.

        Raises:
            RuntimeError: If the browser refuses it.
        """
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive(method)
            self._note(answer)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method} failed: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def _attach(self) -> None:
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def _note(self, message: dict[str, Any]) -> None:
        found = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(found["exceptionDetails"]))
        elif message.get("method") == "Log.entryAdded" and found["entry"]["level"] == "error":
            self.errors.append(f"{found['entry']['text']} {found['entry'].get('url', '')}")

    def _receive(self, method: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], TIMEOUT_S)
            piece = os.read(self._read, 1 << 20) if ready else b""
            if not piece:
                why = "ended" if ready else f"did not answer within {TIMEOUT_S:g} s"
                raise RuntimeError(f"The browser {why} at {method}.")
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        content: dict[str, Any] = json.loads(message)
        return content

    def _mouse(self, selector: str, kind: str, **options: Any) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'nearest'}})")
        x, y, width, height = self._box(selector, page=False)
        self.send("Input.dispatchMouseEvent", type=kind, x=x + width / 2, y=y + height / 2, **options)

    def _box(self, selector: str, *, page: bool = True) -> tuple[float, float, float, float]:
        x, y, width, height = self.run(
            f"(() => {{ const box = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            " return [box.x, box.y, box.width, box.height]; })()"
        )
        left, top = self.run("[scrollX, scrollY]") if page else (0, 0)
        return x + left, y + top, width, height
