"""What a live track of several hands leaves is what a track that was kept whole would."""

from __future__ import annotations

import numpy as np

from evhands.hands import track_hands
from evhands.live.writing import TrackWriter
from evhands.track_files import COLUMNS, collect, load_track, save_track, write_csv
from test_hands import left_at, many
from test_tracking import pose_at


def test_several_hands_are_written_as_they_go(tmp_path) -> None:
    windows, tracker, _ = many([[], *[[pose_at(-0.12 + 0.002 * i), left_at(0.12)] for i in range(6)]])
    results = list(track_hands(tracker, windows))
    with TrackWriter(tmp_path / "live", tracker, "known", video=False) as sink:
        for window, hands in results:
            sink(window, hands)
        sink.finish({})
    whole = collect([hand for _, hands in results for hand in hands], tracker, "known")
    save_track(whole, tmp_path / "poses.npz")
    write_csv(whole, tmp_path / "poses.csv")
    live = load_track(tmp_path / "live" / "poses.npz")
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(live, name), getattr(load_track(tmp_path / "poses.npz"), name))
    assert live.side == whole.side == "both"
    assert (tmp_path / "live" / "poses.csv").read_text() == (tmp_path / "poses.csv").read_text()
