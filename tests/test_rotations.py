"""Products of rotation vectors are those of scipy."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.spatial.transform import Rotation

from evhands.rotations import composed, leading

VECTORS = arrays.arrays(np.float64, (4, 3), elements=st.floats(-7, 7))


@given(VECTORS, VECTORS)
def test_products_are_those_of_scipy(first: np.ndarray, second: np.ndarray) -> None:
    """As rotations: near a half turn a vector and its opposite say the same."""
    a, b = Rotation.from_rotvec(first), Rotation.from_rotvec(second)
    for found, wanted in ((composed(first, second), a * b), (leading(first, second), a.inv() * b)):
        assert (Rotation.from_rotvec(found).inv() * wanted).magnitude().max() < 1e-7
        assert np.linalg.norm(found, axis=-1).max() <= np.pi + 1e-9


@given(VECTORS, VECTORS)
def test_going_where_it_leads_arrives(first: np.ndarray, second: np.ndarray) -> None:
    there = Rotation.from_rotvec(composed(first, leading(first, second)))
    assert (there.inv() * Rotation.from_rotvec(second)).magnitude().max() < 1e-7
