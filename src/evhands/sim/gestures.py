"""A library of named gestures: counting, pinches, grasps, signs and letter shapes, as anatomical angles.

For motion of the kind "fixed". `evhands.hand.open_hand.GESTURES`, from which natural poses are drawn, stays as it is:
the pose space of the shipped hand was computed from it. Letters are those of the American manual alphabet that are
shapes of the hand alone (j and z are movements; f is "ok", v "victory"; p and q are k and g turned); six to nine are
those of Chinese one-handed counting. Angles of gestures whose tips touch were fitted to the mean open hand, so that
tips lie within a centimetre (between the ends of the skin) and the last bones stay apart by their thickness.
"""

from __future__ import annotations

import numpy as np

from evhands.hand.open_hand import GESTURES

_CURLS = {
    # degrees of knuckle (MCP), middle joint (PIP) and last joint (DIP)
    "o": (-6, 0, 0),  # bent back a little
    "s": (0, 0, 0),  # straight
    "r": (20, 28, 16),  # relaxed
    "c": (38, 48, 28),  # curved as about a cup
    "h": (52, 70, 40),  # half closed
    "b": (-6, 2, 1),  # behind its neighbour
    "d": (16, 4, 2),  # before its neighbour
    "t": (86, 4, 2),  # straight, at a right angle to the palm
    "k": (4, 94, 58),  # hook: only the outer joints
    "x": (18, 78, 44),  # crooked
    "f": (84, 98, 62),  # fist
}
_THUMBS = {
    # degrees of CMC flexion, abduction and rotation, MCP and IP flexion
    "out": (-14, 2, -6, -4, -8),
    "up": (-18, -14, -10, -8, -14),
    "beside": (6, -18, 0, 4, 2),  # along the side of the palm
    "across": (28, 10, 24, 36, 40),
    "around": (24, 22, 26, 24, 30),  # about a handle
    "tucked": (40, 2, 20, 46, 30),
    "opposed": (22, 26, 34, 8, 8),
    "relaxed": (8, 2, 8, 12, 14),
}
_SPREADS = {
    # degrees of abduction of index, middle, ring and little finger
    "together": (-6, 0, -4, -8),
    "even": (0, 0, 0, 0),
    "apart": (11, 0, 9, 13),
}


def _angles(curls: tuple[tuple[int, int, int], ...], thumb: tuple[int, ...], spread: tuple[int, ...]) -> np.ndarray:
    """(21,) radians: per finger from index to little (mcp, pip, dip) in degrees, the thumb's five, four abductions."""
    fingers = [(mcp, abduction, pip, dip) for (mcp, pip, dip), abduction in zip(curls, spread)]
    return np.deg2rad(np.concatenate([thumb, *fingers]).astype(np.float64))


def _gesture(curls: str, thumb: str, spread: str | tuple[int, ...] = "together") -> np.ndarray:
    """A gesture in words: a letter of `_CURLS` per finger from index to little, a thumb, a spread."""
    degrees = spread if isinstance(spread, tuple) else _SPREADS[spread]
    return _angles(tuple(_CURLS[letter] for letter in curls), _THUMBS[thumb], degrees)


_FIST, _EASY, _LOW, _NEAR = (84, 98, 62), (24, 30, 18), (4, 5, 3), (14, 16, 9)
"""A finger that is closed, at ease, standing up beside a pinch, or pulled along by its pinching neighbour."""

TOUCHING: dict[str, tuple[int, ...]] = {
    "pinch_index": (1,),
    "pinch_middle": (2,),
    "pinch_ring": (3,),
    "pinch_little": (4,),
    "pinch_index_closed": (1,),
    "pinch_index_relaxed": (1,),
    "pinch_middle_relaxed": (2,),
    "pinch_ring_relaxed": (3,),
    "ok": (1,),
    "tripod": (1, 2),
    "purse": (1, 2),
    "seven": (1, 2),
    "letter_d": (2,),
}
"""Gesture -> the fingers (1 index .. 4 little) whose tips touch the thumb's."""

_TOUCHING_ANGLES = {
    "pinch_index": _angles(((48, 41, 25), _NEAR, _LOW, _LOW), (33, 11, 38, 12, 9), (-3, 0, 3, 5)),
    "pinch_middle": _angles((_NEAR, (57, 38, 23), _NEAR, _LOW), (40, 19, 40, 14, 7), (4, 9, 3, 5)),
    "pinch_ring": _angles((_LOW, _NEAR, (57, 36, 22), _NEAR), (42, 22, 31, 22, 12), (4, 0, -14, 5)),
    "pinch_little": _angles((_LOW, _LOW, _NEAR, (55, 37, 23)), (44, 16, 18, 41, 18), (4, 0, 3, -11)),
    "pinch_index_closed": _angles(((48, 41, 25), *[(72, 88, 54)] * 3), (33, 11, 38, 12, 9), (-3, 0, -2, -4)),
    "pinch_index_relaxed": _angles(((48, 41, 25), *[_EASY] * 3), (33, 11, 38, 12, 9), (-3, 0, -2, -4)),
    "pinch_middle_relaxed": _angles((_EASY, (57, 38, 23), _EASY, _EASY), (40, 19, 40, 14, 7), (-3, 9, -2, -4)),
    "pinch_ring_relaxed": _angles((_EASY, _EASY, (57, 36, 22), (34, 36, 20)), (42, 22, 31, 22, 12), (-2, 0, -14, -4)),
    "ok": _angles(((48, 41, 25), (4, 4, 2), (-6, 0, 0), (-6, 0, 0)), (33, 11, 38, 12, 9), (-3, 0, 9, 13)),
    "tripod": _angles(((53, 36, 22), (53, 40, 25), (58, 62, 36), (62, 66, 38)), (42, 11, 36, 11, -1), (0, 6, -4, -8)),
    "purse": _angles(((60, 34, 21), (58, 37, 23), (56, 36, 22), (58, 34, 20)), (39, 20, 32, 17, 6), (-2, 3, 0, -6)),
    "seven": _angles(((69, 21, 13), (65, 31, 19), _FIST, _FIST), (35, 21, 20, 20, 4), (-1, 4, -4, -9)),
    "letter_d": _angles(((2, 2, 1), (53, 47, 29), (62, 50, 32), (60, 52, 32)), (38, 20, 33, 20, 19), (0, 2, -4, -9)),
}

LIBRARY: dict[str, np.ndarray] = {
    # counting
    "one": _gesture("sfff", "across"),
    "two": _gesture("ssff", "across", (9, -6, -4, -8)),
    "three": _gesture("ssff", "out", (6, -4, -4, -8)),
    "four": _gesture("ssss", "across", "apart"),
    "five": _gesture("oooo", "out", "apart"),
    "six": _gesture("fffs", "out", (-6, 0, -4, 4)),
    "eight": _gesture("sfff", "out"),
    "nine": _gesture("xfff", "across"),
    "ten": _gesture("ffff", "across"),
    # pointing and common signs
    "point": _gesture("shhh", "relaxed"),
    "thumbs_up": _gesture("ffff", "up"),
    "victory": _gesture("ssff", "across", (14, -10, -4, -8)),
    "call_me": _gesture("hhhs", "out", (-4, 0, -2, 10)),
    "horns": _gesture("sffs", "across", (4, 0, -4, 4)),
    "stop": _gesture("oooo", "beside"),
    "relaxed": GESTURES["relaxed"],
    # grasps
    "power": _gesture("hhhh", "around"),
    "cylinder": GESTURES["grasp_cylinder"],
    "sphere": GESTURES["grasp_sphere"],
    "disc": _gesture("xxxx", "opposed", "apart"),
    "lateral_key": GESTURES["lateral_pinch"],
    "hook": GESTURES["hook"],
    "plate": _gesture("tttt", "opposed"),
    "claw": GESTURES["claw"],
    "scissors": _gesture("rrhh", "opposed", (10, -8, -4, -8)),
    # letters
    "letter_a": _gesture("ffff", "beside"),
    "letter_b": _gesture("ssss", "tucked"),
    "letter_c": _gesture("cccc", "opposed"),
    "letter_e": _gesture("xxxx", "tucked"),
    "letter_g": _gesture("thhh", "beside"),
    "letter_h": _gesture("tthh", "beside"),
    "letter_i": _gesture("fffs", "across"),
    "letter_k": _gesture("stff", "beside", (6, 0, -4, -8)),
    "letter_l": _gesture("sfff", "up", "even"),
    "letter_r": _gesture("dbff", "across", (-15, 8, -4, -8)),
    "letter_u": _gesture("ssff", "across"),
    "letter_w": _gesture("sssf", "tucked", "apart"),
    "letter_x": _gesture("kfff", "across"),
    "letter_y": _gesture("fffo", "out", (-6, 0, -4, 14)),
    **_TOUCHING_ANGLES,
}
"""Name -> (21,) angles in radians, in the order of `evhands.hand.open_hand.ANGLE_NAMES`."""
