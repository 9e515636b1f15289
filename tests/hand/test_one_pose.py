"""Hands without torch are the hands of torch."""

from __future__ import annotations

import numpy as np
import pytest

from evhands.hand.model import load_hand, pose_hand
from evhands.hand.one_pose import load_plain_hand
from evhands.types import HandPose, InputError, Side


def _pose(side: Side, seed: int) -> HandPose:
    rng = np.random.default_rng(seed)
    return HandPose(
        side, rng.normal(size=3), rng.normal(size=3) + [0, 0, 2], rng.normal(0, 0.4, (15, 3)), rng.normal(size=10),
        "open",
    )  # fmt: skip


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("seed", range(5))
def test_joints_and_surface_are_those_of_torch(side: Side, seed: int) -> None:
    plain, model, pose = load_plain_hand("open", side), load_hand("open", side), _pose(side, seed)
    wanted = pose_hand(model, pose).mesh()
    found = plain.mesh_of(pose)
    np.testing.assert_allclose(found.vertices, wanted.vertices, atol=2e-6)
    np.testing.assert_allclose(found.joints, wanted.joints, atol=2e-6)
    np.testing.assert_array_equal(found.faces, wanted.faces)
    np.testing.assert_allclose(plain.joints_of(pose), model.joints_of(pose), atol=1e-9)
    np.testing.assert_array_equal(model.mesh_of(pose).vertices, wanted.vertices)


def test_the_mirror_of_the_mirror_is_the_hand() -> None:
    hand, pose = load_plain_hand(), _pose("right", 0)
    np.testing.assert_array_equal(hand.mirrored().mirrored().mesh_of(pose).vertices, hand.mesh_of(pose).vertices)


@pytest.mark.parametrize("what", ["joints_of", "mesh_of"])
def test_a_pose_of_another_hand_is_refused(what: str) -> None:
    with pytest.raises(InputError, match="pose of a right hand"):
        getattr(load_plain_hand("open", "left"), what)(_pose("right", 0))


def test_a_file_that_is_no_hand_is_named(tmp_path) -> None:
    np.savez(tmp_path / "no.npz", name="no", vertices=np.zeros((4, 3)))
    with pytest.raises(InputError, match=r"no\.npz.*faces"):
        load_plain_hand(str(tmp_path / "no.npz"))
