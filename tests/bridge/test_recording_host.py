"""The stand-in host gives the answers that the real one gave: request by request, byte by byte."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from snakepit_worker.testing import StandInHost
from tests.data.elixir_tools import expose_recorded_tools
from tests.data.recording import RECORDS, SESSION, Record

if TYPE_CHECKING:
    from collections.abc import Mapping

LIMIT = 20.0
ASKED = [record for record in RECORDS if record.direction == "worker->host"]


def ask(channel: Any, record: Record) -> bytes | grpc.RpcError:
    """The host's answer in bytes, or how it ended the call."""
    assert record.request is not None
    try:
        if record.streams:
            return b"".join(channel.unary_stream(record.path)(record.request, timeout=LIMIT))
        answer: bytes = channel.unary_unary(record.path)(record.request, timeout=LIMIT)
    except grpc.RpcError as error:
        return error
    return answer


@pytest.fixture(scope="module")
def answers() -> Mapping[str, Any]:
    """All requests in the recorded order, since they build on each other."""
    with StandInHost() as host, grpc.insecure_channel(host.address) as channel:
        host.sessions.initialize(SESSION, {})
        expose_recorded_tools(host, SESSION)
        return {record.label: ask(channel, record) for record in ASKED}


def comparable(record: Record, data: bytes) -> bytes:
    """An answer without what differs from run to run: times, and the order of the tools."""
    message = record.parse_response(data)
    for name in ("server_time", "created_at"):
        if any(field.name == name for field in message.DESCRIPTOR.fields):
            time = getattr(message, name)
            time.seconds = (time.seconds > 0) - (time.seconds < 0)
    if record.method in {"ExecuteTool", "ExecuteElixirTool"}:
        message.execution_time_ms = 0
        if "execution_time" in message.metadata:
            assert message.metadata["execution_time"].isdecimal()
            message.metadata["execution_time"] = "some"
    if record.method == "GetExposedElixirTools":
        tools = sorted(message.tools, key=lambda tool: tool.name)
        del message.tools[:]
        message.tools.extend(tools)
    serialized: bytes = message.SerializeToString(deterministic=True)
    return serialized


@pytest.mark.parametrize("record", ASKED, ids=lambda record: record.label)
def test_the_answer_is_the_recorded_one(answers: Mapping[str, Any], record: Record) -> None:
    answer = answers[record.label]
    if record.response is None:
        assert isinstance(answer, grpc.RpcError)
        assert (answer.code().name, answer.details()) == (record.status, record.details)
    else:
        assert isinstance(answer, bytes), answer
        assert comparable(record, answer) == comparable(record, record.response)


def test_the_recording_asks_for_everything_that_a_host_serves() -> None:
    assert len({record.label for record in ASKED}) == len(ASKED) == 37
    assert {record.method for record in ASKED} == {
        "Ping",
        "InitializeSession",
        "CleanupSession",
        "GetSession",
        "Heartbeat",
        "RegisterTools",
        "GetExposedElixirTools",
        "ExecuteElixirTool",
        "ExecuteTool",
        "ExecuteStreamingTool",
    }


def test_what_is_masked_is_times_only() -> None:
    changed = {
        record.label
        for record in ASKED
        if record.response is not None and comparable(record, record.response) != record.response
    }
    assert changed == {
        "ping",
        "get session",
        "heartbeat known",
        "heartbeat unknown",
        "tools of worker session",
        "tool: echo of every JSON type",
        "tool: packed StringValue parameter",
        "tool: foreign label",
        "tool: returns binary",
        "tool: returns binary with metadata",
        "tool: returns a tuple",
        "tool: returns nil",
        "remote tool through the host, worker unknown",
        "local tool through the host",
    }
