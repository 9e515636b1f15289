"""Laws of what `paper` remembers: kept halves = twelve windows anew, the carried state, crops that move."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from evhands.geometry import crop_camera, default_camera
from evhands.inputs import InputConfig, crop_inputs
from evhands.models.encoder import EncoderConfig
from evhands.models.flow import FlowConfig
from evhands.models.paper import PaperConfig, PaperEstimator, PoseNetworkConfig
from evhands.models.recurrent import input_halves, recurrent_cell, run_halves, run_last, run_sequence, spans
from evhands.types import Events, EventWindow, HandPose

TINY = PaperConfig(
    flow=FlowConfig(base_channels=4, levels=2, residual_blocks=1),
    pose=PoseNetworkConfig(encoder=EncoderConfig(channels=(4, 8), blocks=(1, 1)), recurrent_channels=8, hidden=8),
    inputs=InputConfig(size_px=32, voxel_bins=5),
)
CAMERA = default_camera((64, 48))
PARTS = ("orientation", "wrist", "joints", "shape")


def _estimator(config: PaperConfig = TINY) -> PaperEstimator:
    """Random weights, norms that do something, and an update gate so nearly closed that old windows are felt."""
    torch.manual_seed(0)
    estimator = PaperEstimator(config).eval()
    generator = torch.Generator().manual_seed(1)
    for name, buffer in estimator.named_buffers():
        if buffer.is_floating_point():  # variances must be positive; means so small that ReLUs stay alive
            low, high = (0.02, 0.1) if name.endswith("running_var") else (-0.1, 0.1)
            buffer.uniform_(low, high, generator=generator)
    with torch.no_grad():
        estimator.pose.recurrent.update.weight.mul_(0.1)
        estimator.pose.recurrent.update.bias.fill_(-2.0)
    return estimator


def _windows(count: int, empty: tuple[int, ...] = ()) -> list[EventWindow]:
    rng, length = np.random.default_rng(3), 66_667
    windows = []
    for k in range(count):
        n = 0 if k in empty else 300
        x, y = rng.integers(0, 64, n).astype(np.uint16), rng.integers(0, 48, n).astype(np.uint16)
        t = np.sort(rng.integers(k * length, (k + 1) * length, n))
        windows.append(EventWindow(Events(x, y, t, rng.random(n) < 0.5, (64, 48)), k * length, (k + 1) * length))
    return windows


def _crops(count: int, moving: bool):
    places = [(30.0 + 1.5 * k * moving, 22.0 + k % 3 * moving, 30.0 + k * moving) for k in range(count)]
    return [crop_camera(CAMERA, np.array(place[:2]), place[2], 32) for place in places]


def _twelve_anew(estimator: PaperEstimator, windows, crops) -> list[HandPose]:
    """The published way: for every window the last twelve, each in its own crop, as one sequence from zeros."""
    carried, poses = estimator.with_history("carried"), []
    for end in range(1, len(windows) + 1):
        last = slice(max(0, end - 12), end)
        images = crop_inputs(windows[last], CAMERA, crops[last], TINY.inputs)
        with torch.no_grad():
            prediction, _ = carried({name: torch.from_numpy(image)[None] for name, image in images.items()}, None)
        values = {part: getattr(prediction.pose, part)[0, -1].numpy() for part in PARTS}
        poses.append(estimator.to_camera(HandPose("right", **values), crops[end - 1], CAMERA))
    return poses


@pytest.mark.parametrize("history", ["exact", "anew"])
@pytest.mark.parametrize("moving", [False, True], ids=["one crop", "moving crops"])
@pytest.mark.parametrize("config", [TINY, replace(TINY, flow=None)], ids=["flow", "no flow"])
def test_one_window_a_call_equals_twelve_windows_anew(history, moving, config):
    """From the first window on, over more than twice the history, with windows that hold no event."""
    estimator = _estimator(config).with_history(history)
    windows, crops = _windows(27, empty=(0, 5, 13, 14)), _crops(27, moving)
    wanted, state = _twelve_anew(estimator, windows, crops), estimator.initial_state(1)
    for k, (window, crop) in enumerate(zip(windows, crops)):
        prediction, state = estimator.predict(window, CAMERA, crop, state)
        for part in PARTS:
            np.testing.assert_allclose(
                getattr(prediction.pose, part), getattr(wanted[k], part), atol=1e-5, rtol=0, err_msg=f"{part}, {k}"
            )


@pytest.mark.slow
def test_the_paper_s_sizes_equal_twelve_windows_anew():
    torch.manual_seed(0)
    exact = PaperEstimator(PaperConfig()).eval()
    generator = torch.Generator().manual_seed(1)
    images = {"lnes": torch.rand(1, 13, 2, 128, 128, generator=generator)}
    images["voxel"] = torch.randn(1, 13, 5, 128, 128, generator=generator)
    with torch.no_grad():
        whole, _ = exact.with_history("carried")({name: image[:, 1:] for name, image in images.items()}, None)
        state = exact.for_inference().initial_state(1)
        for k in range(13):
            prediction, state = exact({name: image[:, k] for name, image in images.items()}, state)
    for part in PARTS:
        torch.testing.assert_close(getattr(prediction.pose, part), getattr(whole.pose, part)[:, -1], atol=1e-5, rtol=0)


def test_the_twelfth_window_back_is_felt_and_the_thirteenth_is_not():
    """Else the law above could hold for a network that forgets at once."""
    estimator = _estimator().with_history("exact")
    images = torch.rand(1, 13, 2, 32, 32, generator=torch.Generator().manual_seed(4))
    voxel = torch.zeros(1, 13, 5, 32, 32)
    with torch.no_grad():
        plain, _ = estimator({"lnes": images, "voxel": voxel})
        changes = []
        for k in (0, 1):
            other = images.clone()
            other[:, k] = 1 - other[:, k]
            changes.append((estimator({"lnes": other, "voxel": voxel})[0].pose.joints - plain.pose.joints)[:, -1])
    assert changes[0].abs().max() == 0
    assert changes[1].abs().max() > 1e-3


@pytest.mark.parametrize("history", ["exact", "anew", "carried"])
@pytest.mark.parametrize("cut", [1, 7, 12, 20])
def test_sequences_may_be_cut_anywhere(history, cut):
    estimator = _estimator().with_history(history)
    generator = torch.Generator().manual_seed(5)
    inputs = {"lnes": torch.rand(2, 26, 2, 32, 32, generator=generator)}
    inputs["voxel"] = torch.randn(2, 26, 5, 32, 32, generator=generator)
    with torch.no_grad():
        whole, last = estimator(inputs)
        _, state = estimator({name: image[:, :cut] for name, image in inputs.items()})
        before = [part.clone() for part in state]
        rest, end = estimator({name: image[:, cut:] for name, image in inputs.items()}, state)
    torch.testing.assert_close(list(state), before, rtol=0, atol=0)  # nothing writes into a state
    torch.testing.assert_close(end, last)
    for part in PARTS:
        torch.testing.assert_close(getattr(rest.pose, part), getattr(whole.pose, part)[:, cut:])
    torch.testing.assert_close(rest.flow, whole.flow[:, cut:])


def test_all_ways_are_one_until_twelve_windows_and_carried_goes_on():
    generator = torch.Generator().manual_seed(6)
    inputs = {"lnes": torch.rand(1, 14, 2, 32, 32, generator=generator), "voxel": torch.zeros(1, 14, 5, 32, 32)}
    estimator = _estimator()
    with torch.no_grad():
        joints = {way: estimator.with_history(way)(inputs)[0].pose.joints for way in ("exact", "anew", "carried")}
    torch.testing.assert_close(joints["exact"], joints["anew"])
    torch.testing.assert_close(joints["exact"][:, :12], joints["carried"][:, :12])
    assert (joints["exact"] - joints["carried"])[:, 12:].abs().max() > 1e-3


def test_what_is_kept_does_not_grow():
    estimator = _estimator().with_history("exact")
    state = estimator.initial_state(1)
    inputs = {"lnes": torch.rand(1, 2, 32, 32), "voxel": torch.zeros(1, 5, 32, 32)}
    with torch.no_grad():
        for k in range(15):
            _, state = estimator(inputs, state)
            assert state[0].shape == (1, min(k + 1, 11), 24, 2, 2)
            assert state[0].untyped_storage().nbytes() <= 12 * state[0][:, 0].nbytes  # nor does what it is a view of


def test_weights_laid_out_for_inference_say_the_same():
    inputs = {"lnes": torch.rand(1, 3, 2, 32, 32), "voxel": torch.randn(1, 3, 5, 32, 32)}
    with torch.no_grad():
        plain, _ = _estimator()(inputs)
        laid, _ = _estimator().for_inference()(inputs)
    for part in PARTS:
        torch.testing.assert_close(getattr(laid.pose, part), getattr(plain.pose, part))


@pytest.mark.parametrize("name", ["gru", "lstm"])
@pytest.mark.parametrize("side", [1, 2, 5])
def test_halves_of_the_gates_add_up_to_the_convolutions(name, side):
    torch.manual_seed(1)
    cell, x = recurrent_cell(name, 3, 4).train(), torch.randn(2, 6, 3, side, side)
    with torch.no_grad():
        whole, last = run_sequence(cell, x, None)  # in training mode: convolutions of both together
        outputs, state = run_halves(cell, input_halves(cell, x), None)
    torch.testing.assert_close(outputs, whole)
    torch.testing.assert_close(state, last)


@pytest.mark.parametrize(("past", "new"), [(0, 1), (0, 4), (2, 1), (3, 5), (0, 9)])
def test_every_new_window_has_its_own_run(past, new):
    """The spans are the windows' last four, in order, where a run's earlier outputs stand for shorter histories."""
    histories = []
    for span, count in spans(past, new, 4):
        histories += [(span.start, span.stop - count + k + 1) for k in range(count)]
    assert histories == [(max(0, end - 4), end) for end in range(past + 1, past + new + 1)]


def test_of_more_kept_than_needed_only_the_last_count():
    torch.manual_seed(1)
    cell, x = recurrent_cell("gru", 3, 4).eval(), torch.randn(1, 6, 3, 2, 2)
    _, kept = run_last(cell, x[:, :5], None, 3)
    assert kept.shape[1] == 2
    output, _ = run_last(cell, x[:, 5:], kept, 3)
    torch.testing.assert_close(output[:, -1], run_sequence(cell, x[:, 3:], None)[0][:, -1])
