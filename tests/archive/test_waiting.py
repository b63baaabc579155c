"""What waits for the archive's thread."""

from __future__ import annotations

import time
from concurrent.futures import Future

import pytest

from snakepit_worker.archive.model import Change
from snakepit_worker.archive.records import pack
from snakepit_worker.archive.waiting import Question, Task, WaitingLine, Write
from snakepit_worker.errors import ResourceExhausted, Unavailable
from tests.archive.conftest import LIMIT, resource


def of_size(size: int) -> Write:
    """A write of so many bytes."""
    recipe: dict[str, object] = {"x": "y" * (size - len('{"x":""}') - len("{}"))}
    change = Change(session_id="s", fence="f", put=(resource("r", recipe),))
    write = Write(pack(change, 1 << 30), None)
    assert write.bytes == size
    return write


def question() -> Question:
    return Question(lambda _: None, Future())


def take(line: WaitingLine) -> list[Write] | Question | None:
    return line.take(time.monotonic())


def test_writes_are_taken_together_up_to_a_question() -> None:
    line = WaitingLine(10, 1_000, 0.0)
    tasks: list[Task] = [of_size(20), of_size(20), question(), of_size(20)]
    for task in tasks:
        line.put(task)
    assert take(line) == tasks[:2]
    assert take(line) is tasks[2]
    assert take(line) == tasks[3:]
    assert take(line) is None


@pytest.mark.parametrize(
    ("count", "size", "first"), [(1_001, 20, 1_000), (3, 20 << 20, 1), (3, 12 << 20, 2)]
)
def test_a_group_is_bounded(count: int, size: int, first: int) -> None:
    line = WaitingLine(10_000, 1 << 30, 0.0)
    write = of_size(size)
    for _ in range(count):
        line.put(write)
    assert take(line) == [write] * first
    assert take(line) == [write] * min(first, count - first)


def test_what_was_taken_makes_room() -> None:
    line = WaitingLine(10, 100, 0.0)
    for _ in range(5):
        line.put(of_size(60))
        with pytest.raises(ResourceExhausted) as caught:
            line.put(of_size(60))
        assert caught.value.details["waiting_bytes"] == 60
        assert take(line) is not None
    for _ in range(2):
        line.put(of_size(50))
    assert len(line.take_all()) == 2
    for _ in range(10):
        line.put(question())
    with pytest.raises(ResourceExhausted):
        line.put(question())


def test_a_write_larger_than_all_that_may_wait_waits_alone() -> None:
    line = WaitingLine(10, 100, 0.0)
    line.put(of_size(200))
    with pytest.raises(ResourceExhausted):
        line.put(of_size(20))
    line.put(question())


def test_writes_gather_until_somebody_asks() -> None:
    line = WaitingLine(10, 1_000, LIMIT)
    line.put(of_size(20))
    line.put(question())
    began = time.monotonic()
    assert len(line.take(began + LIMIT)) == 1  # type: ignore[arg-type]  # of writes
    assert time.monotonic() < began + LIMIT


def test_a_closed_line_gives_what_it_has_and_takes_nothing() -> None:
    line = WaitingLine(10, 1_000, LIMIT)
    line.put(of_size(20))
    line.close(5.0)
    assert line.closed_until == 5.0
    with pytest.raises(Unavailable):
        line.put(of_size(20))
    began = time.monotonic()
    assert isinstance(line.take(began + LIMIT), list)
    assert line.take(began + LIMIT) is None
    assert time.monotonic() < began + LIMIT
