"""Limits on calls, as callers meet them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from snakepit_worker import Adapter, tool
from snakepit_worker.testing import ToolFailure
from snakepit_worker.testing.connection import decode_response
from tests.bridge.conftest import LIMIT

if TYPE_CHECKING:
    from snakepit_worker.testing import Connection
    from tests.bridge.conftest import Gate, Served


class Blocking(Adapter):
    """Tools that wait for the test."""

    name = "blocking"

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.served: list[str] = []

    @tool
    def sync(self, label: str = "") -> str:
        self.served.append(label)
        self.gate.wait()
        return label

    @tool
    async def on_loop(self, label: str = "") -> str:
        self.served.append(label)
        await self.gate.wait_async()
        return label


@pytest.fixture
def blocking(gate: Gate) -> Blocking:
    return Blocking(gate)


def begin(connection: Connection, tool_name: str, label: str, **arguments: Any) -> Any:
    request = connection.request(f"blocking.{tool_name}", {"label": label, **arguments})
    return connection.stub.ExecuteTool.future(request, timeout=LIMIT)


def stats(connection: Connection) -> dict[str, Any]:
    found: dict[str, Any] = connection.call("worker.stats")
    return found


@pytest.mark.parametrize(
    ("form", "settings", "place"),
    [("sync", {"max_workers": 1}, "threads"), ("on_loop", {"max_calls": 1}, "coroutines")],
)
def test_beyond_the_limits_a_call_is_refused_at_once(
    serve: Served, blocking: Blocking, form: str, settings: dict[str, int], place: str
) -> None:
    connection = serve(blocking, max_waiting=1, **settings)
    first = begin(connection, form, "first")
    blocking.gate.reached()
    second = begin(connection, form, "second")
    while stats(connection)[place]["waiting"] == 0:
        pass
    with pytest.raises(ToolFailure) as caught:
        connection.call(f"blocking.{form}")
    failure = caught.value.failure
    assert (failure["code"], failure["category"]) == ("RESOURCE_EXHAUSTED", "exhausted")
    assert failure["retryable"] is True
    assert failure["retry_after_ms"] >= 100
    assert failure["details"]["limit"] == "max_waiting"
    blocking.gate.open()
    assert [decode_response(call.result()) for call in (first, second)] == ["first", "second"]
    assert connection.call(f"blocking.{form}", {"label": "third"}) == "third"


def test_sessions_take_turns(serve: Served, blocking: Blocking) -> None:
    connection = serve(blocking, max_workers=1)
    calls = [begin(connection, "sync", f"a{n}", session_id="a") for n in range(4)]
    blocking.gate.reached()
    while stats(connection)["threads"]["waiting"] < 3:
        pass
    calls.append(begin(connection, "sync", "b", session_id="b"))
    while stats(connection)["threads"]["waiting"] < 4:
        pass
    blocking.gate.open()
    for call in calls:
        assert call.result().success
    assert blocking.served.index("b") <= 2


def test_a_session_has_a_limit_of_its_own(serve: Served, blocking: Blocking) -> None:
    connection = serve(blocking, max_session_calls=1, max_session_waiting=0)
    first = begin(connection, "sync", "first", session_id="a")
    blocking.gate.reached()
    with pytest.raises(ToolFailure) as caught:
        connection.call("blocking.sync", {"session_id": "a"})
    assert caught.value.failure["details"]["limit"] == "max_session_waiting"
    other = begin(connection, "sync", "other", session_id="b")
    blocking.gate.reached()
    blocking.gate.open()
    assert first.result().success
    assert other.result().success


def test_threads_in_abandoned_calls_are_counted_replaced_and_limited(
    serve: Served, blocking: Blocking
) -> None:
    connection = serve(blocking, max_workers=1)
    for count in (1, 2):  # the thread, and its replacement
        call = begin(connection, "sync", "abandoned")
        blocking.gate.reached()
        call.cancel()
        while stats(connection)["threads"]["abandoned"] < count:
            pass
    with pytest.raises(ToolFailure) as caught:  # after a moment, in which one might have ended
        connection.call("blocking.sync")
    failure = caught.value.failure
    assert failure["code"] == "RESOURCE_EXHAUSTED"
    assert "nobody waits for" in failure["message"]
    assert (failure["details"]["value"], failure["details"]["running"]) == (1, 2)
    assert "--max-workers" in failure["help"]
    with pytest.raises(ToolFailure):
        connection.call("blocking.sync")
    blocking.gate.open()
    while stats(connection)["threads"]["abandoned"]:
        pass
    assert connection.call("blocking.sync", {"label": "again"}) == "again"
    assert stats(connection)["threads"] == {"size": 1, "busy": 0, "waiting": 0, "abandoned": 0}


def test_what_the_worker_says_of_itself_needs_no_place(serve: Served, blocking: Blocking) -> None:
    connection = serve(blocking, max_calls=1, max_waiting=0)
    call = begin(connection, "on_loop", "only")
    blocking.gate.reached()
    assert stats(connection)["coroutines"] == {"size": 1, "running": 1, "waiting": 0}
    assert connection.call("session.info")["session_id"] == connection.session_id
    blocking.gate.open()
    assert call.result().success
