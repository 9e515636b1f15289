"""One sequence folder: events, annotations and images, to a `Recording` and back."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from evhands.events.io import EventFile, open_events, write_events
from evhands.evrealhands_layout.annotations import EVENT_CAMERA, Annotations, read_annotations, write_annotations
from evhands.evrealhands_layout.checked import Faults
from evhands.evrealhands_layout.convert import (
    BLURRED,
    PERIOD_US,
    annotations_of,
    event_camera,
    extrinsics,
    ids_of,
    tags_of,
    times_us,
    truth,
    unposed_ids,
)
from evhands.files import new_folder
from evhands.hand.model import HandModel
from evhands.recording import Recording, Tags, View
from evhands.types import Camera, EventStream, InputError, Size

ANNOTATIONS, FAST_ANNOTATIONS, EVENTS = "annot.json", "annotf.json", "events.aedat4"
IMAGES, BLURRED_IMAGES = "images", "image_blur"
RGB_SIZE: Size = (1064, 920)
"""The size of the data set's RGB images, taken where neither an image nor the annotations tell."""
_IMAGE_NAME = re.compile(r"image(\d+)\.jpg")
_FOLDER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_JPEG_QUALITY = 95


def read_sequence(
    folder: Path | str, *, hand: HandModel | None = None, evaluation: bool = False, check_frames: bool = False
) -> Recording:
    """A sequence as a recording: truth in metres in the event camera's frame, times on the clock of the events.

    The events stay on disk and raw: `camera` holds their lens. Frames are read from disk when asked for. `hand` is
    needed where the poses are MANO's (either side will do). With `evaluation`, a fast sequence is read with its
    `annotf.json`, which holds the truth in space that training does without. Anything missing or wrong in the folder
    is an `InputError` that names it. Motion-blurred twins of a camera's frames are a view whose name ends in BLURRED.
    With check_frames their headers are looked at, and whether those that the annotations list are there.
    Of a sequence with poses, annotations without one are left out and listed in
    `meta["ids_without_pose"]`.
    """
    folder = Path(folder)
    annotations = read_annotations(folder / ANNOTATIONS)
    if evaluation and annotations.fast:
        annotations = read_annotations(folder / FAST_ANNOTATIONS)
    events = _events(folder)
    start_us = events.start_us
    if start_us is None:
        raise InputError(
            f"{events.path} holds no events. Wanted some: the times of all labels count from the first; copy it again."
        )
    camera, rectification = event_camera(annotations.event_camera, events.size)
    images = {name: _images(folder / IMAGES / name) for name in annotations.cameras}
    views = tuple(_view(name, annotations, images[name], start_us) for name in annotations.cameras)
    for name, view in zip(annotations.cameras, views):
        if blurred := _images(folder / BLURRED_IMAGES / name):
            views += (replace(_view(name, annotations, blurred, start_us), name=name + BLURRED, camera=view.camera),)
    if check_frames:
        _check_frames(folder, annotations, views)
    labels = truth(annotations, start_us, hand)
    t_us = np.concatenate([labels.get("pose_t_us", np.zeros(0, np.int64)), *(view.frames_t_us for view in views)])
    meta: dict[str, Any] = {"layout": "EvRealHands", "sequence": folder.name}
    if labels and len(left_out := unposed_ids(annotations)):
        meta["ids_without_pose"] = left_out
    if len(t_us):
        first = times_us([0], annotations.delta_time, start_us)[0]
        meta["first_id"] = round((int(t_us.min()) - int(first)) / PERIOD_US)
    return Recording(
        stream=events, camera=camera, meta=meta, views=views, tags=tags_of(annotations), rectification=rectification,
        **labels,
    )  # fmt: skip


def _events(folder: Path) -> EventFile:
    found = sorted(path.name for path in folder.glob("*.aedat4"))
    if len(found) != 1:
        raise InputError(
            f"{folder} holds {len(found)} .aedat4 files{': ' if found else ''}{', '.join(found)}. Wanted one, the "
            "events of the sequence; copy the folder again, or take the others out."
        )
    return open_events(folder / found[0])


def _images(folder: Path) -> dict[int, Path]:
    """Image files by annotation id; none where there is no such folder."""
    names = ((path, _IMAGE_NAME.fullmatch(path.name)) for path in folder.glob("image*.jpg"))
    return dict(sorted((int(match[1]), path) for path, match in names if match))


def _view(name: str, annotations: Annotations, images: dict[int, Path], start_us: int) -> View:
    info = annotations.cameras[name]
    first = next(iter(images.values()), None)
    size = info.size or (RGB_SIZE if first is None else _size_of(first, str(first)))
    camera = Camera(info.K, size, np.zeros(0), extrinsics(info))
    return View(name, camera, times_us(list(images), annotations.delta_time, start_us), ImageFiles(images.values()))


class ImageFiles(Sequence[bytes]):
    """Image files as their bytes, read at each access."""

    def __init__(self, paths: Any) -> None:
        self.paths = tuple(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return ImageFiles(self.paths[index])
        return self.paths[index].read_bytes()


def _check_frames(folder: Path, annotations: Annotations, views: Sequence[View]) -> None:
    faults = Faults()
    for view in views:
        for path in view.frames.paths if isinstance(view.frames, ImageFiles) else ():
            faults.gather(partial(_check_image, path, view.camera.size))
        listed = set((annotations.frames or {}).get(view.name, ()))
        for i in sorted(listed - _images(folder / IMAGES / view.name).keys()):
            faults.found.append(
                f"{folder / ANNOTATIONS}: frames.{view.name}: wanted an image for each id, found no "
                f"{folder / IMAGES / view.name / f'image{i:04d}.jpg'}. Copy the images again."
            )
    faults.check()


def _check_image(path: Path, wanted: Size) -> None:
    if (size := _size_of(path, str(path))) != tuple(wanted):
        raise InputError(
            f"{path} has {size[0]} x {size[1]} pixels. Wanted those of its camera, {wanted[0]} x {wanted[1]}; copy it "
            "again."
        )


def sequence_folders(root: Path | str) -> list[Path]:
    """The folders under `root` (or `root` itself) that hold annotations or events of the layout, in order."""
    root = Path(root)
    if (root / ANNOTATIONS).exists():
        return [root]
    found = {path.parent for kind in (ANNOTATIONS, FAST_ANNOTATIONS, "*.aedat4") for path in root.glob(f"*/{kind}")}
    return sorted((path for path in found if not path.name.startswith(".")), key=lambda path: natural(path.name))


def natural(name: str) -> tuple[bool, int, str]:
    """Numbers by value, before words."""
    return (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)


def _size_of(file: Path | io.BytesIO, name: str) -> Size:
    try:
        with Image.open(file) as image:
            return (image.width, image.height)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        raise InputError(f"{name} is no readable image ({error}). Wanted a JPEG or PNG; copy it again.") from error


def decoded(frame: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels (RGB) of a frame of a `View`."""
    _size_of(io.BytesIO(frame), f"A frame of {len(frame)} bytes")
    try:
        with Image.open(io.BytesIO(frame)) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise InputError(f"A frame of {len(frame)} bytes is damaged ({error}). Wanted a JPEG or PNG.") from error


def encoded(image: UInt8[np.ndarray, "h w 3"], kind: str = "PNG") -> bytes:
    """A frame of a `View` from pixels (RGB): PNG, which keeps them exactly, or JPEG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **({"quality": _JPEG_QUALITY} if kind == "JPEG" else {}))
    return file.getvalue()


def write_sequence(
    folder: Path | str, recording: Recording, *, tags: Tags | None = None, hand: HandModel | None = None
) -> None:
    """Write a recording as a new sequence folder; a folder that holds anything is refused and left alone.

    `tags` default to the recording's own. Labels and frames must lie multiples of 1/15 s apart (see `on_layout_clock`).
    `hand` is needed for poses of another model than the open hand. Of a `fast` sequence `annot.json` gets joints in the
    image and boxes alone, as in the data set, and `annotf.json` the truth in space as well. JPEG frames are copied
    byte for byte, others become JPEG.
    """
    tags = tags or recording.tags
    if tags is None or (recording.pose is not None and recording.pose.side != tags.side):
        found = "no tags" if tags is None else f"tags of a {tags.side} hand with poses of the other"
        raise InputError(
            f"Found a recording with {found}. The EvRealHands layout says whose hand it is, in what light and how it "
            "moves: give `tags` that fit."
        )
    _check_views(recording.views)
    annotations = annotations_of(recording, tags, _start_us(recording.stream), hand)
    with new_folder(folder) as temporary:
        write_events(temporary / EVENTS, recording.stream)
        if tags.fast:
            write_annotations(temporary / FAST_ANNOTATIONS, annotations)
            annotations = replace(annotations, manos={}, manos_flip={}, joints_mm={})
        write_annotations(temporary / ANNOTATIONS, annotations)
        ids, _ = ids_of(_times(recording), _start_us(recording.stream), int(recording.meta.get("first_id", 0)))
        for view in reversed(recording.views):
            ids, own = ids[: len(ids) - len(view.frames)], ids[len(ids) - len(view.frames) :]
            kind = BLURRED_IMAGES if view.name.endswith(BLURRED) else IMAGES
            _write_images(temporary / kind / view.name.removesuffix(BLURRED), view, tuple(own))


def _times(recording: Recording) -> np.ndarray:
    labels = np.zeros(0, np.int64) if recording.pose_t_us is None else recording.pose_t_us
    return np.concatenate([labels, *(view.frames_t_us for view in recording.views)])


def _start_us(stream: EventStream) -> int:
    for events in stream:
        if len(events):
            return int(events.t_us[0])
    raise InputError(
        "Found a recording without events. Wanted some: the EvRealHands layout counts the times of labels from the "
        "first one; simulate longer."
    )


def _check_views(views: Sequence[View]) -> None:
    names = [view.name for view in views]
    for name, view in zip(names, views):
        if not _FOLDER_NAME.fullmatch(name) or name == EVENT_CAMERA or names.count(name) > 1:
            raise InputError(
                f"Found a camera named {name!r}. Wanted names that can be folders, each once, and not "
                f"'{EVENT_CAMERA}'; rename it."
            )
        if len(view.frames) != len(view.frames_t_us):
            raise InputError(
                f"The camera '{name}' has {len(view.frames)} frames and {len(view.frames_t_us)} times. Wanted one time "
                "a frame."
            )


def _write_images(folder: Path, view: View, ids: tuple[int, ...]) -> None:
    folder.mkdir(parents=True)
    for i, frame in zip(ids, view.frames):
        size = _size_of(io.BytesIO(frame), f"Frame {i} of the camera '{view.name}'")
        if size != tuple(view.camera.size):
            raise InputError(
                f"Frame {i} of the camera '{view.name}' has {size[0]} x {size[1]} pixels. Wanted those of its camera, "
                f"{view.camera.size[0]} x {view.camera.size[1]}: resize the frames or the camera."
            )
        jpeg = frame if frame.startswith(b"\xff\xd8\xff") else encoded(decoded(frame), "JPEG")
        (folder / f"image{i:04d}.jpg").write_bytes(jpeg)
