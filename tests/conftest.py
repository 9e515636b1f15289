"""What every test needs: one thread, shape checks on the modules whose annotations promise shapes, and shared data."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# One thread for every pool, before numpy, numba or torch read the environment.
for _name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# Modules whose calls are checked against their jaxtyping annotations. Never a module with numba kernels: the hook
# rewrites the functions that numba has to compile.
SHAPE_CHECKED = [
    "evhands.types",
    "evhands.geometry",
    "evhands.recording",
    "evhands.data.augment",
    "evhands.data.cache",
    "evhands.data.crops",
    "evhands.data.dataset",
    "evhands.data.items",
    "evhands.data.labels",
    "evhands.evrealhands_layout",
    "evhands.losses",
    "evhands.hand_flow",
    "evhands.edge_loss",
    "evhands.metrics",
    "evhands.predictions",
    "evhands.scenes",
    "evhands.scoring",
    "evhands.hand.skeleton",
    "evhands.hand.model",
    "evhands.models.paper_stages",
    "evhands.tracking",
]
_checked_now = [name for name in SHAPE_CHECKED if name not in sys.modules]
install_import_hook(_checked_now, "beartype.beartype")

settings.register_profile("evhands", max_examples=30, deadline=None)
settings.load_profile("evhands")

REPOSITORY = Path(__file__).resolve().parents[1]


def shared_path(relative: str) -> Path:
    """A file or folder of the shared fixtures and recordings, or a skip that says where it was looked for.

    The folder is named by the variable EVHANDS_SHARED; without it, `../shared` beside the repository.
    """
    root = Path(os.environ.get("EVHANDS_SHARED", "../shared"))
    path = (root if root.is_absolute() else REPOSITORY / root) / relative
    if not path.exists():
        pytest.skip(f"{relative} is not in {root} (set EVHANDS_SHARED to the folder of fixtures and recordings)")
    return path


@pytest.fixture(name="shared_path")
def _shared_path():
    """The function `shared_path`, for tests that prefer a fixture to an import."""
    return shared_path


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than a few seconds; `make test` leaves it out")


@pytest.fixture(autouse=True)
def _torch_is_deterministic() -> None:
    """Torch on one thread and with a seed of its own for every test, where it has been imported at all."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)
        if torch.get_num_threads() != 1:
            torch.set_num_threads(1)
