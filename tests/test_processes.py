"""Laws of training in several processes: they do together what one does, and what cannot be shared is refused."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, multiprocessing

from evhands.data.shards import ShardConfig, row_dtype
from evhands.hand.model import load_hand
from evhands.models.checkpoint import read_checkpoint
from evhands.paper_recipes import PaperTask
from evhands.processes import DeviceConfig, Processes, processes_wanted
from evhands.recipes import small_recipe
from evhands.simulated_rows import MemoryRows
from evhands.training import Run, TrainData, begun, gradients, launched, train
from evhands.types import InputError
from hand_recordings import write_hand
from test_paper_recipes import NETWORK, config, data

BATCH = 5
"""Odd, so that one of two processes has nothing left to do at last."""
CASES = ("flow", "supervised", "semi", "small")
SMALL = replace(small_recipe(), steps=2, images=10, windows=2, bf16=False, validate_every=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recordings")
    for name, seed, subject, side in (("a", 1, "5", "right"), ("b", 2, "5", "left"), ("c", 3, "7", "right")):
        write_hand(path / f"{name}.h5", seed, seconds=0.9, subject=subject, side=side)
    return path


def in_two_processes(work, folder: Path, out: Path) -> Path:
    """What two processes that meet over gloo leave behind, each of which does work(fabric, rank, folder, out)."""
    data(folder, config("semi"))  # into the cache
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(_one_of_two, (port, work, folder, out), nprocs=2)
    return out


def _one_of_two(rank: int, port: int, work, folder: Path, out: Path) -> None:
    """Started as torchrun starts processes."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in numbers.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "test", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    fabric = launched(out, DeviceConfig(accelerator="cpu"))
    assert Processes.of(fabric) == Processes(rank, 2)
    work(fabric, rank, folder, out)


@pytest.fixture(scope="module")
def together(folder, tmp_path_factory) -> Path:
    return in_two_processes(save_gradients, folder, tmp_path_factory.mktemp("together"))


def save_gradients(fabric, rank: int, folder: Path, out: Path) -> None:
    for case in CASES:
        torch.save(_gradients(case, folder, out / case, fabric), out / f"{case}-{rank}.pt")


@pytest.fixture(scope="module")
def runs(folder, tmp_path_factory) -> Path:
    return in_two_processes(whole_and_in_parts, folder, tmp_path_factory.mktemp("runs"))


def whole_and_in_parts(fabric, rank: int, folder: Path, out: Path) -> None:
    settings = replace(config("semi"), batch=3, validate_every=1)
    train(settings, "semi", data(folder, settings), out / "whole", fabric=fabric)
    sample, calls = PaperTask.sample, []

    def interrupted(self, *arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return sample(self, *arguments)

    PaperTask.sample = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        train(settings, "semi", data(folder, settings), out / "parts", fabric=fabric)
    fabric.barrier()
    train(settings, "semi", data(folder, settings), out / "parts", fabric=fabric)
    train(SMALL, "small", clips(), out / "small-run", fabric=fabric)


def _gradients(case: str, folder: Path, out: Path, fabric) -> dict[str, Tensor]:
    """Gradients and losses of the first step of a run, batch norms in evaluation mode."""
    run = _run(case, folder, out, fabric)
    run.task.eval()
    batch, _ = run.task.sample(run.data.train, np.random.default_rng(0), None)
    told, memory = gradients(run, run.task.config, batch)
    found = {name: p.grad.clone() for name, p in run.task.model.named_parameters() if p.grad is not None}
    found |= {f"loss {name}": torch.tensor(value) for name, value in run.processes.added(told, fabric.device).items()}
    return found if memory is None else found | {"memory": memory}


def _run(case: str, folder: Path, out: Path, fabric) -> Run:
    if case == "small":
        return begun(SMALL, case, clips(), out, fabric, None, "")
    settings = replace(config(case), batch=BATCH, labels=1.0 if case == "flow" else 0.5)
    return begun(settings, case, data(folder, settings), out, fabric, None, "")


def clips() -> TrainData:
    """Clips of a hand that stands still before noise."""
    rows = np.zeros(7, row_dtype(ShardConfig(windows=4)))
    rng = np.random.default_rng(0)
    shaped = load_hand().with_shape(torch.zeros(10))
    joints = shaped.with_pose(torch.zeros(3), torch.zeros(15, 3), torch.tensor([0.05, 0, 0.5])).joints()
    rows["joints"] = joints.numpy() + rng.normal(0, 0.01, (7, 4, 21, 3))
    rows["K"] = [[300, 0, 40], [0, 300, 48], [0, 0, 1]]
    rows["lnes"] = rng.integers(0, 256, rows["lnes"].shape)
    pool = MemoryRows(rows)
    return TrainData(pool, pool, {})


@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_the_gradients_of_one_with_twice_the_batch(case, folder, together, tmp_path):
    """Labels are spread unevenly and losses are averaged over those of both; both processes hold the same sum."""
    alone = _gradients(case, folder, tmp_path, launched(tmp_path, DeviceConfig(accelerator="cpu")))
    for rank in (0, 1):
        found = torch.load(together / f"{case}-{rank}.pt")
        assert found.keys() == alone.keys() and len(found) > 10
        weights = [name for name in alone if not name.startswith(("loss ", "memory"))]
        # Lanes of `small` are divided, not whole parts dealt out: every tensor is rounded in its own way.
        rest = [[name] for name in alone if name not in weights]
        for names in [weights, *rest] if case == "small" else [[name] for name in alone]:
            one, two = (torch.cat([each[name].flatten() for name in names]) for each in (alone, found))
            assert (two - one).norm() <= 1e-6 * one.norm(), names
    assert sum(bool(value.norm() > 0) for value in alone.values()) > 10


@pytest.mark.slow
def test_two_processes_resume_bit_for_bit_and_one_of_them_writes(runs):
    """... and the figures that they shared are those of the model that was saved."""
    one, two = (read_checkpoint(runs / run / "model.pt", wanted="paper") for run in ("whole", "parts"))
    for name, value in one.model.state_dict().items():
        assert torch.equal(two.model.state_dict()[name], value), name
    assert two.meta.data["step"] == 3 and len((runs / "parts" / "log.csv").read_text().splitlines()) == 4
    assert len(list(runs.glob("events.out.tfevents*"))) == 1


@pytest.mark.slow
def test_shared_validation_is_over_all_of_it(folder, runs):
    settings = config("semi")
    found = read_checkpoint(runs / "whole" / "best.pt", wanted="paper")
    alone = PaperTask(settings).figures(found.model.eval(), data(folder, settings).held_out)
    assert alone == pytest.approx({name: found.meta.figures[name] for name in alone}, rel=1e-5)


@pytest.mark.slow
def test_a_run_of_two_goes_on_as_a_run_of_one(runs, tmp_path):
    """Weights, and the memory of the clips of both, are in what the first one saved."""
    saved = torch.load(runs / "small-run" / "last.pt", weights_only=True)
    assert len(saved["lanes"]["memory"]) == SMALL.images // SMALL.windows
    (tmp_path / "last.pt").write_bytes((runs / "small-run" / "last.pt").read_bytes())
    path = train(replace(SMALL, steps=3), "small", clips(), tmp_path, device="cpu")
    assert read_checkpoint(path, wanted="small").meta.data["step"] == 3


def test_parts_are_dealt_to_all_and_every_process_takes_equally_many():
    for count in (1, 2, 3, 4):
        for parts in range(1, 9):
            dealt = [list(Processes(rank, count).dealt(range(parts))) for rank in range(count)]
            assert sorted(part for each in dealt for part, counts in each if counts) == list(range(parts))
            assert len({len(each) for each in dealt}) == 1
            shares = (
                [range(parts)[Processes(rank, count).share(parts)] for rank in range(count)] if parts >= count else []
            )
            assert [i for share in shares for i in share] == list(range(parts)) * bool(shares)


TINY = {
    "model.flow": asdict(NETWORK.flow),
    "model.pose": asdict(NETWORK.pose),
    "model.inputs": {"size_px": NETWORK.inputs.size_px, "voxel_bins": NETWORK.inputs.voxel_bins},
    "windows.windows": 3,
    "batch": 2,
}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
SLURM = {"SLURM_NTASKS": "6", "SLURM_NNODES": "3", "SLURM_JOB_NAME": "train"}


@pytest.mark.parametrize(
    ("environment", "config", "wanted"),
    [
        ({}, DeviceConfig(), (1, 1)),
        ({}, DeviceConfig(devices=4, nodes=2), (4, 2)),
        (TORCHRUN, DeviceConfig(), (4, 2)),
        (TORCHRUN, DeviceConfig(devices=4), (4, 2)),
        (SLURM, DeviceConfig(), (2, 3)),
        (SLURM | TORCHRUN, DeviceConfig(nodes=2), (4, 2)),
    ],
)
def test_what_started_the_processes_says_how_many(environment, config, wanted, monkeypatch):
    for name in (*TORCHRUN, *SLURM):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert processes_wanted(config, os.environ) == wanted


def test_other_numbers_than_were_started_are_refused(monkeypatch):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="--devices is 8, and torchrun started 4"):
        processes_wanted(DeviceConfig(devices=8), os.environ)
    with pytest.raises(InputError, match="--nodes"):
        processes_wanted(DeviceConfig(nodes=1), os.environ)


def test_gpus_that_are_not_there_are_refused():
    if torch.cuda.is_available():
        pytest.skip("there are GPUs")
    with pytest.raises(InputError, match="--accelerator"):
        launched(Path("nowhere"), DeviceConfig(accelerator="cuda", devices=2))
    with pytest.raises(InputError, match="lanes"):
        Processes(0, 9).share(8)


@pytest.mark.slow
def test_the_command_starts_its_own_processes(folder, tmp_path):
    """`evhands train --devices 2`, and what the first process finds wrong is said once."""
    code = "import sys; from evhands.cli import main; sys.exit(main())"
    script = tmp_path / "evhands_train.py"
    script.write_text(code)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    settings = json.dumps({"settings": TINY})
    (tmp_path / "tiny.yaml").write_text(settings)

    def run(*arguments: object) -> subprocess.CompletedProcess:
        command = [sys.executable, script, "train", *arguments, "--devices", "2", "--accelerator", "cpu"]
        return subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, timeout=600)

    common = ("--recipe", "flow", "--config", tmp_path / "tiny.yaml", "--steps", "1", "--cache", tmp_path / "cache")
    done = run(tmp_path / "run", *common, "--data", folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Wrote") == 1
    told = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert told["processes"] == 2
    (tmp_path / "empty").mkdir()
    refused = run(tmp_path / "other", *common, "--data", tmp_path / "empty")
    assert refused.returncode == 2 and refused.stderr.count("error:") == 1, refused.stderr
