"""Laws of items: where windows end, what they hold, and what an epoch is a function of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evhands.data.cache import CachedRecording
from evhands.data.items import (
    EvaluationConfig,
    Items,
    SplitConfig,
    WindowConfig,
    evaluation_items,
    kept_labels,
    semi_supervised_items,
    split_by_subject,
    supervised_items,
    whole_us,
)
from evhands.types import InputError
from hand_recordings import cached_hand

CONFIG = WindowConfig()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> list[CachedRecording]:
    """Of labels at 15 a second, of which the first lacks two, and at 30."""
    folder = tmp_path_factory.mktemp("hands")
    return [
        cached_hand(folder, 1, leave_out=(14, 20), lens=False),
        cached_hand(folder, 2, rate_hz=30, lens=False),
        cached_hand(folder, 3, seconds=3, lens=False, subject="7"),
    ]


def _same(a: Items, b: Items) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(vars(a).values(), vars(b).values()))


def _label_times(items: Items, recordings: list[CachedRecording]) -> np.ndarray:
    """Times after the start of the labels (n, t), NaN without one."""
    times = np.full(items.label.shape, np.nan)
    for i, k in zip(*np.nonzero(items.label >= 0)):
        recording = recordings[items.recording[i]]
        times[i, k] = recording.labels.t_us[items.label[i, k]] - recording.start_us
    return times


@pytest.mark.parametrize("kind", ["supervised", "semi", "evaluation"])
def test_windows_are_half_open_and_hold_every_event_once(recordings, kind):
    made = {
        "supervised": lambda: supervised_items(recordings, CONFIG),
        "semi": lambda: semi_supervised_items(recordings, CONFIG, seed=0, epoch=3),
        "evaluation": lambda: evaluation_items(recordings),
    }
    items = made[kind]()
    assert len(items) > 20
    for i in range(len(items)):
        recording = recordings[items.recording[i]]
        edges = whole_us(items.edges_us[i], recording.start_us)
        for k in range(CONFIG.windows):
            inside = (recording.t_us >= edges[k]) & (recording.t_us < edges[k + 1])
            assert inside.sum() == items.first[i, k + 1] - items.first[i, k]
            assert np.flatnonzero(inside)[0] == items.first[i, k]
        real = recording.t_us - recording.start_us  # whole and real edges hold the same events
        between = (real >= items.edges_us[i, 0] - 1e-6) & (real < items.edges_us[i, -1] - 1e-6)
        assert between.sum() == items.first[i, -1] - items.first[i, 0]


def test_supervised_windows_end_at_their_labels_one_length_apart(recordings):
    items = supervised_items(recordings, CONFIG)
    times = _label_times(items, recordings)
    assert np.isnan(times[:, :-3]).all() and np.isfinite(times[:, -3:]).all()
    assert np.abs(times[:, -3:] - items.edges_us[:, -3:]).max() <= 1
    np.testing.assert_allclose(np.diff(items.edges_us, axis=1), 1e6 / 15, atol=1e-6)
    assert np.diff(items.first, axis=1).min() >= CONFIG.least_events


def test_every_annotation_with_its_predecessors_makes_a_supervised_item(recordings):
    """The last one too, which the published loop misses; annotations about a gap make none (O15)."""
    items = supervised_items(recordings, CONFIG)
    for number, recording in enumerate(recordings):
        at = recording.labels.t_us
        step = 1e6 / 15
        wanted = [
            row
            for row, t in enumerate(at)
            if t - recording.start_us >= 12 * step
            and all(np.abs(at - (t - k * step)).min() <= 2 for k in range(3))
        ]  # fmt: skip
        np.testing.assert_array_equal(items.anchor[items.recording == number], wanted)


def test_a_semi_supervised_label_is_where_window_t_minus_2_ends(recordings):
    items = semi_supervised_items(recordings, CONFIG, seed=0, epoch=0)
    times = _label_times(items, recordings)
    assert (np.isfinite(times).sum(1) == 1).all() and np.isfinite(times[:, -2]).all()
    np.testing.assert_allclose(times[:, -2], items.edges_us[:, -2], atol=1e-6)
    lengths = np.diff(items.edges_us, axis=1)
    np.testing.assert_allclose(lengths, np.repeat(lengths[:, :1], 12, 1), atol=1e-5)
    assert lengths.min() >= 10_000 - 1e-5 and lengths.max() <= 100_000 + 1e-5 and np.ptp(lengths[:, 0]) > 50_000
    assert np.diff(items.first, axis=1).min() >= CONFIG.least_events_semi


def test_an_epoch_is_a_function_of_seed_epoch_and_label(recordings):
    """Whatever else is in the data set, and whichever labels are withheld."""
    both = semi_supervised_items(recordings, CONFIG, seed=0, epoch=1)
    assert _same(both, semi_supervised_items(recordings, CONFIG, seed=0, epoch=1))
    for seed, epoch in ((0, 2), (1, 1)):
        other = semi_supervised_items(recordings, CONFIG, seed=seed, epoch=epoch)
        assert not np.array_equal(both.edges_us[:9], other.edges_us[:9])
    alone = semi_supervised_items(recordings[1:2], CONFIG, seed=0, epoch=1)
    assert np.array_equal(alone.edges_us, both[both.recording == 1].edges_us)
    kept = kept_labels(recordings, 0.5, seed=0)
    few = semi_supervised_items(recordings, CONFIG, seed=0, epoch=1, kept=kept)
    chosen = np.array([kept[r][a] for r, a in zip(both.recording, both.anchor)])
    assert _same(few, both[chosen])


def test_withheld_annotations_can_make_unlabelled_items(recordings):
    kept = kept_labels(recordings, 0.2, seed=0)
    config = replace(CONFIG, unlabelled=True)
    every = semi_supervised_items(recordings, CONFIG, seed=0, epoch=0)
    some = semi_supervised_items(recordings, config, seed=0, epoch=0, kept=kept)
    assert np.array_equal(some.edges_us, every.edges_us)
    seen = np.array([kept[r][a] for r, a in zip(some.recording, some.anchor)])
    assert ((some.label >= 0).any(1) == seen).all() and 0 < seen.sum() < len(seen)


def test_a_quiet_recording_ends_without_items(tmp_path):
    """Drawing is bounded (the published one may not end, O16)."""
    quiet = cached_hand(tmp_path, 4, per_second=40)
    for items in (
        supervised_items([quiet], CONFIG),
        semi_supervised_items([quiet], CONFIG, seed=0, epoch=0),
    ):
        assert len(items) == 0 and items.label.shape == (0, 12)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.2, 0.05])
def test_the_share_of_labels_is_kept_within_one(recordings, share):
    kept = kept_labels(recordings, share, seed=3)
    counts = np.array([mask.sum() for mask in kept])
    sizes = np.array([len(recording.labels) for recording in recordings])
    assert abs(counts.sum() - share * sizes.sum()) <= 1
    assert np.abs(counts - share * sizes).max() <= 1
    assert all(np.array_equal(a, b) for a, b in zip(kept, kept_labels(recordings, share, seed=3)))
    items = supervised_items(recordings, CONFIG, kept)
    assert all(kept[r][label] for r, row in zip(items.recording, items.label) for label in row[row >= 0])
    assert (items.label >= 0).any(1).all()


def test_a_share_of_none_or_more_than_all_is_refused(recordings):
    for share in (0.0, 1.5, -0.1):
        with pytest.raises(InputError, match="share of labels"):
            kept_labels(recordings, share, seed=0)


def test_evaluation_ends_at_every_label_with_a_full_history(recordings):
    items = evaluation_items(recordings)
    labelled = items[items.label[:, -1] >= 0]
    for number in (0, 2):  # labels on the clock of the protocol
        recording = recordings[number]
        since = recording.labels.t_us - recording.start_us
        mine = labelled[labelled.recording == number]
        np.testing.assert_array_equal(mine.label[:, -1], np.flatnonzero(since > 1_200_000))
        np.testing.assert_allclose(np.diff(mine.edges_us, axis=1), 66_666, atol=1e-6)
    gaps = items[(items.recording == 0) & (items.label[:, -1] < 0)]
    assert len(gaps) == 1  # of the two left out, one lies within the history


def test_the_published_protocol_leaves_the_last_label_out(recordings):
    ours, published = (
        evaluation_items(recordings, EvaluationConfig(leave_out_last=without)) for without in (False, True)
    )
    assert len(ours) == len(published) + len(recordings)
    last = [len(recordings[r].labels) - 1 for r in ours.recording]
    assert _same(ours[ours.label[:, -1] != last], published)


def test_subjects_are_held_apart(recordings):
    parts = split_by_subject(recordings)
    assert [len(parts[name]) for name in ("train", "validation", "test")] == [2, 1, 0]
    parts = split_by_subject(recordings, SplitConfig(test=("7",), validation=("5",)))
    assert [len(parts[name]) for name in ("train", "validation", "test")] == [0, 2, 1]
    with pytest.raises(InputError, match="for tests and for validation"):
        split_by_subject(recordings, SplitConfig(test=("7",)))
    with pytest.raises(InputError, match="Found no subject in hand1"):
        split_by_subject([replace(recordings[0], tags=None)])


def test_fast_sequences_are_for_tests_alone(recordings):
    """Prepared ones hold the truth of `annotf.json`: without this they would teach poses that are for evaluation."""
    fast = [replace(r, tags=replace(r.tags, fast=True)) for r in recordings]
    parts = split_by_subject([*recordings, *fast], SplitConfig(test=("5",)))
    assert [(len(part), sum(r.tags.fast for r in part)) for part in parts.values()] == [(0, 0), (1, 0), (4, 2)]
    parts = split_by_subject([*recordings, *fast])
    assert [(len(part), sum(r.tags.fast for r in part)) for part in parts.values()] == [(2, 0), (1, 0), (0, 0)]
    parts = split_by_subject([*recordings, *fast], SplitConfig(fast=True))
    assert [(len(part), sum(r.tags.fast for r in part)) for part in parts.values()] == [(4, 2), (2, 1), (0, 0)]
