"""Draw docs/images/live.jpg: the live page on the recording that ships with the package, in a headless Chromium.

python scripts/draw_live_page.py        # needs: apt-get install chromium chromium-driver
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "live"))
DEMO = ROOT / "src" / "evhands" / "assets" / "demo.h5"
CLOSE = "for (const b of document.querySelectorAll('.mantine-Notification-closeButton')) b.click()"


def main() -> None:
    from browser import Browser  # the one of the tests

    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        command = [sys.executable, "-m", "evhands", "track", str(DEMO), "--view", "--view-at", "127.0.0.1:0"]
        with log.open("w") as file, Browser(f"{folder}/profile") as browser:
            process = subprocess.Popen(command, stdout=file, stderr=file)
            try:
                browser.open(browser.wait(lambda: _url(log.read_text()), 120))
                browser.wait(lambda: "windows/s" in browser.text())
                browser.call("POST", "/execute/sync", {"script": CLOSE, "args": []})
                time.sleep(1.5)
                picture = browser.picture()
            finally:
                process.terminate()
                process.wait()
    out = ROOT / "docs" / "images" / "live.jpg"
    Image.fromarray(picture).save(out, quality=88)
    print(f"wrote {out}, {out.stat().st_size / 1e3:.0f} kB")


def _url(text: str) -> str | None:
    """What the command says to look at."""
    return next((line.split()[-1] for line in text.splitlines() if line.startswith("look at")), None)


if __name__ == "__main__":
    main()
