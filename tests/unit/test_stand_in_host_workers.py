"""What the stand-in host does to workers: heartbeats, telemetry, streams, calls for others."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import pytest

from snakepit_worker import Adapter, Binary, CallContext, Chunk, launch, tool
from snakepit_worker.runtime import Worker
from snakepit_worker.settings import Settings
from snakepit_worker.testing import Connection, StandInHost, ToolFailure
from snakepit_worker.testing.connection import decode_response, python_identity
from snakepit_worker.testing.supervision import Supervision, is_accepted
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from snakepit_worker.wire.values import to_any

LIMIT = 20.0
QUICK = Supervision(heartbeat_interval=0.01, heartbeat_timeout=5.0, telemetry_deadline=0.3)


class FakeWorker(StandInHost):
    """Answers heartbeats as it is told.  Either side of the bridge serves the same service."""

    def __init__(self) -> None:
        super().__init__()
        self.healthy = True
        self.slow = threading.Event()
        self.controls: list[pb.TelemetryControl] = []

    def Heartbeat(
        self, request: pb.HeartbeatRequest, context: grpc.ServicerContext
    ) -> pb.HeartbeatResponse:
        if not self.healthy:
            context.abort(grpc.StatusCode.INTERNAL, "not well")
        if self.slow.is_set():
            threading.Event().wait(0.2)
        return super().Heartbeat(request, context)

    def StreamTelemetry(
        self,
        request_iterator: Iterator[pb.TelemetryControl],
        context: grpc.ServicerContext,  # noqa: ARG002 - the signature is the protocol's
    ) -> Iterator[pb.TelemetryEvent]:
        for control in request_iterator:
            self.controls.append(control)
            yield event("tool.execution.start", count=1)
            yield event("my.own.event", count=1)
            yield event("tool.execution.stop", own_measurement=1)


def event(name: str, **measurements: int) -> pb.TelemetryEvent:
    values = {key: pb.TelemetryValue(int_value=value) for key, value in measurements.items()}
    return pb.TelemetryEvent(event_parts=name.split("."), measurements=values)


@pytest.fixture
def fake() -> Iterator[FakeWorker]:
    with FakeWorker() as worker:
        yield worker


@pytest.fixture
def connection(fake: FakeWorker) -> Iterator[Connection]:
    with Connection(fake.address) as connected:
        connected.greet()
        yield connected


# --- Supervision ----------------------------------------------------------------------------------


def test_heartbeats_go_on_while_they_are_good(connection: Connection) -> None:
    failed = threading.Event()
    connection.supervise(QUICK, failed.set)
    assert connection.heartbeats is not None
    connection.heartbeats.wait_for(3)
    assert connection.heartbeats.failures == []
    assert not failed.is_set()


def test_the_first_bad_heartbeat_is_the_last(fake: FakeWorker, connection: Connection) -> None:
    failed = threading.Event()
    fake.sessions.delete(connection.session_id)
    connection.supervise(QUICK, failed.set)
    assert failed.wait(LIMIT)
    assert connection.heartbeats is not None
    connection.heartbeats.join()
    assert connection.heartbeats.failures == ["session_valid is false"]


def test_an_independent_worker_is_asked_on(fake: FakeWorker, connection: Connection) -> None:
    fake.healthy = False
    failed = threading.Event()
    independent = Supervision(heartbeat_interval=0.01, dependent=False)
    connection.supervise(independent, failed.set)
    assert connection.heartbeats is not None
    connection.heartbeats.wait_for(2)
    fake.healthy = True
    assert connection.heartbeats.failures[:2] == ["INTERNAL: not well"] * 2
    assert not failed.is_set()


def test_a_late_heartbeat_is_a_bad_one(fake: FakeWorker, connection: Connection) -> None:
    fake.slow.set()
    failed = threading.Event()
    connection.supervise(Supervision(heartbeat_timeout=0.05), failed.set)
    assert failed.wait(LIMIT)
    assert connection.heartbeats is not None
    assert connection.heartbeats.failures == ["no answer within 0.049 s"]


def test_closing_takes_no_verdict(fake: FakeWorker) -> None:
    failed = threading.Event()
    with Connection(fake.address) as connection:
        connection.greet()
        fake.slow.set()
        connection.supervise(Supervision(), failed.set)
        fake.wait_for("InitializeSession")
    assert connection.heartbeats is not None
    assert connection.heartbeats.failures == []
    assert not failed.is_set()


def test_telemetry_is_toggled_filtered_and_ends(fake: FakeWorker, connection: Connection) -> None:
    connection.supervise(QUICK)
    assert connection.telemetry is not None
    connection.telemetry.wait_for("tool.execution.start")
    assert connection.telemetry.wait_until_ended() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert fake.controls == [pb.TelemetryControl(toggle=pb.TelemetryToggle(enabled=True))]
    assert all(is_accepted(event) for event in connection.telemetry.events)
    assert {".".join(event.event_parts) for event in connection.telemetry.dropped} == {
        "my.own.event",
        "tool.execution.stop",
    }


def test_telemetry_can_be_controlled_later(fake: FakeWorker, connection: Connection) -> None:
    connection.supervise(Supervision(telemetry=False))
    assert connection.telemetry is not None
    more = pb.TelemetryControl(filter=pb.TelemetryEventFilter(deny=["*"]))
    connection.telemetry.send(more)
    connection.telemetry.wait_for("tool.execution.start", count=2)
    off = pb.TelemetryControl(toggle=pb.TelemetryToggle(enabled=False))
    assert fake.controls == [off, more]


def test_waiting_for_what_does_not_come_has_an_end(connection: Connection) -> None:
    connection.supervise(Supervision())
    assert connection.telemetry is not None
    assert connection.heartbeats is not None
    with pytest.raises(TimeoutError, match="0 events never, expected 1"):
        connection.telemetry.wait_for("never", timeout=0)
    with pytest.raises(TimeoutError, match="still open"):
        connection.telemetry.wait_until_ended(timeout=0)
    with pytest.raises(TimeoutError, match="expected 1000"):
        connection.heartbeats.wait_for(1000, timeout=0)


def test_a_pool_starts_greets_and_stops_a_worker(
    fake: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: dict[str, Any] = {}

    class Process:
        address = fake.address
        terminated = threading.Event()

        def terminate(self) -> None:
            self.terminated.set()

    @contextmanager
    def start(**options: Any) -> Iterator[Process]:
        started.update(options)
        yield Process()

    monkeypatch.setattr(launch, "start", start)
    with (
        StandInHost() as host,
        host.worker(adapters=["a"], supervision=QUICK) as (worker, connection),
    ):
        assert started == {"host": host.address, "worker_id": "default_worker_1", "adapters": ["a"]}
        metadata = fake.sessions[connection.session_id]
        assert metadata["elixir_node"] == "nonode@nohost"
        assert metadata["initialized_at"].endswith("Z")
        assert set(connection.request("t").metadata) == {
            *("correlation_id", "python_version", "python_platform", "python_runtime_hash")
        }
        fake.sessions.delete(connection.session_id)
        assert worker.terminated.wait(LIMIT)  # type: ignore[attr-defined]  # see Process


# --- Calls ----------------------------------------------------------------------------------------


class Tools(Adapter):
    """Tools that a worker registers with the host."""

    name = "py"

    def __init__(self) -> None:
        self.sent = 0
        self.left = threading.Event()
        self.may_end = threading.Event()
        self.ended = threading.Event()

    @tool
    def seen(self, ctx: CallContext, value: Any = None) -> Any:
        return {
            "value": value,
            "session": ctx.worker_session_id,
            "metadata": dict(ctx.metadata),
            "correlation_id": ctx.correlation_id,
            "remaining": ctx.deadline.remaining(),
        }

    @tool
    def data(self) -> Any:
        return Binary(b"\xff", {"rows": 1})

    @tool
    def fail(self) -> None:
        raise KeyError("k")

    @tool
    def fail_oddly(self) -> None:
        raise OSError("odd")

    @tool
    def count(self, final: bool = False) -> Iterator[Any]:  # noqa: FBT001, FBT002 - by name
        yield 1
        yield Chunk(2, is_final=final)

    @tool
    def long(self) -> Iterator[int]:
        try:
            for number in itertools.count():
                self.sent = number
                yield number
                if self.may_end.wait(0.001):
                    self.ended.set()
                    return
        finally:
            self.left.set()


class Reached:
    """A worker in this process behind a host, and a client of that host."""

    def __init__(self, stack: ExitStack) -> None:
        self.host = stack.enter_context(StandInHost())
        self.tools = Tools()
        settings = Settings(elixir_address=self.host.address, grace_ms=50)
        self.worker = stack.enter_context(Worker(settings, [self.tools]))
        self.connection = stack.enter_context(
            Connection(self.worker.address, identity=python_identity(), cancels=False)
        )
        self.connection.greet()
        self.session = self.connection.session_id
        self.client = stack.enter_context(Connection(self.host.address, self.session))
        self.host.attach("w", self.connection)
        self.host.sessions.initialize("mine", {})
        names = ("seen", "data", "fail", "fail_oddly", "count", "long", "absent")
        self.client.stub.RegisterTools(
            pb.RegisterToolsRequest(
                session_id="mine",
                worker_id="w",
                tools=[
                    pb.ToolRegistration(
                        name=f"py.{name}", supports_streaming=name in {"count", "long", "absent"}
                    )
                    for name in names
                ],
            )
        )

    def request(self, name: str, **metadata: str) -> pb.ExecuteToolRequest:
        return pb.ExecuteToolRequest(session_id="mine", tool_name=f"py.{name}", metadata=metadata)


@pytest.fixture
def reached() -> Iterator[Reached]:
    with ExitStack() as stack:
        yield Reached(stack)


def test_a_workers_tool_is_called_through_the_host(reached: Reached) -> None:
    request = reached.request("seen", correlation_id="sp-1", thread_sensitive="true", own="x")
    request.parameters["value"].CopyFrom(to_any({"big": 2**70, "f": 1e22}))
    answer = reached.client.execute(request)
    assert answer.metadata["tool_type"] == "remote"
    seen = decode_response(answer)
    assert 60 < seen.pop("remaining") < 250  # 298.8 s, as they leave the host
    assert seen == {
        "value": {"big": 2**70, "f": 1e22},
        "session": "mine",
        "metadata": {"correlation_id": "sp-1", **python_identity()},
        "correlation_id": "sp-1",
    }


def test_binary_goes_both_ways(reached: Reached) -> None:
    request = reached.request("data")
    assert decode_response(reached.client.execute(request)) == (b"\xff", {"rows": 1})
    request = reached.request("seen")
    request.binary_parameters["value"] = b"\xff"
    seen = decode_response(reached.client.execute(request))
    assert seen["value"]["__type__"] == "builtins.bytes"  # as which they came, if not back


def test_the_time_limit_goes_on(reached: Reached) -> None:
    answer = reached.client.execute(reached.request("seen", timeout_ms="1900"))
    assert decode_response(answer)["remaining"] < 1.5


def test_failures_of_a_worker_are_inspected_structs(reached: Reached) -> None:
    for name, struct in (
        ("fail", "%Snakepit.Error.KeyError{message: \"'k'\", context: %{"),
        ("fail_oddly", '%Snakepit.Error.PythonException{message: "odd", context: %{'),
    ):
        answer = reached.client.execute(reached.request(name))
        assert not answer.success
        assert answer.error_message.startswith(f"Remote tool execution failed: {struct}")


def test_a_worker_that_has_gone_is_unavailable(reached: Reached) -> None:
    reached.worker.stop()
    answer = reached.client.execute(reached.request("seen", timeout_ms="500"))
    assert answer.error_message in {
        "Remote tool execution failed: :unavailable",
        "Remote tool execution failed: :timeout",
    }


def test_streams_pass_through_the_host(reached: Reached) -> None:
    request = reached.request("count")
    first, second, last = reached.client.chunks(request)
    assert (first.data, second.data, last.data) == (b"1", b"2", b"")
    assert last.is_final
    assert last.metadata.pop("execution_time_ms").isdecimal()
    assert dict(last.metadata) == {"tool_type": "remote", "worker_id": "w"}
    request.parameters["final"].CopyFrom(to_any(True))  # noqa: FBT003 - a JSON value
    first, second = reached.client.chunks(request)
    assert (first.is_final, second.is_final) == (False, True)
    assert "tool_type" in second.metadata


@pytest.mark.parametrize(
    ("tool_name", "session", "code", "text"),
    [
        ("py.count", "nobody", "NOT_FOUND", "Session not found: nobody"),
        ("nothing", "mine", "NOT_FOUND", "Tool nothing not found for session mine"),
        ("py.seen", "mine", "UNIMPLEMENTED", "Streaming execution is not enabled for tool py.seen"),
        ("py.absent", "mine", "NOT_FOUND", "unknown tool 'py.absent'"),
        ("py.gone", "mine", "INTERNAL", "Remote tool execution failed: Worker not found: gone"),
    ],
)
def test_streams_that_fail_have_a_status(
    reached: Reached, tool_name: str, session: str, code: str, text: str
) -> None:
    reached.client.stub.RegisterTools(
        pb.RegisterToolsRequest(
            session_id="mine",
            worker_id="gone",
            tools=[pb.ToolRegistration(name="py.gone", supports_streaming=True)],
        )
    )
    request = pb.ExecuteToolRequest(session_id=session, tool_name=tool_name)
    with pytest.raises(grpc.RpcError) as caught:
        next(reached.client.chunks(request))
    assert caught.value.code().name == code
    assert text in (caught.value.details() or "")


def test_what_nobody_reads_goes_on_where_the_client_never_cancels(reached: Reached) -> None:
    tools = reached.tools
    chunks = reached.connection.stream("py.long")
    assert next(chunks)["data"] == 0
    chunks.close()  # type: ignore[attr-defined]  # it is a generator
    goal = tools.sent + 300  # more than wait anywhere on the way
    while tools.sent < goal:
        assert not tools.left.wait(0.001)
    tools.may_end.set()
    assert tools.ended.wait(LIMIT)


def test_and_ends_where_it_does(reached: Reached) -> None:
    with Connection(reached.worker.address) as connection:
        chunks = connection.stream("py.long")
        assert next(chunks)["data"] == 0
        chunks.close()  # type: ignore[attr-defined]  # it is a generator
        assert reached.tools.left.wait(LIMIT)
    assert not reached.tools.ended.is_set()


def test_other_text_than_an_object_is_the_message() -> None:
    for text in ("plain", "[1]", '{"type": 1, "message": "m"}'):
        with pytest.raises(ToolFailure) as caught:
            decode_response(pb.ExecuteToolResponse(error_message=text))
        assert caught.value.failure == {"message": text}
        assert str(caught.value) == text
