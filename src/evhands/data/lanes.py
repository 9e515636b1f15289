"""Where a training is in the clips that it goes through side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Lanes:
    """Clips that are on their way through a training, side by side, and the memory of each: what a step hands to the
    next. B lanes."""

    rows: np.ndarray
    """(B,) rows of clips, copied: a pool may replace its own meanwhile; of a pool on a GPU their numbers."""
    next: np.ndarray
    """(B,) the window that comes next."""
    stride: np.ndarray
    """(B,) 1 or 2: every window, or every other."""
    memory: Tensor
    """Of the network, one a lane; zero where a clip begins."""
    crops: np.ndarray
    """(B, 3) how each clip's crops are cut anew, see `evhands.data.recrop`."""

    def state(self) -> dict[str, Tensor]:
        """As tensors, to be saved with a run."""
        rows = torch.from_numpy(self.rows.view(np.uint8).reshape(len(self.rows), -1).copy())
        return {"rows": rows, "next": torch.from_numpy(self.next), "stride": torch.from_numpy(self.stride),
                "memory": self.memory, "crops": torch.from_numpy(self.crops)}  # fmt: skip

    @classmethod
    def of(cls, state: dict[str, Tensor], dtype: np.dtype) -> Lanes:
        """From what `state` gave."""
        rows = state["rows"].numpy().reshape(-1).view(dtype)
        after, stride, crops = (state[name].numpy() for name in ("next", "stride", "crops"))
        return cls(rows, after, stride, state["memory"], crops)
