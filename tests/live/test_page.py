"""The live page in a real browser: it starts, the hand moves, and whoever comes back sees it again."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from evhands.boxes import CropBox
from evhands.geometry import default_camera
from evhands.hand.model import load_hand
from evhands.live.loop import LiveReport
from evhands.live.page import LivePage
from evhands.tracking import Tracker, TrackResult, hand_joints
from evhands.types import Events, EventWindow, InputError
from live.browser import Browser
from seeing_models import flat_hand

pytest.importorskip("viser")

CAMERA = default_camera((346, 260))
HAND = load_hand("open")
TRACKER = Tracker(None, None, HAND, CAMERA, mirrored=HAND.mirrored())


def window_at(x_m: float, t_us: int, side: str = "right") -> tuple[EventWindow, tuple[TrackResult, ...]]:
    """A hand at some place, and a few thousand events."""
    rng = np.random.default_rng(t_us)
    pose = flat_hand(x_m, side, 0.45)
    x, y = rng.integers(0, 346, 3000), rng.integers(0, 260, 3000)
    times = np.sort(rng.integers(t_us - 66_667, t_us, 3000))
    events = Events(x.astype(np.uint16), y.astype(np.uint16), times, rng.random(3000) < 0.5, CAMERA.size)
    hand = HAND if side == "right" else HAND.mirrored()
    result = TrackResult(
        t_us, "moving", 0.8, 3000, pose, hand_joints(hand, pose), CropBox(np.array([170.0, 130.0]), 90)
    )
    return EventWindow(events, t_us - 66_667, t_us), (result,)


@contextmanager
def moving(page: LivePage):
    """A hand that goes to and fro on a page, thirty times a second."""
    stop = threading.Event()

    def move() -> None:
        k = 0
        while not stop.wait(0.033):
            k += 1
            page(*window_at(0.12 * np.sin(k / 20), 1_000_000 + 33_333 * k))

    thread = threading.Thread(target=move)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_the_page_is_there_before_any_event_and_follows_the_newest_window():
    with LivePage("127.0.0.1:0", TRACKER, LiveReport()) as page:
        assert page.url.startswith("http://localhost:")
        page(*window_at(0.0, 1_000_000))
        page(*window_at(0.1, 1_033_333, "left"))
        waiting = threading.Event()
        for _ in range(100):
            if "left hand" in page._text.content:
                break
            waiting.wait(0.05)
        assert "left hand" in page._text.content and "1.03 s" in page._text.content
        joints = page._parts[0]._joints.points
        np.testing.assert_allclose(joints, page._newest.hands[0].joints_m, atol=1e-6)
        page(window_at(0, 1_066_667)[0], (TrackResult(1_066_667, "lost", 0.0, 10),))
        for _ in range(100):
            if "no hand" in page._text.content:
                break
            waiting.wait(0.05)
        assert not page._parts[0]._mesh.visible and not page._parts[0]._bones.visible


def test_a_host_that_is_none_of_this_machine_is_refused():
    with pytest.raises(InputError, match="--view-at"), LivePage("203.0.113.7:8080", TRACKER):
        pass


@pytest.mark.slow
def test_a_browser_sees_the_hand_move_and_finds_it_again(tmp_path):
    with Browser(tmp_path / "profile") as browser:
        with LivePage("127.0.0.1:0", TRACKER) as page:
            port = page.url.rpartition(":")[2]
            with moving(page):
                browser.open(page.url)
                browser.wait(lambda: "right hand" in browser.text())
                first = browser.wait(lambda: _colourful(browser.picture()))
                browser.wait(lambda: _changed(first, browser.picture()))
                browser.call("POST", "/refresh")
                browser.wait(lambda: "right hand" in browser.text() and _colourful(browser.picture()) is not None)
        with suppress(Exception):
            browser.text()
        with LivePage(f"127.0.0.1:{port}", TRACKER) as page:
            page(*window_at(0.0, 1_000_000, "left"))
            browser.wait(lambda: "left hand" in browser.text(), 120)


def _colourful(picture: np.ndarray) -> np.ndarray | None:
    """The scene (without the panel), where something in it is lit."""
    scene = picture[:, : picture.shape[1] * 2 // 3].astype(int)
    lit = (scene.max(2) - scene.min(2) > 60).sum()
    return scene if lit > 200 else None


def _changed(first: np.ndarray, picture: np.ndarray) -> bool:
    scene = picture[:, : picture.shape[1] * 2 // 3].astype(int)
    return bool((np.abs(scene - first).max(2) > 40).sum() > 500)
