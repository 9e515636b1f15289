"""The frozen test set: fingerprints tell recordings apart, forgive rounding, and are those of this simulator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evhands.sim.generate import simulate_clip
from evhands.sim.presets import TEST_COUNT, TEST_SEED, clip_of_testset
from evhands.sim.testset import Fingerprint, compare, fingerprint, frozen
from evhands.types import Events


def _events(n: int, seed: int = 0) -> Events:
    rng = np.random.default_rng(seed)
    t_us = np.sort(rng.integers(0, 10**6, n))
    return Events(
        rng.integers(0, 346, n).astype(np.uint16), rng.integers(0, 260, n).astype(np.uint16), t_us, rng.random(n) < 0.5,
        (346, 260),
    )  # fmt: skip


JOINTS = np.random.default_rng(1).random((5, 21, 3))


def test_one_changed_event_changes_the_fingerprint() -> None:
    events = _events(1000)
    other = replace(events, p=events.p ^ (np.arange(1000) == 500))
    assert fingerprint(events, JOINTS) == fingerprint(events, JOINTS)
    assert fingerprint(events, JOINTS).sha256 != fingerprint(other, JOINTS).sha256


def test_rounding_is_forgiven_and_another_hand_is_not() -> None:
    wanted = {"a": fingerprint(_events(1000), JOINTS)}
    assert compare(wanted, wanted) == (1, [])
    rounded = {"a": fingerprint(_events(1003, 1), JOINTS + 1e-7)}
    assert compare(rounded, wanted) == (0, [])
    for found in ({"a": fingerprint(_events(1000), JOINTS + 1e-3)}, {"a": fingerprint(_events(1100), JOINTS)}, {}):
        _, complaints = compare(found, wanted)
        assert len(complaints) == 1
        assert "a" in complaints[0]
    assert compare({"b": wanted["a"], **wanted}, wanted)[1] == ["b: not part of the frozen set"]


def test_every_recording_of_the_set_is_frozen() -> None:
    assert set(frozen()) == {clip_of_testset(index)[0] for index in range(TEST_COUNT)}


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 50, 130])
def test_the_simulator_still_makes_the_frozen_set(index: int) -> None:
    name, config = clip_of_testset(index)
    clip = simulate_clip(config, TEST_SEED, index)
    found: dict[str, Fingerprint] = {name: fingerprint(clip.events, clip.joints_m)}
    assert compare(found, {name: frozen()[name]})[1] == []
