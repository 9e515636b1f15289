"""`evhands train` on recordings, through the command line, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from evhands.cli import main
from evhands.models.checkpoint import ASSETS, read_checkpoint
from hand_recordings import write_hand

TINY = {
    "batch": 2,
    "micro_batch": 1,
    "model.flow": {"bins": 3, "base_channels": 4, "levels": 2, "residual_blocks": 1, "range_px": 4.0},
    "model.pose": {"encoder": {"channels": [8, 16], "blocks": [1, 1]}, "recurrent_channels": 8, "hidden": 16},
    "model.inputs": {"size_px": 32, "voxel_bins": 3},
    "windows.windows": 3,
    "evaluation": {"windows": 3, "history_us": 250_000},
}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders of recordings of two subjects."""
    for folder, name, seed, subject in (("one", "a.h5", 1, "5"), ("two", "b.h5", 2, "7")):
        (tmp_path / folder).mkdir()
        write_hand(tmp_path / folder / name, seed, seconds=0.7, subject=subject)
    return tmp_path / "one", tmp_path / "two"


def fails(capsys, *arguments: object) -> str:
    assert main(["train", *map(str, arguments)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("evhands train: error: ")
    return lines[0]


def test_one_stage_after_the_other_from_yaml_and_flags(folders, tmp_path):
    """Two --data folders, --from a checkpoint, a field by flag and all others from a file."""
    one, two = folders
    yaml = tmp_path / "tiny.yaml"
    yaml.write_text(json.dumps({"settings": TINY, "steps": 9}))
    common = ["--config", str(yaml), "--data", str(one), "--data", str(two), "--cache", str(tmp_path / "cache"),
              "--device", "cpu", "--steps", "1", "--settings.validate_every", "1"]  # fmt: skip
    assert main(["train", str(tmp_path / "flow"), "--recipe", "flow", *common]) == 0
    start = tmp_path / "flow" / "best.pt"
    assert main(["train", str(tmp_path / "sup"), "--recipe", "supervised", "--from", str(start), *common]) == 0
    checkpoint = read_checkpoint(tmp_path / "sup" / "model.pt", wanted="paper")
    assert checkpoint.meta.data["step"] == 1 and checkpoint.meta.figures["mpjpe_mm"] > 0
    flow = read_checkpoint(start).model.state_dict()
    for name, value in checkpoint.model.state_dict().items():
        if name.startswith("flow."):
            assert (value == flow[name]).all(), name


def test_what_cannot_be_trained_is_one_paragraph(folders, tmp_path, capsys):
    one, two = folders
    out, small = tmp_path / "run", ASSETS / "small.pt"
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "bad.h5").write_bytes(b"no recording")
    (tmp_path / "clips" / "train").mkdir(parents=True)
    np.save(tmp_path / "clips" / "train" / "shard-00000.npy", np.zeros(1))
    flow = ("--recipe", "flow", "--data")
    assert "empty" in fails(capsys, out, *flow, tmp_path / "empty")
    assert "bad.h5" in fails(capsys, out, *flow, tmp_path / "broken")
    assert "shards" in fails(capsys, out, *flow, tmp_path / "clips")
    assert "subjects" in fails(capsys, out, *flow, one)
    assert "windows.window_us" in fails(capsys, out, *flow, one, "--data", two)  # too short for twelve windows
    assert "'small'" in fails(capsys, out, "--recipe", "semi", "--data", one, "--from", small)
    assert "--from" in fails(capsys, out, "--recipe", "semi", "--data", one)
    assert "recordings" in fails(capsys, out, "--recipe", "flow")
    assert "flow" in fails(capsys, out, "--data", one)
    assert "labels" in fails(capsys, out, "--data", one, "--labels", "0.1")
    assert "micro" in fails(capsys, out, *flow, one, "--settings.micro_bach", "2")
    assert not (out / "last.pt").exists()


def test_published_files_are_a_recipe(folders, tmp_path, capsys):
    """A stage from YAML files of the published kind, flags over them; what they cannot say here is refused by name."""
    one, two = folders
    first, second = tmp_path / "train.yml", tmp_path / "merge.yml"
    first.write_text("data: {data_dir: nowhere, val_subject: [7], train_subject: [5], eval_subject: [1]}\n"
                     "method: {flow: {train: true, fixed: false}, optimizers: {flow_encoder: {lr: 1e-4}}}\n"
                     "preprocess: {batch_size: 16, num_workers: 8}\nloss: {flow: {weight: 10.0}}\n")  # fmt: skip
    second.write_text("method: {optimizers: {flow_encoder: {lr: 2e-4}}}\n")
    yaml = tmp_path / "tiny.yaml"
    yaml.write_text(json.dumps({"settings": TINY}))
    published = ["--published", str(first), str(second)]
    assert main(["train", str(tmp_path / "run"), *published, "--config", str(yaml), "--data", str(one), "--data",
                 str(two), "--cache", str(tmp_path / "cache"), "--device", "cpu", "--steps", "1"]) == 0  # fmt: skip
    told = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (told["recipe"], told["learning_rate"], told["batch"], told["split"]["test"]) == ("flow", 2e-4, 2, ["1"])
    assert "Without effect: preprocess.num_workers (" in capsys.readouterr().out
    assert "'flow'" in fails(capsys, tmp_path / "other", *published, "--recipe", "semi")
    second.write_text("preprocess: {repre: ECI}\n")
    assert "preprocess.repre" in fails(capsys, tmp_path / "other", *published)
    second.write_text("exper: {mode: eval}\n")
    assert "exper.mode" in fails(capsys, tmp_path / "other", *published)
