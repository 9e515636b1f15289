"""Schema, reader and writer of the EvRealHands folder layout; the one place that knows its units and frames.

    <root>/id_seq_all.json                          read_index, write_index
    <root>/<sequence>/*.aedat4                      events
    <root>/<sequence>/annot.json, annotf.json       read_annotations, write_annotations
    <root>/<sequence>/images/<camera>/image0000.jpg
    <root>/<sequence>/image_blur/<camera>/image0000.jpg     motion-blurred twins of some of these
    <root>/<sequence>                               read_sequence, write_sequence: to a `Recording` and back

EvRealHands: Jiang et al., "EvHandPose", TPAMI 2024. Files written here hold parameters of the hand model that
`hand_model` in `annot.json` names; a file without that name holds MANO's.
"""

from evhands.evrealhands_layout.annotations import Annotations, read_annotations, write_annotations
from evhands.evrealhands_layout.checked import LayoutError
from evhands.evrealhands_layout.convert import on_layout_clock
from evhands.evrealhands_layout.index import BUCKETS, TEST_SUBJECTS, SequenceIndex, read_index, write_index
from evhands.evrealhands_layout.sequence import (
    decoded,
    encoded,
    read_sequence,
    sequence_folders,
    write_sequence,
)

__all__ = [
    "BUCKETS", "TEST_SUBJECTS", "Annotations", "LayoutError", "SequenceIndex", "decoded", "encoded",
    "on_layout_clock", "read_annotations", "read_index", "read_sequence", "sequence_folders", "write_annotations",
    "write_index", "write_sequence",
]  # fmt: skip
