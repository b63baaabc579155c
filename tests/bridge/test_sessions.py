"""A worker without a host is its own authority on sessions; tools look into them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from snakepit_worker import Adapter, CallContext, tool
from snakepit_worker.testing import ToolFailure
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from tests.bridge.conftest import LIMIT

if TYPE_CHECKING:
    from snakepit_worker.testing import Connection
    from tests.bridge.conftest import Gate, Served


class Shop(Adapter):
    """Keeps baskets in sessions."""

    name = "shop"

    def __init__(self) -> None:
        self.closed: list[str] = []

    @tool
    def basket(
        self,
        ctx: CallContext,
        label: str,
        name: str | None = None,
        replace: bool = False,  # noqa: FBT001, FBT002 - arguments come by name
    ) -> dict[str, Any]:
        resource = ctx.session.put(
            "shop.basket",
            [label],
            name=name,
            metadata={"label": label},
            close=lambda: self.closed.append(label),
            replace=replace,
        )
        return {"handle": resource.handle}

    @tool
    def add(self, ctx: CallContext, basket: str, article: str) -> list[str]:
        with ctx.session.lease(basket, "shop.basket") as items:
            items.append(article)
            return list(items)

    @tool
    def receipt(self, ctx: CallContext) -> str:
        return ctx.session.put("shop.receipt", None).handle

    @tool
    def where(self, ctx: CallContext) -> str:
        return ctx.session.id


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def connection(serve: Served, shop: Shop) -> Connection:
    return serve(shop)


def wait_for_closed(connection: Connection, shop: Shop, *labels: str) -> None:
    """Closers run apart from whoever lets go."""
    while len(shop.closed) < len(labels):
        connection.stub.Ping(pb.PingRequest(), timeout=LIMIT)
    assert sorted(shop.closed) == sorted(labels)


def code_of(call: Any, request: object) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=LIMIT)
    code: grpc.StatusCode = caught.value.code()
    return code


def valid(connection: Connection, session_id: str) -> bool:
    request = pb.HeartbeatRequest(session_id=session_id)
    answer: bool = connection.stub.Heartbeat(request, timeout=LIMIT).session_valid
    return answer


# --- The RPCs -------------------------------------------------------------------------------------


def test_a_session_is_made_found_and_ended(connection: Connection) -> None:
    stub = connection.stub
    assert not valid(connection, "mine")
    before = time.time()
    request = pb.InitializeSessionRequest(session_id="mine", metadata={"a": "1"})
    response = stub.InitializeSession(request, timeout=LIMIT)
    assert (response.success, response.error_message) == (True, "")
    assert valid(connection, "mine")
    found = stub.GetSession(pb.GetSessionRequest(session_id="mine"), timeout=LIMIT)
    assert (found.session_id, dict(found.metadata)) == ("mine", {"a": "1"})
    assert before - 1 <= found.created_at.seconds <= time.time() + 1
    ended = stub.CleanupSession(pb.CleanupSessionRequest(session_id="mine"), timeout=LIMIT)
    assert (ended.success, ended.resources_cleaned) == (True, 0)
    assert not valid(connection, "mine")
    assert code_of(stub.GetSession, pb.GetSessionRequest(session_id="mine")) is (
        grpc.StatusCode.NOT_FOUND
    )


def test_making_a_session_twice_finds_it(connection: Connection) -> None:
    for metadata in ({"a": "1", "b": "1"}, {"b": "2"}):
        request = pb.InitializeSessionRequest(session_id="mine", metadata=metadata)
        assert connection.stub.InitializeSession(request, timeout=LIMIT).success
    found = connection.stub.GetSession(pb.GetSessionRequest(session_id="mine"), timeout=LIMIT)
    assert dict(found.metadata) == {"a": "1", "b": "2"}


def test_a_session_needs_an_id(connection: Connection) -> None:
    request = pb.InitializeSessionRequest(metadata={"a": "1"})
    assert code_of(connection.stub.InitializeSession, request) is grpc.StatusCode.INVALID_ARGUMENT
    assert not valid(connection, "")


def test_ending_an_unknown_session_is_a_success(connection: Connection) -> None:
    request = pb.CleanupSessionRequest(session_id="unheard", force=True)
    response = connection.stub.CleanupSession(request, timeout=LIMIT)
    assert (response.success, response.resources_cleaned) == (True, 0)


def test_a_call_makes_its_session(connection: Connection) -> None:
    assert not valid(connection, connection.session_id)
    connection.call("shop.where")
    assert valid(connection, connection.session_id)


def test_ending_a_session_closes_what_it_holds(connection: Connection, shop: Shop) -> None:
    for label in ("a", "b"):
        connection.call("shop.basket", {"label": label})
    request = pb.CleanupSessionRequest(session_id=connection.session_id)
    assert connection.stub.CleanupSession(request, timeout=LIMIT).resources_cleaned == 2
    assert sorted(shop.closed) == ["a", "b"]  # sessions side by side, each in its order


def test_a_full_worker_refuses_one_more_session(serve: Served, gate: Gate) -> None:
    class Waiting(Adapter):
        name = "waiting"

        @tool
        def wait(self) -> None:
            gate.wait()

    connection = serve(Waiting(), max_sessions=1)
    call = connection.stub.ExecuteTool.future(connection.request("waiting.wait"), timeout=LIMIT)
    gate.reached()
    request = pb.InitializeSessionRequest(session_id="one more")
    code = code_of(connection.stub.InitializeSession, request)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(ToolFailure) as caught:
        serve.connect().call("worker.info")
    assert caught.value.failure["code"] == "RESOURCE_EXHAUSTED"
    assert caught.value.failure["retryable"] is True
    gate.open()
    assert call.result().success
    assert connection.stub.InitializeSession(request, timeout=LIMIT).success


# --- Resources through tools ----------------------------------------------------------------------


def test_resources_live_from_call_to_call(connection: Connection) -> None:
    handle = connection.call("shop.basket", {"label": "a"})["handle"]
    assert connection.call("shop.add", {"basket": handle, "article": "tea"}) == ["a", "tea"]
    assert connection.call("shop.add", {"basket": handle, "article": "jam"}) == ["a", "tea", "jam"]


def test_sessions_are_apart(connection: Connection, serve: Served) -> None:
    handle = connection.call("shop.basket", {"label": "a", "name": "mine"})["handle"]
    other = serve.connect()
    for reference in (handle, "mine"):
        with pytest.raises(ToolFailure) as caught:
            other.call("shop.add", {"basket": reference, "article": "tea"})
        assert caught.value.failure["code"] == "NOT_FOUND"
    shared = {"basket": "mine", "article": "tea", "session_id": connection.session_id}
    assert other.call("shop.add", shared) == ["a", "tea"]


def test_another_kind_is_told_apart(connection: Connection) -> None:
    handle = connection.call("shop.receipt")
    with pytest.raises(ToolFailure, match=r"is a shop\.receipt, expected a shop\.basket") as caught:
        connection.call("shop.add", {"basket": handle, "article": "tea"})
    assert caught.value.failure["code"] == "INVALID_ARGUMENT"


def test_a_session_describes_itself(connection: Connection) -> None:
    first = connection.call("shop.basket", {"label": "a", "name": "mine"})
    receipt = connection.call("shop.receipt")
    info = connection.call("session.info")
    assert info["session_id"] == connection.session_id
    assert (info["resources"], info["calls"]) == (2, 1)
    assert [entry["handle"] for entry in connection.call("session.list")] == [
        first["handle"],
        receipt,
    ]
    (listed,) = connection.call("session.list", {"kind": "shop.basket"})
    assert listed["metadata"] == {"label": "a"}
    assert (listed["name"], listed["kind"]) == ("mine", "shop.basket")


def test_resources_are_released_by_handle_or_name(connection: Connection, shop: Shop) -> None:
    handle = connection.call("shop.basket", {"label": "a"})["handle"]
    connection.call("shop.basket", {"label": "b", "name": "mine"})
    assert connection.call("session.release", {"handle": handle})["handle"] == handle
    assert connection.call("session.release", {"handle": "mine"})["name"] == "mine"
    wait_for_closed(connection, shop, "a", "b")
    with pytest.raises(ToolFailure, match="was released"):
        connection.call("shop.add", {"basket": handle, "article": "tea"})
    assert connection.call("session.list") == []


def test_names_conflict_unless_replaced(connection: Connection, shop: Shop) -> None:
    connection.call("shop.basket", {"label": "a", "name": "mine"})
    with pytest.raises(ToolFailure) as caught:
        connection.call("shop.basket", {"label": "b", "name": "mine"})
    assert (caught.value.failure["code"], caught.value.failure["retryable"]) == ("ABORTED", False)
    connection.call("shop.basket", {"label": "c", "name": "mine", "replace": True})
    wait_for_closed(connection, shop, "a")


def test_a_session_can_be_closed_by_a_tool(connection: Connection, shop: Shop) -> None:
    connection.call("shop.basket", {"label": "a"})
    closed = connection.call("session.close")
    assert closed == {"session_id": connection.session_id, "released": 1}
    assert shop.closed == ["a"]
    assert not valid(connection, connection.session_id)
    assert connection.call("session.info")["resources"] == 0


def test_what_a_call_without_a_session_holds_ends_with_it(
    connection: Connection, shop: Shop
) -> None:
    request = connection.request("shop.basket", {"label": "a"})
    request.session_id = ""
    assert connection.stub.ExecuteTool(request, timeout=LIMIT).success
    wait_for_closed(connection, shop, "a")


def test_a_session_that_nobody_uses_gives_way(serve: Served, shop: Shop) -> None:
    connection = serve(shop, max_sessions=2)
    for session_id in ("a", "b", "c"):
        connection.call("shop.basket", {"label": session_id, "session_id": session_id})
    wait_for_closed(connection, shop, "a")
    assert [valid(connection, session_id) for session_id in ("a", "b", "c")] == [False, True, True]


def test_a_session_holds_so_many_resources(serve: Served, shop: Shop) -> None:
    connection = serve(shop, max_resources=1)
    connection.call("shop.basket", {"label": "a"})
    with pytest.raises(ToolFailure) as caught:
        connection.call("shop.basket", {"label": "b"})
    assert caught.value.failure["code"] == "RESOURCE_EXHAUSTED"
    assert caught.value.failure["details"] == {"max_resources": 1}


def test_sessions_close_with_their_worker(serve: Served, shop: Shop) -> None:
    connection = serve(shop)
    connection.call("shop.basket", {"label": "a"})
    serve.connect().call("shop.basket", {"label": "b"})
    serve.worker.stop()
    assert sorted(shop.closed) == ["a", "b"]  # sessions side by side, each in its order


def test_the_worker_counts(connection: Connection, serve: Served) -> None:
    connection.call("shop.basket", {"label": "a"})
    serve.connect().call("shop.basket", {"label": "b"})
    stats = connection.call("worker.stats")
    assert (stats["sessions"], stats["resources"]) == (2, 2)


# --- Values that callers keep ---------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, 0, "text", [1, [2**70]], {"a": {"b": None}}], ids=repr)
def test_a_value_is_kept_under_a_name_and_a_handle(connection: Connection, value: object) -> None:
    kept = connection.call("session.put", {"name": "n", "value": value})
    assert (kept["kind"], kept["name"]) == ("session.value", "n")
    assert connection.call("session.get", {"name": "n"}) == value
    assert connection.call("session.get", {"handle": kept["handle"]}) == value


def test_bytes_are_kept_too(connection: Connection) -> None:
    kept = connection.call("session.put", {"name": "n"}, binary={"value": b"\x00\xff"})
    assert kept["size"] == 2
    assert connection.call("session.get", {"name": "n"}) == b"\x00\xff"
    (listed,) = connection.call("session.list", {"kind": "session.value"})
    assert (listed["size"], listed["can_be_rebuilt"]) == (2, True)


def test_a_value_is_replaced_only_when_that_is_asked_for(connection: Connection) -> None:
    connection.call("session.put", {"name": "n", "value": 1})
    with pytest.raises(ToolFailure) as caught:
        connection.call("session.put", {"name": "n", "value": 2})
    assert caught.value.failure["code"] == "ABORTED"
    connection.call("session.put", {"name": "n", "value": 3, "replace": True})
    assert connection.call("session.get", {"name": "n"}) == 3


@pytest.mark.parametrize("arguments", [{}, {"name": "n", "handle": "h"}])
def test_a_value_has_one_name(connection: Connection, arguments: dict[str, str]) -> None:
    with pytest.raises(ToolFailure, match="expected a name or a handle"):
        connection.call("session.get", arguments)


def test_only_values_can_be_got(connection: Connection) -> None:
    handle = connection.call("shop.basket", {"label": "a"})["handle"]
    with pytest.raises(ToolFailure, match=r"is a shop\.basket, expected a session\.value"):
        connection.call("session.get", {"handle": handle})


def test_a_worker_holds_so_many_bytes(serve: Served, shop: Shop) -> None:
    connection = serve(shop, max_session_bytes=1000)
    connection.call("session.put", {"session_id": "a"}, binary={"value": b"a" * 600})
    connection.call("session.put", {"session_id": "b"}, binary={"value": b"b" * 600})
    assert [valid(connection, session_id) for session_id in ("a", "b")] == [False, True]
    with pytest.raises(ToolFailure) as caught:
        connection.call("session.put", {"session_id": "b"}, binary={"value": b"b" * 600})
    assert caught.value.failure["code"] == "RESOURCE_EXHAUSTED"
    assert caught.value.failure["details"] == {"max_bytes": 1000, "size": 600}
    events = connection.stub.StreamTelemetry(iter(()), timeout=LIMIT)
    event = next(event for event in events if event.event_parts == ["python", "gc", "completed"])
    events.cancel()
    assert event.metadata["reason"] == "too many bytes"
    assert event.metadata["session_id"] == "a"
    assert event.measurements["bytes"].int_value == 600
