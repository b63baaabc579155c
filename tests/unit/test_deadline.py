"""Deadlines are points in time: they can be passed down without adding up."""

from __future__ import annotations

import dataclasses
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_worker import deadline
from snakepit_worker.deadline import Deadline


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, to be set."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_no_limit() -> None:
    never = Deadline.after(None)
    assert never == Deadline() == deadline.NEVER
    assert never.remaining() is None
    assert never.bound(5.0) == 5.0
    assert not never.passed


def test_time_runs_out_but_never_below_zero(clock: list[float]) -> None:
    limit = Deadline.after(10.0)
    assert (limit.remaining(), limit.bound(30.0), limit.bound(2.0)) == (10.0, 10.0, 2.0)
    clock[0] += 4.0
    assert (limit.remaining(), limit.passed) == (6.0, False)
    clock[0] += 6.0
    assert (limit.remaining(), limit.bound(2.0), limit.passed) == (0.0, 0.0, True)
    clock[0] += 100.0
    assert (limit.remaining(), limit.passed) == (0.0, True)


def test_a_deadline_in_the_past_has_passed() -> None:
    assert Deadline.after(-1.0).passed
    assert Deadline.after(-1.0).remaining() == 0.0


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_what_is_bound_is_never_more_than_asked_for_nor_than_is_left(
    left: float, asked: float
) -> None:
    limit = Deadline.after(left)
    assert 0.0 <= limit.bound(asked) <= min(asked, left + 1e-6)


def test_it_is_a_value() -> None:
    assert Deadline(5.0) == Deadline(5.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Deadline(5.0).at = 6.0  # type: ignore[misc]
