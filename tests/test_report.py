"""The report is one page that needs no network; in a browser its tables are filled and its player moves."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest

from evhands.hand.model import load_hand
from evhands.report.charts import Line, hand_chart, line_chart
from evhands.score_files import score_to
from scored_hands import without_hand, write_scored

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
_WATCH = """<script>window.wrong = []; window.onerror = (m) => window.wrong.push(String(m));
console.error = (...m) => window.wrong.push(m.join(" "));</script>"""
_DRIVE = """<script>addEventListener("load", () => {
  const player = document.getElementById("player"), place = document.getElementById("place");
  const spot = () => [place.value, document.getElementById("said").getAttribute("d"),
    document.getElementById("picture").getAttribute("href").length > 100];
  const before = spot();
  document.getElementById("play").click();
  setTimeout(() => {
    document.getElementById("play").click();
    const cells = [...document.querySelectorAll("#figures td")].map((c) => c.textContent);
    const which = document.getElementById("which");
    which.value = which.options.length - 1;
    which.dispatchEvent(new Event("change"));
    const outside = performance.getEntriesByType("resource").map((e) => e.name).filter((n) => !n.startsWith("data:"));
    document.body.dataset.found = JSON.stringify({ wrong, before, cells, outside, after: player.after,
      recordings: which.options.length, told: document.getElementById("told").textContent });
  }, 1500);
  setTimeout(() => { player.after = spot(); }, 900);
});</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    predictions = without_hand(write_scored(folder), 3)
    score_to(
        predictions, folder, constant=None, intervals="recording", report=True, save=(),
        sources=sorted(folder.glob("*.h5")), hand=load_hand(),
    )  # fmt: skip
    return folder / "report.html"


def test_the_page_holds_everything_itself(page):
    text = page.read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]", text)
    assert "url(" not in text and "@import" not in text and "fetch(" not in text
    results = json.loads((page.parent / "results.json").read_text())
    assert f"{results['figures']['all']['mpjpe21']['mean']:.2f}" in text
    assert text.count("<figure>") >= 3
    assert not re.findall(r"\bnan\b", re.sub(r"data:image/webp;base64,[^\"]*", "", text), re.IGNORECASE)


def test_without_the_recordings_there_are_figures_and_no_player(tmp_path):
    predictions = write_scored(tmp_path, ("right",), 0.5)
    score_to(
        predictions, tmp_path, constant=None, intervals="subject", report=True, save=(), sources=[], hand=load_hand()
    )
    text = (tmp_path / "report.html").read_text()
    assert 'id="figures"' in text and 'id="player"' not in text and "<script" not in text


def test_charts_place_values_in_proportion_and_say_when_there_is_nothing():
    text = line_chart([Line(name="a", x=[0, 1, 2], y=[0, 5, 10], kind="first", dots=True)], "x", "y")
    dots = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', text)]
    assert dots[1][0] - dots[0][0] == pytest.approx(dots[2][0] - dots[1][0], abs=0.11)
    assert dots[0][1] - dots[1][1] == pytest.approx(dots[1][1] - dots[2][1], abs=0.11) and dots[0][1] > dots[2][1]
    assert "nothing to show" in line_chart([Line(name="a", x=[0], y=[None], kind="first")], "x", "y")
    assert "nothing to show" in hand_chart([None] * 21) and hand_chart([1.0] * 21).count("<circle") == 21


@pytest.mark.slow
def test_in_a_browser_tables_are_filled_and_the_player_moves(page, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    driven = tmp_path / "driven.html"
    driven.write_text(page.read_text().replace("<style>", _WATCH + "<style>", 1).replace("</body>", _DRIVE + "</body>"))
    command = [browser, *_FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=6000", "--dump-dom",
               driven.as_uri()]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    match = re.search(r'data-found="([^"]*)"', shown.stdout)
    assert match is not None, shown.stderr[-2000:]
    found = json.loads(html.unescape(match[1]))
    assert found["wrong"] == [] and found["outside"] == []
    assert "CONSOLE" not in shown.stderr
    assert len(found["cells"]) > 10 and all(found["cells"][:8])
    assert found["before"][0] == "0" and int(found["after"][0]) > 0
    assert found["after"][1] != found["before"][1] and found["before"][2]
    assert found["recordings"] == 2 and "mm" in found["told"]
