"""`evhands info`: the figures are those of a naive count, whatever the order of the events and the length of chunks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import shared_path
from event_recordings import SIZE, Replay, some_events
from evhands.events.io import open_events, write_events
from evhands.events.io.summary import GAP_US, PEAK_US, summarise
from evhands.jobs.info import info


def csv(path: Path, t: np.ndarray, x: np.ndarray | None = None) -> Path:
    x = np.arange(len(t)) % 50 if x is None else x
    rows = "".join(f"{a},{b},{i % 40},{i % 3 == 0:d}\n" for i, (a, b) in enumerate(zip(t.tolist(), x.tolist())))
    path.write_text("# size 64x48\nt_us,x,y,p\n" + rows)
    return path


@given(
    steps=st.lists(st.integers(-30_000, 200_000), min_size=1, max_size=200),
    chunk=st.sampled_from([1, 7, 1000]),
)
def test_the_figures_are_those_of_a_naive_count(steps, chunk, tmp_path_factory) -> None:
    t = 10**7 + np.cumsum(steps)
    path = csv(tmp_path_factory.mktemp("info") / "a.csv", t)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evhands.events.io.text.CHUNK_EVENTS", chunk)
        patch.setattr("evhands.events.io.text._BLOCK_BYTES", 20 * chunk)
        s = summarise(open_events(path))
    latest = np.maximum.accumulate(t)
    late = t[1:] < latest[:-1]
    steps_up = np.diff(latest)
    assert (s.events, s.on_events, s.size) == (len(t), (len(t) + 2) // 3, SIZE)
    assert (s.start_us, s.end_us, s.duration_us) == (t.min(), t.max(), np.ptp(t))
    assert s.backward_events == late.sum()
    assert s.backward_count == (np.diff(np.r_[0, late.astype(int)]) == 1).sum()
    assert s.backward_largest_us == (latest - t).max()
    assert s.gap_count == (steps_up >= GAP_US).sum()
    assert s.gap_total_us == steps_up[steps_up >= GAP_US].sum()
    assert s.gaps == tuple((int(a), int(b)) for a, b in zip(latest, steps_up) if b >= GAP_US)
    if not late.any():
        assert s.peak_rate_hz == np.bincount(t // PEAK_US - t.min() // PEAK_US).max() * 100


def test_events_outside_are_counted_and_a_hot_pixel_found(tmp_path) -> None:
    events = some_events(3000)
    x = np.where(np.arange(3000) % 10 == 0, 70, events.x)
    s = summarise(open_events(csv(tmp_path / "a.csv", events.t_us, x)))
    assert s.outside_events == 300
    hot = some_events(3000)
    hot.x[::3], hot.y[::3] = 5, 6
    write_events(tmp_path / "hot.npz", Replay(hot))
    s = summarise(open_events(tmp_path / "hot.npz"))
    assert s.hot_pixels == 1


def test_an_empty_recording_is_described(tmp_path, capsys) -> None:
    write_events(tmp_path / "a.h5", Replay(some_events(0)))
    s = info(tmp_path / "a.h5")
    assert (s.events, s.start_us, s.duration_us, s.mean_rate_hz, s.on_share) == (0, None, 0, 0.0, 0.0)
    assert "empty" in capsys.readouterr().out


def test_json_says_the_same(tmp_path, capsys) -> None:
    write_events(tmp_path / "a.npz", Replay(some_events(1000)))
    s = info(tmp_path / "a.npz", json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["events"] == s.events == 1000
    assert found["on_share"] == s.on_share
    assert found["size"] == [64, 48]


REAL = {
    "evt3-limb/limb.evt3.raw": ["343 474", "125 183", "640x480", "2.078 s", "4 157"],
    "davis346-cars/sample.aedat4": ["6 676", "346x260", "frames", "4", "0.170 s"],
}


@pytest.mark.parametrize("name", REAL)
def test_real_recordings(name, capsys) -> None:
    info(shared_path(f"real/{name}"))
    printed = capsys.readouterr().out
    assert all(figure in printed for figure in REAL[name])


def test_a_cut_recording_is_described_with_the_warning(tmp_path, capsys) -> None:
    write_events(tmp_path / "a.aedat4", Replay(some_events(40_000)))
    (tmp_path / "cut.aedat4").write_bytes((tmp_path / "a.aedat4").read_bytes()[:250_000])
    s = info(tmp_path / "cut.aedat4")
    assert 0 < s.events < 40_000
    assert f"Read {s.events} events" in s.warnings[0]
    assert "warning" in capsys.readouterr().out
