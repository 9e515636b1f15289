"""Where hands go as soon as they are known: lines of JSON, and the same over a WebSocket.

A line is one window:
`{"t_us": 5033333, "hands": [{"id": 1, "side": "right", "status": "moving", "confidence": 0.87, "joint_confidence": [c,
...], "joints_m": [[x, y, z], ...], "pose": {"model": "open", "orientation": [...], "wrist": [...], "joints": [[...],
...], "shape": [...]}, "box_px": [x0, y0, x1, y1]}]}`. `t_us` is the end of the window on the clock of the source; the
id is new for every new track; joints are in `openpose21` order, metres, in the frame of the camera; the pose is that of
`HandPose`; the box is the crop in the undistorted image. No hand, no entry.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import threading
import warnings
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from evhands.hand.skeleton import JOINT_ORDERS
from evhands.types import Camera, EventWindow, InputError

if TYPE_CHECKING:
    from evhands.track_files import Sink
    from evhands.tracking import TrackResult

_DIGITS = 6
"""Micrometres and microradians: more than any estimate is good for."""
_AHEAD = 1 << 15
"""Bytes that may wait on their way to a client."""
_CLOSING_S = 2.0


def hands_message(t_us: int, hands: Sequence[TrackResult]) -> dict[str, Any]:
    """One window as plain JSON values, see above."""
    return {"t_us": int(t_us), "hands": [_hand(hand) for hand in hands if hand.pose is not None]}


def _hand(hand: TrackResult) -> dict[str, Any]:
    pose = hand.pose
    assert pose is not None
    numbers = {name: _plain(getattr(pose, name)) for name in ("orientation", "wrist", "joints", "shape")}
    return {
        "id": hand.id,
        "side": pose.side,
        "status": hand.status,
        "confidence": round(float(hand.confidence), 4),
        "joint_confidence": None if hand.joint_confidence is None else np.round(hand.joint_confidence, 4).tolist(),
        "joints_m": _plain(hand.joints_m),
        "pose": {"model": pose.hand_model, **numbers},
        "box_px": None if hand.box is None else np.round(hand.box.corners(), 2).tolist(),
    }


def _plain(values: Any) -> Any:
    return np.round(np.asarray(values, np.float64), _DIGITS).tolist()


def hello_message(camera: Camera, model: str) -> dict[str, Any]:
    """What a client of the WebSocket gets first: the camera, the names of the joints and the model."""
    return {
        "hello": "evhands",
        "model": model,
        "joint_names": list(JOINT_ORDERS["openpose21"]),
        "camera": {"K": camera.K.tolist(), "distortion": camera.distortion.tolist(), "size": list(camera.size)},
    }


class JsonLines:
    """A file (`-` = standard output) with one line a window, written at once, so that `tail -f` shows it.

    A context manager. The file is begun anew with the first window, so that a track that cannot start costs nothing;
    every line in it is whole, whenever the track is stopped.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._stack = ExitStack()
        self._file: TextIO | None = None

    def __enter__(self) -> JsonLines:
        if self._target != "-" and not Path(self._target).absolute().parent.is_dir():
            raise InputError(f"{self._target} lies in no folder that is there. Wanted one for --jsonl; make it first.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def __call__(self, window: EventWindow, hands: Sequence[TrackResult]) -> None:
        if self._file is None:
            self._file = sys.stdout if self._target == "-" else Path(self._target).open("w")  # noqa: SIM115
            if self._file is not sys.stdout:
                self._stack.enter_context(self._file)
        try:
            self._file.write(json.dumps(hands_message(window.end_us, hands)) + "\n")
            self._file.flush()
        except BrokenPipeError:
            # Python would complain once more when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._file.fileno())
            warnings.warn("Nobody reads the lines of --jsonl any more; the track goes on without.", stacklevel=2)


def parse_address(text: str) -> tuple[str, int]:
    """`[HOST:]PORT`; this machine alone where no host is named."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65_535:
        raise InputError(f"Found {text!r} as an address to serve at. Wanted PORT or HOST:PORT, such as 8765.")
    return host.strip("[]") or "127.0.0.1", int(port)


class WebSocketServer:
    """A server that sends a message to every client: `hello` when it comes, then the newest window each time.

    A context manager; `address` is known inside. A client that is slower than the tracker misses windows and never
    holds it up: calling the sink only leaves the hands for a thread of its own. On leaving, all clients get the newest
    message before their connection is closed. `InputError` where the port cannot be served.
    """

    def __init__(self, address: str, hello: dict[str, Any]) -> None:
        self.address = address
        self._where = parse_address(address)
        self._hello = json.dumps(hello)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="websocket", daemon=True)
        self._waiting: set[asyncio.Event] = set()
        self._newest: tuple[int, Sequence[TrackResult]] = (0, ())
        self._text: str | None = None
        self._count = 0
        self._closing = False

    def __enter__(self) -> WebSocketServer:
        self._thread.start()
        try:
            self.address = self._run(self._start())
        except OSError as error:
            self._stop()
            raise InputError(
                f"Cannot serve at {self.address} ({error.strerror or error}). Wanted a free port of this machine; "
                "choose another one for --serve."
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._finish())
        self._stop()

    def __call__(self, window: EventWindow, hands: Sequence[TrackResult]) -> None:
        self._loop.call_soon_threadsafe(self._publish, window.end_us, hands)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # What follows runs in the thread of the loop.

    async def _start(self) -> str:
        self._server = await serve(self._client, *self._where, compression=None, write_limit=_AHEAD, close_timeout=1)
        host, port = next(iter(self._server.sockets)).getsockname()[:2]
        return f"ws://{host}:{port}"

    def _publish(self, t_us: int, hands: Sequence[TrackResult]) -> None:
        self._newest, self._text, self._count = (t_us, hands), None, self._count + 1
        for news in self._waiting:
            news.set()

    def _message(self) -> str:
        """The newest window as text, made once for all clients and only where there is one."""
        if self._text is None:
            self._text = json.dumps(hands_message(*self._newest))
        return self._text

    async def _client(self, connection: ServerConnection) -> None:
        # Little is sent ahead to a slow client: what it gets next is then new.
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _AHEAD)
        news, sent = asyncio.Event(), 0
        self._waiting.add(news)
        try:
            await connection.send(self._hello)
            while not (self._closing and sent == self._count):
                if sent == self._count:
                    news.clear()
                    await news.wait()
                else:
                    sent = self._count
                    await connection.send(self._message())
        except ConnectionClosed:
            pass
        finally:
            self._waiting.discard(news)

    async def _finish(self) -> None:
        self._closing = True
        end = self._loop.time() + _CLOSING_S
        while self._waiting and self._loop.time() < end:
            for news in self._waiting:
                news.set()
            await asyncio.sleep(0.01)
        self._server.close()
        await self._server.wait_closed()


@contextmanager
def open_sinks(jsonl: str | None, port: str | None, camera: Camera, model: str) -> Iterator[list[Sink]]:
    """The sinks of `--jsonl` and `--serve`, open; none where neither is given."""
    with ExitStack() as stack:
        sinks: list[Sink] = []
        if jsonl is not None:
            sinks.append(stack.enter_context(JsonLines(jsonl)))
        if port is not None:
            server = stack.enter_context(WebSocketServer(port, hello_message(camera, model)))
            print(f"serving hands at {server.address}", file=sys.stderr, flush=True)
            sinks.append(server)
        yield sinks
