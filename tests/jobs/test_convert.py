"""`evhands convert`: nothing is lost between formats, and what was there stays when something is wrong."""

from __future__ import annotations

import pytest

from conftest import shared_path
from event_recordings import Replay, same, some_events
from evhands.events.io import open_events, write_events
from evhands.jobs.convert import convert
from evhands.types import InputError


def test_a_chain_through_every_format_loses_nothing(tmp_path) -> None:
    events = some_events(5000, start_us=10**12)
    write_events(tmp_path / "0.npz", Replay(events))
    names = ["0.npz", "1.h5", "2.aedat4", "3.csv", "4.hdf5", "5.txt", "6.npz"]
    for a, b in zip(names, names[1:]):
        said = convert(tmp_path / a, tmp_path / b)
        assert "5000 events in" in said
    assert same(open_events(tmp_path / names[-1]).read(), events)


@pytest.mark.parametrize("name", ["evt3-limb/limb.evt3.raw", "davis346-cars/sample.aedat4"])
def test_real_recordings_to_our_hdf5_and_on_to_npz_lose_no_event(name, tmp_path) -> None:
    source = shared_path(f"real/{name}")
    convert(source, tmp_path / "a.h5")
    convert(tmp_path / "a.h5", tmp_path / "a.npz")
    assert same(open_events(tmp_path / "a.npz").read(), open_events(source).read())


def test_a_source_is_not_its_own_target_and_a_target_has_a_known_suffix(tmp_path) -> None:
    path = tmp_path / "a.npz"
    write_events(path, Replay(some_events(10)))
    before = path.read_bytes()
    with pytest.raises(InputError, match="two names"):
        convert(path, path)
    with pytest.raises(InputError, match="ends in one of"):
        convert(path, tmp_path / "a.raw")
    assert path.read_bytes() == before


def test_the_size_can_be_given(tmp_path) -> None:
    (tmp_path / "a.txt").write_text("10 5 5 1\n20 6 6 0\n")
    convert(tmp_path / "a.txt", tmp_path / "a.h5", size=(640, 480))
    assert open_events(tmp_path / "a.h5").size == (640, 480)


def test_a_video_becomes_events(tmp_path) -> None:
    av = pytest.importorskip("av")
    import numpy as np

    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(6):
            image = np.full((48, 64, 3), 40, np.uint8)
            image[:, 8 * k : 8 * k + 16] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    convert(tmp_path / "v.mp4", tmp_path / "v.h5")
    events = open_events(tmp_path / "v.h5").read()
    assert events.size == (64, 48)
    assert len(events) > 1000
    assert (np.diff(events.t_us) >= 0).all()
