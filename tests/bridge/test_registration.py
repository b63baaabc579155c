"""The worker's tools in the host's registry, by which other clients reach them."""

from __future__ import annotations

import json
import queue
import threading
from typing import TYPE_CHECKING, Any

import pytest

from snakepit_worker.host import registration
from snakepit_worker.testing import Connection, StandInHost
from snakepit_worker.testing.connection import decode_response
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from tests.bridge.conftest import LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    import grpc

    from tests.bridge.conftest import Served

MODULE = "tests.bridge.adapters.foreign_registering"
FOREIGN, NATIVE = f"{MODULE}.Foreign", f"{MODULE}.Native"
WORKER_ID = "pool_worker_7_3"
READY_FILE = f"/nowhere/snakepit_ready_{WORKER_ID}_4711"


class Host(StandInHost):
    """Keeps what was to be registered, and may refuse it."""

    def __init__(self) -> None:
        super().__init__()
        self.refusals: list[str] = []
        self.seen: queue.SimpleQueue[tuple[pb.RegisterToolsRequest, pb.RegisterToolsResponse]] = (
            queue.SimpleQueue()
        )

    def RegisterTools(
        self, request: pb.RegisterToolsRequest, context: grpc.ServicerContext
    ) -> pb.RegisterToolsResponse:
        response = super().RegisterTools(request, context)
        if self.refusals:
            response = pb.RegisterToolsResponse(error_message=self.refusals.pop(0))
        self.seen.put((request, response))
        return response

    def next(self) -> tuple[pb.RegisterToolsRequest, pb.RegisterToolsResponse]:
        return self.seen.get(timeout=LIMIT)


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        yield host


def start(serve: Served, host: Host, *adapters: str, **settings: Any) -> Connection:
    """A worker in this process, which sends no heartbeats, so that RPCs can be counted."""
    chosen = {"ready_file": READY_FILE, "heartbeat_enabled": False, **settings}
    return serve(adapters=adapters, elixir_address=host.address, **chosen)


def through_host(connection: Connection, host: Host, tool: str, **arguments: Any) -> Any:
    """What another client of the host gets."""
    with Connection(host.address, connection.session_id) as client:
        return decode_response(client.execute(client.request(tool, arguments), LIMIT))


@pytest.mark.conforms(72, "D5")
@pytest.mark.parametrize("worker_id", ["default_worker_1", WORKER_ID])
def test_a_worker_is_reached_through_the_hosts_registry(host: Host, worker_id: str) -> None:
    with host.worker(adapters=[NATIVE, FOREIGN], worker_id=worker_id) as (_, connection):
        request, response = host.next()
        assert response.success
        assert request.worker_id == worker_id
        assert request.session_id == connection.session_id
        assert through_host(connection, host, "native.double", n=4) == 8.0
        answer = through_host(connection, host, "ping", a=[1, None])
        assert answer == ["ping", {"a": [1, None]}, connection.session_id]
        with Connection(host.address, connection.session_id) as client:
            for name, arguments in (("native.count", {"to": 3}), ("count", {})):
                chunks = list(client.chunks(client.request(name, arguments), LIMIT))
                assert [json.loads(chunk.data) for chunk in chunks if chunk.data] == [0, 1, 2]
                assert chunks[-1].is_final


def test_what_is_registered(serve: Served, host: Host) -> None:
    start(serve, host, NATIVE, FOREIGN).greet()
    tools = {tool.name: tool for tool in host.next()[0].tools}
    assert {name for name in tools if not name.startswith(("worker.", "session.", "job."))} == {
        "native.double",
        "native.count",
        "ping",
        "count",
    }
    double = tools["native.double"]
    assert double.description == "Twice as much."
    parameters = {parameter.name: parameter for parameter in double.parameters}
    assert [(p.name, p.type, p.required) for p in double.parameters] == [
        ("n", "integer", True),
        ("by", "number", False),
        ("note", "string", False),
    ]
    assert json.loads(parameters["by"].validation_json) == {"default": 2.0}
    streaming = [name for name, tool in tools.items() if tool.supports_streaming]
    assert sorted(streaming) == ["count", "job.events", "native.count"]


@pytest.mark.conforms(74, "D43")
def test_names_that_the_host_refuses_are_left_out(
    serve: Served, host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    connection = start(serve, host, FOREIGN)
    connection.greet()
    request, response = host.next()
    assert response.success
    names = {tool.name for tool in request.tools}
    assert {"ping", "count"} <= names
    assert not names & {"_hidden", "has space", "x" * 65, ""}
    warnings = [r for r in caplog.records if "refuses its name" in r.getMessage()]
    assert len(warnings) == 4
    assert connection.call("_hidden")[0] == "_hidden", "it can be called all the same"


@pytest.mark.conforms(53, 72, "D3", "D6")
def test_registered_once_for_each_session(serve: Served, host: Host) -> None:
    first = start(serve, host, NATIVE, FOREIGN)
    first.greet()
    assert host.next()[1].success
    for _ in range(5):
        first.call("ping")
        first.call("native.double", {"n": 1})
    initialized = host.received["InitializeSession"]
    second = serve.connect()
    second.greet()
    request, response = host.next()
    assert response.success
    assert request.session_id == second.session_id
    for _ in range(5):
        first.call("ping")
        second.call("ping")
    assert host.received["RegisterTools"] == 2
    assert host.received["InitializeSession"] == initialized + 1, "the greeting alone"


@pytest.mark.conforms(73)
def test_a_session_that_the_host_does_not_know_is_made(serve: Served, host: Host) -> None:
    connection = start(serve, host, FOREIGN)
    assert connection.call("ping")[0] == "ping"
    assert host.next()[1].error_message == "not_found"
    assert host.next()[1].success
    assert connection.session_id in host.sessions
    for _ in range(5):
        connection.call("ping")
    assert host.received["InitializeSession"] == 1
    assert host.received["RegisterTools"] == 2


@pytest.mark.conforms(73)
def test_what_is_registered_already_is_accepted(
    serve: Served, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "_RETRY_AFTER", 0.0)
    connection = start(serve, host, FOREIGN)
    connection.greet()
    assert host.next()[1].success
    start(serve, host, FOREIGN)
    with Connection(serve.worker.address, connection.session_id) as again:
        again.greet()
        assert "duplicate_tool" in host.next()[1].error_message
        for _ in range(20):
            again.call("ping")
    assert host.received["RegisterTools"] == 2


@pytest.mark.conforms(73, "D6")
def test_any_other_failure_is_tried_again(
    serve: Served, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "_RETRY_AFTER", 0.0)
    host.refusals[:] = ["not now", "not_found", "not_found"]
    connection = start(serve, host, NATIVE)
    connection.greet()
    reasons = [host.next()[1].error_message]
    while len(reasons) < 4:
        assert connection.call("native.double", {"n": 1}) == 2.0
        while not host.seen.empty():
            reasons.append(host.next()[1].error_message)
    # Made by the stand-in before it was told to refuse.
    assert reasons[:3] == ["not now", "not_found", "not_found"]
    assert "duplicate_tool" in reasons[3]


@pytest.mark.conforms(96, "D43")
def test_no_call_fails_because_tools_cannot_be_described(serve: Served, host: Host) -> None:
    connection = start(serve, host, f"{MODULE}.Broken")
    connection.greet()
    for _ in range(3):
        assert connection.call("ping")[0] == "ping"
    assert host.received["RegisterTools"] == 0


@pytest.mark.conforms(73)
def test_no_call_fails_because_the_host_is_gone(serve: Served, host: Host) -> None:
    connection = start(serve, host, NATIVE, FOREIGN)
    host.close()
    for _ in range(3):
        assert connection.call("ping")[0] == "ping"
        assert connection.call("native.double", {"n": 1}) == 2.0


class SlowHost(Host):
    """Does not answer a registration before it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.may_answer = threading.Event(), threading.Event()

    def RegisterTools(
        self, request: pb.RegisterToolsRequest, context: grpc.ServicerContext
    ) -> pb.RegisterToolsResponse:
        self.asked.set()
        self.may_answer.wait(LIMIT)
        return super().RegisterTools(request, context)


@pytest.mark.conforms("D1", "D6")
def test_nothing_waits_for_a_registration(serve: Served) -> None:
    with SlowHost() as host:
        connection = start(serve, host, NATIVE, FOREIGN)
        connection.greet()
        assert host.asked.wait(LIMIT)
        assert connection.call("ping")[0] == "ping"
        assert connection.call("native.double", {"n": 1}) == 2.0
        beat = pb.HeartbeatRequest(session_id=connection.session_id)
        assert connection.stub.Heartbeat(beat, timeout=LIMIT).session_valid
        assert host.seen.empty()
        host.may_answer.set()
        assert host.next()[1].success


@pytest.mark.parametrize("ready_file", [None, "/nowhere/ready", "/nowhere/snakepit_ready_1"])
def test_a_worker_that_does_not_know_its_name_does_not_register(
    serve: Served, host: Host, ready_file: str | None
) -> None:
    connection = start(serve, host, FOREIGN, ready_file=ready_file)
    connection.greet()
    assert connection.call("ping")[0] == "ping"
    assert host.received["RegisterTools"] == 0
