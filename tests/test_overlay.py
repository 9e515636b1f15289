"""Laws of the overlay picture: what is drawn where, and that a video holds every frame."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from evhands.boxes import sensor_pixels
from evhands.geometry import default_camera, project
from evhands.hand.model import load_hand
from evhands.overlay import OverlayStyle, draw_events, draw_overlay, draw_skeleton, video_writer
from evhands.types import Camera, Events, HandPose

SIZE = (120, 90)
CAMERA = default_camera(SIZE)
HAND = load_hand("open")
PLAIN = OverlayStyle(scale=2, side_view=False)


def mesh(x: float = 0.0, z: float = 0.6):
    upright = Rotation.from_matrix(np.stack([[0, 1, 0], [0, 0, 1], [1, 0, 0]], axis=1).astype(float)).as_rotvec()
    return HAND.mesh_of(HandPose("right", upright, np.array([x, 0.07, z]), np.zeros((15, 3)), np.zeros(10), "open"))


def events(xyp: list[tuple[int, int, bool]], t_us: list[int]) -> Events:
    x, y, p = (np.array(v) for v in zip(*xyp, strict=True))
    return Events(x.astype(np.uint16), y.astype(np.uint16), np.array(t_us, np.int64), p.astype(bool), SIZE)


def test_without_events_and_hand_there_is_only_background() -> None:
    picture = draw_overlay(Events.empty(SIZE), 100, 100, CAMERA, None, PLAIN)
    assert picture.shape == (180, 240, 3) and picture.dtype == np.uint8
    assert (picture == picture[0, 0]).all()


def test_on_is_bluer_off_is_redder_and_old_ones_fade() -> None:
    picture = draw_events(events([(1, 1, True), (2, 1, False), (5, 5, True)], [99, 99, 5]), 100, 100)
    background = picture[50, 50]
    on, off, old = (picture[1, 1] - background, picture[1, 2] - background, picture[5, 5] - background)
    assert on[2] > on[0] and off[0] > off[2]
    assert 0 < np.abs(old).sum() < np.abs(on).sum()
    changed = np.abs(picture - background).sum(-1) > 0
    assert changed.sum() == 3


def test_the_order_of_events_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    n = 500
    mixed = Events(
        rng.integers(0, 120, n).astype(np.uint16),
        rng.integers(0, 90, n).astype(np.uint16),
        rng.integers(0, 100, n),
        rng.random(n) < 0.5,
        SIZE,
    )
    shuffled = mixed[rng.permutation(n)]
    np.testing.assert_allclose(draw_events(mixed, 100, 100), draw_events(shuffled, 100, 100), atol=1e-6)


@pytest.mark.parametrize("distortion", [np.zeros(0), np.array([-0.3, 0.1, 0.0, 0.0])])
def test_the_hand_is_drawn_where_the_sensor_sees_it(distortion: np.ndarray) -> None:
    camera = Camera(CAMERA.K, SIZE, distortion)
    hand = mesh(0.1)
    picture = draw_overlay(Events.empty(SIZE), 100, 100, camera, hand, PLAIN).astype(int)
    changed = np.abs(picture - picture[-1, 0]).sum(-1) > 0
    rows, columns = np.nonzero(changed)
    seen = (sensor_pixels(hand.vertices.astype(float), camera) + 0.5) * 2 - 0.5
    low, high = np.maximum(seen.min(0), 0), np.minimum(seen.max(0), (239, 179))
    radius = PLAIN.joint_px + 2
    assert abs(columns.min() - low[0]) <= radius and abs(columns.max() - high[0]) <= radius
    assert abs(rows.min() - low[1]) <= radius and abs(rows.max() - high[1]) <= radius
    wrist = (sensor_pixels(hand.joints[0].astype(float), camera) + 0.5) * 2 - 0.5
    assert (picture[round(wrist[1]), round(wrist[0])] > 230).all()


def test_a_skeleton_outside_or_undefined_changes_nothing() -> None:
    picture = np.zeros((40, 40, 3), np.float32)
    draw_skeleton(picture, np.full((21, 3), 500.0))
    draw_skeleton(picture, np.full((21, 3), np.nan))
    assert (picture == 0).all()


@pytest.mark.parametrize(("x", "z"), [(0.35, 0.6), (0.0, 0.12), (5.0, 0.5)])
def test_a_hand_across_the_border_or_very_near_is_drawn_as_far_as_it_is_seen(x: float, z: float) -> None:
    picture = draw_overlay(Events.empty(SIZE), 100, 100, CAMERA, mesh(x, z), replace(PLAIN, side_view=True))
    assert picture.shape == (180, 240, 3)


def test_nearer_hands_cover_more() -> None:
    areas = []
    for z in (0.9, 0.6, 0.4):
        picture = draw_overlay(Events.empty(SIZE), 100, 100, CAMERA, mesh(0.0, z), PLAIN).astype(int)
        areas.append((np.abs(picture - picture[-1, 0]).sum(-1) > 0).sum())
        pixels = project(mesh(0.0, z).vertices.astype(float), CAMERA.K)
        assert np.isfinite(pixels).all()
    assert areas[0] < areas[1] < areas[2]


def test_a_video_holds_every_frame_at_its_rate_and_even_sizes(tmp_path) -> None:
    path = tmp_path / "film.mp4"
    rng = np.random.default_rng(1)
    with video_writer(path, 1e6 / 33_333) as write:
        for _ in range(7):
            write(rng.integers(0, 255, (45, 61, 3), dtype=np.uint8))
    with av.open(str(path)) as film:
        frames = list(film.decode(video=0))
        rate = film.streams.video[0].average_rate
    assert len(frames) == 7 and (frames[0].width, frames[0].height) == (62, 46)
    assert abs(rate - Fraction(10**6, 33_333)) < 0.1
