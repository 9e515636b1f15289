"""What a recogniser of crops says, and how it adds up over the windows of a track: is this a hand, and which?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from evhands.types import Camera, EventWindow

RECOGNISER_SIZE = 96
"""Side in pixels of the crops that a recogniser is shown."""


@runtime_checkable
class Recognition(Protocol):
    """How likely a crop shows a right hand, a left one, nothing of the kind; they add up to 1."""

    @property
    def right(self) -> float: ...

    @property
    def left(self) -> float: ...

    @property
    def nothing(self) -> float: ...


@runtime_checkable
class HandRecogniser(Protocol):
    """Says what a crop shows. window: as an estimator is given it; crop: a camera of `RECOGNISER_SIZE` pixels."""

    def recognise(self, window: EventWindow, camera: Camera, crop: Camera) -> Recognition: ...


@dataclass(frozen=True, kw_only=True)
class EvidenceConfig:
    """How what the recogniser says of single windows adds up over a track: as log odds, as in a sequential test.

    max_nothing: a new place that shows a hand less surely than this starts no track.
    most_gain: what a single window can add. leak: what is kept of the sum from one look to the next; bound: the sum is
        never larger, so that no past, however long, outweighs the present for ever.
    change: the side changes when the evidence for the other one is so large. end: the track ends when the evidence for
        nothing is so large.
    every: windows from one look to the next while both sums are at their bounds.
    unlike: log odds that the hands of two tracks are of different sides, where nothing else is known.
    """

    max_nothing: float = 0.7
    most_gain: float = 1.5
    leak: float = 0.95
    bound: float = 6.0
    change: float = 2.0
    end: float = 3.0
    every: int = 8
    unlike: float = 1.0


@dataclass(frozen=True)
class Evidence:
    """Log odds so far of a hand against none, and of a right one against a left one.

    windows: how many have passed since the recogniser last looked.
    """

    hand: float = 0.0
    right: float = 0.0
    windows: int = 0

    def with_look(self, seen: Recognition, config: EvidenceConfig) -> Evidence:
        """What is known after another look. Where hardly anything is seen, its side says little, too."""

        def added(sum_so_far: float, first: float, second: float, weight: float = 1.0) -> float:
            gain = weight * np.log(max(first, 1e-6) / max(second, 1e-6))
            gain = np.clip(gain, -config.most_gain, config.most_gain)
            return float(np.clip(config.leak * sum_so_far + gain, -config.bound, config.bound))

        hand = seen.right + seen.left
        return Evidence(
            added(self.hand, hand, seen.nothing), added(self.right, seen.right, seen.left, weight=min(hand, 1.0)), 0
        )

    def due(self, config: EvidenceConfig, sides: bool) -> bool:
        """Whether the next window is worth a look: always, until all that is asked for is as sure as it gets."""
        sure = self.hand >= config.bound and (not sides or abs(self.right) >= config.bound)
        return not sure or self.windows + 1 >= config.every
