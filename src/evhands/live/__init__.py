"""Tracking at true pace: events as they come, windows as they are due, and what happens when there are too many."""

from evhands.live.cutting import Cutter, EventCount, TimeStep, Windowing
from evhands.live.loop import LiveConfig, LiveReport, run_live
from evhands.live.reading import RateLimiter, Reader, as_they_come
from evhands.sources.replaying import Piece, replayed

__all__ = [
    "Cutter", "EventCount", "LiveConfig", "LiveReport", "Piece", "RateLimiter", "Reader", "TimeStep", "Windowing",
    "as_they_come", "replayed", "run_live",
]  # fmt: skip
