"""A pickle of the shapes of MANO that holds a hand: the open hand, thinned to as many vertices as MANO has."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch

from evhands.hand.mano import TIP_VERTICES
from evhands.hand.model import HandModel, load_hand, pose_hand
from evhands.recording import Recording

VERTICES = 778


def mano_shaped(seed: int = 0) -> dict[str, Any]:
    """Contents of such a pickle: shape directions and joints of the open hand, another mean pose, and small pose
    directions, which the open hand has none of."""
    hand, rng = load_hand("open"), np.random.default_rng(seed)
    full = hand.vertices.numpy().astype(np.float64)
    kept, nearest = _thinned(full, hand.tip_vertices.numpy())
    faces = nearest[hand.faces.numpy()]
    whole = (faces != np.roll(faces, 1, 1)).all(1)
    vertices, directions = full[kept], hand.shape_directions.numpy().astype(np.float64)[kept]
    return {
        "v_template": vertices,
        "f": faces[whole].astype(np.uint32),
        "shapedirs": directions,
        "posedirs": rng.normal(size=(VERTICES, 3, 135)) * 2e-5,
        "J_regressor": scipy.sparse.csc_matrix(_regressor(hand, vertices, directions)),
        "weights": hand.skin_weights.numpy().astype(np.float64)[kept],
        "hands_mean": rng.normal(size=45) * 0.2,
        "hands_components": np.eye(45),
        "hands_coeffs": rng.normal(size=(100, 45)),
        "kintree_table": np.zeros((2, 16), np.uint32),
        "bs_style": "lbs",
    }


def write_mano_shaped(path: Path) -> Path:
    path.write_bytes(pickle.dumps(mano_shaped(), 2))
    return path


def _thinned(vertices: np.ndarray, tips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(which vertices stay, for every vertex the place of the nearest of these); tips stand where MANO's do."""
    chosen = [int(tip) for tip in tips]
    distance = np.linalg.norm(vertices[:, None] - vertices[chosen], axis=-1).min(1)
    while len(chosen) < VERTICES:  # always the one that is farthest from those chosen
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(vertices - vertices[chosen[-1]], axis=-1))
    order = np.empty(VERTICES, int)
    order[np.setdiff1d(np.arange(VERTICES), TIP_VERTICES)] = chosen[len(tips) :]
    order[list(TIP_VERTICES)] = tips
    return order, np.linalg.norm(vertices[:, None] - vertices[order], axis=-1).argmin(1)


def _regressor(hand: HandModel, vertices: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """(16, 778) that gives the joints of the open hand, of every shape."""
    whole = hand.joint_regressor.numpy().astype(np.float64)
    told = np.concatenate([hand.vertices.numpy()[..., None], hand.shape_directions.numpy()], -1).astype(np.float64)
    wanted = (whole @ told.reshape(len(told), -1)).T
    given = np.concatenate([vertices[..., None], directions], -1).reshape(VERTICES, -1).T
    rows = np.concatenate([given, np.ones((1, VERTICES))])
    return np.linalg.lstsq(rows, np.concatenate([wanted, np.ones((1, 16))]), rcond=None)[0].T


def in_terms_of(recording: Recording, hand: HandModel) -> Recording:
    """The recording with its poses in the parameters of such a hand, and the joints of that."""
    assert recording.pose is not None
    pose = replace(recording.pose, hand_model=hand.name)
    own = hand if hand.side == pose.side else hand.mirrored()
    with torch.no_grad():
        joints_m = pose_hand(own, pose).joints().numpy()
    return replace(recording, pose=pose, joints_m=joints_m)
