"""The telemetry stream: headers first, controls, and what happens between two readers."""

from __future__ import annotations

import asyncio
import json
import queue
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import pytest

from snakepit_worker import Adapter, tool
from snakepit_worker.testing import ToolFailure
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from tests.bridge.conftest import LIMIT, in_thread

if TYPE_CHECKING:
    from snakepit_worker.testing import Connection
    from tests.bridge.conftest import Gate, Served

START = "tool.execution.start"
STOP = "tool.execution.stop"
EXCEPTION = "tool.execution.exception"


class Plain(Adapter):
    name = "plain"

    @tool
    def answer(self) -> int:
        return 42

    @tool
    def fail(self) -> NoReturn:
        raise ValueError("no")

    @tool
    def fail_oddly(self) -> NoReturn:
        raise ValueError("\ud800")

    @tool
    def stream(self) -> Iterator[int]:
        yield 1


class Telemetry:
    """The host's side of one stream."""

    def __init__(self, connection: Connection, timeout: float = LIMIT) -> None:
        self._controls: queue.SimpleQueue[pb.TelemetryControl | None] = queue.SimpleQueue()
        self.call = connection.stub.StreamTelemetry(iter(self._controls.get, None), timeout=timeout)
        self.call.initial_metadata()  # as the host does, before anything else

    def send(self, **control: Any) -> None:
        self._controls.put(pb.TelemetryControl(**control))

    def next(self) -> tuple[str, Any]:
        event = next(self.call)
        return ".".join(event.event_parts), event

    def names(self, count: int) -> list[str]:
        return [self.next()[0] for _ in range(count)]

    def close(self) -> None:
        self.call.cancel()
        self._controls.put(None)


@pytest.fixture
def connection(serve: Served) -> Connection:
    return serve(Plain())


@pytest.fixture
def telemetry(connection: Connection, serve: Served) -> Telemetry:
    telemetry = Telemetry(connection)
    serve.stack.callback(telemetry.close)
    return telemetry


def until_obeyed(telemetry: Telemetry, connection: Connection, expected: list[str]) -> None:
    """Call until the events of a call are the expected ones: controls come on their own way."""
    for number in range(10_000):
        mark = f"sp-mark-{number}"
        connection.call("plain.answer", metadata={"correlation_id": mark})
        # The events of one more call, of a kind that no test filters, tell that these are all.
        with pytest.raises(ToolFailure):
            connection.call("plain.fail", metadata={"correlation_id": "sp-end"})
        seen = []
        while True:
            name, event = telemetry.next()
            if event.correlation_id == mark:
                seen.append(name)
            elif event.correlation_id == "sp-end" and name == EXCEPTION:
                break
        if seen == expected:
            return
    pytest.fail("the control was never obeyed")


@pytest.mark.conforms(88)
def test_headers_come_before_the_first_event(connection: Connection) -> None:
    """The host blocks on them; nothing has happened yet that could be an event."""
    call = connection.stub.StreamTelemetry(iter(()), timeout=LIMIT)
    assert call.initial_metadata() is not None
    call.cancel()


@pytest.mark.conforms("D44")
def test_a_call_begins_and_ends(connection: Connection, telemetry: Telemetry) -> None:
    before = time.time_ns()
    connection.call("plain.answer", metadata={"correlation_id": "sp-1"})
    name, event = telemetry.next()
    assert name == START
    assert event.measurements["count"].int_value == 1
    name, event = telemetry.next()
    assert name == STOP
    assert set(event.measurements) == {"count", "duration"}
    assert event.measurements["duration"].int_value > 0
    assert dict(event.metadata) == {"tool": "plain.answer", "session_id": connection.session_id}
    assert event.correlation_id == "sp-1"
    assert before <= event.timestamp_ns <= time.time_ns()


def test_a_failure_is_an_exception(connection: Connection, telemetry: Telemetry) -> None:
    with pytest.raises(ToolFailure):
        connection.call("plain.fail")
    assert telemetry.next()[0] == START
    name, event = telemetry.next()
    assert name == EXCEPTION
    assert event.metadata["error_type"] == "ValueError"
    assert event.metadata["error_message"] == "no"
    assert event.measurements["duration"].int_value > 0


def test_a_stream_begins_and_ends_too(connection: Connection, telemetry: Telemetry) -> None:
    assert len(list(connection.stream("plain.stream"))) == 2
    assert telemetry.names(2) == [START, STOP]


def test_a_call_that_never_begins_is_no_event(connection: Connection, telemetry: Telemetry) -> None:
    for name in ("no.such.tool", "plain.stream"):
        with pytest.raises(ToolFailure):
            connection.call(name)
    connection.call("plain.answer", metadata={"correlation_id": "sp-1"})
    assert telemetry.next()[1].correlation_id == "sp-1"


def test_a_message_that_is_no_text_does_not_end_the_stream(
    connection: Connection, telemetry: Telemetry
) -> None:
    with pytest.raises(ToolFailure):
        connection.call("plain.fail_oddly")
    connection.call("plain.answer")
    assert telemetry.names(4) == [START, EXCEPTION, START, STOP]


@pytest.mark.conforms(92, "D44")
def test_the_names_and_keys_are_those_that_the_host_accepts(
    connection: Connection, telemetry: Telemetry
) -> None:
    connection.call("plain.answer")
    with pytest.raises(ToolFailure):
        connection.call("plain.fail")
    for _ in range(4):
        name, event = telemetry.next()
        assert name in {START, STOP, EXCEPTION}
        assert set(event.measurements) <= {"count", "duration"}


# --- Controls -------------------------------------------------------------------------------------


@pytest.mark.conforms(89, "D44")
def test_filters_and_sampling_act_on_what_follows(
    connection: Connection, telemetry: Telemetry
) -> None:
    both = [START, STOP]
    telemetry.send(toggle=pb.TelemetryToggle(enabled=True))
    until_obeyed(telemetry, connection, both)
    telemetry.send(filter=pb.TelemetryEventFilter(deny=["*.start"]))
    until_obeyed(telemetry, connection, [STOP])
    telemetry.send(filter=pb.TelemetryEventFilter(allow=["*.start", "*.exception"]))
    until_obeyed(telemetry, connection, [START])
    telemetry.send(filter=pb.TelemetryEventFilter(allow=["tool.*"], deny=["*.st[ao]*"]))
    until_obeyed(telemetry, connection, [])
    telemetry.send(filter=pb.TelemetryEventFilter())
    until_obeyed(telemetry, connection, both)
    telemetry.send(
        sampling=pb.TelemetrySamplingUpdate(sampling_rate=0.0, event_patterns=["*.stop"])
    )
    until_obeyed(telemetry, connection, [START])
    telemetry.send(sampling=pb.TelemetrySamplingUpdate(sampling_rate=1.0))
    until_obeyed(telemetry, connection, both)


@pytest.mark.conforms(89)
def test_off_is_off_until_on(connection: Connection, telemetry: Telemetry, serve: Served) -> None:
    telemetry.send(toggle=pb.TelemetryToggle(enabled=False))
    while serve.worker._events._enabled:
        connection.stub.Ping(pb.PingRequest(), timeout=LIMIT)
    connection.call("plain.answer", metadata={"correlation_id": "sp-off"})
    telemetry.send(toggle=pb.TelemetryToggle(enabled=True))
    while not serve.worker._events._enabled:
        connection.stub.Ping(pb.PingRequest(), timeout=LIMIT)
    connection.call("plain.answer", metadata={"correlation_id": "sp-on"})
    event = telemetry.next()[1]
    while event.correlation_id not in {"sp-off", "sp-on"}:
        event = telemetry.next()[1]
    assert event.correlation_id == "sp-on"


# --- Streams that come and go ---------------------------------------------------------------------


@pytest.mark.conforms(90)
def test_events_before_the_stream_are_kept_and_the_overflow_counted(
    connection: Connection,
) -> None:
    calls = 520  # two events each, and two for the question about them
    for number in range(calls):
        connection.call("plain.answer", metadata={"correlation_id": f"sp-{number}"})
    assert connection.call("worker.stats")["events_dropped"] == 2 * calls + 1 - 1024
    telemetry = Telemetry(connection)
    events = [telemetry.next()[1] for _ in range(1024)]
    assert [event.correlation_id for event in events] == [f"sp-{n // 2}" for n in range(1024)]
    telemetry.close()


@pytest.mark.conforms(91)
def test_a_stream_that_ended_by_its_deadline_is_followed_by_the_next(
    connection: Connection,
) -> None:
    """As with every worker at default settings of the host (interop 7.5)."""
    first = Telemetry(connection, timeout=0.3)
    with pytest.raises(grpc.RpcError) as caught:
        first.next()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    first.close()
    connection.call("plain.answer", metadata={"correlation_id": "sp-between"})
    second = Telemetry(connection)
    assert [second.next()[1].correlation_id for _ in range(2)] == ["sp-between"] * 2
    connection.call("plain.answer", metadata={"correlation_id": "sp-after"})
    assert [second.next()[1].correlation_id for _ in range(2)] == ["sp-after"] * 2
    second.close()


@pytest.mark.conforms(91)
def test_streams_that_end_leave_nothing_behind(
    connection: Connection, serve: Served, caplog: pytest.LogCaptureFixture
) -> None:
    async def tasks() -> int:
        return len(asyncio.all_tasks())

    caplog.set_level("INFO")
    before = serve.worker._loop.run(tasks())
    for _ in range(5):
        stream = Telemetry(connection, timeout=0.3)
        with pytest.raises(grpc.RpcError) as caught:
            stream.next()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        stream.close()
    while serve.worker._loop.run(tasks()) > before:
        connection.stub.Ping(pb.PingRequest(), timeout=LIMIT)
    assert caplog.records == []


@pytest.mark.conforms("D44")
def test_a_second_stream_takes_over_and_the_first_ends(
    connection: Connection, serve: Served
) -> None:
    first = Telemetry(connection)
    rest = in_thread(lambda: list(first.call))
    second = Telemetry(serve.connect())
    assert rest() == []
    assert first.call.code() is grpc.StatusCode.OK
    connection.call("plain.answer")
    assert second.names(2) == [START, STOP]
    first.close()
    second.close()


def test_a_stream_may_close_its_side_and_still_reads(connection: Connection) -> None:
    call = connection.stub.StreamTelemetry(iter(()), timeout=LIMIT)
    call.initial_metadata()
    connection.call("plain.answer")
    assert ".".join(next(call).event_parts) == START
    call.cancel()


@pytest.mark.conforms("D44")
def test_the_stream_ends_with_the_worker(serve: Served, gate: Gate) -> None:
    class Waiting(Adapter):
        name = "waiting"

        @tool
        def wait(self) -> str:
            gate.wait()
            return "done"

    connection = serve(Waiting(), grace_ms=20_000)
    telemetry = Telemetry(connection)
    call = connection.stub.ExecuteTool.future(connection.request("waiting.wait"), timeout=LIMIT)
    gate.reached()
    serve.worker.request_stop()
    gate.open()
    assert json.loads(call.result().result.value) == "done"
    rest = [".".join(event.event_parts) for event in telemetry.call]
    assert rest == [START, STOP]
    assert telemetry.call.code() is grpc.StatusCode.OK
    telemetry.close()


@pytest.mark.conforms(90)
def test_a_reader_that_stalls_holds_up_nobody(connection: Connection, telemetry: Telemetry) -> None:
    for _ in range(1500):
        connection.call("plain.answer")
    assert telemetry.names(2) == [START, STOP]
