"""Exported files say what torch says, from window to window, and need no torch to say it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from conftest import shared_path
from evhands.events.io import open_events
from evhands.events.windows import windows_by_time
from evhands.evidence import RECOGNISER_SIZE
from evhands.geometry import crop_camera, default_camera
from evhands.hand.model import load_hand
from evhands.inputs import InputConfig, crop_inputs, mirror_images
from evhands.models.encoder import EncoderConfig
from evhands.models.estimator import mirror_inputs
from evhands.models.flow import FlowConfig
from evhands.models.paper import PaperConfig, PaperEstimator, PoseNetworkConfig
from evhands.models.published import from_published
from evhands.models.small import SmallConfig, SmallEstimator
from evhands.models.small_graph import OUTPUTS, horn_similarity, to_onnx
from evhands.runtime import ExportedDetector, ExportedRecogniser, exported
from evhands.runtime.exported import ExportedEstimator, ModelFacts, rotation_vector
from evhands.tracking import hand_joints
from evhands.types import Events, EventWindow, InputError
from published_weights import recipe_weights

onnx = pytest.importorskip("onnx", reason="onnx is not installed (the extra `export`)")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (the extra `export`)")

from evhands.cli import main  # noqa: E402
from evhands.jobs.export import facts_of, finding_networks, graph_of, hand_of, quantise, write_model  # noqa: E402
from evhands.jobs.track import track  # noqa: E402
from evhands.live.making import exported_tracker  # noqa: E402
from evhands.models.checkpoint import ASSETS, CheckpointMeta, load_model, read_checkpoint, save_checkpoint  # noqa: E402

CAMERA = default_camera((346, 260))
CROP = crop_camera(CAMERA, np.array([230.0, 90.0]), 150.0, 96)


def _estimator(**config) -> SmallEstimator:
    """Random weights with which every layer has a say, and hands at arm's length."""
    torch.manual_seed(1)
    estimator = SmallEstimator(SmallConfig(**config))
    with torch.no_grad():
        for name, value in estimator.network.named_parameters():
            if name.endswith("weight") and value.ndim > 1:
                torch.nn.init.kaiming_normal_(value)
            elif name.endswith(("outer.1.weight", "recall.out.bias")):
                torch.nn.init.normal_(value)
        torch.nn.init.normal_(estimator.network.head.weight, std=0.02)
    return estimator.eval()


def _exported(estimator: SmallEstimator, path: Path) -> ExportedEstimator:
    write_model(path, to_onnx(estimator), facts_of(estimator))
    return ExportedEstimator(path)


@pytest.fixture(scope="module", params=[{"recall": 0}, {"recall": 24}, {"flow": True}], ids=str)
def pair(request, tmp_path_factory) -> tuple[SmallEstimator, ExportedEstimator]:
    config = dict(request.param)
    if "flow" in config:
        config["inputs"] = InputConfig(voxel_bins=5)
    estimator = _estimator(**config)
    return estimator, _exported(estimator, tmp_path_factory.mktemp("exported") / "small.onnx")


@pytest.fixture(scope="module")
def exported_small(tmp_path_factory) -> Path:
    """The model that ships with evhands, with all that a tracker needs."""
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    estimator, detector = load_model("small")
    assert isinstance(estimator, SmallEstimator)
    write_model(path, to_onnx(estimator), facts_of(estimator), finding_networks(detector))
    return path


def _windows(count: int) -> list[EventWindow]:
    rng = np.random.default_rng(3)
    windows = []
    for k in range(count):
        n = 0 if k == 3 else 2000
        xy = rng.normal((230 + 4 * k, 90), 30, (n, 2)).clip(0, (345, 259)).astype(np.uint16)
        t_us = np.sort(rng.integers(k * 33_333, k * 33_333 + 66_667, n))
        events = Events(xy[:, 0].copy(), xy[:, 1].copy(), t_us, rng.random(n) < 0.5, (346, 260))
        windows.append(EventWindow(events, k * 33_333, k * 33_333 + 66_667))
    return windows


@pytest.mark.parametrize("side", ["right", "left"])
def test_five_windows_with_memory_are_those_of_torch(pair, side) -> None:
    """Joints within a tenth of a millimetre, with one of the windows empty, and the memory handed on."""
    estimator, file = pair
    hand = estimator.hand if side == "right" else estimator.hand.mirrored()
    state, own, places = estimator.initial_state(1), file.initial_state(1), []
    for window in _windows(5):
        prediction, state = estimator.predict(window, CAMERA, CROP, state, side)
        found, own = file.look(window, CAMERA, CROP, own, side)
        joints = hand_joints(hand, prediction.pose)
        assert np.linalg.norm(joints - found.joints_m, axis=-1).max() < 1e-4
        assert np.linalg.norm(hand_joints(hand, found.pose) - found.joints_m, axis=-1).max() < 1e-4
        np.testing.assert_allclose(found.confidence, prediction.confidence, atol=1e-4)
        np.testing.assert_allclose(found.joint_confidence, prediction.joint_confidence, atol=1e-4)
        np.testing.assert_allclose(own, state.numpy(), atol=1e-4)
        again, _ = file.predict(window, CAMERA, CROP, own, side)
        assert (again.pose.side, again.pose.hand_model) == (prediction.pose.side, prediction.pose.hand_model)
        places.append(found.joints_m)
    assert np.ptp(np.stack(places), axis=0).max() > 1e-3  # the windows do not all say the same


def test_openvino_says_what_onnxruntime_says(pair) -> None:
    """Joints within a tenth of a millimetre, with the memory handed on over five windows, from two threads at once."""
    pytest.importorskip("openvino")
    _, file = pair
    other = ExportedEstimator(file.path, engine="openvino")
    assert other.facts == file.facts

    def follow(estimator: ExportedEstimator) -> np.ndarray:
        state, places = estimator.initial_state(1), []
        for window in _windows(5):
            hand, state = estimator.look(window, CAMERA, CROP, state)
            places.append(hand.joints_m)
        return np.stack(places)

    wanted = follow(file)
    with ThreadPoolExecutor(2) as threads:
        for found in threads.map(follow, [other, other]):
            assert np.linalg.norm(found - wanted, axis=-1).max() < 1e-4


def test_openvino_says_what_is_wrong_with_a_file(tmp_path) -> None:
    pytest.importorskip("openvino")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match="Could not read .*broken.onnx"):
        ExportedEstimator(tmp_path / "broken.onnx", engine="openvino")


def test_a_missing_openvino_is_named(pair, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)  # an import raises
    with pytest.raises(InputError, match=r"pip install 'evhands\[openvino\]'"):
        ExportedEstimator(pair[1].path, engine="openvino")


def test_the_memory_has_a_say(pair) -> None:
    _, file = pair
    first, second = _windows(2)
    _, state = file.look(first, CAMERA, CROP, file.initial_state(1))
    later, _ = file.look(second, CAMERA, CROP, state)
    fresh, _ = file.look(second, CAMERA, CROP, file.initial_state(1))
    assert np.abs(later.joints_m - fresh.joints_m).max() > 1e-4


def test_looking_changes_neither_the_memory_nor_the_object(pair) -> None:
    _, file = pair
    window, state = _windows(1)[0], file.initial_state(1)
    first, _ = file.look(window, CAMERA, CROP, state)
    second, _ = file.look(window, CAMERA, CROP, state)
    assert not state.any() and np.array_equal(first.joints_m, second.joints_m)


@pytest.mark.parametrize("noise", [0.0, 0.3, 3.0])
def test_horn_is_umeyama(noise) -> None:
    """The products of matrices find the transform that singular values find, mirror images and noise included."""
    from evhands.models.small import _similarity

    generator = torch.Generator().manual_seed(0)
    source = torch.randn(200, 21, 3, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(200, 3, 3, generator=generator, dtype=torch.float64))[0]
    target = source @ turn.transpose(-1, -2) * 0.7 + torch.randn(200, 1, 3, generator=generator)
    target = target + noise * torch.randn(200, 21, 3, generator=generator)
    weights = torch.rand(200, 21, generator=generator, dtype=torch.float64)
    weights = weights / weights.sum(-1, keepdim=True)
    proper = torch.linalg.det(turn) > 0 if noise == 0 else torch.ones(200, dtype=torch.bool)
    for ours, theirs in zip(horn_similarity(source, target, weights), _similarity(source, target, weights)):
        torch.testing.assert_close(ours[proper].double(), theirs[proper], atol=1e-5, rtol=1e-5)


def test_rotation_vectors_are_those_of_scipy() -> None:
    rotations = Rotation.random(200, random_state=np.random.default_rng(0))
    half_turns = Rotation.from_rotvec(np.pi * np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0.8, 0]]))
    for matrix in [*rotations.as_matrix(), *half_turns.as_matrix(), np.eye(3)]:
        back = Rotation.from_rotvec(rotation_vector(matrix)).as_matrix()
        np.testing.assert_allclose(back, matrix, atol=1e-9)


def test_the_mirror_of_numpy_is_that_of_torch() -> None:
    images = crop_inputs(_windows(1), CAMERA, [CROP], InputConfig(voxel_bins=5))
    theirs = mirror_inputs({name: torch.from_numpy(value) for name, value in images.items()})
    ours = mirror_images(images)
    assert ours.keys() == theirs.keys() and all(np.array_equal(ours[n], theirs[n].numpy()) for n in ours)


def test_what_the_graph_gives_is_what_the_runtime_asks_for() -> None:
    assert exported.OUTPUTS == OUTPUTS


def test_the_metadata_survive(pair) -> None:
    estimator, file = pair
    assert file.facts == facts_of(estimator) and file.input_config == estimator.input_config
    assert ModelFacts.from_json(file.facts.to_json()) == file.facts


def test_a_file_runs_without_torch(pair, tmp_path) -> None:
    """The same joints from an interpreter that cannot import torch."""
    _, file = pair
    code = f"""
import sys
sys.modules["torch"] = None  # an import raises
import numpy as np
from evhands.geometry import crop_camera, default_camera
from evhands.runtime import ExportedEstimator
from evhands.types import Events, EventWindow
camera = default_camera((346, 260))
crop = crop_camera(camera, np.array([230.0, 90.0]), 150.0, 96)
z = np.load({str(tmp_path / "events.npz")!r})
window = EventWindow(Events(z["x"], z["y"], z["t"], z["p"], (346, 260)), 0, 66_667)
estimator = ExportedEstimator({str(tmp_path / "small.onnx")!r})
hand, _ = estimator.look(window, camera, crop, estimator.initial_state(1))
np.save({str(tmp_path / "joints.npy")!r}, hand.joints_m)
"""
    window = _windows(1)[0]
    e = window.events
    np.savez(tmp_path / "events.npz", x=e.x, y=e.y, t=e.t_us, p=e.p)
    (tmp_path / "small.onnx").write_bytes(file.path.read_bytes())
    subprocess.run([sys.executable, "-c", code], check=True)
    hand, _ = file.look(window, CAMERA, CROP, file.initial_state(1))
    np.testing.assert_allclose(np.load(tmp_path / "joints.npy"), hand.joints_m, atol=1e-6)


def test_the_tracker_runs_a_file_as_it_runs_torch(exported_small, tmp_path) -> None:
    """The first pose is torch's and the track goes where torch's goes.

    No nearer: windows are filled up to a number of events within the crop, so that a crop that lies a billionth of a
    pixel elsewhere may begin an event later. Weights changed by a millionth lead as far away (1.8 mm in the median).
    """
    ours, theirs = (
        track(ASSETS / "demo.h5", rate=5, **how) for how in ({"model": str(exported_small), "runtime": "onnx"}, {})
    )
    assert theirs.tracked.sum() > 20 and list(ours.status) == list(theirs.status)
    np.testing.assert_allclose(ours.joints_m[0], theirs.joints_m[0], atol=1e-5)
    assert np.median(np.linalg.norm(ours.joints_m - theirs.joints_m, axis=-1)) < 5e-3
    with pytest.raises(InputError, match="There is no file small"):
        track(ASSETS / "demo.h5", runtime="onnx")


def test_the_command_says_how_far_file_and_torch_are_apart(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", "small", "--to", "onnx"]) == 0
    joints = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("joints"))
    assert 0 <= float(joints.split()[1]) <= float(joints.split()[3]) < 0.1
    assert [p.name for p in tmp_path.iterdir()] == ["small.onnx"]
    assert main(["export", "detector", "--to", "onnx"]) == 2


@pytest.mark.slow
def test_int8_is_smaller_and_near(exported_small, tmp_path, capsys) -> None:
    out = tmp_path / "int8.onnx"
    assert main(["export", "small", "--int8", "--out", str(out)]) == 0
    pose = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("pose"))
    assert 0.01 < float(pose.split()[1]) < 3
    assert ExportedEstimator(out).facts.precision == "int8" and out.stat().st_size < 0.9 * exported_small.stat().st_size


def _foreign(path: Path) -> None:
    node = onnx.helper.make_node("Identity", ["a"], ["b"])
    a, b = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "ab")
    graph = onnx.helper.make_graph([node], "g", [a], [b])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))


def test_files_that_are_no_exported_model_are_refused(pair, tmp_path) -> None:
    estimator, file = pair
    path = tmp_path / "bad.onnx"
    with pytest.raises(InputError, match=r"There is no file .*bad\.onnx"):
        ExportedEstimator(path)
    whole = file.path.read_bytes()
    for content in (b"", b"no model at all", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.onnx"):
            ExportedEstimator(path)
    _foreign(path)
    with pytest.raises(InputError, match="none that this evhands exported"):
        ExportedEstimator(path)
    wrong = dataclasses.replace(facts_of(estimator), state_size=7)
    write_model(path, whole, wrong)
    with pytest.raises(InputError, match="contradicts"):
        ExportedEstimator(path)


def test_the_networks_that_find_hands_are_those_of_torch() -> None:
    """Places within a hundredth of a pixel, and the same confidences, also of a lens with distortion."""
    detector = read_checkpoint(ASSETS / "detector.pt", wanted="detector").model
    recogniser = read_checkpoint(ASSETS / "recogniser.pt", wanted="recogniser").model
    parts = finding_networks(detector)
    crop = crop_camera(CAMERA, np.array([230.0, 90.0]), 150.0, RECOGNISER_SIZE)
    own, seen = ExportedDetector(parts["detector"]), ExportedRecogniser(parts["recogniser"])
    found = 0
    for camera in (CAMERA, dataclasses.replace(CAMERA, distortion=np.array([-0.2, 0.05, 0.001, 0.001]))):
        for window in _windows(5):
            wanted, places = detector.detect(window, camera), own.detect(window, camera)
            assert len(wanted) == len(places)
            found += len(places)
            for a, b in zip(wanted, places):
                np.testing.assert_allclose(b.centre_px, a.centre_px, atol=1e-2)
                np.testing.assert_allclose([b.extent_px, b.confidence], [a.extent_px, a.confidence], rtol=1e-3)
            first, second = recogniser.recognise(window, camera, crop), seen.recognise(window, camera, crop)
            np.testing.assert_allclose(dataclasses.astuple(second), dataclasses.astuple(first), atol=1e-4)
    assert found >= 8


_WITHOUT_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError("torch is not to be imported")

sys.meta_path.insert(0, NoTorch())
from evhands.cli import main
code = main(sys.argv[1:])
assert "torch" not in sys.modules
sys.exit(code)
"""


def test_a_recording_is_tracked_without_torch_as_with_it(exported_small, tmp_path) -> None:
    """`evhands track --runtime onnx`: detector, recogniser, hand, filter, files; all of it where no torch is."""
    recording = tmp_path / "short.npz"
    events = next(iter(windows_by_time(open_events(ASSETS / "demo.h5"), 700_000, 700_000))).events
    np.savez(recording, x=events.x, y=events.y, t=events.t_us, p=events.p)
    poses = {}
    for runtime, model in (("torch", "small"), ("onnx", str(exported_small))):
        out = tmp_path / runtime
        words = ["track", str(recording), "--out", str(out), "--runtime", runtime, "--model", model, "--no-video"]
        ran = subprocess.run(
            [sys.executable, "-c", _WITHOUT_TORCH, *words] if runtime == "onnx" else
            [sys.executable, "-m", "evhands", *words], capture_output=True, text=True,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        with np.load(out / "poses.npz") as file:
            poses[runtime] = file["joints_m"]
    apart = 1000 * np.linalg.norm(poses["onnx"] - poses["torch"], axis=-1)
    assert np.isfinite(apart).sum() >= 10 * 21
    assert np.nanmedian(apart) < 3.0


def test_a_file_without_a_detector_asks_to_be_exported_again(pair, tmp_path) -> None:
    estimator, _ = pair
    write_model(tmp_path / "old.onnx", to_onnx(estimator), facts_of(estimator))
    with pytest.raises(InputError, match="export the checkpoint again"):
        exported_tracker(str(tmp_path / "old.onnx"), CAMERA, "right")


PAPER = PaperConfig(
    flow=FlowConfig(base_channels=4, levels=2, residual_blocks=1),
    pose=PoseNetworkConfig(encoder=EncoderConfig(channels=(4, 8), blocks=(1, 1)), recurrent_channels=8, hidden=8),
    history_windows=4,
)


def _paper(history: str) -> PaperEstimator:
    torch.manual_seed(2)
    return PaperEstimator(PAPER).use_hand(load_hand()).eval().with_history(history)


@pytest.mark.parametrize("history", ["exact", "carried"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_paper_in_a_file_says_what_torch_says(history, side, tmp_path) -> None:
    """From the first window on, over more windows than are kept, in crops that move; both frames of the wrist."""
    estimator, path = _paper(history), tmp_path / "paper.onnx"
    hand = hand_of(estimator, None)
    write_model(path, graph_of(estimator, hand), facts_of(estimator))
    file, model = ExportedEstimator(path), hand if side == "right" else hand.mirrored()
    state, own = estimator.initial_state(1), file.initial_state(1)
    for k, window in enumerate(_windows(7)):
        crop = crop_camera(CAMERA, np.array([220.0 + 3 * k, 90.0]), 150.0 - 2 * k, 128)
        prediction, state = estimator.predict(window, CAMERA, crop, state, side)
        found, own = file.look(window, CAMERA, crop, own, side)
        joints = hand_joints(model, prediction.pose)
        assert np.linalg.norm(joints - found.joints_m, axis=-1).max() < 1e-5
        assert np.linalg.norm(hand_joints(model, found.pose) - found.joints_m, axis=-1).max() < 1e-5
        np.testing.assert_allclose(found.pose.shape, prediction.pose.shape, atol=1e-5)


def test_paper_of_mano_asks_for_its_file(tmp_path, capsys) -> None:
    estimator = PaperEstimator(dataclasses.replace(PAPER, hand_model="mano"))
    save_checkpoint(tmp_path / "paper.pt", "paper", estimator, CheckpointMeta())
    assert main(["export", str(tmp_path / "paper.pt")]) == 2
    assert "--mano MANO_RIGHT.pkl" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["--int8", "--history", "carried"]], ids=str)
def test_the_command_exports_paper(words, tmp_path, capsys) -> None:
    save_checkpoint(tmp_path / "paper.pt", "paper", _paper("exact"), CheckpointMeta())
    assert main(["export", str(tmp_path / "paper.pt"), "--out", str(tmp_path / "paper.onnx"), *words]) == 0
    joints = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("joints"))
    assert float(joints.split()[3]) < (1000 if words else 0.01)
    assert exported_tracker(str(tmp_path / "paper.onnx"), CAMERA, "both").count == 2


@pytest.mark.slow
def test_int8_of_paper_stays_within_millimetres(tmp_path) -> None:
    """With the weights of the fixtures' recipe, on their inputs: far from the half millimetre that is wanted."""
    fixtures = shared_path("fixtures/network")
    published = from_published(recipe_weights(fixtures))
    estimator, path = published.estimator.with_history("carried"), tmp_path / "paper.onnx"
    write_model(path, graph_of(estimator, published.hand), facts_of(estimator))
    windows = []
    for name in ("0_item0", "2_item2"):
        with np.load(fixtures.parent / "dataset" / f"eval_seq{name}.npz") as item:
            lnes, voxel = item["event_encoder_repre"][-4:], item["flow_repre"][-4:]
        windows.append([{"lnes": a[None], "voxel": b[None]} for a, b in zip(lnes, voxel)])

    def joints(file: ExportedEstimator, feeds: list[dict[str, np.ndarray]] | None = None) -> np.ndarray:
        found = []
        for sequence in windows:
            state = file.initial_state(1)
            for images in sequence:
                if feeds is not None:
                    feeds.append({**images, "state": state})
                values, state = file.run(images, state)
                found.append(values["joints_m"][0])
        return np.array(found)

    feeds: list[dict[str, np.ndarray]] = []
    wanted = joints(ExportedEstimator(path), feeds)
    quantise(path, tmp_path / "int8.onnx", feeds)
    write_model(path, (tmp_path / "int8.onnx").read_bytes(), facts_of(estimator, "int8"))
    apart = 1000 * np.linalg.norm(joints(ExportedEstimator(path)) - wanted, axis=-1)
    print(f"int8 of paper: {apart.mean():.2f} mm in the mean, {apart.max():.2f} at most")
    assert 0.01 < apart.mean() < 5
