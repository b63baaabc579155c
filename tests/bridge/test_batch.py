"""`worker.batch`: many calls in one request."""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from snakepit_worker import Adapter, Binary, CallContext, tool
from snakepit_worker.testing import ToolFailure
from snakepit_worker.testing.connection import decode_response
from tests.bridge.conftest import LIMIT, in_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from snakepit_worker.testing import Connection
    from tests.bridge.conftest import Gate, Served


class Tools(Adapter):
    """What the batches call."""

    name = "t"

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.meeting = threading.Barrier(3)
        self.cancelled = threading.Event()

    @tool
    def echo(self, value: Any) -> Any:
        return value

    @tool
    def fail(self) -> None:
        raise LookupError("nothing there")

    @tool
    def seen(self, ctx: CallContext) -> list[Any]:
        return [ctx.session.id, ctx.correlation_id, ctx.metadata["colour"]]

    @tool
    def meet(self) -> int:
        """Returns when three are here."""
        return self.meeting.wait(LIMIT)

    @tool
    def pack(self, data: bytes) -> Binary:
        return Binary(data[::-1], {"size": len(data)})

    @tool
    async def hang(self, ctx: CallContext) -> None:
        try:
            await self.gate.wait_async()
        finally:
            assert ctx.deadline.remaining() is not None
            self.cancelled.set()

    @tool
    def count(self) -> Iterator[int]:
        yield 1


@pytest.fixture
def tools(gate: Gate) -> Tools:
    return Tools(gate)


@pytest.fixture
def connection(serve: Served, tools: Tools) -> Connection:
    return serve(tools)


def batch(connection: Connection, *calls: Mapping[str, Any], **arguments: Any) -> Any:
    return connection.call("worker.batch", {"calls": list(calls), **arguments}, timeout=LIMIT)


def test_every_call_has_its_own_outcome_in_the_order_of_the_calls(connection: Connection) -> None:
    value = {"big": 2**70, "text": "é", "none": None}
    outcomes = batch(
        connection,
        {"tool": "t.echo", "arguments": {"value": value}},
        {"tool": "t.fail"},
        {"tool": "t.absent"},
        {"tool": "t.echo"},
        {"tool": "t.count"},
        {"tool": "t.echo", "arguments": {"value": None}},
    )
    assert [outcome["success"] for outcome in outcomes] == [True, False, False, False, False, True]
    assert outcomes[0]["result"] == value
    assert outcomes[5]["result"] is None
    errors = [outcome["error"] for outcome in outcomes[1:5]]
    assert [error["type"] for error in errors[:3]] == ["LookupError", "KeyError", "ValueError"]
    assert [error["code"] for error in errors] == [
        "INTERNAL",
        "NOT_FOUND",
        "INVALID_ARGUMENT",
        "FAILED_PRECONDITION",
    ]
    assert len({error["error_id"] for error in errors}) == len(errors)
    assert connection.call("worker.stats")["calls"]["failed"] == len(errors)


def test_calls_run_at_once(connection: Connection) -> None:
    outcomes = batch(connection, *[{"tool": "t.meet"}] * 3)
    assert sorted(outcome["result"] for outcome in outcomes) == [0, 1, 2]


def test_no_more_calls_run_at_once_than_asked_for(
    connection: Connection, tools: Tools, serve: Served
) -> None:
    running = in_thread(lambda: batch(connection, *[{"tool": "t.hang"}] * 5, concurrency=2))
    tools.gate.reached(2)
    in_flight = serve.connect().call("worker.stats")["calls"]["in_flight"]
    assert in_flight == 4  # two of the batch, the batch, and this question
    assert not tools.gate.reached_by_more()
    tools.gate.open()
    assert len(running()) == 5


def test_calls_are_in_the_batchs_session_unless_they_name_another(connection: Connection) -> None:
    request = connection.request(
        "worker.batch",
        {
            "session_id": "mine",
            "calls": [
                {"tool": "t.seen"},
                {"tool": "t.seen", "arguments": {"session_id": "theirs"}},
            ],
        },
    )
    request.metadata.update({"correlation_id": "c-1", "colour": "red"})
    first, second = decode_response(connection.execute(request, LIMIT))
    assert first["result"] == ["mine", "c-1", "red"]
    assert second["result"] == ["theirs", "c-1", "red"]


def test_bytes_travel_as_base64(connection: Connection) -> None:
    data = base64.b64encode(b"\x00abc").decode()
    [outcome] = batch(connection, {"tool": "t.pack", "binary": {"data": data}})
    assert base64.b64decode(outcome["binary_result"]) == b"cba\x00"
    assert outcome["result"] == {"size": 4}


def test_a_calls_own_time_ends_it_alone(connection: Connection, tools: Tools) -> None:
    late, fine = batch(
        connection,
        {"tool": "t.hang", "timeout_ms": 1},
        {"tool": "t.echo", "arguments": {"value": 1}},
    )
    assert (late["success"], fine["result"]) == (False, 1)
    assert late["error"]["code"] == "DEADLINE_EXCEEDED"
    assert tools.cancelled.is_set()
    assert connection.call("worker.stats")["calls"]["in_flight"] == 1


def test_a_cancelled_batch_cancels_its_calls(connection: Connection, tools: Tools) -> None:
    request = connection.request("worker.batch", {"calls": [{"tool": "t.hang"}]})
    call = connection.stub.ExecuteTool.future(request, timeout=LIMIT)
    tools.gate.reached()
    call.cancel()
    assert tools.cancelled.wait(LIMIT)


def test_a_call_that_can_only_be_a_mistake_fails_alone(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    *wrong, fine = batch(
        connection,
        {"tool": "worker.batch"},
        {"tool": "t.pack", "binary": {"data": "?"}, "timeout_ms": 0},
        {"tool": "t.echo", "arguments": {"value": 1}},
    )
    assert fine["result"] == 1
    errors = [outcome["error"] for outcome in wrong]
    assert [error["code"] for error in errors] == ["INVALID_ARGUMENT"] * 2
    assert [[one["field"] for one in error["violations"]] for error in errors] == [
        ["tool"],
        ["timeout_ms", "binary.data"],
    ]
    assert errors[1]["violations"][0]["description"] == "expected int >= 1, got 0"
    assert errors[1]["context"]["tool_name"] == "t.pack"
    logged = [r for r in caplog.records if r.getMessage() == "call failed"]
    assert [vars(r)["error_id"] for r in logged] == [error["error_id"] for error in errors]
    assert connection.call("worker.stats")["calls"]["failed"] == 2


def test_what_is_no_call_at_all_is_the_batchs_mistake(connection: Connection) -> None:
    with pytest.raises(ToolFailure) as caught:
        batch(connection, {"tool": "t.echo"}, {"tol": "t.echo"})
    fields = [violation["field"] for violation in caught.value.failure["violations"]]
    assert fields == ["calls[1].tool", "calls[1].tol"]


@pytest.mark.parametrize(
    "arguments", [{"calls": [{"tool": "t.echo"}] * 1001}, {"calls": [], "concurrency": 0}]
)
def test_its_limits_are_in_its_schema(connection: Connection, arguments: dict[str, Any]) -> None:
    with pytest.raises(ToolFailure) as caught:
        connection.call("worker.batch", arguments)
    assert caught.value.failure["code"] == "INVALID_ARGUMENT"


def test_a_batch_needs_no_place_of_its_own(serve: Served, tools: Tools) -> None:
    connection = serve(tools, max_calls=1, max_session_calls=1)
    tools.gate.open()
    assert [o["success"] for o in batch(connection, *[{"tool": "t.hang"}] * 3)] == [True] * 3
