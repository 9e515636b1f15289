"""The live page: events, skeleton and mesh of the hands in a browser, as they are tracked.

The scene stands in the frame of the camera (x right, y down, z forward, metres): the sensor's image hangs behind the
hands at the distance where it covers what the camera sees, so that from the camera's own place both lie on each other.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from evhands.hand.skeleton import OPENPOSE21_BONES
from evhands.live.loop import LiveReport
from evhands.overlay import FINGER_COLOURS, draw_events
from evhands.sinks import parse_address
from evhands.tracking import Tracker, TrackResult
from evhands.types import EventWindow, HandMesh, InputError

FRAMES_PER_S = 25.0
WALL_M = 0.8
"""Distance of the image from the camera."""
_WIDEST = 640
"""The image is thinned to so many pixels across."""
_WRIST = (0.92, 0.92, 0.95)
_SKIN = (236, 205, 178)
_EYE, _AIM = np.array([0.3, -0.13, -0.02]), np.array([0.07, 0.02, 0.5])
"""From where a browser looks at first, and where to."""


@dataclass(frozen=True)
class Seen:
    """A window with its hands, and when it was handed over."""

    window: EventWindow
    hands: Sequence[TrackResult]
    at_s: float


class LivePage:
    """A sink that serves the page. A context manager; `url` is known inside.

    A thread of its own draws the newest window 25 times a second while a browser looks, and never holds the tracker up.
    Who comes late or comes back sees the present scene. InputError where viser is not installed or the port is taken.
    """

    def __init__(self, address: str, tracker: Tracker, told: LiveReport | None = None) -> None:
        self._host, self._port = parse_address(address)
        self._tracker, self._camera, self._told = tracker, tracker.camera, told
        self._newest: Seen | None = None
        self._news, self._stop = threading.Event(), threading.Event()
        self._parts: list[_HandParts] = []
        self.frames = 0

    def __enter__(self) -> LivePage:
        viser = _viser()
        try:
            socket.create_server((self._host, self._port)).close()
        except OSError as error:  # viser would try others, again and again
            raise InputError(
                f"Cannot serve the page at {self._host}:{self._port} ({error.strerror or error}). Wanted a free port "
                "of this machine; choose another with --view-at."
            ) from error
        with redirect_stdout(sys.stderr):  # what it greets with is not for a pipe
            self._server = viser.ViserServer(self._host, self._port, label="evhands", verbose=False)
        host = "localhost" if self._host in ("127.0.0.1", "0.0.0.0", "::") else self._host
        self.url = f"http://{host}:{self._server.get_port()}"
        self._furnish()
        self._thread = threading.Thread(target=self._draw, name="page", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._news.set()
        self._thread.join()
        self._server.stop()

    def __call__(self, window: EventWindow, hands: Sequence[TrackResult]) -> None:
        self._newest = Seen(window, tuple(hands), time.monotonic())
        self._news.set()

    def _furnish(self) -> None:
        server, camera = self._server, self._camera
        server.gui.configure_theme(dark_mode=True, control_layout="floating", control_width="small",
                                   show_logo=False, show_share_button=False, brand_color=(92, 174, 255))  # fmt: skip
        scene = server.scene
        scene.set_up_direction("-y")
        scene.world_axes.visible = False
        server.initial_camera.position, server.initial_camera.look_at = tuple(_EYE), tuple(_AIM)
        server.initial_camera.up = (0.0, -1.0, 0.0)
        width, height = camera.size
        fx, fy = float(camera.K[0, 0]), float(camera.K[1, 1])
        self._step = max(1, -(-width // _WIDEST))
        empty = self._picture(None)
        centre = ((width - 1) / 2 - camera.K[0, 2]) / fx, ((height - 1) / 2 - camera.K[1, 2]) / fy
        # A plane of viser faces -z and has its y upwards: turned half about x it faces the camera.
        self._wall = scene.add_image(
            "/events", empty, WALL_M * width / fx, WALL_M * height / fy, format="jpeg", jpeg_quality=85,
            wxyz=(1.0, 0.0, 0.0, 0.0), position=(WALL_M * centre[0], WALL_M * centre[1], WALL_M),
            cast_shadow=False, receive_shadow=False,
        )  # fmt: skip
        scene.add_camera_frustum(
            "/camera", 2 * np.arctan2(height / 2, fy), width / height, scale=0.04, color=(150, 160, 175), thickness=1.5,
            thickness_units="screen",
        )  # fmt: skip
        corners = [((x - camera.K[0, 2]) / fx * WALL_M, (y - camera.K[1, 2]) / fy * WALL_M, WALL_M)
                   for x, y in ((0, 0), (width, 0), (width, height), (0, height))]  # fmt: skip
        rays = np.array([[(0.0, 0.0, 0.0), corner] for corner in corners], np.float32)
        scene.add_line_segments("/view", rays, (58, 66, 82), thickness=1.0, thickness_units="screen")
        scene.configure_default_lights(cast_shadow=False)
        gui = server.gui
        self._text = gui.add_markdown("waiting for events ...")
        self._show = {name: gui.add_checkbox(name, True) for name in ("mesh", "skeleton", "events")}
        through = gui.add_button("look through the camera")
        aside = gui.add_button("look from the side")
        through.on_click(lambda event: _look(event.client, np.array([0.0, 0.0, -0.02]), np.array([0.0, 0.0, 1.0])))
        aside.on_click(lambda event: _look(event.client, _EYE, _AIM))

    def _draw(self) -> None:
        rate, last = 0.0, None
        while not self._stop.is_set():
            self._news.wait()
            self._news.clear()
            seen = self._newest
            if seen is None or self._stop.is_set():
                continue
            begun_s = time.monotonic()
            if last is not None and seen.at_s > last:
                rate += 0.2 * (1 / (seen.at_s - last) - rate)
            last = seen.at_s
            self._update(seen, rate)
            self._stop.wait(max(1 / FRAMES_PER_S - (time.monotonic() - begun_s), 0.0))

    def _update(self, seen: Seen, rate: float) -> None:
        hands = [hand for hand in seen.hands if hand.pose is not None]
        meshes = [self._tracker.hand_of(p.side).mesh_of(p) for hand in hands if (p := hand.pose) is not None]
        picture = self._picture(seen.window) if self._show["events"].value else None
        with self._server.atomic():
            self._wall.visible = picture is not None
            if picture is not None:
                self._wall.image = picture
            while len(self._parts) < len(hands):
                self._parts.append(_HandParts(self._server, len(self._parts), meshes[len(self._parts)]))
            for number, parts in enumerate(self._parts):
                there = number < len(hands)
                parts.update(
                    hands[number] if there else None, meshes[number] if there else None,
                    self._show["mesh"].value, self._show["skeleton"].value,
                )  # fmt: skip
            self._text.content = self._words(seen, rate)
        self.frames += 1

    def _picture(self, window: EventWindow | None) -> np.ndarray:
        """The events (h, w, 3) as bytes; the plain background without any."""
        width, height = self._camera.size
        if window is None:
            return np.full((height // self._step, width // self._step, 3), (14, 17, 23), np.uint8)
        picture = draw_events(window.events, window.end_us, window.end_us - window.start_us)
        return np.ascontiguousarray((255 * picture[:: self._step, :: self._step]).astype(np.uint8))

    def _words(self, seen: Seen, rate: float) -> str:
        window, lines = seen.window, []
        for hand in seen.hands:
            side = f"{hand.pose.side} hand" if hand.pose is not None else "no hand"
            lines.append(f"**{side}** &nbsp; {hand.status} &nbsp; {hand.confidence:.2f}")
        millions = len(window.events) / max(window.end_us - window.start_us, 1)
        lines.append(f"{window.end_us / 1e6:.2f} s &nbsp; {millions:.2f} M events/s")
        if self._told is not None and self._told.windows:
            told = self._told
            per_s = told.windows / max(told.seconds, 1e-9) if told.seconds else rate
            lines.append(f"latency {1000 * told.latency.at(0.5):.1f} ms &nbsp; {per_s:.0f} windows/s &nbsp; "
                         f"{told.dropped} dropped")  # fmt: skip
        return "  \n".join(lines)


class _HandParts:
    """Mesh, bones and joints of one hand in the scene."""

    def __init__(self, server: Any, number: int, mesh: HandMesh) -> None:
        scene, name = server.scene, f"/hand{number}"
        vertices, faces = np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces)
        self._mesh = scene.add_mesh_simple(f"{name}/mesh", vertices, faces, color=_SKIN, opacity=0.55, side="double",
                                           cast_shadow=False, receive_shadow=False)  # fmt: skip
        joints = np.asarray(mesh.joints, np.float32)
        bone, joint = _colours()
        self._bones = scene.add_line_segments(f"{name}/bones", joints[_bones()], bone, thickness=4.0,
                                              thickness_units="screen")  # fmt: skip
        self._joints = scene.add_point_cloud(f"{name}/joints", joints, joint, point_size=0.007, point_shape="circle",
                                             precision="float32", point_shading="flat")  # fmt: skip

    def update(self, hand: TrackResult | None, mesh: HandMesh | None, surface: bool, skeleton: bool) -> None:
        there = hand is not None and mesh is not None
        self._mesh.visible = there and surface
        self._bones.visible = self._joints.visible = there and skeleton
        if hand is None or mesh is None:
            return
        joints = np.asarray(mesh.joints, np.float32)
        self._mesh.vertices = np.asarray(mesh.vertices, np.float32)
        self._mesh.opacity = float(np.clip(0.25 + 0.6 * float(hand.confidence), 0.25, 0.75))
        self._bones.points = joints[_bones()]
        self._joints.points = joints


def _bones() -> np.ndarray:
    """(20, 2) joints that a bone leads from and to."""
    return np.asarray(OPENPOSE21_BONES, np.int64)


def _colours() -> tuple[np.ndarray, np.ndarray]:
    """Of the bones (20, 2, 3) and joints (21, 3), a colour a finger."""
    joint = np.array([_WRIST, *np.repeat(FINGER_COLOURS, 4, axis=0)])
    joint = (255 * joint).astype(np.uint8)
    return np.repeat(joint[_bones()[:, 1]][:, None], 2, axis=1), joint


def _look(client: Any, position: np.ndarray, aim: np.ndarray) -> None:
    if client is not None:
        with client.atomic():
            client.camera.position, client.camera.look_at = tuple(position), tuple(aim)
            client.camera.up_direction = (0.0, -1.0, 0.0)


def _viser() -> Any:
    try:
        import viser
    except ImportError as error:
        raise InputError(
            "The live page needs viser, which is not installed. Install it with: pip install 'evhands[view]'."
        ) from error
    return viser
