"""Joint orders are permutations of the same names, and equal the published ones."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest

from conftest import shared_path
from evhands.hand.skeleton import FINGERS, JOINT_ORDERS, MANO16_PARENTS, OPENPOSE21_BONES, permutation

ORDERS21 = [name for name, order in JOINT_ORDERS.items() if len(order) == 21]


@pytest.mark.parametrize(("source", "target"), list(product(ORDERS21, ORDERS21)))
def test_going_there_and_back_changes_nothing(source: str, target: str) -> None:
    there, back = permutation(source, target), permutation(target, source)
    assert (np.arange(21)[there][back] == np.arange(21)).all()


def test_a_joint_keeps_its_name() -> None:
    for source, target in product(ORDERS21, JOINT_ORDERS):
        named = np.array(JOINT_ORDERS[source])[permutation(source, target)]
        assert tuple(named) == JOINT_ORDERS[target]


def test_every_joint_hangs_on_the_one_before_it_in_its_finger() -> None:
    names = JOINT_ORDERS["mano16"]
    for child, parent in enumerate(MANO16_PARENTS[1:], start=1):
        finger, number = names[child][:-1], int(names[child][-1])
        assert names[parent] == ("wrist" if number == 1 else f"{finger}{number - 1}")


def test_bones_make_five_chains_from_the_wrist() -> None:
    names = JOINT_ORDERS["openpose21"]
    chains = {(names[a], names[b]) for a, b in OPENPOSE21_BONES}
    assert chains == {("wrist" if k == 1 else f"{f}{k - 1}", f"{f}{k}") for f in FINGERS for k in (1, 2, 3, 4)}


def test_permutations_equal_the_published_ones() -> None:
    published = json.loads(shared_path("fixtures/representations/joint_indices.json").read_text())

    names = {
        "0": JOINT_ORDERS["interhand21"],
        "1": JOINT_ORDERS["smplx_mano21"],
        "2": JOINT_ORDERS["openpose21"],
    }
    for key, indices in published.items():
        source, target = key.split("->")
        assert tuple(np.array(names[source])[indices]) == names[target], key
