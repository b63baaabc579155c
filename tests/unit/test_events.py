"""Telemetry events: buffered, filtered, sampled, given to one reader; emitting never waits."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_worker.telemetry.events import Events
from snakepit_worker.wire.generated.snakepit_bridge_pb2 import TelemetryControl, TelemetryEvent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator

LIMIT = 20.0
BUFFERED = 1024


def toggle(*, enabled: bool) -> TelemetryControl:
    control = TelemetryControl()
    control.toggle.enabled = enabled
    return control


def sampling(rate: float, *patterns: str) -> TelemetryControl:
    control = TelemetryControl()
    control.sampling.sampling_rate = rate
    control.sampling.event_patterns.extend(patterns)
    return control


def filtering(allow: tuple[str, ...] = (), deny: tuple[str, ...] = ()) -> TelemetryControl:
    control = TelemetryControl()
    control.filter.allow.extend(allow)
    control.filter.deny.extend(deny)
    return control


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, LIMIT))


def drain(events: Events) -> list[TelemetryEvent]:
    """What is buffered; no event can follow."""
    events.close()

    async def read() -> list[TelemetryEvent]:
        return [event async for event in events.read()]

    got: list[TelemetryEvent] = run(read())
    return got


def names(events: Events) -> list[str]:
    return [".".join(event.event_parts) for event in drain(events)]


def emit(events: Events, *event_names: str) -> None:
    for name in event_names:
        events.emit(name, {"count": 1})


async def take(reader: AsyncGenerator[TelemetryEvent, None], count: int) -> list[str]:
    return [".".join((await anext(reader)).event_parts) for _ in range(count)]


def test_an_event_as_the_host_reads_it() -> None:
    events = Events()
    before = time.time_ns()
    events.emit(
        "tool.execution.stop",
        {"duration": 5, "cpu_percent": 0.5, "ok": True, "note": "text", "odd": None},
        {"tool": "shop.price", "size": 3},
        "sp-1",
    )
    (event,) = drain(events)
    assert list(event.event_parts) == ["tool", "execution", "stop"]
    assert event.measurements["duration"].int_value == 5
    assert event.measurements["cpu_percent"].float_value == 0.5
    assert event.measurements["ok"].WhichOneof("value") == "int_value"
    assert event.measurements["ok"].int_value == 1
    assert event.measurements["note"].string_value == "text"
    assert event.measurements["odd"].string_value == "None"
    assert dict(event.metadata) == {"tool": "shop.price", "size": "3"}
    assert event.correlation_id == "sp-1"
    assert before <= event.timestamp_ns <= time.time_ns()


def test_an_event_needs_no_metadata() -> None:
    events = Events()
    events.emit("python.gc.completed", {})
    (event,) = drain(events)
    assert not event.metadata
    assert event.correlation_id == ""


@pytest.mark.parametrize(
    ("measurements", "metadata"),
    [
        ({"count": 1}, {"error_message": "\ud800"}),
        ({"count": 1}, {"\ud800": "x"}),
        ({"count": 2**70}, {}),
        ({"count": "\ud800"}, {}),
    ],
    ids=ascii,
)
def test_an_odd_event_does_not_end_the_stream(
    measurements: dict[str, object], metadata: dict[str, object]
) -> None:
    """Error messages of tools come this way, and they may hold anything."""
    events = Events()
    events.emit("first.odd", measurements, metadata)
    events.emit("second.plain", {"count": 1})
    assert names(events)[-1] == "second.plain"


# --- Buffer ---------------------------------------------------------------------------------------


@pytest.mark.conforms(90, "D44")
def test_events_before_the_reader_are_kept_up_to_a_bound_the_newest_dropped() -> None:
    events = Events()
    emit(events, *(f"e.n{number}" for number in range(BUFFERED + 7)))
    assert events.dropped == 7
    assert names(events) == [f"e.n{number}" for number in range(BUFFERED)]


def test_a_reader_that_waits_is_woken() -> None:
    events = Events()

    async def read() -> list[str]:
        reader = events.read()
        first = asyncio.ensure_future(take(reader, 1))
        await asyncio.sleep(0)
        emit(events, "a.b", "a.c")
        return [*(await first), *(await take(reader, 1))]

    assert run(read()) == ["a.b", "a.c"]


def test_events_from_other_threads_arrive() -> None:
    events = Events()

    async def read() -> list[str]:
        reader = events.read()
        first = asyncio.ensure_future(take(reader, 40))
        await asyncio.sleep(0)
        threads = [
            threading.Thread(target=emit, args=(events, *(f"t{n}.e{i}" for i in range(10))))
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        return await first

    got = run(read())
    for n in range(4):  # each thread's own in order
        assert [name for name in got if name.startswith(f"t{n}.")] == [
            f"t{n}.e{i}" for i in range(10)
        ]


def test_events_between_two_readers_are_kept() -> None:
    events = Events()

    async def read() -> list[str]:
        emit(events, "a.1")
        async with aclosing(events.read()) as reader:
            got = await take(reader, 1)
        emit(events, "a.2")
        async with aclosing(events.read()) as reader:
            return [*got, *(await take(reader, 1))]

    assert run(read()) == ["a.1", "a.2"]


def test_events_that_a_reader_has_not_taken_are_kept_for_the_next() -> None:
    """A stream ends at any time, by its deadline for one: what it has not sent is not lost."""
    events = Events()

    async def read() -> list[str]:
        emit(events, *(f"a.{number}" for number in range(5)))
        async with aclosing(events.read()) as reader:
            return await take(reader, 2)

    assert run(read()) == ["a.0", "a.1"]
    emit(events, "a.5")
    assert names(events) == ["a.2", "a.3", "a.4", "a.5"]


def test_a_cancelled_reader_leaves_the_events_to_the_next() -> None:
    events = Events()

    async def read() -> list[str]:
        waiting = asyncio.ensure_future(take(events.read(), 1))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        emit(events, "a.1", "a.2")
        return await take(events.read(), 2)

    assert run(read()) == ["a.1", "a.2"]


def test_a_second_reader_takes_over() -> None:
    events = Events()

    async def read() -> tuple[list[TelemetryEvent], list[str]]:
        async def all_of(reader: AsyncGenerator[TelemetryEvent, None]) -> list[TelemetryEvent]:
            return [event async for event in reader]

        first = asyncio.ensure_future(all_of(events.read()))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(take(events.read(), 1))
        await asyncio.sleep(0)
        emit(events, "a.1")
        return await first, await second

    assert run(read()) == ([], ["a.1"])


def test_close_ends_the_reader_after_what_is_buffered() -> None:
    events = Events()

    async def read() -> list[str]:
        got = []
        async for event in events.read():
            got.append(".".join(event.event_parts))
            events.close()
        return got

    emit(events, "a.1", "a.2")
    assert run(read()) == ["a.1", "a.2"]


def test_close_wakes_a_reader_that_waits() -> None:
    events = Events()

    async def read() -> list[TelemetryEvent]:
        async def all_of() -> list[TelemetryEvent]:
            return [event async for event in events.read()]

        reading = asyncio.ensure_future(all_of())
        await asyncio.sleep(0)
        events.close()
        return await reading

    assert run(read()) == []


def test_emitting_never_fails_whatever_became_of_the_reader() -> None:
    events = Events()

    async def read() -> None:
        waiting = asyncio.ensure_future(take(events.read(), 1))
        await asyncio.sleep(0)
        waiting.cancel()

    run(read())  # its loop is closed by now
    emit(events, "a.1")
    events.close()
    emit(events, "a.2")
    assert names(events) == ["a.1", "a.2"]


# --- Control --------------------------------------------------------------------------------------


def test_off_means_discarded_and_not_buffered() -> None:
    events = Events()
    emit(events, "a.before")
    events.control(toggle(enabled=False))
    emit(events, "a.while")
    events.control(toggle(enabled=True))
    emit(events, "a.after")
    assert names(events) == ["a.before", "a.after"]
    assert events.dropped == 0


@contextmanager
def chances(*numbers: float) -> Iterator[Callable[[], float]]:
    left = list(numbers)
    yield lambda: left.pop(0)
    assert left == []


@pytest.mark.parametrize(
    ("rate", "chance", "passes"),
    [
        (0.5, 0.49, True),
        (0.5, 0.5, False),
        (0.5, 0.99, False),
        (0.0, 0.0, False),
        (-3.0, 0.0, False),
    ],
)
def test_sampling_lets_a_share_through(rate: float, chance: float, passes: bool) -> None:  # noqa: FBT001 - a row of the table
    with chances(chance) as chance_of:
        events = Events(chance_of)
        events.control(sampling(rate))
        emit(events, "a.1")
        assert names(events) == (["a.1"] if passes else [])


@pytest.mark.parametrize("rate", [1.0, 7.0])
def test_a_full_rate_asks_no_chance(rate: float) -> None:
    with chances() as chance_of:
        events = Events(chance_of)
        events.control(sampling(rate))
        emit(events, "a.1")
        assert names(events) == ["a.1"]


@pytest.mark.conforms(89, "D44")
def test_sampling_of_patterns_leaves_the_rest_alone() -> None:
    events = Events(lambda: 0.5)
    events.control(sampling(0.0, "tool.*.start", "python.?c"))
    emit(events, "tool.execution.start", "tool.execution.stop", "python.gc", "python.gcc")
    assert names(events) == ["tool.execution.stop", "python.gcc"]


def test_the_last_sampling_counts() -> None:
    events = Events(lambda: 0.5)
    events.control(sampling(0.0))
    events.control(sampling(0.0, "a.*"))
    emit(events, "a.1", "b.1")
    events.control(sampling(1.0))
    emit(events, "a.2")
    assert names(events) == ["b.1", "a.2"]


@pytest.mark.conforms(89)
@pytest.mark.parametrize(
    ("allow", "deny", "passed"),
    [
        ((), (), ["a.x", "b.x", "b.y"]),
        (("b.*",), (), ["b.x", "b.y"]),
        ((), ("b.*",), ["a.x"]),
        (("b.*",), ("*.y",), ["b.x"]),
        (("b.x",), ("b.x",), []),
        (("?.[xz]",), (), ["a.x", "b.x"]),
        (("A.*",), (), []),
        (("a",), (), []),
    ],
    ids=repr,
)
def test_deny_wins_over_allow_and_no_allow_means_all(
    allow: tuple[str, ...], deny: tuple[str, ...], passed: list[str]
) -> None:
    events = Events()
    events.control(filtering(("nothing",), ("*",)))
    events.control(filtering(allow, deny))  # replaces both lists
    emit(events, "a.x", "b.x", "b.y")
    assert names(events) == passed


def test_a_filter_spares_nobody_from_the_toggle() -> None:
    events = Events()
    events.control(filtering(("*",)))
    events.control(toggle(enabled=False))
    emit(events, "a.x")
    assert names(events) == []


@pytest.mark.conforms(89)
def test_controls_act_on_what_follows_only() -> None:
    events = Events()
    emit(events, "a.1")
    events.control(filtering(deny=("*",)))
    events.control(toggle(enabled=False))
    assert names(events) == ["a.1"]


def test_an_empty_control_changes_nothing() -> None:
    events = Events()
    events.control(TelemetryControl())
    emit(events, "a.1")
    assert names(events) == ["a.1"]


@given(st.integers(0, 2 * BUFFERED), st.integers(0, 50))
def test_what_is_read_and_what_is_dropped_is_what_was_emitted(first: int, second: int) -> None:
    events = Events()

    async def read() -> int:
        emit(events, *["a.b"] * first)
        async with aclosing(events.read()) as reader:
            got = len(await take(reader, min(first, BUFFERED)))
        emit(events, *["a.b"] * second)
        return got

    got = run(read())
    assert got + len(drain(events)) + events.dropped == first + second
