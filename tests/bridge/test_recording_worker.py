"""A worker understands all that the real host was recorded to say, as the bytes that it sent."""

from __future__ import annotations

import contextlib
import json
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

import grpc
import pytest

from snakepit_worker.flags import parse as parse_settings
from snakepit_worker.runtime import Worker
from snakepit_worker.settings import Settings
from snakepit_worker.testing import StandInHost
from snakepit_worker.testing.supervision import is_accepted
from snakepit_worker.wire.convention import CORRELATION_HEADER
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from tests.data.elixir_tools import expose_recorded_tools
from tests.data.recording import RECORDS, SESSION, START, Record, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT: Final = 20.0
SAID = [record for record in RECORDS if record.direction == "host->worker"]
CALLS = [record for record in SAID if record.method == "ExecuteTool"]
BY_CHANNEL = {"user-agent", "content-length"}
"""Headers that are made below us: the first one as the recorded host does, the other by HTTP/2."""


class ListeningHost(StandInHost):
    """Remembers which calls the requests of a worker belong to."""

    def __init__(self) -> None:
        super().__init__()
        self.correlation_ids: set[object] = set()

    def ExecuteElixirTool(
        self, request: pb.ExecuteElixirToolRequest, context: grpc.ServicerContext
    ) -> pb.ExecuteElixirToolResponse:
        self.correlation_ids.add(dict(context.invocation_metadata()).get(CORRELATION_HEADER))
        return super().ExecuteElixirTool(request, context)


class Replayed:
    """A worker that has been told everything, in the recorded order."""

    def __init__(self, host: ListeningHost, channel: Any) -> None:
        self.host = host
        self.answers: dict[int, Any] = {}
        """By line of the recording; several for a stream."""
        self._channel = channel
        self._controls: SimpleQueue[bytes | None] = SimpleQueue()
        for record in RECORDS:
            if record.direction == "host->worker message":
                self._controls.put(record.request)
            elif record.direction == "host->worker":
                self.answers[record.line] = self.say(record)

    def open_telemetry(self, record: Record, deadline: float) -> Any:
        call = self._channel.stream_stream(record.path)(
            iter(self._controls.get, None), timeout=deadline
        )
        call.initial_metadata()  # comes before the first event, or this waits until the deadline
        call.add_done_callback(lambda _: self._controls.put(None))
        return call

    def say(self, record: Record) -> Any:
        headers = tuple(header for header in record.headers if header[0] not in BY_CHANNEL)
        if record.method == "StreamTelemetry":
            return self.open_telemetry(record, record.deadline)
        options: dict[str, Any] = {"timeout": record.deadline, "metadata": headers}
        if record.streams:
            chunks = self._channel.unary_stream(record.path)(record.request, **options)
            return [record.parse_response(chunk) for chunk in chunks]
        answer = self._channel.unary_unary(record.path)(record.request, **options)
        return record.parse_response(answer)


@pytest.fixture(scope="module")
def replayed() -> Iterator[Replayed]:
    options = (("grpc.primary_user_agent", "grpc-elixir/0.11.5"),)
    with ListeningHost() as host:
        settings = Settings(
            adapters=("tests.data.recorded_adapter.Recorded",),
            elixir_address=host.address,
            grace_ms=50,
        )
        expose_recorded_tools(host, SESSION)
        with (
            Worker(settings) as worker,
            grpc.insecure_channel(worker.address, options=options) as channel,
        ):
            yield Replayed(host, channel)


def value(response: pb.ExecuteToolResponse) -> Any:
    assert response.success, response.error_message
    assert response.result.type_url
    return json.loads(response.result.value, parse_constant=pytest.fail)


def called(record: Record) -> pb.ExecuteToolRequest:
    request: pb.ExecuteToolRequest = record.parse_request()
    return request


def test_pings_are_answered(replayed: Replayed) -> None:
    pings = [record for record in SAID if record.method == "Ping"]
    assert len(pings) == 2
    for record in pings:
        answer = replayed.answers[record.line]
        assert answer.message == f"Pong from Python: {record.parse_request().message}"
        assert abs(answer.server_time.seconds - time.time()) < 60


@pytest.mark.conforms(76)
def test_the_session_of_the_worker_reaches_the_host(replayed: Replayed) -> None:
    (record,) = (record for record in SAID if record.method == "InitializeSession")
    assert replayed.answers[record.line] == pb.InitializeSessionResponse(success=True)
    assert replayed.host.sessions[SESSION] == dict(record.parse_request().metadata)


def test_heartbeats_are_good(replayed: Replayed) -> None:
    beats = [record for record in SAID if record.method == "Heartbeat"]
    assert len(beats) == 4
    assert all(replayed.answers[record.line].session_valid for record in beats)


@pytest.mark.conforms(33, 78, "D28", "D29")
def test_a_tool_calls_back_to_the_host(replayed: Replayed) -> None:
    record = CALLS[0]
    assert value(replayed.answers[record.line]) == {
        "arguments": {},
        "tools": {
            name: "Echo everything" if name == "echo" else ""
            for name in (
                *("echo", "binary", "binary_meta", "tuple", "nothing"),
                *("raises", "throws", "exits"),
            )
        },
        "parameters": {"s_": "string", "i": "integer"},
        "same": True,
        "binary": "00ff01",
        "binary_meta": ["00ff01", {"format": "raw"}],
        "tuple": "{:ok, 3}",
        "nothing": None,
        "errors": {
            "raises": "RuntimeError: Elixir tool raises: Tool execution failed: kaboom",
            "throws": "RuntimeError: Elixir tool throws: UNKNOWN: Internal Server Error",
            "exits": "RuntimeError: Elixir tool exits: UNKNOWN: Internal Server Error",
            "absent": (
                f"ValueError: Elixir tool absent: Tool absent not found for session {SESSION}"
            ),
        },
    }
    assert replayed.host.correlation_ids == {called(record).metadata["correlation_id"]}


@pytest.mark.conforms(35, 36, "D53")
def test_every_kind_of_value_arrives(replayed: Replayed) -> None:
    (record,) = (record for record in CALLS if len(called(record).parameters) > 10)
    seen = value(replayed.answers[record.line])
    assert seen["values"] == {
        "atom": "ok",
        "big": 2**70,
        "d": "2026-01-02",
        "dt": "2026-01-02T03:04:05Z",
        "e": {},
        "el": [],
        "f": 1.5,
        "fi": 2.0,
        "i": 7,
        "l": [1, "a", None, 2.5],
        "m": {"a": {"b": [1]}},
        "n": None,
        "neg": -3,
        "s": "text é ☃",
        "t": True,
    }
    assert {name for name, kind in seen["types"].items() if kind == "int"} == {"big", "i", "neg"}
    assert {name for name, kind in seen["types"].items() if kind == "float"} == {"f", "fi"}
    assert {name for name, kind in seen["types"].items() if kind == "bool"} == {"t"}


@pytest.mark.conforms(43)
def test_binary_parameters_arrive(replayed: Replayed) -> None:
    (record,) = (record for record in CALLS if called(record).binary_parameters)
    seen = value(replayed.answers[record.line])
    assert seen["values"] == {"x": 1, "blob": {"bytes": "0001ff"}}


@pytest.mark.parametrize(
    "record",
    [record for record in CALLS if called(record).tool_name == "any"],
    ids=lambda record: f"line {record.line + 1}",
)
def test_what_the_host_says_of_a_call_arrives(replayed: Replayed, record: Record) -> None:
    request = called(record)
    seen = value(replayed.answers[record.line])
    assert seen["metadata"] == dict(request.metadata)
    assert seen["metadata"]["correlation_id"] == dict(record.headers)[CORRELATION_HEADER]
    assert seen["session"] == request.session_id == SESSION
    assert seen["on_main_thread"] is ("thread_sensitive" in request.metadata)


@pytest.mark.conforms(50)
def test_a_session_among_the_arguments_stays_there(replayed: Replayed) -> None:
    (record,) = (record for record in CALLS if "session_id" in called(record).parameters)
    assert value(replayed.answers[record.line])["values"] == {"a": 1, "session_id": "user-2"}


@pytest.mark.conforms(54)
def test_a_failure_is_an_object_that_the_host_can_translate(replayed: Replayed) -> None:
    (record,) = (record for record in CALLS if called(record).tool_name == "fail")
    answer = replayed.answers[record.line]
    assert not answer.success
    failure = json.loads(answer.error_message)
    assert (failure["type"], failure["message"]) == ("ValueError", "asked")
    assert failure["context"]["tool_name"] == "fail"
    assert failure["context"]["session_id"] == SESSION
    assert failure["traceback"] == "".join(failure["stacktrace"])


@pytest.mark.conforms(42, "D21")
def test_bytes_come_as_the_recorded_reply_brought_them(replayed: Replayed) -> None:
    (record,) = (record for record in CALLS if called(record).tool_name == "bytes")
    reply = next(r for r in RECORDS if r.line > record.line and "reply" in r.direction)
    answer = replayed.answers[record.line]
    answer.execution_time_ms = 0
    assert answer == parse("ExecuteToolResponse", reply.response or b"")


@pytest.mark.conforms(59)
def test_streams_come_to_their_end(replayed: Replayed) -> None:
    streams = [record for record in SAID if record.method == "ExecuteStreamingTool"]
    assert len(streams) == 2
    for record in streams:
        *items, last = replayed.answers[record.line]
        assert [json.loads(item.data) for item in items] == [{"number": n} for n in range(3)]
        assert not any(item.is_final for item in items)
        assert (last.data, last.is_final) == (b"", True)


@pytest.mark.conforms(91, 92)
def test_telemetry_ends_with_its_deadline_and_begins_again(replayed: Replayed) -> None:
    (record,) = (record for record in SAID if record.method == "StreamTelemetry")
    assert record.deadline == 5.0
    call = replayed.answers[record.line]
    events = list(events_of(record, call))
    assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    tool_calls = [r for r in SAID if r.method in {"ExecuteTool", "ExecuteStreamingTool"}]
    assert events.count("tool.execution.start") == len(tool_calls)
    assert events.count("tool.execution.exception") == 1
    again = replayed.open_telemetry(record, LIMIT)
    replayed.say(tool_calls[-1])
    assert next(events_of(record, again)) == "tool.execution.start"
    again.cancel()


def events_of(record: Record, call: Any) -> Iterator[str]:
    """The names of the events, until the stream ends one way or another."""
    with contextlib.suppress(grpc.RpcError):
        for data in call:
            event = record.parse_response(data)
            assert is_accepted(event), event
            yield ".".join(event.event_parts)


@pytest.mark.conforms(1)
def test_the_recorded_command_line_and_environment_are_understood() -> None:
    warnings: list[str] = []
    settings = parse_settings(START["argv"][5:], START["env"], warn=warnings.append)
    assert warnings == []
    assert settings.adapters == ("snakepit_bridge.adapters.showcase.ShowcaseAdapter",)
    assert settings.elixir_address == "127.0.0.1:39375"
    assert settings.worker_id == "default_worker_1_51"
    assert (settings.heartbeat_interval_ms, settings.heartbeat_timeout_ms) == (2000, 10000)
    assert (settings.heartbeat_max_missed, settings.heartbeat_dependent) == (3, True)
