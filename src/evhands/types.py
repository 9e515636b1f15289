"""The values that flow through evhands, and every convention, written once.

Conventions
-----------
* Pixels: x = column, y = row, pixel centres at integers (the rasteriser too).
* Time: int64 microseconds; only window-relative time may be float32. Windows are half-open [start, end).
* Polarity: bool, True = brighter (ON).
* Lengths in metres, angles in radians; a unit stands in a name when it is not SI (`t_us`, `size_px`).
* Camera frame: x right, y down, z forward (OpenCV). `T_a_b` maps coordinates of b into a.
* Joint orders are lists of names (`evhands.hand.skeleton`); permutations are derived from the names.
  Every file that evhands writes lists joints in `openpose21` order.
* Left hands are left hands everywhere; an estimator that knows only right ones mirrors inside itself.

This module imports no torch: arrays are numpy arrays, or torch tensors where the value goes through a network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt16

Side = Literal["right", "left"]
Size = tuple[int, int]
"""(width, height) in pixels."""


class InputError(ValueError):
    """Something the user gave cannot be used: the message says what was found, what was wanted and what to do.

    The command line prints it as one paragraph and exits with code 2, without a traceback.
    """


@dataclass(frozen=True)
class Events:
    """Time-ordered events as columns of equal length; may be empty."""

    x: UInt16[np.ndarray, " n"]
    y: UInt16[np.ndarray, " n"]
    t_us: Int64[np.ndarray, " n"]
    p: Bool[np.ndarray, " n"]
    size: Size

    def __len__(self) -> int:
        return len(self.t_us)

    def __getitem__(self, index: slice | np.ndarray) -> Events:
        """The events that a slice or a boolean mask selects (views where numpy gives views)."""
        return Events(self.x[index], self.y[index], self.t_us[index], self.p[index], self.size)

    def between(self, start_us: int, end_us: int) -> Events:
        """The events with start_us <= t < end_us."""
        first, last = np.searchsorted(self.t_us, (start_us, end_us), side="left")
        return self[int(first) : int(last)]

    @staticmethod
    def empty(size: Size) -> Events:
        return Events(
            np.empty(0, np.uint16), np.empty(0, np.uint16), np.empty(0, np.int64), np.empty(0, np.bool_), size
        )

    @staticmethod
    def concatenate(parts: Sequence[Events], size: Size | None = None) -> Events:
        """One `Events` of all parts in the order given; `size` is needed only when there are no parts."""
        if not parts:
            if size is None:
                raise ValueError("Events.concatenate got no parts and no size: give the sensor size")
            return Events.empty(size)
        return Events(
            np.concatenate([e.x for e in parts]),
            np.concatenate([e.y for e in parts]),
            np.concatenate([e.t_us for e in parts]),
            np.concatenate([e.p for e in parts]),
            parts[0].size,
        )


@runtime_checkable
class EventStream(Protocol):
    """Anything that gives events in time order, chunk by chunk: a file, a recording, a camera, a replay."""

    @property
    def size(self) -> Size: ...

    def __iter__(self) -> Iterator[Events]: ...


@dataclass(frozen=True)
class EventWindow:
    """The events of [start_us, end_us); may hold none."""

    events: Events
    start_us: int
    end_us: int


@dataclass(frozen=True)
class WindowBatch:
    """Many windows as flat columns and offsets (ragged, no padding).

    Window i owns the entries offsets[i]:offsets[i + 1]. x and y are pixels of the image the batch lives in (a sensor,
    an undistorted camera or a crop: sub-pixel, hence float32), t is time inside the window, 0 at its start and 1 at
    its end. An empty window has offsets[i] == offsets[i + 1].
    """

    x: Float[Any, " n"]
    y: Float[Any, " n"]
    t: Float[Any, " n"]
    p: Bool[Any, " n"]
    offsets: Int64[Any, " b_plus_1"]
    size: Size

    def __len__(self) -> int:
        """The number of windows."""
        return len(self.offsets) - 1


@dataclass(frozen=True)
class Camera:
    """A pinhole camera, with OpenCV distortion coefficients (k1 k2 p1 p2 [k3 ...]; empty = none).

    `T_camera_world` is its pose where a data set has one. A crop, a resize, a mirror and an in-plane turn are other
    cameras: see `evhands.geometry`.
    """

    K: Float[np.ndarray, "3 3"]
    size: Size
    distortion: Float[np.ndarray, " k"] = field(default_factory=lambda: np.zeros(0))
    T_camera_world: Float[np.ndarray, "4 4"] | None = None


@dataclass(frozen=True)
class HandPose:
    """A hand (or any batch of hands of one side) in the frame of a camera, in parameters of one hand model.

    orientation: global rotation vector about the wrist. wrist: position of the wrist joint in metres (MANO: trans + J0
    of the shaped rest hand). joints: rotation vectors of the 15 finger joints in `mano16` order without the wrist, the
    model's mean pose INCLUDED. shape: the first 10 shape coefficients.
    """

    side: Side
    orientation: Float[Any, "*b 3"]
    wrist: Float[Any, "*b 3"]
    joints: Float[Any, "*b 15 3"]
    shape: Float[Any, "*b 10"]
    hand_model: str = "open"


@dataclass(frozen=True)
class HandMesh:
    """The surface and the 21 joints of a hand in metres in the camera frame; joints in `openpose21` order."""

    vertices: Float[Any, "*b v 3"]
    joints: Float[Any, "*b 21 3"]
    faces: Int64[Any, "f 3"]


@dataclass(frozen=True)
class Prediction:
    """What an estimator says of a batch of windows, in the crop's camera.

    flow: pixels of the crop per window, or None where the model predicts none. confidence: 0 to 1. joint_confidence:
    the same of every joint in `openpose21` order, None where the model knows only of the whole hand.
    """

    pose: HandPose
    confidence: Float[Any, "*b"]
    flow: Float[Any, "*b 2 h w"] | None = None
    joint_confidence: Float[Any, "*b 21"] | None = None
