"""A headless Chromium, driven over the WebDriver protocol (https://www.w3.org/TR/webdriver2/) by its ChromeDriver."""

from __future__ import annotations

import base64
import io
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from typing import Any

import numpy as np
import pytest
from PIL import Image

FLAGS = (
    "--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-gl=angle", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader", "--window-size=1100,720",
)  # fmt: skip


class Browser:
    """A browser with one page. A context manager; skips the test where there is none."""

    def __init__(self, folder: Any) -> None:
        self.folder = folder

    def __enter__(self) -> Browser:
        driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
        if driver is None or chromium is None:
            pytest.skip("no Chromium and ChromeDriver are installed (apt-get install chromium chromium-driver)")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.process = subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL)
        self.base = f"http://127.0.0.1:{port}"
        options = {"binary": chromium, "args": [*FLAGS, f"--user-data-dir={self.folder}"]}
        asked = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        for _ in range(100):
            try:
                self.base += f"/session/{self.call('POST', '/session', asked)['sessionId']}"
                return self
            except (ConnectionError, urllib.error.URLError):
                time.sleep(0.1)
        raise AssertionError("ChromeDriver does not answer")

    def __exit__(self, *_: object) -> None:
        try:
            self.call("DELETE", "")
        finally:
            self.process.terminate()
            self.process.wait()

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if method != "POST" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())["value"]

    def open(self, url: str) -> None:
        self.call("POST", "/url", {"url": url})

    def text(self) -> str:
        return self.call("POST", "/execute/sync", {"script": "return document.body.innerText", "args": []})

    def picture(self) -> np.ndarray:
        """(h, w, 3) bytes of what is seen."""
        data = base64.b64decode(self.call("GET", "/screenshot"))
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def wait(self, condition: Any, seconds: float = 60.0) -> Any:
        """Until the condition gives something but None and False, which is returned."""
        end = time.monotonic() + seconds
        while (found := condition()) is None or found is False:
            assert time.monotonic() < end, f"did not happen within {seconds:g} s; the page says {self.text()!r}"
            time.sleep(0.3)
        return found
