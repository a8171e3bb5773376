"""A real Chromium without a window, for tests of pages; spoken to through a pair of pipes.

The DevTools protocol over `--remote-debugging-pipe` needs no port, no driver and no package: one
JSON message each way, ended by a zero byte.
"""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

FLAGS = [
    *"--headless --no-sandbox --disable-gpu --disable-quic --no-first-run".split(),
    *"--disable-background-networking --disable-component-update --disable-sync".split(),
    *"--disable-dev-shm-usage --disable-extensions --remote-debugging-pipe".split(),
    "--disable-features=IsolateSandboxedIframes",  # a frame in one process with its page
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "about:blank",
]
PATIENCE = 600  # seconds; a loaded machine starts a browser slowly


def find_chromium():
    """Path of a Chromium (MICO_CHROMIUM names another), or a skip."""
    names = (os.environ.get("MICO_CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    for name in filter(None, names):
        found = shutil.which(name)
        if found:
            return found
    pytest.skip("no Chromium here: apt-get install -y chromium, or set MICO_CHROMIUM")


class Browser:
    """A running Chromium with one tab; `close` ends it."""

    def __init__(self):
        program = find_chromium()
        self.folder = tempfile.mkdtemp(prefix="mico_chromium_")
        theirs, self.out = os.pipe()
        self.inp, ours = os.pipe()
        # The browser wants its pipes as file descriptors 3 and 4.
        shell = f'exec "$@" 3<&{theirs} 4>&{ours}'
        self.process = subprocess.Popen(
            ["bash", "-c", shell, "bash", program, f"--user-data-dir={self.folder}", *FLAGS],
            pass_fds=(theirs, ours),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs)
        os.close(ours)
        self.rest, self.count, self.session = b"", 0, None
        self.events = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")

    def _message(self, deadline):
        while b"\0" not in self.rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.inp], [], [], left)[0]:
                raise TimeoutError("Chromium does not answer")
            part = os.read(self.inp, 1 << 20)
            if not part:
                raise EOFError("Chromium has ended")
            self.rest += part
        line, _, self.rest = self.rest.partition(b"\0")
        return json.loads(line)

    def call(self, method, **params):
        """Send one command, keep the events that come meanwhile, return the answer."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self._message(deadline)
            if answer.get("id") == self.count:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def wait(self, method):
        """Read on until an event of this name has come since the list was last emptied."""
        deadline = time.monotonic() + PATIENCE
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._message(deadline))

    def open(self, path):
        """Load a file as a page, and wait until it stands."""
        self.events = []
        self.call("Page.navigate", url=Path(path).resolve().as_uri())
        self.wait("Page.loadEventFired")

    def js(self, expression):
        """What an expression gives in the page; the page's own security policy does not bind it."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def complaints(self):
        """Everything that was said in the console, thrown, or logged since the page was opened."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        self.js("0")  # events that are on their way come before its answer
        return [event for event in self.events if event.get("method") in kinds]

    def requests(self):
        """Addresses that were asked for since the page was opened, its own among them."""
        self.js("0")
        sent = [e for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def show(self, width=1000, height=800, *, dark=False, media="", scripts=True, touch=False):
        """Set the window's size in CSS pixels, the reader's wishes, and whether scripts run."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)

    def key(self, name):
        """Press and let go one key, such as "ArrowRight" or "Tab"."""
        codes = {"ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35, "Tab": 9, "Enter": 13}
        press = {"key": name, "code": name, "windowsVirtualKeyCode": codes[name]}
        self.call("Input.dispatchKeyEvent", type="rawKeyDown", **press)
        self.call("Input.dispatchKeyEvent", type="keyUp", **press)

    def mouse(self, kind, x, y):
        """Move the pointer ("mouseMoved") or press it ("mousePressed") at a place of the window."""
        press = {"button": "left", "clickCount": 1} if kind != "mouseMoved" else {}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **press)

    def picture(self, path, whole=True):
        """Write a PNG of the page."""
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(answer["data"]))

    def pdf(self):
        """The page as it would be printed, on A4; the bytes of a PDF file."""
        answer = self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)
        return base64.b64decode(answer["data"])

    def close(self):
        """End the browser and all that it started, and remove its folder."""
        for end in (self.out, self.inp):
            os.close(end)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)
