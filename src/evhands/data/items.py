"""Which items there are: sequences of consecutive windows, as arrays; nothing here is a loop over windows.

Windows are half-open, and every window's end is the next one's start. Edges are real numbers of microseconds after the
first event of the recording: 1/15 s is no whole number of them, and float64 holds 1e-6 us for hours.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from evhands.data.cache import CachedRecording
from evhands.evrealhands_layout import TEST_SUBJECTS
from evhands.types import InputError


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """Lengths in microseconds. The defaults are the method's (specification, section 2).

    windows, outputs: T and A. window_us: of supervised items, 1/15 s. least_events, least_events_semi: items with a
    window of fewer are left out. tolerance_us: how far a label may lie from the end of its window. Of semi-supervised
    items a length is window_us + N(0, spread_us) within [shortest_us, longest_us], redrawn at most `redraws` times.
    unlabelled: semi-supervised items about annotations whose label is withheld (see `kept_labels`) too, unlabelled.
    """

    windows: int = 12
    outputs: int = 3
    window_us: float = 1e6 / 15
    least_events: int = 100
    least_events_semi: int = 150
    tolerance_us: int = 2
    spread_us: float = 50_000.0
    shortest_us: float = 10_000.0
    longest_us: float = 100_000.0
    redraws: int = 8
    unlabelled: bool = False


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Windows that end at the times of a clock that begins with the first label: of `rate_hz` and `window_us`, for
    fast sequences of `fast_rate_hz` and `fast_window_us`; only times with a history of more than history_us.

    leave_out_last: not the time of the last label, as published (O17).
    """

    windows: int = 12
    rate_hz: float = 15.0
    window_us: int = 66_666
    fast_rate_hz: float = 120.0
    fast_window_us: int = 5_000
    history_us: int = 12 * 100_000
    leave_out_last: bool = False


@dataclass(frozen=True)
class Items:
    """n items of T windows. recording: which one; anchor: the row of the label that an item is made for (-1: of none).

    edges_us: microseconds after the first event of the recording. first: index of the first event at or after an edge.
    label: row of the label at the end of a window, -1 for none.
    """

    recording: Int32[np.ndarray, " n"]
    anchor: Int32[np.ndarray, " n"]
    edges_us: Float64[np.ndarray, "n t_plus_1"]
    first: Int64[np.ndarray, "n t_plus_1"]
    label: Int32[np.ndarray, "n t"]

    def __len__(self) -> int:
        return len(self.recording)

    def __getitem__(self, index: np.ndarray | slice) -> Items:
        """The items that an index array, a mask or a slice selects."""
        return Items(*(column[index] for column in vars(self).values()))

    @staticmethod
    def concatenate(parts: Sequence[Items], windows: int = 12) -> Items:
        """All items of all parts; `windows` is needed only where there are no parts."""
        empty = _no_items(parts[0].label.shape[1] if parts else windows)
        names = list(vars(empty))
        return Items(*(np.concatenate([getattr(part, name) for part in [empty, *parts]]) for name in names))


def _no_items(windows: int) -> Items:
    none, edges = np.zeros(0, np.int32), np.zeros((0, windows + 1))
    return Items(none, none, edges, edges.astype(np.int64), np.zeros((0, windows), np.int32))


def _made(recording: CachedRecording, number: int, anchor: np.ndarray, edges: np.ndarray, label: np.ndarray) -> Items:
    whose = np.full(len(anchor), number, np.int32)
    first = recording.first_at(whole_us(edges, recording.start_us))
    return Items(whose, anchor.astype(np.int32), edges, first, label.astype(np.int32))


def whole_us(edges_us: Float64[np.ndarray, "*b"], start_us: int) -> Int64[np.ndarray, "*b"]:
    """Edges as whole microseconds on the clock of the events: a window between them holds the same events."""
    return start_us + np.ceil(edges_us - 1e-6).astype(np.int64)  # sums of thirds are not exact


# --- training -------------------------------------------------------------------------------------------------------


def supervised_items(
    recordings: Sequence[CachedRecording], config: WindowConfig, kept: Sequence[np.ndarray] | None = None
) -> Items:
    """Items whose last A windows end at annotations: one for each annotation whose A - 1 predecessors lie one window
    length apart (whatever lies between), with a label at those of the last A that are `kept` (m,) (at one at least).

    Gaps between equally spaced annotations, which the published code takes for window lengths (O15), make no items.
    """
    parts = []
    for number, recording in enumerate(recordings):
        labels = recording.labels
        rows = np.flatnonzero(labels.posed)
        at = labels.t_us[rows] - recording.start_us
        back = np.arange(config.outputs)[::-1] * config.window_us
        wanted = at[:, None] - back
        near = _nearest(at, wanted)
        spaced = (np.abs(at[near] - wanted) <= config.tolerance_us).all(1) if len(at) else np.zeros(0, bool)
        near, at = rows[near[spaced]], at[spaced]
        edges = at[:, None] - np.arange(config.windows + 1)[::-1] * config.window_us
        label = np.full((len(at), config.windows), -1)
        label[:, -config.outputs :] = near if kept is None else np.where(kept[number][near], near, -1)
        items = _made(recording, number, near[:, -1], edges, label)
        parts.append(items[_usable(items, recording, config.least_events) & (items.label >= 0).any(1)])
    return Items.concatenate(parts, config.windows)


def semi_supervised_items(
    recordings: Sequence[CachedRecording],
    config: WindowConfig,
    *,
    seed: int,
    epoch: int,
    kept: Sequence[np.ndarray] | None = None,
) -> Items:
    """One item for each (kept) label, which sits at the end of window T - 2; all windows of an item have one length,
    drawn for (seed, epoch, recording, label): the same whatever else is in the data set.

    A length that leaves the recording or makes a window with too few events is drawn again, `redraws` times at most;
    then the label has no item in this epoch.
    """
    middle = config.windows - config.outputs + config.outputs // 2 + 1  # edges before and at the label
    parts = []
    for number, recording in enumerate(recordings):
        rows = np.flatnonzero(recording.labels.posed)
        has_label = np.ones(len(rows), bool) if kept is None else kept[number][rows]
        draws = config.redraws + 1
        generator = np.random.default_rng([seed, epoch, zlib.crc32(recording.folder.name.encode())])
        lengths = config.window_us + config.spread_us * generator.standard_normal((len(rows), draws))
        lengths = lengths.clip(config.shortest_us, config.longest_us)
        steps = np.arange(config.windows + 1) - middle
        at = recording.labels.t_us[rows] - recording.start_us
        edges = at[:, None, None] + lengths[..., None] * steps
        label = np.full((len(rows) * draws, config.windows), -1)
        label[:, middle - 1] = np.repeat(np.where(has_label, rows, -1), draws)
        items = _made(recording, number, np.repeat(rows, draws), edges.reshape(-1, config.windows + 1), label)
        usable = _usable(items, recording, config.least_events_semi).reshape(len(rows), draws)
        chosen = np.arange(len(rows)) * draws + (np.argmax(usable, 1) if len(rows) else 0)
        wanted = usable.any(1) & (has_label | config.unlabelled)
        parts.append(items[chosen[wanted]])
    return Items.concatenate(parts, config.windows)


def _nearest(sorted_values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Index of the value nearest to each wanted one."""
    after = np.searchsorted(sorted_values, wanted).clip(0, max(len(sorted_values) - 1, 0))
    before = (after - 1).clip(0)
    if not len(sorted_values):
        return after
    closer = np.abs(sorted_values[before] - wanted) < np.abs(sorted_values[after] - wanted)
    return np.where(closer, before, after)


def _usable(items: Items, recording: CachedRecording, least_events: int) -> Bool[np.ndarray, " n"]:
    """Items within the recording, which lasts as long as it has events or labels, with enough events in every
    window."""
    length_us = max(recording.end_us, *recording.labels.t_us[-1:]) - recording.start_us
    within = (items.edges_us[:, 0] > -1e-6) & (items.edges_us[:, -1] <= length_us)
    return within & (np.diff(items.first, axis=1) >= least_events).all(1)


# --- evaluation -----------------------------------------------------------------------------------------------------


def evaluation_items(recordings: Sequence[CachedRecording], config: EvaluationConfig = EvaluationConfig()) -> Items:
    """Items whose last window ends at every tick of the clock from the first label to the last; `label` of the last
    window is -1 at ticks without one. Windows are chained backwards; few events leave none out."""
    parts = []
    for number, recording in enumerate(recordings):
        t_us = recording.labels.t_us - recording.start_us
        if not len(t_us):
            continue
        fast = recording.tags is not None and recording.tags.fast
        period = 1e6 / (config.fast_rate_hz if fast else config.rate_hz)
        length = config.fast_window_us if fast else config.window_us
        ticks = t_us[0] + np.arange(int(np.floor((t_us[-1] + 1 - t_us[0]) / period)) + 1) * period
        if config.leave_out_last:
            ticks = ticks[ticks < t_us[-1] - 1]
        ticks = ticks[ticks > config.history_us + 0.5]  # labels are whole us
        row = _nearest(t_us, ticks)
        labelled = (np.abs(t_us[row] - ticks) <= 1) & recording.labels.located[row]
        label = np.full((len(ticks), config.windows), -1)
        label[:, -1] = np.where(labelled, row, -1)
        edges = ticks[:, None] - np.arange(config.windows + 1)[::-1] * length
        parts.append(_made(recording, number, label[:, -1], edges, label))
    return Items.concatenate(parts, config.windows)


# --- which recordings and labels ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Subjects of tests, of validation and of training: None = all others.

    fast: whether sequences that the tags call fast are trained and validated on. Those of EvRealHands have no poses for
    training; the truth in space of their `annotf.json`, which prepared recordings hold, is for evaluation alone.
    """

    test: tuple[str, ...] = TEST_SUBJECTS
    validation: tuple[str, ...] = ("7",)
    train: tuple[str, ...] | None = None
    fast: bool = False


def split_by_subject(
    recordings: Sequence[CachedRecording], config: SplitConfig = SplitConfig()
) -> dict[str, list[CachedRecording]]:
    """`train`, `validation` and `test`, by the subject that the tags name; a recording without tags is an error.

    A subject that is named for training and for one of the others is not trained on. Fast sequences are left out of
    `train` and `validation`, unless `config.fast` says otherwise.
    """
    if both := set(config.test) & set(config.validation):
        raise InputError(f"Subjects {sorted(both)} are for tests and for validation. Wanted each in one; choose.")
    if untold := [recording.name for recording in recordings if recording.tags is None]:
        raise InputError(
            f"Found no subject in {', '.join(untold)}. Wanted tags, by which training and tests are held apart; write "
            "the recordings with `tags`."
        )
    parts: dict[str, list[CachedRecording]] = {"train": [], "validation": [], "test": []}
    for recording in recordings:
        subject = "" if recording.tags is None else recording.tags.subject
        where = "test" if subject in config.test else "validation" if subject in config.validation else "train"
        fast = recording.tags is not None and recording.tags.fast
        chosen = where != "train" or config.train is None or subject in config.train
        if chosen and (where == "test" or config.fast or not fast):
            parts[where].append(recording)
    return parts


def kept_labels(recordings: Sequence[CachedRecording], share: float, seed: int) -> list[Bool[np.ndarray, " m"]]:
    """For each recording which labels (m,) training may see: round(share * all) of them, spread over the recordings.

    A smaller share of one seed is part of a larger one but for rounding: every recording's posed labels have a random
    order, of which the first are kept.
    """
    if not 0 < share <= 1:
        raise InputError(f"labels = {share}. Wanted the share of labels to train with, above 0 and at most 1.")
    kept, before = [], 0
    for recording in recordings:
        rows = np.flatnonzero(recording.labels.posed)
        count = round(share * (before + len(rows))) - round(share * before)
        before += len(rows)
        generator = np.random.default_rng([seed, zlib.crc32(recording.folder.name.encode())])
        mask = np.zeros(len(recording.labels), bool)
        mask[generator.permutation(rows)[:count]] = True
        kept.append(mask)
    return kept
