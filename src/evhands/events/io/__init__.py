"""Event files: `open_events` reads every known format chunk by chunk, `write_events` writes HDF5, npz, aedat4 and
text."""

from evhands.events.io.base import EventFile, Frame, Triggers
from evhands.events.io.columns import PartialRecordingWarning, RecordingWarning
from evhands.events.io.recognise import open_events, recognise
from evhands.events.io.write import write_events

__all__ = [
    "EventFile", "Frame", "PartialRecordingWarning", "RecordingWarning", "Triggers", "open_events", "recognise",
    "write_events",
]  # fmt: skip
