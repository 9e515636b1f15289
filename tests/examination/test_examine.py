"""What is wrong with a data set is found and named, and nothing is found in a sound one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from evhands.data.evrealhands import prepare_sequence
from evhands.examination import KINDS, Examined, examine, examine_index
from evhands.types import InputError
from hand.test_mano import made_up_mano, save
from small_layout import FAULTS, SEQUENCES, edit, planted, write_small_layout


@pytest.fixture(name="data", scope="session")
def _data(tmp_path_factory) -> Path:
    return write_small_layout(tmp_path_factory.mktemp("data"))


@pytest.fixture(name="prepared", scope="session")
def _prepared(data: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    for name in SEQUENCES:
        prepare_sequence(data / name, folder / f"{name}.h5")
    return folder


def kinds(examined: Examined) -> set[str]:
    assert {finding.kind for finding in examined.findings} <= KINDS.keys()
    return {finding.kind for finding in examined.findings}


def test_a_clean_data_set_gives_no_finding(data: Path, prepared: Path) -> None:
    examined = [examine(data / name) for name in SEQUENCES]
    for one, (side, fast) in zip(examined, SEQUENCES.values()):
        assert one.findings == () and one.not_examined == (), one
        assert (one.side, one.bucket == "fast", one.labels, one.missing_labels) == (side, fast, 24, 0)
        assert abs(one.offset_ms) < 4 and one.residual_mm < 0.01
        assert one.tile.shape == (260, 346, 3) and one.tile.std() > 5
    assert examine_index(data, examined) == []
    for name, one in zip(SEQUENCES, examined):
        again = examine(prepared / f"{name}.h5")
        assert again == replace(one, name=name, events=again.events, seconds=again.seconds, rate_hz=again.rate_hz)


@pytest.mark.parametrize("name", FAULTS)
def test_each_planted_fault_is_named(data: Path, tmp_path: Path, name: str) -> None:
    found = examine(planted(data, tmp_path, name))
    assert kinds(found) == {FAULTS[name][1]}, found.findings
    said = {
        "clock": "later than the events", "not finite": "3d_joints.7", "repeated id": "manos.5", "camera": "640x480",
        "units": "millimetres for metres", "finger order": "the index stands where the mesh has the ring",
        "axes": "(y, x, z)", "missing frames": "2 labels", "boxes": "5 of 24", "time order": "0.300 s",
    }  # fmt: skip
    assert said.get(FAULTS[name][1], "") in " ".join(finding.text for finding in found.findings)


def test_the_clock_is_told_to_the_millisecond(data: Path, tmp_path: Path) -> None:
    before = examine(data / "0").offset_ms
    for shift_ms in (-60, 45):
        folder = tmp_path / str(shift_ms) / "0"
        shutil.copytree(data / "0", folder)
        edit(folder, lambda content, shift_ms=shift_ms: content.update(
            delta_time=content["delta_time"] + 1000 * shift_ms))  # fmt: skip
        found = examine(folder)
        assert abs(found.offset_ms - before - shift_ms) < 3
        assert kinds(found) == {"clock"}


def _change(name: str, function):
    def plant(file: h5py.File) -> None:
        file[name][...] = function(file[name][()])

    return plant


def _side(file: h5py.File) -> None:
    file["poses"].attrs["side"] = "left"


def _one_nan(values: np.ndarray) -> np.ndarray:
    values[3, 2, 1] = np.nan
    return values


def _two_at_once(t_us: np.ndarray) -> np.ndarray:
    t_us[5] = t_us[4]
    return t_us


IN_RECORDINGS = {
    "earlier": ("clock", _change("poses/t_us", lambda t_us: t_us - 30_000)),
    "other side": ("handedness", _side),
    "millimetres": ("units", _change("joints_m", lambda joints: joints * 1000)),
    "turned": ("axes", _change("joints_m", lambda joints: joints * [1, -1, 1])),
    "not finite": ("not finite", _change("joints_m", _one_nan)),
    "boxes": ("boxes", _change("boxes_px", lambda boxes: boxes - 500)),
    "camera": ("camera", _change("camera/K", lambda K: K * [[1, 1, 0.5], [1, 1, 0.5], [1, 1, 1]])),
    "order": ("time order", _change("poses/t_us", lambda t_us: t_us[[0, 2, 1, *range(3, len(t_us))]])),
    "twice": ("repeated id", _change("poses/t_us", _two_at_once)),
    "off": ("mesh", _change("joints_m", lambda joints: joints + [0.0, 0.05, 0.0])),
    "elsewhere": ("alignment", _change("poses/wrist", lambda wrist: wrist + np.float32([0.25, 0.12, 0.0]))),
}


@pytest.mark.parametrize("name", IN_RECORDINGS)
def test_faults_of_recordings_are_named(prepared: Path, tmp_path: Path, name: str) -> None:
    wanted, plant = IN_RECORDINGS[name]
    shutil.copy(prepared / "0.h5", tmp_path / "0.h5")
    with h5py.File(tmp_path / "0.h5", "r+") as file:
        if name == "elsewhere":
            del file["joints_m"], file["boxes_px"], file["joints_px"]
        plant(file)
    found = examine(tmp_path / "0.h5")
    assert wanted in kinds(found), found.findings
    also = {"missing frames", "no events"} if name in ("order", "twice") else set()
    assert kinds(found) <= {wanted} | also, found.findings


def test_images_that_are_not_there_are_found(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "0", tmp_path / "0")
    (tmp_path / "0" / "images" / "21320028" / "image0004.jpg").unlink()
    found = examine(tmp_path / "0")
    assert kinds(found) == {"missing frames"} and "image0004.jpg" in found.findings[0].text


def test_an_index_that_says_something_else_is_found(data: Path, tmp_path: Path) -> None:
    examined = [examine(data / name) for name in ("0", "1")]
    shutil.copy(data / "id_seq_all.json", tmp_path / "id_seq_all.json")

    def change(content: dict) -> None:
        content["right"]["0"] = ["0", "0"]
        content["normal_random"]["9"] = content["normal_random"].pop("1")

    edit(tmp_path, change, "id_seq_all.json")
    found = examine_index(tmp_path, examined)
    assert [finding.kind for finding in found].count("repeated id") == 1
    texts = [finding.text for finding in found if finding.kind == "index"]
    assert any("'2', of which there is no folder" in text for text in texts)
    assert any("'1' stands under normal_random of subject 9" in text for text in texts)
    assert len(texts) == 2


def test_poses_of_mano_need_and_take_the_users_file(data: Path, tmp_path: Path) -> None:
    from evhands.hand.model import load_hand

    shutil.copytree(data / "0", tmp_path / "0")
    edit(tmp_path / "0", lambda content: content.update(hand_model="mano"))
    with pytest.raises(InputError, match="--hand MANO_RIGHT.pkl"):
        examine(tmp_path / "0")
    hand = load_hand(save(tmp_path / "MANO_RIGHT.pkl", made_up_mano()))
    found = examine(tmp_path / "0", hand=hand)  # the parameters are another hand's: its joints lie elsewhere
    assert kinds(found) & {"mesh", "handedness", "finger order", "axes"}
    right = replace(load_hand("open"), name="mano")
    assert examine(tmp_path / "0", hand=right).findings == ()
