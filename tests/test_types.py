"""The values that flow: slicing, joining and time ranges of events; shape checks on construction."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import REPOSITORY
from evhands.hand.skeleton import JOINT_ORDERS, MANO16_PARENTS, OPENPOSE21_BONES, permutation
from evhands.types import Camera, Events, EventStream, EventWindow, InputError

SIZE = (8, 6)


def events_at(times: list[int]) -> Events:
    t_us = np.sort(np.array(times, np.int64))
    n = np.arange(len(t_us))
    return Events((n % SIZE[0]).astype(np.uint16), (n % SIZE[1]).astype(np.uint16), t_us, n % 2 == 0, SIZE)


times = st.lists(st.integers(0, 50), max_size=30)


def same(a: Events, b: Events) -> bool:
    return a.size == b.size and all(np.array_equal(getattr(a, c), getattr(b, c)) for c in ("x", "y", "t_us", "p"))


@given(times, st.integers(-5, 55), st.integers(-5, 55))
def test_between_is_half_open_and_keeps_every_event_of_the_range(ts, start_us, end_us) -> None:
    events = events_at(ts)
    part = events.between(start_us, end_us)
    assert len(part) == sum(start_us <= t < end_us for t in ts) if start_us <= end_us else len(part) == 0


@given(times, st.integers(0, 30))
def test_parts_joined_are_the_whole(ts, cut) -> None:
    events = events_at(ts)
    assert same(Events.concatenate([events[:cut], events[cut:]]), events)
    middle = int(events.t_us[len(events) // 2]) if ts else 0
    assert same(Events.concatenate([events.between(-1, middle), events.between(middle, 99)]), events)


def test_no_parts_want_a_size() -> None:
    assert same(Events.concatenate([], SIZE), Events.empty(SIZE))
    with pytest.raises(ValueError, match="give the sensor size"):
        Events.concatenate([])


def test_a_slice_is_a_view_and_values_are_frozen() -> None:
    events = events_at([1, 2, 3])
    assert np.shares_memory(events[1:].x, events.x)
    with pytest.raises(dataclasses.FrozenInstanceError):
        events.size = (1, 1)  # type: ignore[misc]


def test_shape_checks_are_on_in_tests() -> None:
    e = events_at([1, 2, 3])
    with pytest.raises(Exception, match="(?i)type-check"):
        Events(e.x, e.y, e.t_us[:2], e.p, SIZE)
    with pytest.raises(Exception, match="(?i)type-check"):
        Events(e.x.astype(np.float32), e.y, e.t_us, e.p, SIZE)
    with pytest.raises(Exception, match="(?i)type-check"):
        Camera(np.eye(4), SIZE)


def test_a_replay_is_an_event_stream() -> None:
    class Replay:
        size = SIZE

        def __iter__(self):
            yield events_at([1, 2])

    assert isinstance(Replay(), EventStream)
    assert not isinstance(EventWindow(events_at([]), 0, 1), EventStream)


def test_input_errors_are_value_errors() -> None:
    assert issubclass(InputError, ValueError)


@pytest.mark.parametrize("source", [n for n, j in JOINT_ORDERS.items() if len(j) == 21])
@pytest.mark.parametrize("target", list(JOINT_ORDERS))
def test_permutations_move_names(source, target) -> None:
    names = np.array(JOINT_ORDERS[source])
    assert tuple(names[permutation(source, target)]) == JOINT_ORDERS[target]


@pytest.mark.parametrize("a", [n for n, j in JOINT_ORDERS.items() if len(j) == 21])
def test_there_and_back_is_the_identity(a) -> None:
    there, back = permutation(a, "openpose21"), permutation("openpose21", a)
    assert np.array_equal(there[back], np.arange(21))


def test_bones_are_a_tree_from_the_wrist_to_five_tips() -> None:
    parents = {child: parent for parent, child in OPENPOSE21_BONES}
    assert set(parents) == set(range(1, 21))
    names = JOINT_ORDERS["openpose21"]
    for child, parent in parents.items():
        assert parent == 0 or names[child][:-1] == names[parent][:-1]
    tips = set(range(1, 21)) - set(parents.values())
    assert {names[t] for t in tips} == {f"{f}4" for f in ("thumb", "index", "middle", "ring", "little")}


def test_mano_parents_agree_with_the_bones() -> None:
    names = JOINT_ORDERS["mano16"]
    bones = {(JOINT_ORDERS["openpose21"][a], JOINT_ORDERS["openpose21"][b]) for a, b in OPENPOSE21_BONES}
    assert {(names[p], names[j]) for j, p in enumerate(MANO16_PARENTS) if p >= 0} <= bones


def test_the_table_of_orders_in_the_docs_is_that_of_the_code() -> None:
    lines = (REPOSITORY / "docs" / "conventions.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| index |"))
    cells = [[cell.strip().strip("`") for cell in line.split("|")[1:-1]] for line in lines[start : start + 23]]
    for column, name in enumerate(cells[0][1:], start=1):
        assert tuple(row[column] for row in cells[2:] if row[column]) == JOINT_ORDERS[name]
    assert set(cells[0][1:]) == set(JOINT_ORDERS)
