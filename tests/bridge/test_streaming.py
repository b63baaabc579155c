"""Streaming calls: chunks, their end, their errors, and what a reader that leaves does to them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import (
    AsyncIterator,
    Iterator,
)
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import numpy as np
import pytest

from snakepit_worker import Adapter, CallContext, Chunk, tool
from snakepit_worker.errors import (
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    ProviderError,
    ResourceExhausted,
    WorkerError,
)
from tests.bridge.conftest import LIMIT, in_thread

if TYPE_CHECKING:
    from snakepit_worker.testing import Connection
    from tests.bridge.conftest import Gate, Served

STATUS_LIMIT = 4096


class ForeignError(Exception):
    pass


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise ValueError


class Model:
    """Iterable like the models of pydantic, and like them one value all the same."""

    def __iter__(self) -> Iterator[tuple[str, int]]:
        yield ("a", 1)

    def model_dump(self) -> dict[str, int]:
        return dict(self)


ERRORS: dict[str, Any] = {
    "ValueError": ValueError("no"),
    "ForeignError": ForeignError("of a framework"),
    "long": ValueError("x" * 100_000),
    "long and not ASCII": ValueError("é🐍" * 20_000),
    "surrogates": ValueError("\ud800" * 5000),
    "line breaks": ValueError("\r\n" * 5000),
    "UnspeakableError": UnspeakableError(),
    "CancelledError": asyncio.CancelledError("of the tool"),
    "RecursionError": RecursionError("deep"),
    "BaseException": BaseException("base"),
    "InvalidArgument": InvalidArgument("wrong"),
    "NotFound": NotFound("gone"),
    "ResourceExhausted": ResourceExhausted("full"),
    "ProviderError": ProviderError("down"),
    "DeadlineExceeded": DeadlineExceeded("late"),
    "WorkerError": WorkerError("plain"),
}
RETURNED: dict[str, Any] = {
    "dict": {"a": 1, "b": 2},
    "empty dict": {},
    "text": "abc",
    "bytes": b"\x00\xff",
    "bytearray": bytearray(b"\x00\xff"),
    "memoryview": memoryview(b"\x00\xff"),
    "array": np.arange(3),
    "number": 7,
    "none": None,
    "model": Model(),
    "list": [1, {"a": 2}],
    "tuple": (1, 2),
    "range": range(2),
    "empty list": [],
    "chunk": Chunk(5, is_final=True),
}


class Streams(Adapter):
    name = "streams"

    @tool
    def numbers(self, count: int, final: int = 0, after: int = 0) -> Iterator[Any]:
        for number in range(1, count + 1):
            yield Chunk(number, is_final=True) if number == final else number
        for number in range(after):
            yield -number

    @tool
    async def numbers_async(self, count: int, final: int = 0, after: int = 0) -> AsyncIterator[Any]:
        for item in self.numbers(count, final, after):
            yield item

    @tool
    def fail(self, how: str, before: int = 1) -> Iterator[int]:
        yield from range(before)
        raise ERRORS[how]

    @tool
    async def fail_async(self, how: str, before: int = 1) -> AsyncIterator[int]:
        for number in range(before):
            yield number
        raise ERRORS[how]

    @tool
    def cannot_encode(self) -> Iterator[Any]:
        yield 1
        yield "\ud800"
        yield 2

    @tool
    async def cannot_encode_async(self) -> AsyncIterator[Any]:
        yield 1
        yield "\ud800"
        yield 2

    @tool
    def returned(self, key: str) -> Any:
        return RETURNED[key]

    @tool
    async def returned_async(self, key: str) -> Any:
        return RETURNED[key]

    @tool
    def iterator(self) -> Any:
        return iter([1, 2])

    @tool
    async def async_iterator(self) -> Any:
        async def numbers() -> AsyncIterator[int]:
            yield 1
            yield 2

        return numbers()

    @tool
    def fail_before(self) -> NoReturn:
        raise ValueError("before the first item")

    @tool
    def context(self, ctx: CallContext) -> Iterator[str]:
        yield ctx.correlation_id
        yield threading.current_thread().name

    @tool
    async def context_async(self, ctx: CallContext) -> AsyncIterator[str]:
        yield ctx.correlation_id
        yield threading.current_thread().name


@pytest.fixture
def connection(serve: Served) -> Connection:
    return serve(Streams())


def data_of(connection: Connection, name: str, arguments: dict[str, Any]) -> list[Any]:
    return [chunk.get("data", chunk) for chunk in connection.stream(name, arguments)]


BOTH = pytest.mark.parametrize("form", ["", "_async"], ids=["sync", "async"])


# --- The end of a stream --------------------------------------------------------------------------


@pytest.mark.conforms(59)
@BOTH
@pytest.mark.parametrize("count", [0, 1, 5])
def test_an_empty_final_chunk_follows_the_items(
    connection: Connection, form: str, count: int
) -> None:
    name = f"streams.numbers{form}"
    request = connection.request(name, {"count": count})
    chunks = list(connection.stub.ExecuteStreamingTool(request, timeout=LIMIT))
    assert [chunk.chunk_id for chunk in chunks] == [f"{name}-{n}" for n in range(1, count + 2)]
    assert [chunk.data for chunk in chunks] == [*(b"%d" % n for n in range(1, count + 1)), b""]
    assert [chunk.is_final for chunk in chunks] == [False] * count + [True]


@pytest.mark.conforms(60)
@BOTH
def test_none_follows_where_an_item_was_final(connection: Connection, form: str) -> None:
    chunks = list(connection.stream(f"streams.numbers{form}", {"count": 3, "final": 3}))
    assert chunks == [
        {"data": 1, "is_final": False},
        {"data": 2, "is_final": False},
        {"data": 3, "is_final": True},
    ]


@pytest.mark.conforms(60)
@BOTH
def test_items_after_a_final_one_are_still_sent(connection: Connection, form: str) -> None:
    arguments = {"count": 2, "final": 1, "after": 2}
    chunks = list(connection.stream(f"streams.numbers{form}", arguments))
    assert [(chunk["data"], chunk["is_final"]) for chunk in chunks] == [
        (1, True),
        (2, False),
        (0, False),
        (-1, False),
    ]


@BOTH
def test_nothing_is_lost_of_a_long_stream(connection: Connection, form: str) -> None:
    count = 2500
    items = data_of(connection, f"streams.numbers{form}", {"count": count})
    assert items[:-1] == list(range(1, count + 1))


@pytest.mark.conforms(61, "D13")
@pytest.mark.parametrize("form", ["", "_async"])
@pytest.mark.parametrize(
    ("key", "chunks"),
    [
        ("dict", [{"a": 1, "b": 2}]),
        ("empty dict", [{}]),
        ("text", [{"data": "abc"}]),
        ("bytes", [{"raw_data": b"\x00\xff"}]),
        ("bytearray", [{"raw_data": b"\x00\xff"}]),
        ("memoryview", [{"raw_data": b"\x00\xff"}]),
        ("array", [{"data": [0, 1, 2]}]),
        ("number", [{"data": 7}]),
        ("none", [{}]),
        ("model", [{"a": 1}]),
        ("list", [{"data": 1}, {"a": 2}]),
        ("tuple", [{"data": 1}, {"data": 2}]),
        ("range", [{"data": 0}, {"data": 1}]),
        ("empty list", []),
    ],
)
def test_what_a_tool_returns_instead_of_yielding(
    connection: Connection, form: str, key: str, chunks: list[dict[str, Any]]
) -> None:
    got = list(connection.stream(f"streams.returned{form}", {"key": key}))
    assert got == [*({**chunk, "is_final": False} for chunk in chunks), {"is_final": True}]


def test_a_returned_chunk_may_be_the_final_one(connection: Connection) -> None:
    got = list(connection.stream("streams.returned", {"key": "chunk"}))
    assert got == [{"data": 5, "is_final": True}]


@pytest.mark.parametrize("name", ["iterator", "async_iterator"])
def test_a_returned_iterator_is_streamed(connection: Connection, name: str) -> None:
    assert data_of(connection, f"streams.{name}", {}) == [1, 2, {"is_final": True}]


@pytest.mark.parametrize(("form", "thread"), [("", "tool-0"), ("_async", "bridge")])
def test_a_generator_runs_where_its_kind_runs(
    connection: Connection, form: str, thread: str
) -> None:
    request = connection.request(f"streams.context{form}", metadata={"correlation_id": "sp-here"})
    chunks = list(connection.stub.ExecuteStreamingTool(request, timeout=LIMIT))
    assert [json.loads(chunk.data) for chunk in chunks[:2]] == ["sp-here", thread]


# --- Errors ---------------------------------------------------------------------------------------


def failing(connection: Connection, name: str, arguments: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The items before the failure, its code, and its object."""
    items: list[dict[str, Any]] = []
    with pytest.raises(grpc.RpcError) as caught:
        items.extend(connection.stream(name, arguments))  # what came before the error stays
    details = caught.value.details()
    assert details is not None
    encoded = sum(1 if 0x20 <= b <= 0x7E and b != 0x25 else 3 for b in details.encode())
    assert encoded <= STATUS_LIMIT
    assert not any(chunk["is_final"] for chunk in items)
    return [chunk["data"] for chunk in items], caught.value.code(), json.loads(details)


@pytest.mark.conforms(64, "D15")
@BOTH
@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("ValueError", "INTERNAL"),
        ("ForeignError", "INTERNAL"),
        ("long", "INTERNAL"),
        ("long and not ASCII", "INTERNAL"),
        ("surrogates", "INTERNAL"),
        ("line breaks", "INTERNAL"),
        ("UnspeakableError", "INTERNAL"),
        ("CancelledError", "INTERNAL"),
        ("RecursionError", "INTERNAL"),
        ("BaseException", "INTERNAL"),
        ("InvalidArgument", "INVALID_ARGUMENT"),
        ("NotFound", "NOT_FOUND"),
        ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
        ("ProviderError", "UNAVAILABLE"),
        ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
        ("WorkerError", "INTERNAL"),
    ],
)
def test_an_error_ends_the_stream_with_a_status_that_can_be_parsed(
    connection: Connection, form: str, how: str, code: str
) -> None:
    items, status, failure = failing(connection, f"streams.fail{form}", {"how": how, "before": 2})
    assert items == [0, 1]
    assert status is grpc.StatusCode[code]
    assert failure["code"] == code
    assert isinstance(failure["type"], str)
    assert isinstance(failure["message"], str)
    assert connection.call("worker.stats")["calls"]["failed"] == 1


@pytest.mark.conforms(64)
@pytest.mark.parametrize("how", ["ValueError", "NotFound", "ResourceExhausted", "long"])
def test_in_compatible_mode_every_error_is_internal(serve: Served, how: str) -> None:
    connection = serve(Streams(), values="compatible")
    items, status, failure = failing(connection, "streams.fail", {"how": how, "before": 2})
    assert (items, status) == ([0, 1], grpc.StatusCode.INTERNAL)
    assert isinstance(failure["type"], str)


@BOTH
@pytest.mark.parametrize("before", [0, 99, 100, 101, 250])
def test_all_items_before_an_error_arrive(connection: Connection, form: str, before: int) -> None:
    arguments = {"how": "ValueError", "before": before}
    items, status, _ = failing(connection, f"streams.fail{form}", arguments)
    assert items == list(range(before))
    assert status is grpc.StatusCode.INTERNAL


@pytest.mark.conforms(63, "D9")
@BOTH
def test_an_item_that_cannot_be_encoded_ends_the_stream_at_once(
    connection: Connection, form: str
) -> None:
    items, status, failure = failing(connection, f"streams.cannot_encode{form}", {})
    assert items == [1]
    assert status is grpc.StatusCode.INTERNAL
    assert failure["category"] == "serialization"


@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("streams.fail_before", {}, "INTERNAL"),
        ("streams.numbers", {"count": "many"}, "INVALID_ARGUMENT"),
        ("streams.numbers", {}, "INVALID_ARGUMENT"),
        ("streams.nobers", {"count": 1}, "NOT_FOUND"),
    ],
)
def test_a_call_that_does_not_get_to_its_first_item(
    connection: Connection, name: str, arguments: dict[str, Any], code: str
) -> None:
    items, status, failure = failing(connection, name, arguments)
    assert (items, status, failure["code"]) == ([], grpc.StatusCode[code], code)


def test_wrong_arguments_are_named_in_the_status(connection: Connection) -> None:
    _, _, failure = failing(connection, "streams.numbers", {"count": "many"})
    assert failure["violations"] == [
        {"field": "count", "description": "expected int, got str ('many')"}
    ]


def test_a_correlation_id_of_any_length_does_not_hide_the_error(connection: Connection) -> None:
    request = connection.request(
        "streams.fail", {"how": "ValueError"}, metadata={"correlation_id": "c" * 20_000}
    )
    with pytest.raises(grpc.RpcError) as caught:
        list(connection.stub.ExecuteStreamingTool(request, timeout=LIMIT))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert json.loads(caught.value.details() or "")["message"] == "no"


# --- Readers that leave or stall ------------------------------------------------------------------


class Endless(Adapter):
    """Streams without end, which tell what becomes of them."""

    name = "endless"

    def __init__(self, gate: Gate, size: int = 10) -> None:
        self.gate = gate
        self.made = 0
        self.ends: list[str] = []
        self.contexts: list[CallContext] = []
        self.ended = threading.Semaphore(0)
        self.item = "x" * size

    def end(self, how: str) -> None:
        self.ends.append(how)
        self.ended.release()

    @tool
    def numbers(self, ctx: CallContext) -> Iterator[str]:
        self.contexts.append(ctx)
        try:
            while True:
                self.made += 1
                yield self.item
        except BaseException as error:
            self.ends.append(type(error).__name__)
            raise
        finally:
            self.end("closed")

    @tool
    async def numbers_async(self, ctx: CallContext) -> AsyncIterator[str]:
        self.contexts.append(ctx)
        try:
            while True:
                self.made += 1
                yield self.item
        except BaseException as error:
            self.ends.append(type(error).__name__)
            raise
        finally:
            self.end("closed")

    @tool
    def stuck(self) -> Iterator[int]:
        try:
            yield 1
            self.gate.wait()
            yield 2
            self.ends.append("pulled once more")
        finally:
            self.end("closed")

    @tool
    async def stuck_async(self) -> AsyncIterator[int]:
        try:
            yield 1
            await self.gate.wait_async()
        except BaseException as error:
            self.ends.append(type(error).__name__)
            raise
        finally:
            self.end("closed")

    @tool
    def blocked(self) -> int:
        self.gate.wait()
        return 1


@pytest.fixture
def endless(gate: Gate) -> Endless:
    return Endless(gate)


@pytest.mark.conforms(66, "D10", "D11")
@BOTH
def test_a_client_that_cancels_closes_the_generator_once(
    serve: Served, endless: Endless, form: str
) -> None:
    connection = serve(endless)
    chunks = connection.stream(f"endless.numbers{form}")
    for _ in range(3):
        next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    assert endless.ended.acquire(timeout=LIMIT)
    assert connection.call("worker.info")["pid"]  # the loop has dealt with the cancellation
    assert endless.ends.count("closed") == 1
    assert endless.ends[0] in {"GeneratorExit", "CancelledError"}
    assert not endless.ended.acquire(blocking=False)
    wait_for_stats(connection, in_flight=1)
    assert endless.contexts[0].cancelled
    made = endless.made
    assert connection.call("worker.stats")["threads"]["busy"] == 0
    assert endless.made == made, "the producer goes on"


@BOTH
def test_a_client_that_cancels_before_the_first_item_leaves_nothing_running(
    serve: Served, endless: Endless, form: str
) -> None:
    connection = serve(endless, max_workers=1)
    blocked = connection.stub.ExecuteTool.future(
        connection.request("endless.blocked"), timeout=LIMIT
    )
    endless.gate.reached()
    stuck = connection.stub.ExecuteStreamingTool(
        connection.request(f"endless.stuck{form}"), timeout=LIMIT
    )
    if form:
        next(stuck)
        endless.gate.reached()
    else:
        wait_for_stats(connection, waiting=1)
    stuck.cancel()
    wait_for_stats(connection, in_flight=2)
    endless.gate.open()
    assert blocked.result().success
    wait_for_stats(connection, busy=0, waiting=0, in_flight=1)
    assert endless.ends == (["CancelledError", "closed"] if form else [])


def wait_for_stats(connection: Connection, **expected: int) -> None:
    """Ask until the worker says so; it is asked on the loop, so nothing else is held up."""
    for _ in range(10_000):
        stats = connection.call("worker.stats")
        found = {**stats["calls"], **stats["threads"]}
        if all(found[name] == value for name, value in expected.items()):
            return
    pytest.fail(f"expected {expected}, found {found}")


@pytest.mark.conforms(66)
def test_a_producer_in_the_middle_of_an_item_is_closed_after_it(
    serve: Served, endless: Endless
) -> None:
    connection = serve(endless)
    chunks = connection.stream("endless.stuck")
    next(chunks)
    endless.gate.reached()
    chunks.close()  # type: ignore[attr-defined]
    wait_for_stats(connection, in_flight=1)  # the call has ended, its thread has not
    assert endless.ends == []
    endless.gate.open()
    assert endless.ended.acquire(timeout=LIMIT)
    assert endless.ends == ["closed"]


@pytest.mark.conforms(67)
@BOTH
def test_a_deadline_closes_the_generator_once(serve: Served, endless: Endless, form: str) -> None:
    connection = serve(endless)
    for seconds in (0.2, 1.0, 5.0):  # longer where a machine is too slow to begin in time
        call: Any = connection.stub.ExecuteStreamingTool(
            connection.request(f"endless.numbers{form}"), timeout=seconds
        )
        assert call.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED
        wait_for_stats(connection, in_flight=1)
        if endless.made:
            break
    assert endless.ended.acquire(timeout=LIMIT)
    assert endless.ends.count("closed") == 1


@pytest.mark.conforms(65)
@BOTH
def test_a_reader_that_stops_reading_stops_the_producer(
    serve: Served, gate: Gate, form: str
) -> None:
    """A stalled connection takes what fits its windows; then the producer waits."""
    size = 100_000
    endless = Endless(gate, size)
    connection = serve(endless)
    call = connection.stub.ExecuteStreamingTool(connection.request(f"endless.numbers{form}"))
    next(call)
    previous = -1
    while previous != endless.made:  # until it makes no more for the length of some calls
        previous = endless.made
        for _ in range(100):
            connection.call("worker.stats")
    assert endless.made * size < 64 * 1024 * 1024
    for _ in range(300):  # what was made arrives, and more is made
        assert len(next(call).data) == size + 2
    assert endless.made > 300
    call.cancel()
    assert endless.ended.acquire(timeout=LIMIT)


def test_a_stalled_stream_holds_up_nobody_else(serve: Served, gate: Gate) -> None:
    endless = Endless(gate, 100_000)
    connection = serve(endless, Streams())
    calls = [
        connection.stub.ExecuteStreamingTool(connection.request(f"endless.numbers{form}"))
        for form in ("", "_async")
    ]
    for call in calls:
        next(call)
    assert data_of(serve.connect(), "streams.numbers", {"count": 300})[:-1] == list(range(1, 301))
    for call in calls:
        call.cancel()
    for _ in calls:
        assert endless.ended.acquire(timeout=LIMIT)


@BOTH
def test_many_streams_at_once_stay_apart(connection: Connection, form: str) -> None:
    readers = [
        in_thread(
            lambda count=count: data_of(  # type: ignore[misc]
                connection, f"streams.numbers{form}", {"count": count}
            )
        )
        for count in range(100, 108)
    ]
    for count, result in zip(range(100, 108), readers, strict=True):
        assert result()[:-1] == list(range(1, count + 1))


@pytest.mark.conforms("D10")
@BOTH
def test_a_connection_that_breaks_closes_the_generator(
    serve: Served, endless: Endless, form: str
) -> None:
    connection = serve(endless)
    broken = serve.connect()
    chunks = broken.stream(f"endless.numbers{form}")
    next(chunks)
    broken.close()
    assert endless.ended.acquire(timeout=LIMIT)
    wait_for_stats(connection, in_flight=1)
    assert endless.ends.count("closed") == 1
    with pytest.raises(grpc.RpcError):
        list(chunks)
