"""Joint orders of the field by name, and the permutations between them.

The same words "MANO order" hide two orders of the finger tips in published code; every order here has its own name.
Sources: the MANO model (Romero et al. 2017) for `mano16`, its common 21-joint extension for `smplx_mano21`,
the MPII / OpenPose hand order for `openpose21`, InterHand2.6M for `interhand21`, MobRecon for `mobrecon_mano21`.
"""

from __future__ import annotations

import numpy as np

FINGERS = ("thumb", "index", "middle", "ring", "little")

_MANO16 = ("wrist",) + tuple(f"{f}{k}" for f in ("index", "middle", "little", "ring", "thumb") for k in (1, 2, 3))

JOINT_ORDERS: dict[str, tuple[str, ...]] = {
    "openpose21": ("wrist",) + tuple(f"{f}{k}" for f in FINGERS for k in (1, 2, 3, 4)),
    "mano16": _MANO16,
    "smplx_mano21": _MANO16 + tuple(f"{f}4" for f in ("thumb", "index", "middle", "ring", "little")),
    "mobrecon_mano21": _MANO16 + tuple(f"{f}4" for f in ("index", "middle", "little", "ring", "thumb")),
    "interhand21": tuple(f"{f}{k}" for f in FINGERS for k in (4, 3, 2, 1)) + ("wrist",),
}
"""Order name -> joint names. `index1` is the joint nearest the palm, `index4` the tip."""

MANO16_PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
"""Parent of every joint of `mano16`; -1 for the wrist."""

OPENPOSE21_BONES = tuple((0 if k == 1 else 4 * f + k - 1, 4 * f + k) for f in range(5) for k in (1, 2, 3, 4))
"""The 20 bones of a 21-joint hand as (parent, child) indices in `openpose21` order."""


def permutation(source: str, target: str) -> np.ndarray:
    """Indices that turn an array of joints in order `source` into order `target`: `joints[..., permutation(a, b), :]`.

    `target` may hold fewer joints than `source` (21 -> 16), never more.
    """
    names = JOINT_ORDERS[source]
    return np.array([names.index(name) for name in JOINT_ORDERS[target]], dtype=np.int64)
