"""Chromium, driven over its DevTools protocol. Knows nothing of the chat page.

The protocol runs over a pair of pipes, so that the browser ends with the process that started it. One browser serves many
pages, each with separate cookies and storage. Errors that a page logs, exceptions and violations of its Content-Security-Policy
are collected; `Page.close` raises for them.
"""

from __future__ import annotations

import base64
import json
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from tests.patience import HANG_S

# The first one starts in half the time of the others.
PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--mute-audio",
    "--font-render-hinting=none",
    "--force-color-profile=srgb",
    # Containers often have little shared memory.
    "--disable-dev-shm-usage",
    # Those of tests are their own authorities.
    "--ignore-certificate-errors",
    # Nothing but loopback can be reached, which has another name, too.
    "--host-resolver-rules=MAP chat.example 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.*",
)
# Set before any script of a page: the violations of its policy, in order.
_WATCH_POLICY = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""


def program() -> str | None:
    """The browser on this machine."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class PageFailed(AssertionError):
    """The page, or what was evaluated in it, failed."""


class Chromium:
    """A browser process."""

    def __init__(self) -> None:
        found = program()
        assert found is not None
        self._folder = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        # The browser reads commands from descriptor 3 and writes to 4.
        piped = 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1'
        options = [*_OPTIONS, "--remote-debugging-pipe", f"--user-data-dir={self._folder.name}"]
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", piped, "sh", found, *options, "about:blank"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._received = b""
        self._numbers = count(1)
        self._listeners: dict[str, Callable[[str, dict[str, Any]], None]] = {}

    def page(self, url: str, *, width: int = 1024, height: int = 768, **media: str) -> Page:
        """Open a page in a separate browser context. `media` are features such as `prefers-color-scheme`, with underscores."""
        context = self.command("Target.createBrowserContext")["browserContextId"]
        target = self.command("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, context, target)
        page.begin(width, height, {name.replace("_", "-"): value for name, value in media.items()})
        page.go(url)
        return page

    def listen(self, session: str, listener: Callable[[str, dict[str, Any]], None]) -> None:
        """Pass on the events of a session."""
        self._listeners[session] = listener

    def command(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer. Events that come meanwhile are passed on."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + HANG_S
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == number:
                break
            listener = self._listeners.get(answer.get("sessionId", ""))
            if "method" in answer and listener is not None:
                listener(answer["method"], answer["params"])
        if "error" in answer:
            raise PageFailed(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def _receive(self, deadline: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        while b"\0" not in self._received:
            left = deadline - time.monotonic()
            # A page that is never idle keeps sending events, so the deadline is checked before each read.
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise PageFailed("the browser does not answer")
            chunk = self._process.stdout.read(1 << 20)
            if not chunk:
                raise PageFailed("the browser has ended")
            self._received += chunk
        message, _, self._received = self._received.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


class Page:
    """A page with separate cookies and storage."""

    def __init__(self, browser: Chromium, session: str, context: str, target: str) -> None:
        self._browser = browser
        self._session = session
        self._context = context
        self._target = target
        # The errors of the page. Tests remove those that they expect.
        self.errors: list[str] = []
        browser.listen(session, self._heard)

    def begin(self, width: int, height: int, media: dict[str, str]) -> None:
        """Set the page up."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")
        self.command("Page.addScriptToEvaluateOnNewDocument", source=_WATCH_POLICY)
        self.command("Emulation.setFocusEmulationEnabled", enabled=True)
        self.resize(width, height)
        self.emulate(media)

    def command(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the protocol."""
        return self._browser.command(method, self._session, **params)

    def go(self, url: str) -> None:
        """Load a page, and wait until it is there."""
        failure = self.command("Page.navigate", url=url).get("errorText")
        if failure:
            raise PageFailed(f"{url}: {failure}")
        self.wait("document.readyState === 'complete'")

    def reload(self) -> None:
        """Load the page again."""
        self.run("window.isOld = true")
        self.command("Page.reload")
        self.wait("!window.isOld && document.readyState === 'complete'")

    def resize(self, width: int, height: int, scale: float = 1) -> None:
        """Set the size of the window."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )

    def emulate(self, media: dict[str, str]) -> None:
        """Set features of media queries."""
        features = [{"name": name, "value": value} for name, value in media.items()]
        self.command("Emulation.setEmulatedMedia", features=features)

    def grant(self, *permissions: str) -> None:
        """Grant the page these permissions, such as `notifications`."""
        self._browser.command(
            "Browser.grantPermissions", browserContextId=self._context, permissions=list(permissions)
        )

    def run(self, script: str) -> Any:
        """The value of an expression, which is awaited if it is a promise."""
        answer = self.command(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise PageFailed(_text_of(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def wait(self, condition: str, within_s: float = HANG_S) -> Any:
        """Wait until the expression is true, and return its value. A page that is being loaded counts as false."""
        deadline = time.monotonic() + within_s
        while True:
            look = f"""(async () => {{
                for (let n = 0; n < 100; n += 1) {{
                    const value = ({condition});
                    if (value) return value instanceof Node ? true : value;
                    await new Promise((done) => setTimeout(done, 10));
                }}
            }})()"""
            try:
                value = self.run(look)
            except PageFailed as failed:
                # The page was navigated away while the expression ran.
                if "navigated" not in str(failed) and "context" not in str(failed):
                    raise
                value = None
            if value:
                return value
            if time.monotonic() > deadline:
                text = self.run("document.body.innerText")
                raise PageFailed(f"not true within {within_s:g} s: {condition}\n{self.errors}\n{text}")

    def type(self, text: str) -> None:
        """Type a text into the focused element."""
        self.command("Input.insertText", text=text)

    def press(self, key: str, *modifiers: str) -> None:
        """Press and release a key, such as `Enter`, while modifiers such as `Control` are held down."""
        code = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowUp": 38, "ArrowDown": 40}.get(
            key, ord(key[0].upper())
        )
        held = sum({"Alt": 1, "Control": 2, "Meta": 4, "Shift": 8}[one] for one in modifiers)
        text = {"text": "\r"} if key == "Enter" else {}
        common = {"key": key, "windowsVirtualKeyCode": code, "modifiers": held}
        self.command("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **common, **text)
        self.command("Input.dispatchKeyEvent", type="keyUp", **common)

    def click(self, selector: str, across: float = 0.5) -> None:
        """Click on an element at the fraction `across` of its width. An element that covers it gets the click."""
        where = self.run(
            f"""(() => {{
                const element = document.querySelector({json.dumps(selector)});
                if (!element) throw new Error("no element {selector}");
                element.scrollIntoView({{ block: "nearest" }});
                const box = element.getBoundingClientRect();
                if (!box.width || !box.height) throw new Error("{selector} is not shown");
                return [box.x + box.width * {across}, box.y + box.height / 2];
            }})()"""
        )
        common = {"x": where[0], "y": where[1], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.command("Input.dispatchMouseEvent", type=kind, **common)

    def offline(self, on: bool) -> None:
        """Take the network away, or give it back."""
        self.command(
            "Network.emulateNetworkConditions",
            offline=on,
            latency=0,
            downloadThroughput=-1,
            uploadThroughput=-1,
        )

    def screenshot(self, **encoding: object) -> bytes:
        """The window as PNG, or in another encoding."""
        return base64.b64decode(
            self.command("Page.captureScreenshot", **encoding or {"format": "png"})["data"]
        )

    def close(self) -> None:
        """Close the page. Raises PageFailed if anything went wrong in it."""
        try:
            self.errors += self.run("window.violations")
        finally:
            self._browser.command("Target.disposeBrowserContext", browserContextId=self._context)
        if self.errors:
            raise PageFailed("\n".join(self.errors))

    def _heard(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.errors.append(_text_of(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            entry = params["entry"]
            self.errors.append(f"{entry['text']} {entry.get('url', '')}")
        elif method == "Page.javascriptDialogOpening":
            self.errors.append(f"a dialog: {params['message']}")
            self.command("Page.handleJavaScriptDialog", accept=True)


def _text_of(details: dict[str, Any]) -> str:
    return str(details.get("exception", {}).get("description") or details["text"])
