"""Laws of the cache: it holds the recording's events and labels, is made once, and names all that cannot be read."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from event_recordings import same
from evhands.data.cache import CacheConfig, cache_recordings, sources_in
from evhands.evrealhands_layout import on_layout_clock, write_sequence
from evhands.geometry import pixels_inside, undistort_points, undistorted_camera
from evhands.recording import EventsInMemory, Recording, read_recording, write_recording
from evhands.types import InputError
from hand_recordings import SIZE, cached_hand, write_hand


def test_a_cache_gives_the_events_of_the_recording(tmp_path):
    source = write_hand(tmp_path / "a.h5", lens=False)
    cached = cache_recordings([tmp_path / "a.h5"], tmp_path / "cache")[0]
    assert same(cached.events(), source.events)
    assert cached.table is None
    assert cached.left_out == 0


@pytest.mark.parametrize("iterations", [None, 5])
def test_with_a_lens_it_gives_those_that_land_in_the_undistorted_image(tmp_path, iterations):
    source = write_hand(tmp_path / "a.h5")
    cached = cache_recordings([tmp_path / "a.h5"], tmp_path / "c", CacheConfig(undistortion_iterations=iterations))[0]
    events, lens = source.events, source.camera
    pixels = undistort_points(np.stack([events.x, events.y], -1), lens.K, lens.distortion, lens.K, iterations)
    inside = pixels_inside(pixels.astype(np.float32), SIZE)
    assert 0 < cached.left_out == (~inside).sum()
    assert same(cached.events(), events[inside])
    np.testing.assert_allclose(cached.table[cached.y, cached.x], pixels[inside], atol=1e-4)
    np.testing.assert_array_equal(cached.camera.K, undistorted_camera(lens).K)


def test_rows_against_the_width_keep_more_events_in_the_last_row(tmp_path):
    """The published test of rows against the width (O1)."""
    write_hand(tmp_path / "a.h5")
    ours, published = (
        cache_recordings([tmp_path / "a.h5"], tmp_path / "c", CacheConfig(rows_against_width=kept))[0]
        for kept in (False, True)
    )
    assert ours.left_out > published.left_out
    rows = published.table[published.y, published.x, 1]
    assert rows.max() == SIZE[1] - 1
    assert (rows == SIZE[1] - 1).sum() >= ours.left_out - published.left_out


def test_the_first_event_at_a_time_is_the_sorted_one(tmp_path):
    cached = cached_hand(tmp_path, per_second=300)  # gaps of many milliseconds
    rng = np.random.default_rng(0)
    times = rng.integers(cached.start_us - 5000, cached.end_us + 5000, 2000)
    times = np.concatenate([times, cached.t_us, cached.t_us + 1, cached.start_us + 1000 * np.arange(-3, 2300)])
    np.testing.assert_array_equal(cached.first_at(times), np.searchsorted(cached.t_us, times))


def test_it_is_made_once_and_again_for_another_source_or_setting(tmp_path):
    path, made = tmp_path / "a.h5", []
    write_hand(path)

    def cached(config: CacheConfig = CacheConfig()):
        return cache_recordings([path], tmp_path / "cache", config, progress=made.append)[0]

    first, second = cached(), cached()
    assert len(made) == 1 and first.folder == second.folder
    assert cached(CacheConfig(undistortion_iterations=5)).folder != first.folder
    write_hand(path, seed=1)
    assert cached().folder != first.folder
    assert len(made) == 3
    assert not list((tmp_path / "cache").glob(".*"))


def test_all_that_cannot_be_read_is_named_at_once(tmp_path):
    good, empty, words = tmp_path / "good.h5", tmp_path / "empty.h5", tmp_path / "words.h5"
    recording = write_hand(good)
    write_recording(empty, [], recording.camera)
    words.write_text("no recording")
    with pytest.raises(InputError) as error:
        cache_recordings([empty, good, words, tmp_path / "absent.h5"], tmp_path / "cache")
    told = str(error.value)
    assert "3 of 4" in told and all(name in told for name in ("empty.h5", "words.h5", "absent.h5"))
    assert "good.h5" not in told
    assert [path.name.split("-")[0] for path in (tmp_path / "cache").iterdir()] == ["good"]


def test_clocks_that_jump_and_labels_at_one_time_are_named(tmp_path):
    jumps, twice = tmp_path / "jumps", tmp_path / "twice.h5"
    recording = write_hand(twice)
    events, late = recording.events, recording.events.t_us.copy()
    late[-1] += 10 * 86_400_000_000
    jumping = EventsInMemory(replace(events, t_us=late))
    write_sequence(jumps, on_layout_clock(replace(recording, stream=jumping)))
    t_us = recording.pose_t_us.copy()
    t_us[4] = t_us[3]
    write_recording(twice, events, recording.camera, t_us, recording.pose, recording.joints_m)
    with pytest.raises(InputError) as error:
        cache_recordings([jumps, twice], tmp_path / "cache")
    assert "jumps: its clock runs for 10.0 days" in str(error.value)
    assert f"two labels at {t_us[3]} us" in str(error.value)
    assert not list((tmp_path / "cache").iterdir())


def test_labels_are_those_of_the_recording_in_the_undistorted_image(tmp_path):
    source = write_hand(tmp_path / "a.h5")
    labels = cache_recordings([tmp_path / "a.h5"], tmp_path / "cache")[0].labels
    for name in ("orientation", "wrist", "joints", "shape"):
        np.testing.assert_array_equal(getattr(labels, name), getattr(source.pose, name))
    np.testing.assert_array_equal(labels.joints_m, source.joints_m)
    np.testing.assert_array_equal(labels.t_us, source.pose_t_us)
    assert np.isnan(labels.joints_px).all() and labels.posed.all() and labels.located.all()


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_sequence_folder_is_cached_like_the_recording(tmp_path, side):
    source = write_hand(tmp_path / "a.h5", side=side)
    recording = on_layout_clock(read_recording(tmp_path / "a.h5"))
    write_sequence(tmp_path / "set" / "0", recording)
    paths = sources_in(tmp_path / "set")
    assert paths == [tmp_path / "set" / "0"]
    cached = cache_recordings(paths, tmp_path / "cache")[0]
    plain = cache_recordings([tmp_path / "a.h5"], tmp_path / "cache")[0]
    assert same(cached.events(), plain.events())
    np.testing.assert_allclose(cached.labels.joints_m, source.joints_m, atol=1e-6)
    np.testing.assert_allclose(cached.labels.wrist, source.pose.wrist, atol=1e-6)
    np.testing.assert_allclose(cached.labels.joints, source.pose.joints, atol=1e-6)
    assert cached.tags == source.tags


def test_sources_come_in_the_order_of_their_numbers(tmp_path):
    recording: Recording = write_hand(tmp_path / "one" / "b.h5")
    for name in ("10", "9"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "annot.json").write_text(json.dumps({}))
    assert [p.name for p in sources_in(tmp_path)] == ["b.h5", "9", "10"]
    assert sources_in(tmp_path / "one" / "b.h5") == [tmp_path / "one" / "b.h5"] and recording.pose is not None
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no recording"):
        sources_in(tmp_path / "none")
