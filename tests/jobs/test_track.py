"""`evhands track`: what it writes, what it refuses, and that an interruption leaves nothing behind."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest

from conftest import shared_path
from evhands.geometry import default_camera
from evhands.hand.model import load_hand
from evhands.inputs import InputConfig
from evhands.jobs import track as job
from evhands.live import making
from evhands.models.checkpoint import CheckpointMeta, save_checkpoint
from evhands.models.encoder import EncoderConfig
from evhands.models.flow import FlowConfig
from evhands.models.paper import PaperConfig, PaperEstimator, PoseNetworkConfig
from evhands.models.recogniser import Recogniser, RecogniserConfig
from evhands.smoothing import KalmanConfig, SmoothingConfig
from evhands.track_files import FILES, load_track, run_track
from evhands.tracking import HandRecogniser, Tracker, TrackerConfig, track_stream
from evhands.types import Camera, Events, InputError
from seeing_models import Middle

SIZE = (120, 90)
HAND = load_hand("open")
REAL_MAKE_TRACKER = making.make_tracker


def tracker(camera: Camera | None = None) -> Tracker:
    middle = Middle()
    return Tracker(middle, middle, HAND, camera or default_camera(SIZE), TrackerConfig(smoothing=None))


def some_events(count: int = 4000, seconds: float = 0.4, size=SIZE) -> Events:
    rng = np.random.default_rng(0)
    xy = rng.normal(np.array(size) / 2, 12, (count, 2)).clip(0, np.array(size) - 1).astype(np.uint16)
    t = np.sort(rng.integers(1_000_000, 1_000_000 + int(1e6 * seconds), count))
    return Events(xy[:, 0], xy[:, 1], t, rng.random(count) < 0.5, size)


@dataclass
class Stream:
    parts: list[Events]
    size: tuple[int, int] = SIZE
    interrupt: bool = False

    def __iter__(self):
        yield from self.parts
        if self.interrupt:
            raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def _fake_networks(monkeypatch) -> None:
    def make(model, camera, hands, device, smooth="one-euro", mano=None):
        return tracker(camera)

    monkeypatch.setattr(making, "make_tracker", make)


def write_recording(path, events: Events) -> None:
    np.savez(path, x=events.x, y=events.y, t=events.t_us, p=events.p, width=events.size[0], height=events.size[1])


def test_the_command_writes_four_files_that_agree(tmp_path) -> None:
    write_recording(tmp_path / "events.npz", some_events())
    text = job.track_command(tmp_path / "events.npz", out=tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(FILES)
    track = load_track(tmp_path / "out" / "poses.npz")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    rows = (tmp_path / "out" / "poses.csv").read_text().splitlines()
    assert len(track) == summary["windows"] == len(rows) - 1 > 5
    assert summary["events"] == 4000 and "4,000 events" in text
    assert track.tracked.all() and summary["tracked_share"] == 1.0
    assert "100.0 %" in text and str(tmp_path / "out" / "overlay.mp4") in text
    assert list(track.camera.size) == summary["sensor"]


def test_from_python_nothing_is_written_unless_asked(tmp_path) -> None:
    write_recording(tmp_path / "events.npz", some_events())
    track = job.track(tmp_path / "events.npz", camera=Camera(np.diag([100.0, 100.0, 1.0]), SIZE))
    assert [p.name for p in tmp_path.iterdir()] == ["events.npz"]
    assert track.camera.K[0, 0] == 100.0 and track.joints_m.shape == (len(track), 21, 3)


def test_without_video_there_are_three_files_and_an_old_video_stays(tmp_path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "overlay.mp4").write_bytes(b"old")
    run_track(tracker(), Stream([some_events()]), model="fake", out=out, video=False)
    assert sorted(p.name for p in out.iterdir()) == sorted(FILES)
    assert (out / "overlay.mp4").read_bytes() == b"old"


def test_an_interruption_leaves_what_was_there(tmp_path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "poses.csv").write_text("mine")
    with pytest.raises(KeyboardInterrupt):
        run_track(tracker(), Stream([some_events()], interrupt=True), model="fake", out=out)
    assert [p.name for p in out.iterdir()] == ["poses.csv"] and (out / "poses.csv").read_text() == "mine"


def test_an_empty_recording_is_refused_and_writes_nothing(tmp_path) -> None:
    with pytest.raises(InputError, match="no events"):
        run_track(tracker(), Stream([Events.empty(SIZE)]), model="fake", out=tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_both_ways_gives_the_same_files_and_windows_as_one_way(tmp_path) -> None:
    write_recording(tmp_path / "events.npz", some_events())
    job.track_command(tmp_path / "events.npz", out=tmp_path / "one")
    text = job.track_command(tmp_path / "events.npz", out=tmp_path / "both", both_ways=True, jsonl=tmp_path / "lines")
    assert sorted(p.name for p in (tmp_path / "both").iterdir()) == sorted(FILES)
    one, both = (load_track(tmp_path / name / "poses.npz") for name in ("one", "both"))
    for name in ("t_us", "events", "id", "tracked"):
        np.testing.assert_array_equal(getattr(one, name), getattr(both, name))
    np.testing.assert_allclose(both.joints_m, one.joints_m, atol=1e-6)  # the stand-in sees the same hand both ways
    summary = json.loads((tmp_path / "both" / "summary.json").read_text())
    assert summary["both_ways"] and summary["events"] == 4000 and "4,000 events" in text
    assert len((tmp_path / "lines").read_text().splitlines()) == len(both)


@pytest.mark.parametrize("options", [{"live": True}, {"view": True}])
def test_both_ways_needs_the_end_of_the_recording(options, tmp_path) -> None:
    with pytest.raises(InputError, match="--both-ways"):
        job.track_command(tmp_path / "events.npz", out=tmp_path / "out", both_ways=True, **options)


def test_both_ways_of_two_hands_is_refused_before_anything_is_read(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(making, "make_tracker", lambda *_, **__: replace(tracker(), count=2))
    write_recording(tmp_path / "events.npz", some_events())
    with pytest.raises(InputError, match="--hands right, left or any"):
        job.track(tmp_path / "events.npz", both_ways=True, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_rate_sets_the_stride(tmp_path) -> None:
    write_recording(tmp_path / "events.npz", some_events())
    track = job.track(tmp_path / "events.npz", rate=100.0, camera=default_camera(SIZE))
    assert (np.diff(track.t_us) == 10_000).all()
    with pytest.raises(InputError, match="rate"):
        job.track(tmp_path / "events.npz", rate=0.0)


def test_a_calibration_of_another_sensor_is_refused(tmp_path) -> None:
    write_recording(tmp_path / "events.npz", some_events())
    (tmp_path / "calib.json").write_text(json.dumps({"K": np.eye(3).tolist(), "size": [640, 480]}))
    with pytest.raises(InputError, match="640x480"):
        job.track(tmp_path / "events.npz", camera=tmp_path / "calib.json")


@pytest.mark.parametrize("name", ["evt3-limb/limb.evt3.raw", "davis346-cars/sample.aedat4"])
def test_real_recordings_run_through(name: str, tmp_path) -> None:
    track = job.track(shared_path(f"real/{name}"))
    assert len(track) >= 1 and (np.diff(track.t_us) > 0).all()


def test_a_checkpoint_of_the_papers_network_tracks(tmp_path) -> None:
    """... in the hand model that it names, of the side asked for; the same file through the command."""
    network = PaperConfig(
        flow=FlowConfig(base_channels=4, levels=2, residual_blocks=1),
        pose=PoseNetworkConfig(encoder=EncoderConfig(channels=(4, 8), blocks=(1, 1)), recurrent_channels=8, hidden=8),
        inputs=InputConfig(size_px=32, voxel_bins=5),
    )
    estimator = PaperEstimator(network).eval().use_hand(load_hand("open"))
    save_checkpoint(tmp_path / "paper.pt", "paper", estimator, CheckpointMeta())
    made = REAL_MAKE_TRACKER(str(tmp_path / "paper.pt"), default_camera(SIZE), "left", "cpu")
    assert (made.hand.name, made.hand.side) == ("open", "left")
    events = some_events()
    results = [result for _, result in track_stream(made, Stream([events]))]
    assert len(results) > 3 and all(result.events > 0 for result in results[:3])


def test_a_checkpoint_of_mano_asks_for_its_file(tmp_path) -> None:
    estimator = PaperEstimator(PaperConfig(flow=FlowConfig(base_channels=4, levels=2, residual_blocks=1),
                                           hand_model="mano"))  # fmt: skip
    save_checkpoint(tmp_path / "paper.pt", "paper", estimator, CheckpointMeta())
    with pytest.raises(InputError, match="MANO"):
        REAL_MAKE_TRACKER(str(tmp_path / "paper.pt"), default_camera(SIZE), "right", "cpu")


@pytest.mark.parametrize("hands", ["any", "both"])
def test_sides_need_a_recogniser(hands) -> None:
    with pytest.raises(InputError, match=f"--hands {hands}.*recogniser"):
        making.with_hands(tracker(), None, hands)
    assert making.with_hands(tracker(), None, "left").hand.side == "left"
    assert making.with_hands(tracker(), None, "auto").hand.side == "right"


def test_with_a_recogniser_hands_say_what_is_found() -> None:
    recogniser = Recogniser(RecogniserConfig()).eval()
    choices = ("right", "left", "any", "both", "auto")
    made = {hands: making.with_hands(tracker(), recogniser, hands) for hands in choices}
    assert [t.finds_sides for t in made.values()] == [False, False, True, True, True]
    assert [t.count for t in made.values()] == [1, 1, 1, 2, 2]
    assert all(t.recogniser is not None and isinstance(t.recogniser, HandRecogniser) for t in made.values())
    assert made["left"].hand.side == made["both"].mirrored.side == "left"


def test_the_filter_is_named_and_true_and_false_still_say_what_they_said() -> None:
    kinds = [type(making.tracker_config(smooth).smoothing) for smooth in ("one-euro", "kalman", "off", True, False)]
    assert kinds == [SmoothingConfig, KalmanConfig, type(None), SmoothingConfig, type(None)]
