"""The processes of a training: how many there are, which one this is, and how they share work and agree.

Fabric starts them (`--devices`), or torchrun or SLURM has. All take every step together. Each works out by itself what
the whole batch is and takes its share, so that a run does not depend on how many there are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.fabric.strategies import DDPStrategy
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import distributed, nn

from evhands.types import InputError

T = TypeVar("T")
PATIENCE = timedelta(hours=6)
"""How long processes wait for each other: one of them may be reading a whole data set."""


@dataclass(frozen=True, kw_only=True)
class DeviceConfig:
    """Where a training runs. devices: processes a node, each with a GPU of its own where it has GPUs; None = what
    torchrun or SLURM started, else one."""

    accelerator: str = "auto"
    devices: int | None = None
    nodes: int | None = None
    strategy: Literal["auto", "ddp"] = "auto"


def launch(config: DeviceConfig = DeviceConfig(), loggers: Sequence[Any] = ()) -> Fabric:
    """The processes, running: where nobody has started them, this starts the command anew in further ones.

    InputError where the machine, torchrun or SLURM does not have what is wanted.
    """
    devices, nodes = processes_wanted(config, os.environ)
    several = devices * nodes > 1
    # Batch norms keep the running means of their own process; those of the first one are validated and saved.
    strategy: Any = DDPStrategy(timeout=PATIENCE, broadcast_buffers=False) if several else "auto"
    try:
        fabric = Fabric(
            accelerator=config.accelerator, devices=devices, num_nodes=nodes, strategy=strategy, loggers=list(loggers)
        )
        fabric.launch()
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise InputError(
            f"Cannot run {devices} processes on each of {nodes} nodes with the accelerator {config.accelerator!r}: "
            f"{' '.join(str(error).split())} Wanted what is there; correct --devices, --nodes or --accelerator."
        ) from error
    return fabric


def processes_wanted(config: DeviceConfig, environment: Mapping[str, str]) -> tuple[int, int]:
    """Processes a node and nodes: what torchrun or SLURM has started; else what the config says, one where it does not.

    InputError where the two differ.
    """
    told = _started(environment)
    if told is None:
        devices, nodes = config.devices or 1, config.nodes or 1
        if min(devices, nodes) < 1:
            raise InputError(f"Found {devices} devices on {nodes} nodes. Wanted one of each at least; correct it.")
        return devices, nodes
    starter, devices, nodes = told
    for option, wanted, found in (("--devices", config.devices, devices), ("--nodes", config.nodes, nodes)):
        if wanted is not None and wanted != found:
            raise InputError(
                f"{option} is {wanted}, and {starter} started {devices} processes on each of {nodes} nodes. Wanted the "
                f"same; leave {option} out, or start others."
            )
    return devices, nodes


def _started(environment: Mapping[str, str]) -> tuple[str, int, int] | None:
    """Who started the processes, how many on each node, and the number of nodes."""
    if TorchElasticEnvironment.detect():
        local = int(environment["LOCAL_WORLD_SIZE"])
        return "torchrun", local, int(environment["WORLD_SIZE"]) // local
    if "SLURM_NTASKS" in environment and SLURMEnvironment.detect():
        nodes = int(environment.get("SLURM_NNODES", "1"))
        return "SLURM", int(environment["SLURM_NTASKS"]) // nodes, nodes
    return None


@dataclass(frozen=True)
class Processes:
    """One of `count` processes. What is gathered, added or taken from the first one is asked for by all of them."""

    rank: int = 0
    count: int = 1

    @staticmethod
    def of(fabric: Fabric) -> Processes:
        return Processes(fabric.global_rank, fabric.world_size)

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def dealt(self, parts: Sequence[T]) -> Iterator[tuple[T, bool]]:
        """The parts of this process, and whether they count: all take equally many, so that they stay in step, and
        where there are no more, the first one again for nothing."""
        for first in range(0, len(parts), self.count):
            mine = first + self.rank
            yield (parts[mine], True) if mine < len(parts) else (parts[0], False)

    def share(self, count: int) -> slice:
        """Which of `count` things, in a row, this process takes; InputError where there are fewer than processes."""
        if count < self.count:
            raise InputError(
                f"Found {count} lanes or images in a step for {self.count} processes. Wanted one for each; set more "
                "images, or take fewer processes."
            )
        return slice(count * self.rank // self.count, count * (self.rank + 1) // self.count)

    def gathered(self, value: T) -> list[T]:
        """The values of all processes, by rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    def added(self, values: dict[str, float], device: torch.device) -> dict[str, float]:
        """Numbers by name, added over the processes."""
        if self.count == 1:
            return values
        kind = torch.float32 if device.type == "mps" else torch.float64
        total = torch.tensor(list(values.values()), dtype=kind, device=device)
        distributed.all_reduce(total)
        return dict(zip(values, total.tolist()))

    def from_first(self, value: T) -> T:
        """The value of the first process."""
        if self.count == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def first_alone(self, make: Callable[[], T]) -> T | None:
        """What `make` gives in the first process, None in the others, which wait for it.

        What the user gave wrong (InputError) is said by the first one; the others end without a word.
        """
        made: T | None = None
        error: InputError | None = None
        if self.first:
            try:
                made = make()
            except InputError as found:
                error = found
        failed = self.from_first(error is not None)
        if error is not None:
            raise error
        if failed:
            raise SystemExit(2)
        return made

    def first_then_others(self, make: Callable[[], T]) -> T:
        """What `make` gives, in the first process before the others: it may write what they then find."""
        made = self.first_alone(make)
        return make() if made is None else made

    def same_buffers(self, model: nn.Module) -> None:
        """Give the buffers of the first process (running means of batch norms) to the models of all."""
        if self.count > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)


ALONE = Processes()
