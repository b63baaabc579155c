"""Sessions that outlive their worker, and sessions as documents."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import pytest

from snakepit_worker import Adapter, CallContext, Rebuilt, tool
from snakepit_worker.errors import FailedPrecondition
from snakepit_worker.runtime import Worker
from snakepit_worker.settings import Settings
from snakepit_worker.testing import Connection, ToolFailure
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from tests.bridge.conftest import LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.bridge.conftest import Gate

ANN = {"session_id": "ann"}


class Counter:
    """Something that learns."""

    def __init__(self, count: int = 0) -> None:
        self.count = count

    def recipe(self) -> Mapping[str, int]:
        return {"count": self.count}


class Counters(Adapter):
    """Keeps counters, some of which cannot be described."""

    name = "counters"

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.rebuilt_on: list[str] = []

    @tool
    def make(self, ctx: CallContext, name: str) -> str:
        counter = Counter()
        return ctx.session.put("counters.one", counter, name=name, recipe=counter.recipe).handle

    @tool
    def make_mute(self, ctx: CallContext, name: str) -> str:
        return ctx.session.put("counters.mute", Counter(), name=name).handle

    @tool
    def make_broken(self, ctx: CallContext, name: str) -> str:
        recipe = {"count": 0, "broken": True}
        return ctx.session.put("counters.one", Counter(), name=name, recipe=lambda: recipe).handle

    @tool
    def make_bad(self, ctx: CallContext, name: str, kind: str) -> str:
        recipes: dict[str, Any] = {
            "object": {"x": object()},
            "huge": {"x": "y " * (33 << 20)},
            "list": [1],
        }
        recipe = recipes.get(kind, {"bad": kind})
        return ctx.session.put("counters.one", 0, name=name, recipe=lambda: recipe).handle

    @tool
    def add_late(self, ctx: CallContext, name: str) -> None:
        with ctx.session.lease(name, "counters.one", exclusive=True) as counter:
            counter.count += 1
            self.gate.wait()

    @tool
    async def add(self, ctx: CallContext, name: str, fail: bool = False) -> int:  # noqa: FBT001, FBT002
        async with ctx.session.lease(name, "counters.one", exclusive=True) as counter:
            counter.count += 1
        if fail:
            raise ValueError("after the change")
        return int(counter.count)

    @tool
    async def add_and_wait(self, ctx: CallContext, name: str) -> None:
        async with ctx.session.lease(name, "counters.one", exclusive=True) as counter:
            counter.count += 1
        await self.gate.wait_async()

    @tool
    async def count(self, ctx: CallContext, name: str) -> int:
        async with ctx.session.lease(name, "counters.one") as counter:
            return int(counter.count)

    def rebuild(self, kind: str, recipe: Mapping[str, Any]) -> Rebuilt:
        assert kind == "counters.one"
        self.rebuilt_on.append(threading.current_thread().name)
        if "broken" in recipe:
            raise FailedPrecondition("the mould is broken")
        bad = recipe.get("bad")
        if bad == "nothing":
            return "no Rebuilt"  # type: ignore[return-value]
        if bad == "exit":
            raise SystemExit(4)
        if bad == "stop":
            raise StopIteration
        counter = Counter(recipe["count"])
        return Rebuilt(counter, recipe=counter.recipe, size=100)


class AsyncCounters(Counters):
    """Builds on the event loop."""

    async def rebuild(  # type: ignore[override]
        self, kind: str, recipe: Mapping[str, Any]
    ) -> Rebuilt:
        await asyncio.sleep(0)
        return super().rebuild(kind, recipe)


@pytest.fixture
def start(serve: Any, gate: Gate, tmp_path: Path) -> Callable[..., Connection]:
    """Starts workers that share an archive."""

    def start(adapter: type[Counters] = Counters, **settings: Any) -> Connection:
        archive = f"sqlite:///{tmp_path}/archive.db"
        connection: Connection = serve(adapter(gate), archive=archive, **settings)
        return connection

    return start


def stop(serve: Any) -> None:
    """Stop the worker that was started last."""
    serve.worker.stop()


@pytest.mark.parametrize("adapter", [Counters, AsyncCounters])
def test_what_a_session_holds_goes_on_in_another_worker(
    adapter: type[Counters], start: Callable[..., Connection], serve: Any
) -> None:
    first = start()
    handle = first.call("counters.make", {"name": "n", **ANN})
    for expected in (1, 2, 3):
        assert first.call("counters.add", {"name": "n", **ANN}) == expected
    first.call("session.put", {"name": "v", "value": [1, {"a": None}, 2**70], **ANN})
    first.call("session.put", {"name": "b", **ANN}, binary={"value": b"\x00\xff"})
    stop(serve)
    second = start(adapter)
    assert second.call("counters.count", {"name": handle, **ANN}) == 3
    assert second.call("counters.add", {"name": "n", **ANN}) == 4
    assert second.call("session.get", {"name": "v", **ANN}) == [1, {"a": None}, 2**70]
    assert second.call("session.get", {"name": "b", **ANN}) == b"\x00\xff"
    assert [r["name"] for r in second.call("session.list", ANN)] == ["n", "v", "b"]


def test_a_session_lives_on_one_worker_at_a_time(
    start: Callable[..., Connection], serve: Any
) -> None:
    first = start()
    address = serve.worker.address
    first.call("counters.make", {"name": "n", **ANN})
    second = start()
    with pytest.raises(ToolFailure, match="session 'ann' lives on worker") as caught:
        second.call("counters.count", {"name": "n", **ANN})
    failure = caught.value.failure
    assert (failure["code"], failure["retryable"]) == ("ABORTED", True)
    assert failure["details"]["address"] == address
    assert failure["details"]["worker_id"]
    assert first.call("counters.count", {"name": "n", **ANN}) == 0
    assert second.call("session.list", {"session_id": "bob"}) == []


def test_a_session_that_began_in_two_places_is_found_where_it_holds_something(
    start: Callable[..., Connection], serve: Any
) -> None:
    first, second = start(), start()
    workers = serve.worker
    assert first.call("session.list", ANN) == []  # begun here, and nowhere saved
    second.call("counters.make", {"name": "n", **ANN})
    with pytest.raises(ToolFailure, match="lives on worker"):
        first.call("counters.count", {"name": "n", **ANN})
    workers.stop()
    while True:
        try:
            assert first.call("counters.count", {"name": "n", **ANN}) == 0
        except ToolFailure as failure:  # it was looked for after the call, and found
            assert "just been taken over; call again" in str(failure)  # noqa: PT017 - it may
            continue
        break


def test_a_change_before_a_failure_is_saved_too(
    start: Callable[..., Connection], serve: Any
) -> None:
    first = start()
    first.call("counters.make", {"name": "n", **ANN})
    with pytest.raises(ToolFailure, match="after the change"):
        first.call("counters.add", {"name": "n", "fail": True, **ANN})
    stop(serve)
    assert start().call("counters.count", {"name": "n", **ANN}) == 1


def test_a_change_of_a_cancelled_call_is_saved_too(
    start: Callable[..., Connection], serve: Any, gate: Gate
) -> None:
    first = start()
    first.call("counters.make", {"name": "n", **ANN})
    request = first.request("counters.add_and_wait", {"name": "n", **ANN})
    call = first.stub.ExecuteTool.future(request, timeout=LIMIT)
    gate.reached()
    call.cancel()
    while first.call("worker.stats")["calls"]["in_flight"] > 1:
        pass
    stop(serve)
    assert start().call("counters.count", {"name": "n", **ANN}) == 1


def test_what_cannot_be_built_again_is_listed_as_lost(
    start: Callable[..., Connection], serve: Any
) -> None:
    first = start()
    first.call("counters.make", {"name": "n", **ANN})
    mute = first.call("counters.make_mute", {"name": "m", **ANN})
    first.call("counters.make_broken", {"name": "x", **ANN})
    first.call("session.put", {"name": "key", "value": {"api_key": "sk-" + 40 * "a"}, **ANN})
    stop(serve)
    second = start()
    listed = {r["name"]: r.get("lost") for r in second.call("session.list", ANN)}
    assert listed == {
        "n": None,
        "m": "its adapter gives no recipe for it",
        "x": "it cannot be built again: the mould is broken",
        "key": "its recipe holds what looks like a secret, at value.api_key",
    }
    with pytest.raises(ToolFailure, match=r"a counters\.mute, was lost: its adapter") as caught:
        second.call("counters.count", {"name": mute, **ANN})
    assert caught.value.failure["code"] == "NOT_FOUND"
    second.call("counters.make", {"name": "m", **ANN})  # the name is free again
    assert second.call("session.release", {"handle": "x", **ANN})["name"] == "x"
    stop(serve)
    listed = {r["name"]: r.get("lost") for r in start().call("session.list", ANN)}
    assert (listed["m"], listed["key"] is None, "x" in listed) == (None, False, False)


def test_an_adapter_that_is_not_there_loses_what_is_its(
    start: Callable[..., Connection], serve: Any, tmp_path: Path
) -> None:
    first = start()
    first.call("counters.make", {"name": "n", **ANN})
    stop(serve)
    other = serve(archive=f"sqlite:///{tmp_path}/archive.db")
    (listed,) = other.call("session.list", ANN)
    assert "does not serve adapter counters" in listed["lost"]
    stop(serve)
    assert start().call("counters.count", {"name": "n", **ANN}) == 0, "but it is not gone"


def test_a_session_that_is_closed_is_closed_for_good(
    start: Callable[..., Connection], serve: Any
) -> None:
    first = start()
    for session_id in ("ann", "bob", "eve"):
        first.call("counters.make", {"name": "n", "session_id": session_id})
    assert first.call("session.close", ANN)["released"] == 1
    stop(serve)
    second = start()
    request = pb.CleanupSessionRequest(session_id="bob")
    assert second.stub.CleanupSession(request, timeout=LIMIT).resources_cleaned == 1
    stop(serve)
    third = start()
    held = [third.call("session.list", {"session_id": s}) for s in ("ann", "bob", "eve")]
    assert [len(resources) for resources in held] == [0, 0, 1]


def test_a_session_that_gives_way_comes_back(start: Callable[..., Connection]) -> None:
    connection = start(max_sessions=2)
    for session_id in ("ann", "bob", "eve"):
        connection.call("counters.make", {"name": "n", "session_id": session_id})
    assert connection.call("worker.stats")["sessions"] == 2
    assert connection.call("counters.add", {"name": "n", **ANN}) == 1
    assert connection.call("counters.count", {"name": "n", "session_id": "bob"}) == 0


def test_applications_do_not_see_each_other(start: Callable[..., Connection], serve: Any) -> None:
    start(archive_namespace="one").call("counters.make", {"name": "n", **ANN})
    stop(serve)
    assert start(archive_namespace="two").call("session.list", ANN) == []


def test_calls_that_change_something_at_once_are_all_saved(
    start: Callable[..., Connection], serve: Any
) -> None:
    first = start()
    first.call("counters.make", {"name": "n", **ANN})
    request = first.request("counters.add", {"name": "n", **ANN})
    calls = [first.stub.ExecuteTool.future(request, timeout=LIMIT) for _ in range(100)]
    assert all(call.result().success for call in calls)
    stop(serve)
    assert start().call("counters.count", {"name": "n", **ANN}) == 100


def test_a_call_fails_when_its_change_cannot_be_saved(
    start: Callable[..., Connection], serve: Any, tmp_path: Path
) -> None:
    connection = start(archive_lease_s=1)
    connection.call("counters.make", {"name": "n", **ANN})
    with contextlib.closing(sqlite3.connect(tmp_path / "archive.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ToolFailure) as caught:
            connection.call("counters.add", {"name": "n", **ANN})
        assert caught.value.failure["code"] == "UNAVAILABLE"
        assert caught.value.failure["retryable"] is False, "the change was made"
        # The lease is over: somebody else may have the session, and another state of it.
        with pytest.raises(ToolFailure, match="not available"):
            connection.call("counters.count", {"name": "n", **ANN})
        other.rollback()
    for _ in range(100):  # the archive may be in the middle of an attempt of its own
        with contextlib.suppress(ToolFailure):
            assert connection.call("counters.add", {"name": "n", **ANN}) == 2
            break
    stop(serve)
    assert start().call("counters.count", {"name": "n", **ANN}) == 2


@pytest.mark.parametrize(
    ("url", "reason"),
    [("mysql://x/y", "sqlite"), ("sqlite:////nowhere/at/all/a.db", "nowhere"), ("x", "sqlite")],
)
def test_an_archive_that_cannot_be_opened_ends_the_start(url: str, reason: str) -> None:
    from snakepit_worker.errors import StartError

    worker = Worker(Settings(archive=url))
    with pytest.raises(StartError, match=reason):
        worker.start()


@pytest.mark.parametrize("durability", ["commit", "delayed"])
def test_two_workers_never_both_have_a_session(
    start: Callable[..., Connection], durability: str
) -> None:
    first, second = (start(archive_durability=durability) for _ in range(2))
    assert second.call("session.list", ANN) == []
    first.call("counters.make", {"name": "n", **ANN})
    with pytest.raises(ToolFailure, match="lives on worker"):
        second.call("counters.make", {"name": "n", **ANN})
    assert first.call("counters.add", {"name": "n", **ANN}) == 1


def test_a_session_that_holds_nothing_here_is_looked_for_now_and_then(
    start: Callable[..., Connection],
) -> None:
    first, second = start(), start()
    assert second.call("session.list", ANN) == []
    first.call("counters.make", {"name": "n", **ANN})
    while True:  # for a second at most, an empty answer is believed
        try:
            assert second.call("session.list", ANN) == []
        except ToolFailure as failure:
            assert "lives on worker" in str(failure)  # noqa: PT017 - the way out of the loop
            break


@pytest.mark.parametrize("kind", ["object", "huge", "list"])
def test_what_cannot_be_saved_costs_the_others_nothing(
    kind: str, start: Callable[..., Connection], serve: Any
) -> None:
    if kind == "list":
        serve.expected_errors = ("a recipe cannot be made",)
    first = start()
    first.call("counters.make", {"name": "good", **ANN})
    first.call("counters.make_bad", {"name": "bad", "kind": kind, **ANN})
    assert first.call("counters.add", {"name": "good", **ANN}) == 1
    stop(serve)
    second = start()
    listed = {r["name"]: r.get("lost") for r in second.call("session.list", ANN)}
    assert listed["good"] is None
    assert "cannot be" in listed["bad"]
    assert second.call("counters.count", {"name": "good", **ANN}) == 1


@pytest.mark.parametrize("how", ["nothing", "exit", "stop"])
def test_a_rebuild_that_goes_wrong_costs_the_others_nothing(
    how: str, start: Callable[..., Connection], serve: Any
) -> None:
    first = start()
    first.call("session.put", {"name": "v", "value": 1, **ANN})
    first.call("counters.make_bad", {"name": "bad", "kind": how, **ANN})
    stop(serve)
    second = start()
    assert second.call("session.get", {"name": "v", **ANN}) == 1
    (lost,) = [r["lost"] for r in second.call("session.list", ANN) if "lost" in r]
    assert "cannot be built again" in lost
    assert second.call("session.close", ANN)["released"] == 2


def test_a_change_after_the_end_of_its_call_is_saved_too(
    start: Callable[..., Connection], serve: Any, gate: Gate
) -> None:
    first = start()
    first.call("counters.make", {"name": "n", **ANN})
    request = first.request("counters.add_late", {"name": "n", **ANN})
    call = first.stub.ExecuteTool.future(request, timeout=LIMIT)
    gate.reached()
    call.cancel()
    while first.call("worker.stats")["calls"]["in_flight"] > 1:
        pass
    gate.open()
    assert first.call("counters.count", {"name": "n", **ANN}) == 1
    store = serve.worker._store
    while store.get("ann").has_changes:
        pass
    stop(serve)
    assert start().call("counters.count", {"name": "n", **ANN}) == 1


def test_a_large_value_holds_nobody_up(start: Callable[..., Connection], serve: Any) -> None:
    first = start()
    call = first.stub.ExecuteTool.future(
        first.request("session.put", {"name": "b", **ANN}, binary={"value": bytes(30 << 20)}),
        timeout=60,
    )
    while not call.done():
        first.stub.Ping(pb.PingRequest(), timeout=5)  # seconds; it took twelve once
    assert call.result().success
    stop(serve)
    assert len(start().call("session.get", {"name": "b", **ANN}, timeout=60)) == 30 << 20


# --- Documents ------------------------------------------------------------------------------------


def test_a_session_travels_as_a_document(start: Callable[..., Connection]) -> None:
    first = start()
    handle = first.call("counters.make", {"name": "n", **ANN})
    first.call("counters.add", {"name": "n", **ANN})
    first.call("counters.make_mute", {"name": "m", **ANN})
    document = first.call("session.export", ANN)
    assert document["version"] == 1
    assert [resource["recipe"] for resource in document["resources"]] == [{"count": 1}, None]
    built = first.call("session.import", {"document": document, "session_id": "bob"})
    assert [one["old"] for one in built][:1] == [handle]
    assert built[0]["handle"] != handle
    assert "lost" in built[1]
    assert first.call("counters.add", {"name": "n", "session_id": "bob"}) == 2
    assert first.call("counters.count", {"name": "n", **ANN}) == 1


def test_a_document_meets_names_that_are_taken(start: Callable[..., Connection]) -> None:
    connection = start()
    connection.call("counters.make", {"name": "n", **ANN})
    connection.call("counters.add", {"name": "n", **ANN})
    document = connection.call("session.export", ANN)
    connection.call("counters.make", {"name": "n", "session_id": "bob"})
    arguments = {"document": document, "session_id": "bob"}
    with pytest.raises(ToolFailure, match="already has a resource named 'n'"):
        connection.call("session.import", arguments)
    connection.call("session.import", {"replace": True, **arguments})
    assert connection.call("counters.count", {"name": "n", "session_id": "bob"}) == 1


def test_a_clone_is_saved_like_any_session(start: Callable[..., Connection], serve: Any) -> None:
    first = start()
    first.call("counters.make", {"name": "n", **ANN})
    first.call("counters.add", {"name": "n", **ANN})
    (built,) = first.call("session.clone", {"to": "bob", **ANN})
    with pytest.raises(ToolFailure, match="expected the id of another session"):
        first.call("session.clone", {"to": "ann", **ANN})
    stop(serve)
    second = start()
    assert second.call("counters.add", {"name": built["handle"], "session_id": "bob"}) == 2
    assert second.call("counters.count", {"name": "n", **ANN}) == 1


def test_a_document_holds_no_secrets(start: Callable[..., Connection]) -> None:
    connection = start()
    connection.call("session.put", {"name": "k", "value": {"password": "hunter2"}, **ANN})
    (resource,) = connection.call("session.export", ANN)["resources"]
    assert resource["recipe"] is None
    assert resource["lost"] == "its recipe holds what looks like a secret, at value.password"


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"version": 2, "session_id": "x", "resources": []},
        {"version": 1, "session_id": "x", "resources": [{}]},
    ],
    ids=["empty", "from the future", "nameless"],
)
def test_what_is_no_document_is_refused(
    document: dict[str, Any], start: Callable[..., Connection]
) -> None:
    with pytest.raises(ToolFailure) as caught:
        start().call("session.import", {"document": document})
    assert caught.value.failure["code"] == "INVALID_ARGUMENT"


def test_without_an_archive_sessions_still_travel_as_documents(serve: Any, gate: Gate) -> None:
    connection: Connection = serve(Counters(gate))
    connection.call("counters.make", {"name": "n", **ANN})
    document = connection.call("session.export", ANN)
    stop(serve)
    other: Connection = serve(Counters(gate))
    other.call("session.import", {"document": document, **ANN})
    assert other.call("counters.count", {"name": "n", **ANN}) == 0
