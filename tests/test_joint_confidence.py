"""The measure of joints' confidences: ranks only, and each kind sees its own kind of order."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "joint_confidence.py"


@pytest.fixture(name="correlations", scope="module")
def _correlations():
    spec = importlib.util.spec_from_file_location("joint_confidence", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.correlations


def test_a_confidence_that_falls_with_the_error_is_worth_minus_one_however_it_falls(correlations) -> None:
    error = np.random.default_rng(0).uniform(1, 50, (40, 20))
    for confidence in (1 - error / 100, np.exp(-error), -(error**3)):
        assert list(correlations(confidence, error).values()) == pytest.approx([-1, -1, -1])


def test_a_confidence_of_the_whole_hand_says_nothing_within_it(correlations) -> None:
    rng = np.random.default_rng(1)
    level = rng.uniform(1, 50, (200, 1))
    error = level * rng.uniform(0.9, 1.1, (200, 20))
    found = correlations(-level + 1e-9 * rng.normal(size=(200, 20)), error)
    assert found["within a joint, over labels"] < -0.9 and abs(found["within a hand, over its joints"]) < 0.15
