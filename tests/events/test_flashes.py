"""Laws of leaving out flashes: what fills the image goes, what moves in a part of it stays."""

from __future__ import annotations

import numpy as np
import pytest

from evhands.events.flashes import without_flashes
from evhands.types import Events

SIZE = (346, 260)


def drawn(rng: np.random.Generator, count: int, from_us: int, to_us: int, part=(0, 0, *SIZE)) -> Events:
    x, y = rng.integers(part[0], part[2], count), rng.integers(part[1], part[3], count)
    t_us = np.sort(rng.integers(from_us, to_us, count))
    return Events(x.astype(np.uint16), y.astype(np.uint16), t_us, rng.random(count) < 0.5, SIZE)


def together(*parts: Events) -> Events:
    order = np.argsort(np.concatenate([part.t_us for part in parts]), kind="stable")
    return Events.concatenate(parts, SIZE)[order]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_a_flash_goes_and_the_hand_stays(rng):
    hand, noise = drawn(rng, 8000, 0, 200_000, (100, 80, 180, 160)), drawn(rng, 2000, 0, 200_000)
    flash = drawn(rng, 60_000, 120_000, 128_000)
    kept = without_flashes(together(hand, noise, flash))
    during = (kept.t_us >= 120_000) & (kept.t_us < 128_000)
    assert not during.any()
    assert len(kept) == np.count_nonzero(np.r_[hand.t_us, noise.t_us] < 120_000) + np.count_nonzero(
        np.r_[hand.t_us, noise.t_us] >= 128_000
    )


def test_a_flash_goes_from_a_busy_camera_too(rng):
    """Of so many events only a share is counted."""
    busy, flash = drawn(rng, 400_000, 0, 200_000), drawn(rng, 600_000, 120_000, 128_000)
    kept = without_flashes(together(busy, flash))
    assert not ((kept.t_us >= 120_000) & (kept.t_us < 128_000)).any()
    assert len(kept) == np.count_nonzero((busy.t_us < 120_000) | (busy.t_us >= 128_000))


def test_a_hand_that_starts_suddenly_is_no_flash(rng):
    """However many its events: they fill a third of the image."""
    noise, hand = drawn(rng, 1000, 0, 200_000), drawn(rng, 80_000, 150_000, 160_000, (0, 0, 200, 150))
    events = together(noise, hand)
    assert without_flashes(events) is events


def test_a_background_that_moves_all_the_time_is_no_flash(rng):
    events = drawn(rng, 300_000, 0, 200_000)
    assert without_flashes(events) is events


def test_the_same_on_any_clock(rng):
    """Milliseconds are those of the clock, so a shift by whole ones changes nothing."""
    events = together(drawn(rng, 3000, 0, 200_000), drawn(rng, 50_000, 70_000, 77_000))
    later = Events(events.x, events.y, events.t_us + 5_000_000_000, events.p, SIZE)
    np.testing.assert_array_equal(without_flashes(events).t_us + 5_000_000_000, without_flashes(later).t_us)
    assert len(without_flashes(events)) < 3001


@pytest.mark.parametrize("count", [0, 1, 63, 64])
def test_few_events_stay(rng, count):
    events = drawn(rng, count, 0, 10)
    assert without_flashes(events) is events


def test_lamps_that_flash_twenty_times_a_second(rng):
    """On and off, for 6 ms each: half of the windows' events are gone, the hand's other ones are all there."""
    hand = drawn(rng, 8000, 0, 200_000, (100, 80, 180, 160))
    flashes = [drawn(rng, 40_000, t, t + 6000) for t in range(5_000, 195_000, 25_000)]
    kept = without_flashes(together(hand, *flashes))
    outside = ((hand.t_us - 5_000) % 25_000 >= 6000) | (hand.t_us < 5_000)
    assert len(kept) == np.count_nonzero(outside)
