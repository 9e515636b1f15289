"""ROS bags: what rosbags writes, of every message type and both versions of ROS, is read back event by event."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from event_recordings import SIZE, evt3, same, some_events
from evhands.events.io import open_events
from evhands.types import Events, InputError

pytest.importorskip("rosbags")

from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

START_US = 1_655_000_000_000_000
EVENT = "uint16 x\nuint16 y\n{time} ts\nbool polarity\n"
ARRAY = "std_msgs/Header header\nuint32 height\nuint32 width\ndvs_msgs/Event[] events\n"
PACKET = (
    "std_msgs/Header header\nuint32 height\nuint32 width\nuint64 seq\nuint64 time_base\nstring encoding\n"
    "bool is_bigendian\nuint8[] events\n"
)


def store_of(version: int):
    store = get_typestore(Stores.ROS1_NOETIC if version == 1 else Stores.ROS2_HUMBLE)
    time = "time" if version == 1 else "builtin_interfaces/Time"
    store.register(get_types_from_msg(EVENT.format(time=time), "dvs_msgs/msg/Event"))
    store.register(get_types_from_msg(ARRAY, "dvs_msgs/msg/EventArray"))
    store.register(get_types_from_msg(PACKET, "event_camera_msgs/msg/EventPacket"))
    return store


def header(store, version: int, t_us: int, frame: str = "cam"):
    stamp = store.types["builtin_interfaces/msg/Time"](sec=t_us // 1_000_000, nanosec=t_us % 1_000_000 * 1000)
    sequence = {"seq": 0} if version == 1 else {}
    return store.types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame, **sequence)


def array(store, version: int, events: Events, frame: str = "cam"):
    time, event = store.types["builtin_interfaces/msg/Time"], store.types["dvs_msgs/msg/Event"]
    rows = [
        event(x=int(x), y=int(y), ts=time(sec=int(t) // 1_000_000, nanosec=int(t) % 1_000_000 * 1000), polarity=bool(p))
        for x, y, t, p in zip(events.x, events.y, events.t_us, events.p)
    ]
    at = int(events.t_us[0]) if len(events) else START_US
    head = header(store, version, at, frame)
    return store.types["dvs_msgs/msg/EventArray"](header=head, height=SIZE[1], width=SIZE[0], events=rows)


def packet(store, version: int, events: Events, encoding: str):
    base = int(events.t_us[0]) * 1000
    if encoding == "mono":
        words = events.t_us.astype(np.uint64) * np.uint64(1000) - np.uint64(base)
        words |= events.x.astype(np.uint64) << np.uint64(32) | events.y.astype(np.uint64) << np.uint64(48)
        data = np.frombuffer((words | events.p.astype(np.uint64) << np.uint64(63)).tobytes(), np.uint8)
    else:
        data = np.frombuffer(evt3(events), np.uint8)
    return store.types["event_camera_msgs/msg/EventPacket"](
        header=header(store, version, int(events.t_us[0])), height=SIZE[1], width=SIZE[0], seq=0, time_base=base,
        encoding=encoding, is_bigendian=False, events=data,
    )  # fmt: skip


def write_bag(path: Path, version: int, topics: dict[str, list], store) -> Path:
    writer = Writer1(path) if version == 1 else Writer2(path, version=9, storage_plugin=StoragePlugin.MCAP)
    with writer:
        for topic, messages in topics.items():
            connection = writer.add_connection(topic, messages[0].__msgtype__, typestore=store)
            for k, message in enumerate(messages):
                pack = store.serialize_ros1 if version == 1 else store.serialize_cdr
                writer.write(connection, (START_US + k) * 1000, pack(message, message.__msgtype__))
    return path


def parts(events: Events, n: int = 700) -> list[Events]:
    return [events[i : i + n] for i in range(0, len(events), n)]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", ["array", "mono", "evt3"])
def test_a_round_trip_keeps_every_event(version: int, kind: str, tmp_path: Path) -> None:
    store = store_of(version)
    # The times of EVT 3.0 are those of the sensor, of 24 bits.
    events = some_events(2000, start_us=0 if kind == "evt3" else START_US)
    make = {"array": lambda e: array(store, version, e)}.get(kind, lambda e: packet(store, version, e, kind))
    path = write_bag(
        tmp_path / ("a.bag" if version == 1 else "a"), version, {"/dvs": [*map(make, parts(events))]}, store
    )
    file = open_events(path)
    assert file.size == SIZE and file.details["topic"] == "/dvs"
    assert same(file.read(), events)


def test_packets_of_a_real_camera_are_read_as_its_file(shared_path, tmp_path: Path) -> None:
    """EVT 3.0 words cut anywhere into packets, as a driver sends them: rows, vectors and times go on across them."""
    path = shared_path("real/evt3-limb/limb.evt3.raw")
    raw = open_events(path)
    data, store = np.fromfile(path, np.uint8)[raw.data_start :], store_of(2)
    cuts = np.linspace(0, len(data) // 2, 200).astype(int) * 2
    messages = [packet(store, 2, some_events(1), "mono") for _ in cuts[1:]]
    for message, start, end in zip(messages, cuts[:-1], cuts[1:], strict=True):
        message.encoding, message.events = "evt3", data[start:end]
        message.width, message.height = raw.size
    file = open_events(write_bag(tmp_path / "limb", 2, {"/event_camera/events": messages}, store))
    assert file.size == raw.size and same(file.read(), raw.read())


@pytest.mark.parametrize("frame", ["", "c", "ca", "cam", "came", "davis346"])
def test_the_name_of_the_frame_does_not_shift_the_events(frame: str, tmp_path: Path) -> None:
    for version in (1, 2):
        store, events = store_of(version), some_events(50, start_us=START_US)
        messages = [array(store, version, events[:0], frame), array(store, version, events, frame)]
        path = write_bag(tmp_path / ("one.bag" if version == 1 else "two"), version, {"/dvs": messages}, store)
        assert same(open_events(path).read(), events)


def test_a_single_mcap_is_read_too(tmp_path: Path) -> None:
    store, events = store_of(2), some_events(50, start_us=START_US)
    folder = write_bag(tmp_path / "bag", 2, {"/dvs": [array(store, 2, events)]}, store)
    (file,) = folder.glob("*.mcap")
    assert same(open_events(file).read(), events)


def test_of_several_topics_one_is_named(tmp_path: Path) -> None:
    store, left, right = store_of(1), some_events(50, 1, start_us=START_US), some_events(50, 2, start_us=START_US)
    topics = {"/left": [array(store, 1, left)], "/right": [array(store, 1, right)]}
    path = write_bag(tmp_path / "two.bag", 1, topics, store)
    with pytest.raises(InputError, match="/left .*/right .*--topic"):
        open_events(path)
    assert same(open_events(path, topic="/right").read(), right)


def test_bags_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    store = store_of(1)
    path = write_bag(tmp_path / "a.bag", 1, {"/words": [store.types["std_msgs/msg/String"](data="no events")]}, store)
    with pytest.raises(InputError, match="/words"):
        open_events(path)
    events = some_events(50, start_us=START_US)
    path = write_bag(tmp_path / "b.bag", 1, {"/e": [packet(store, 1, events, "mono")]}, store)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"b\.bag"):
        open_events(path)
    strange = packet(store, 1, events, "mono")
    strange.encoding = "libcaer"
    path = write_bag(tmp_path / "c.bag", 1, {"/e": [strange]}, store)
    with pytest.raises(InputError, match="libcaer"):
        open_events(path)


def test_without_rosbags_the_message_says_what_to_install(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.bag"
    path.write_bytes(b"#ROSBAG V2.0\n")
    monkeypatch.setitem(sys.modules, "rosbags.highlevel", None)
    with pytest.raises(InputError, match=r"evhands\[ros\]"):
        open_events(path)
