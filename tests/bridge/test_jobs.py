"""Jobs: calls that go on after their RPC has been answered."""

from __future__ import annotations

import asyncio
import base64
import gc
import logging
import random
import threading
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import pytest
from blockbuster import blockbuster_ctx

from snakepit_worker import Adapter, Binary, CallContext, Chunk, tool
from snakepit_worker.errors import ProviderError
from snakepit_worker.telemetry.logging import logger
from snakepit_worker.testing import ToolFailure
from snakepit_worker.testing.connection import decode_response
from snakepit_worker.testing.supervision import Supervision
from snakepit_worker.tools.jobs import Job
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from tests.bridge.adapters import foreign
from tests.bridge.conftest import LIMIT, in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from snakepit_worker.testing import Connection
    from tests.bridge.conftest import Gate, Served

FOREIGN = "tests.bridge.adapters.foreign.Plain"
ENDS = ("succeeded", "failed", "cancelled", "lost")
LONG = int(LIMIT * 1_000)


class Tools(Adapter):
    """What the jobs call."""

    name = "t"

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.stopped = threading.Semaphore(0)

    @tool
    def echo(self, value: Any = None) -> Any:
        return value

    @tool
    async def echo_async(self, value: Any = None) -> Any:
        return value

    @tool
    def wait(self, value: Any = None) -> Any:
        """Waits for the test, and cannot be stopped."""
        self.gate.wait()
        return value

    @tool
    async def wait_async(self, value: Any = None) -> Any:
        try:
            await self.gate.wait_async()
        finally:
            self.stopped.release()
        return value

    @tool
    def obey(self, ctx: CallContext) -> None:
        """Waits until it is cancelled."""
        self.gate.pass_by()
        try:
            while True:
                ctx.checkpoint()
                time.sleep(0.001)
        finally:
            self.stopped.release()

    @tool
    async def swallow(self) -> str:
        """Does not let itself be stopped."""
        try:
            await self.gate.wait_async()
        except asyncio.CancelledError:
            return "anyway"
        return "waited"

    @tool
    async def insist(self) -> str:
        """Does not let itself be stopped at all."""
        while True:
            try:
                await self.gate.wait_async()
            except asyncio.CancelledError:
                continue
            finally:
                self.stopped.release()
            return "at last"

    @tool
    def seen(self, ctx: CallContext) -> list[Any]:
        return [
            ctx.session.id,
            ctx.correlation_id,
            ctx.metadata["colour"],
            ctx.deadline.remaining() is None,
        ]

    @tool
    def pack(self, data: bytes) -> Binary:
        return Binary(data[::-1], {"size": len(data)})

    @tool
    def fail(self) -> NoReturn:
        raise ProviderError("too much", retry_after=2.0, details={"model": "m"})

    @tool
    def count(self, to: int) -> Iterator[Any]:
        yield from range(to)

    @tool
    async def count_async(self, to: int) -> AsyncIterator[Any]:
        """Never gives the event loop a chance by itself."""
        for number in range(to):
            yield number

    @tool
    async def chunks(self) -> AsyncIterator[Any]:
        yield None
        yield b"\xff"
        yield Chunk({"a": 1}, metadata={"n": 1})
        yield Chunk("last", is_final=True)

    @tool
    def endless(self) -> Iterator[int]:
        try:
            while True:
                self.gate.pass_by()
                yield 1
        finally:
            self.stopped.release()

    @tool
    def break_off(self) -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    @tool
    def steps(self, ctx: CallContext, fractions: list[float | None]) -> None:
        for fraction in fractions:
            ctx.progress(fraction, f"at {fraction}")

    @tool
    async def steps_async(self, ctx: CallContext) -> None:
        ctx.progress(0.25, "api_key='sk-12345678901234567890'")
        await ctx.run_sync(ctx.progress, 2.0)

    @tool
    def parts(self, ctx: CallContext) -> str:
        ctx.partial({"first": 2**70})
        ctx.partial(b"\x00")
        return "whole"

    @tool
    def log(self) -> None:
        logging.getLogger("some.framework").debug("one")
        logging.getLogger("some.framework").info("two of %d", 3)
        logging.getLogger("some.framework").warning("password='hunter22'")


@pytest.fixture
def tools(gate: Gate) -> Tools:
    return Tools(gate)


@pytest.fixture
def connection(serve: Served, tools: Tools) -> Connection:
    return serve(tools)


def start(
    connection: Connection, name: str, options: Mapping[str, Any] | None = None, **arguments: Any
) -> str:
    """Begin a job; its handle.  The options are what ``job.start`` knows beside the arguments."""
    asked = {"tool": name, "arguments": arguments, **(options or {})}
    handle: str = connection.call("job.start", asked)["handle"]
    return handle


def result(connection: Connection, handle: str) -> dict[str, Any]:
    """What became of a job that ends."""
    found: dict[str, Any] = connection.call("job.result", {"handle": handle, "wait_ms": LONG})
    assert found["state"] in ENDS, "still going on"
    return found


def events(connection: Connection, handle: str) -> list[dict[str, Any]]:
    """All events of a job that ends, by polling."""
    found: list[dict[str, Any]] = []
    after = 0
    while True:
        polled = connection.call("job.poll", {"handle": handle, "after": after, "wait_ms": 1_000})
        found += polled["events"]
        after = polled["cursor"]
        if polled["done"]:
            return found


def stream_of(connection: Connection, handle: str) -> list[dict[str, Any]]:
    """The same from the stream."""
    return list(connection.stream("job.events", {"handle": handle}, timeout=LIMIT))


def of_kind(kind: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in found if event["kind"] == kind]


def failure(connection: Connection, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    with pytest.raises(ToolFailure) as caught:
        connection.call(name, arguments)
    return dict(caught.value.failure)


def stats(connection: Connection) -> dict[str, Any]:
    found: dict[str, Any] = connection.call("worker.stats")
    return found


def on_loop(serve: Served, function: Callable[[], Any]) -> Any:
    """What a function gives on the worker's event loop."""

    async def call() -> Any:
        return function()

    return serve.worker._loop.run(call())


# --- Beginning ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.echo", "t.echo_async"])
@pytest.mark.parametrize("value", [None, {"big": 2**70, "text": "é"}], ids=repr)
def test_a_job_has_the_result_of_its_call(connection: Connection, name: str, value: Any) -> None:
    handle = start(connection, name, value=value)
    assert handle.startswith("job-")
    found = result(connection, handle)
    assert (found["state"], found["success"], found["result"]) == ("succeeded", True, value)
    assert [event["state"] for event in events(connection, handle)] == ["succeeded"]


def test_it_is_answered_before_it_has_ended(connection: Connection, tools: Tools) -> None:
    answer = connection.call(
        "job.start", {"tool": "t.wait_async", "arguments": {"value": 1}, "name": "mine"}
    )
    tools.gate.reached()
    assert (answer["state"], answer["tool"], answer["name"]) == ("running", "t.wait_async", "mine")
    unended = {"handle": answer["handle"], "state": "running"}
    assert connection.call("job.result", {"handle": answer["handle"]}) == unended
    assert connection.call("job.result", {"handle": "mine", "wait_ms": 1}) == unended
    tools.gate.open()
    assert result(connection, "mine")["result"] == 1
    (listed,) = connection.call("job.list")
    assert listed == connection.call("job.status", {"handle": "mine"})
    assert listed["ended_at"] >= listed["created_at"] == answer["created_at"]


def test_it_outlives_the_rpc_and_its_deadline(connection: Connection) -> None:
    request = connection.request(
        "job.start", {"tool": "t.seen", "session_id": "mine"}, metadata={"colour": "red"}
    )
    request.metadata["correlation_id"] = "c-1"
    answer = decode_response(connection.execute(request, timeout=LIMIT))
    found = connection.call(
        "job.result", {"handle": answer["handle"], "session_id": "mine", "wait_ms": LONG}
    )
    assert found["result"] == ["mine", "c-1", "red", True]


def test_bytes_travel_as_base64(connection: Connection) -> None:
    data = base64.b64encode(b"\x00abc").decode()
    found = result(connection, start(connection, "t.pack", {"binary": {"data": data}}))
    assert base64.b64decode(found["binary_result"]) == b"cba\x00"
    assert found["result"] == {"size": 4}


@pytest.mark.parametrize(
    ("arguments", "code", "fields"),
    [
        ({"tool": "t.ehco"}, "NOT_FOUND", None),
        ({"tool": "t.echo", "arguments": {"valeu": 1}}, "INVALID_ARGUMENT", ["valeu"]),
        ({"tool": "t.count", "arguments": {"to": "3"}}, "INVALID_ARGUMENT", ["to"]),
        (
            {"tool": "t.echo", "arguments": {"session_id": 7}},
            "INVALID_ARGUMENT",
            ["session_id"],
        ),
        ({"tool": "t.pack", "binary": {"data": "?"}}, "INVALID_ARGUMENT", ["binary.data"]),
        ({"tool": "job.start", "arguments": {"tool": "t.echo"}}, "INVALID_ARGUMENT", ["tool"]),
        ({"tool": "t.echo", "timeout_ms": 0}, "INVALID_ARGUMENT", ["timeout_ms"]),
    ],
)
def test_what_can_only_be_a_mistake_begins_nothing(
    connection: Connection, arguments: dict[str, Any], code: str, fields: list[str] | None
) -> None:
    refused = failure(connection, "job.start", arguments)
    assert refused["code"] == code
    assert fields is None or [wrong["field"] for wrong in refused["violations"]] == fields
    assert stats(connection)["jobs"] == {"running": 0, "ended": 0, "bytes": 0}
    assert connection.call("job.list") == []


def test_a_job_needs_a_session(connection: Connection) -> None:
    request = connection.request("job.start", {"tool": "t.echo"})
    request.session_id = ""
    with pytest.raises(ToolFailure) as caught:
        decode_response(connection.execute(request))
    assert caught.value.failure["code"] == "FAILED_PRECONDITION"


def test_a_name_is_taken_once(connection: Connection) -> None:
    start(connection, "t.echo", {"name": "mine"})
    assert failure(connection, "job.start", {"tool": "t.echo", "name": "mine"})["code"] == "ABORTED"
    assert len(connection.call("job.list")) == 1


def test_other_sessions_do_not_see_it(connection: Connection, serve: Served) -> None:
    handle = start(connection, "t.echo")
    for name in ("status", "poll", "result", "cancel"):
        assert failure(serve.connect(), f"job.{name}", {"handle": handle})["code"] == "NOT_FOUND"


def test_a_batch_may_be_a_job_and_jobs_may_be_in_a_batch(connection: Connection) -> None:
    calls = [{"tool": "t.echo", "arguments": {"value": number}} for number in range(3)]
    found = result(connection, start(connection, "worker.batch", calls=calls))
    assert [one["result"] for one in found["result"]] == [0, 1, 2]
    begun = connection.call(
        "worker.batch",
        {"calls": [{"tool": "job.start", "arguments": call} for call in calls]},
    )
    handles = [one["result"]["handle"] for one in begun]
    assert [result(connection, handle)["result"] for handle in handles] == [0, 1, 2]


# --- Failing --------------------------------------------------------------------------------------


def test_a_failure_is_the_one_that_a_call_would_have(connection: Connection) -> None:
    direct = failure(connection, "t.fail", {})
    found = result(connection, start(connection, "t.fail"))
    assert (found["state"], found["success"]) == ("failed", False)
    assert set(found["error"]) == set(direct)
    same = ("type", "message", "code", "category", "retryable", "retry_after_ms", "details")
    assert {key: found["error"][key] for key in same} == {key: direct[key] for key in same}
    assert found["error"]["context"]["session_id"] == connection.session_id


@pytest.mark.parametrize("name", ["t.wait_async", "t.obey", "t.endless"])
def test_its_own_time_ends_it(connection: Connection, tools: Tools, name: str) -> None:
    found = result(connection, start(connection, name, {"timeout_ms": 1}))
    assert (found["state"], found["error"]["code"]) == ("failed", "DEADLINE_EXCEEDED")
    if tools.gate.reached_by_more():  # it may never have begun
        assert tools.stopped.acquire(timeout=LIMIT)


# --- Streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.count", "t.count_async"])
def test_items_become_partial_results(connection: Connection, name: str) -> None:
    handle = start(connection, name, to=250)
    assert result(connection, handle)["result"] == 250
    found = events(connection, handle)
    assert [event["value"] for event in of_kind("partial", found)] == list(range(250))
    assert [event["cursor"] for event in found] == list(range(1, 252))


def test_items_say_what_chunks_would(connection: Connection) -> None:
    handle = start(connection, "t.chunks")
    assert result(connection, handle)["result"] == 4
    none, binary, labelled, last = of_kind("partial", events(connection, handle))
    assert none["value"] is None
    assert base64.b64decode(binary["binary"]) == b"\xff"
    assert (labelled["value"], labelled["metadata"]) == ({"a": 1}, {"n": "1"})
    assert last["value"] == "last"


def test_the_items_of_a_result_are_taken_apart_where_asked_for(connection: Connection) -> None:
    handle = start(connection, "t.echo", {"stream": True}, value=[1, 2])
    assert result(connection, handle)["result"] == 2
    assert [e["value"] for e in of_kind("partial", events(connection, handle))] == [1, 2]


def test_a_stream_that_breaks_off_has_failed(connection: Connection) -> None:
    handle = start(connection, "t.break_off")
    found = result(connection, handle)
    assert (found["state"], found["error"]["type"]) == ("failed", "LookupError")
    assert len(of_kind("partial", events(connection, handle))) == 1


def test_the_oldest_events_go_and_the_reader_is_told(connection: Connection) -> None:
    handle = start(connection, "t.count", to=1_500)
    result(connection, handle)
    polled = connection.call("job.poll", {"handle": handle, "after": 1, "limit": 10})
    assert polled["missed"] == 500
    assert [event["cursor"] for event in polled["events"]] == list(range(502, 512))
    assert (polled["cursor"], polled["done"]) == (511, False)
    first, second, *_ = connection.stream("job.events", {"handle": handle})
    assert (first["kind"], first["count"], second["cursor"]) == ("missed", 501, 502)


# --- Progress -------------------------------------------------------------------------------------


def test_progress_becomes_events(connection: Connection) -> None:
    handle = start(connection, "t.steps", fractions=[0.5, -1.0, None, 0.7])
    result(connection, handle)
    first, last = of_kind("progress", events(connection, handle))
    assert (first["fraction"], first["text"]) == (0.5, "at 0.5")
    assert (last["fraction"], last["text"]) == (0.7, "at 0.7")
    progress = connection.call("job.status", {"handle": handle})["progress"]
    assert progress == {"fraction": 0.7, "text": "at 0.7"}


def test_progress_without_end_is_told_now_and_then(connection: Connection) -> None:
    begun = time.monotonic()
    handle = start(connection, "t.steps", fractions=[n / 5_000 for n in range(5_001)])
    result(connection, handle)
    found = of_kind("progress", events(connection, handle))
    assert found[-1]["fraction"] == 1.0
    assert len(found) <= 2 + (time.monotonic() - begun) / 0.2


@pytest.mark.parametrize("as_job", [False, True])
def test_progress_reaches_the_hosts_telemetry(connection: Connection, *, as_job: bool) -> None:
    connection.supervise(Supervision(telemetry_deadline=LIMIT))
    request = connection.request("t.steps_async")
    if as_job:
        request = connection.request("job.start", {"tool": "t.steps_async"})
    request.metadata["correlation_id"] = "sp-1"
    answer = decode_response(connection.execute(request))
    stream = connection.telemetry
    assert stream is not None
    stream.wait_for("tool.result_size", 2)
    told = [event for event in stream.events if event.metadata.get("operation") == "progress"]
    assert [event.measurements["sequence_number"].int_value for event in told] == [1, 2]
    assert {event.correlation_id for event in told} == {"sp-1"}
    assert [event.metadata["fraction"] for event in told] == ["0.25", "1.0"]
    assert [event.metadata["tool"] for event in told] == ["t.steps_async"] * 2
    assert "sk-1234" not in told[0].metadata["text"]
    handles = {answer["handle"]} if as_job else {""}
    assert {event.metadata["job"] for event in told} == handles
    assert stream.dropped == []


def test_parts_are_told_to_pollers_and_to_nobody_else(connection: Connection) -> None:
    assert connection.call("t.parts") == "whole"
    handle = start(connection, "t.parts")
    assert result(connection, handle)["result"] == "whole"
    value, binary = of_kind("partial", events(connection, handle))
    assert (value["value"], base64.b64decode(binary["binary"])) == ({"first": 2**70}, b"\x00")


def test_log_lines_become_events(connection: Connection, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    connection.call("t.log")  # nobody listens to a call
    handle = start(connection, "t.log")
    result(connection, handle)
    two, three = of_kind("log", events(connection, handle))
    assert (two["level"], two["logger"], two["text"]) == ("info", "some.framework", "two of 3")
    assert (three["level"], "hunter22" in three["text"]) == ("warning", False)


# --- Following ------------------------------------------------------------------------------------


def test_a_poller_is_woken(connection: Connection, serve: Served, tools: Tools) -> None:
    handle = start(connection, "t.wait_async")
    tools.gate.reached()
    other = serve.connect(connection.session_id)
    arguments = {"handle": handle, "wait_ms": 1_000}
    polling = in_thread(lambda: [other.call("job.poll", arguments) for _ in range(20)])
    tools.gate.open()
    result(connection, handle)
    assert polling()[-1]["events"][-1]["state"] == "succeeded"


def test_a_poll_waits_no_longer_than_it_says(connection: Connection, tools: Tools) -> None:
    handle = start(connection, "t.wait_async")
    tools.gate.reached()
    polled = connection.call("job.poll", {"handle": handle, "after": 3, "wait_ms": 1})
    assert (polled["events"], polled["cursor"], polled["done"]) == ([], 3, False)


def test_many_may_read_the_events_of_one(
    connection: Connection, serve: Served, tools: Tools
) -> None:
    handle = start(connection, "t.wait_async")
    tools.gate.reached()
    others = [serve.connect(connection.session_id) for _ in range(4)]
    readers = [in_thread(partial(stream_of, other, handle)) for other in others]
    while stats(connection)["calls"]["in_flight"] < 6:  # the job, four readers, this question
        pass
    tools.gate.open()
    for reader in readers:
        state, final = reader()
        assert (state["kind"], state["state"]) == ("state", "succeeded")
        assert final == {"is_final": True}


def test_a_reader_that_leaves_leaves_nothing(
    connection: Connection, serve: Served, tools: Tools
) -> None:
    handle = start(connection, "t.wait_async")
    tools.gate.reached()
    request = connection.request("job.events", {"handle": handle})
    call = connection.stub.ExecuteStreamingTool(request, timeout=LIMIT)
    while stats(connection)["calls"]["in_flight"] < 3:
        pass
    call.cancel()
    while stats(connection)["calls"]["in_flight"] > 2:
        pass
    (job,) = on_loop(serve, lambda: list(serve.worker._jobs._runs))
    assert not job._readers
    tools.gate.open()
    assert result(connection, handle)["state"] == "succeeded"


def test_they_answer_while_every_thread_is_busy(serve: Served, tools: Tools) -> None:
    connection = serve(tools, max_workers=1, max_calls=1, max_waiting=1)
    blocked = start(connection, "t.wait")
    tools.gate.reached()
    waiting = start(connection, "t.echo", value=2)
    assert [job["state"] for job in connection.call("job.list")] == ["running"] * 2
    for handle in (blocked, waiting):
        assert connection.call("job.poll", {"handle": handle})["events"] == []
        assert connection.call("job.status", {"handle": handle})["state"] == "running"
    refused = result(connection, start(connection, "t.echo"))
    assert refused["error"]["code"] == "RESOURCE_EXHAUSTED"
    connection.call("job.cancel", {"handle": waiting})
    assert result(connection, waiting)["state"] == "cancelled"
    tools.gate.open()
    assert result(connection, blocked)["state"] == "succeeded"


# --- Cancelling -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.wait_async", "t.obey", "t.endless"])
def test_a_cancelled_job_ends_when_its_tool_has_stopped(
    connection: Connection, tools: Tools, name: str
) -> None:
    handle = start(connection, name)
    tools.gate.reached()
    assert connection.call("job.cancel", {"handle": handle})["state"] in {"cancelling", "cancelled"}
    found = result(connection, handle)
    assert (found["state"], found["error"]["code"]) == ("cancelled", "CANCELLED")
    assert tools.stopped.acquire(timeout=LIMIT)
    connection.call("job.cancel", {"handle": handle})
    states = [event["state"] for event in of_kind("state", events(connection, handle)[-2:])]
    assert states == ["cancelling", "cancelled"]
    assert stats(connection)["threads"]["abandoned"] == 0


@pytest.mark.parametrize("name", ["t.wait", "t.insist"])
@pytest.mark.parametrize(
    ("end", "state", "code"),
    [("cancel", "cancelled", "CANCELLED"), ("timeout", "failed", "DEADLINE_EXCEEDED")],
)
def test_what_does_not_stop_is_given_up_after_a_while(  # noqa: PLR0917 - parameters
    connection: Connection, serve: Served, tools: Tools, name: str, end: str, state: str, code: str
) -> None:
    serve.worker._jobs._stop_time = 0.05
    limits = {"timeout_ms": 50} if end == "timeout" else {}
    handle = start(connection, name, limits)
    tools.gate.reached()
    if end == "cancel":
        connection.call("job.cancel", {"handle": handle})
    found = result(connection, handle)
    assert (found["state"], found["error"]["code"]) == (state, code)
    assert found["error"]["details"] == {"stopped": False}
    assert found["execution_time_ms"] >= 50
    assert connection.call("job.status", {"handle": handle})["state"] == state
    held = stats(connection)
    assert held["jobs"]["running"] == 0
    assert held["threads"]["abandoned"] == (1 if name == "t.wait" else 0)
    assert held["coroutines"]["running"] == (1 if name == "t.insist" else 0)
    tools.gate.open()
    while (held := stats(connection))["threads"]["abandoned"] or held["coroutines"]["running"]:
        pass
    assert result(connection, handle) == found
    states = [event["state"] for event in of_kind("state", events(connection, handle))]
    assert states == (["cancelling", state] if end == "cancel" else [state])


def test_one_that_ends_soon_after_its_time_has_succeeded(
    connection: Connection, tools: Tools
) -> None:
    handle = start(connection, "t.swallow", {"timeout_ms": 50})
    tools.gate.reached()
    assert result(connection, handle)["result"] == "anyway"


def test_a_job_that_waits_for_a_thread_ends_when_its_time_is_over(
    serve: Served, tools: Tools
) -> None:
    connection = serve(tools, max_workers=1)
    blocked = start(connection, "t.wait")
    tools.gate.reached()
    found = result(connection, start(connection, "t.echo", {"timeout_ms": 1}))
    assert (found["state"], found["error"]["code"]) == ("failed", "DEADLINE_EXCEEDED")
    assert "details" not in found["error"]
    tools.gate.open()
    assert result(connection, blocked)["state"] == "succeeded"


def test_one_that_ends_before_it_stops_has_succeeded(connection: Connection, tools: Tools) -> None:
    handles = [start(connection, name) for name in ("t.wait", "t.swallow")]
    tools.gate.reached(2)
    for handle in handles:
        assert connection.call("job.cancel", {"handle": handle})["state"] == "cancelling"
    tools.gate.open()
    assert [result(connection, handle)["state"] for handle in handles] == ["succeeded"] * 2
    assert result(connection, handles[1])["result"] == "anyway"


@pytest.mark.parametrize("name", ["t.echo", "t.fail"])
def test_a_late_cancel_changes_nothing(connection: Connection, name: str) -> None:
    handle = start(connection, name)
    before = result(connection, handle)
    assert connection.call("job.cancel", {"handle": handle})["state"] == before["state"]
    assert result(connection, handle) == before


def test_whatever_comes_first_a_job_ends_once(connection: Connection, serve: Served) -> None:
    other = serve.connect(connection.session_id)
    chance = random.Random(5)
    for _ in range(60):
        name = chance.choice(["t.echo", "t.echo_async", "t.count", "t.count_async"])
        arguments: dict[str, Any] = {"to": 30} if "count" in name else {}
        handle = start(connection, name, **arguments)
        cancel = in_thread(partial(other.call, "job.cancel", {"handle": handle}))
        found = result(connection, handle)
        cancel()
        states = [event["state"] for event in of_kind("state", events(connection, handle))]
        assert states in (["succeeded"], ["cancelling", "succeeded"], ["cancelling", "cancelled"])
        assert found["state"] == states[-1] == result(connection, handle)["state"]
        assert found["success"] == (found["state"] == "succeeded")


# --- Sessions -------------------------------------------------------------------------------------


def close_session(connection: Connection) -> None:
    connection.call("session.close")


def clean_up(connection: Connection) -> None:
    request = pb.CleanupSessionRequest(session_id=connection.session_id)
    connection.stub.CleanupSession(request, timeout=LIMIT)


@pytest.mark.parametrize("end", [close_session, clean_up])
def test_a_session_that_ends_cancels_its_jobs(
    connection: Connection, serve: Served, tools: Tools, end: Callable[[Connection], None]
) -> None:
    handle = start(connection, "t.wait_async")
    ended = start(connection, "t.echo")
    result(connection, ended)
    tools.gate.reached()
    other = serve.connect(connection.session_id)
    reading = in_thread(partial(stream_of, other, handle))
    while stats(connection)["calls"]["in_flight"] < 3:
        pass
    end(connection)
    states = [event.get("state") for event in reading()]
    assert states == ["cancelling", "cancelled", None]
    assert tools.stopped.acquire(timeout=LIMIT)
    for one in (handle, ended):
        assert failure(connection, "job.result", {"handle": one})["code"] == "NOT_FOUND"
    while stats(connection)["jobs"] != {"running": 0, "ended": 0, "bytes": 0}:
        pass


def test_one_that_is_released_is_cancelled(connection: Connection, tools: Tools) -> None:
    handle = start(connection, "t.wait_async")
    tools.gate.reached()
    connection.call("session.release", {"handle": handle})
    assert tools.stopped.acquire(timeout=LIMIT)
    assert failure(connection, "job.status", {"handle": handle})["details"]["released"] is True
    while stats(connection)["jobs"] != {"running": 0, "ended": 0, "bytes": 0}:
        pass


def test_a_session_with_a_job_is_in_use(
    connection: Connection, serve: Served, tools: Tools
) -> None:
    handle = start(connection, "t.wait_async")
    tools.gate.reached()
    asking = serve.connect()
    far = time.monotonic() + 10_000
    store = serve.worker._store
    store._clock = lambda: far
    store.expire()
    assert connection.session_id in store
    tools.gate.open()
    while stats(asking)["jobs"]["running"]:
        pass
    store.expire()
    assert connection.session_id in store, "its time counts from the end of the job"
    assert result(connection, handle)["state"] == "succeeded"
    store._clock = lambda: 2 * far
    store.expire()
    assert connection.session_id not in store
    while stats(asking)["jobs"]["ended"]:
        pass


# --- Limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "limit"),
    [({"max_jobs": 2}, "max_jobs"), ({"max_session_jobs": 2}, "max_session_jobs")],
)
def test_beyond_the_limit_the_one_that_ended_first_goes(
    serve: Served, tools: Tools, settings: dict[str, int], limit: str
) -> None:
    connection = serve(tools, **settings)
    first = start(connection, "t.wait_async")
    second = start(connection, "t.echo")
    result(connection, second)
    third = start(connection, "t.wait_async")
    assert failure(connection, "job.status", {"handle": second})["code"] == "NOT_FOUND"
    refused = failure(connection, "job.start", {"tool": "t.echo"})
    assert (refused["code"], refused["retryable"]) == ("RESOURCE_EXHAUSTED", True)
    assert refused["details"] == {"limit": limit, "value": 2, "running": 2}
    other = serve.connect()
    if limit == "max_session_jobs":
        assert result(other, start(other, "t.echo"))["state"] == "succeeded"
    else:
        assert failure(other, "job.start", {"tool": "t.echo"})["details"]["limit"] == limit
    tools.gate.open()
    for handle in (first, third):
        assert result(connection, handle)["state"] == "succeeded"


def test_results_are_bounded_in_bytes(serve: Served, tools: Tools) -> None:
    connection = serve(tools, max_job_mb=1)
    handles = []
    for _ in range(4):
        handles.append(start(connection, "t.echo", value="x" * 400_000))
        result(connection, handles[-1])
    assert [job["handle"] for job in connection.call("job.list")] == handles[2:]
    assert stats(connection)["jobs"]["bytes"] < 1024 * 1024
    large = start(connection, "t.echo", value="x" * 2_000_000)
    assert len(result(connection, large)["result"]) == 2_000_000
    assert [job["handle"] for job in connection.call("job.list")] == [large]


def test_jobs_outlive_their_worker_as_far_as_they_had_ended(
    serve: Served, tools: Tools, tmp_path: Path
) -> None:
    archive = f"sqlite:///{tmp_path}/archive.db"
    connection = serve(tools, archive=archive)
    done = start(connection, "t.echo", value={"a": 1})
    result(connection, done)
    failed = start(connection, "t.fail")
    result(connection, failed)
    expected = [connection.call("job.result", {"handle": handle}) for handle in (done, failed)]
    serve.worker.stop()
    session = {"session_id": connection.session_id}
    other = serve(tools, archive=archive)
    assert [job["state"] for job in other.call("job.list", session)] == ["succeeded", "failed"]
    found = [other.call("job.result", {"handle": handle, **session}) for handle in (done, failed)]
    assert found == expected


def test_a_thousand_jobs_leave_nothing(connection: Connection, serve: Served) -> None:
    def state() -> tuple[int, int]:
        tasks = on_loop(serve, lambda: len(asyncio.all_tasks()))
        return tasks, threading.active_count()

    def run(count: int) -> None:
        calls = [
            {"tool": "job.start", "arguments": {"tool": name, "arguments": arguments}}
            for name, arguments in (
                ("t.echo", {"value": "x" * 1_000}),
                ("t.count_async", {"to": 3}),
                ("t.steps", {"fractions": [0.1, 0.2]}),
                ("t.fail", {}),
            )
        ] * (count // 40)
        for _ in range(10):
            answers = connection.call("worker.batch", {"calls": calls})
            for answer in answers:
                result(connection, answer["result"]["handle"])
        connection.call("session.close")
        while stats(connection)["jobs"] != {"running": 0, "ended": 0, "bytes": 0}:
            pass

    run(80)  # what is made once is there from now on
    tasks, threads = state()
    run(1_000)
    # A timer of progress may hold its call for a moment.
    ends = time.monotonic() + LIMIT
    while found := [one for one in gc.get_objects() if isinstance(one, Job)]:
        assert time.monotonic() < ends, f"{len(found)} jobs are still there"
        del found
        gc.collect()
    # Pools fill up as they are needed, and gRPC has tasks of its own; a thousand they are not.
    tasks_after, threads_after = state()
    assert tasks_after < tasks + 50
    assert threads_after < threads + 50
    assert logging.getLogger().level != logging.INFO
    assert not any("listening" in type(h).__module__ for h in logging.getLogger().handlers)


def test_nothing_blocks_the_event_loop(serve: Served, tools: Tools) -> None:
    logger()  # what it imports is another test's business
    with blockbuster_ctx():
        connection = serve(tools)
        for name in ("t.steps_async", "t.chunks", "t.parts", "t.log", "t.fail"):
            handle = start(connection, name)
            assert result(connection, handle)["state"] == (
                "failed" if "fail" in name else "succeeded"
            )
            assert stream_of(connection, handle)[:-1]
        handle = start(connection, "t.obey")
        connection.call("job.cancel", {"handle": handle})
        assert result(connection, handle)["state"] == "cancelled"
        connection.call("session.close")
        serve.worker.stop()


# --- Stopping -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.wait_async", "t.obey", "t.wait", "t.endless"])
def test_a_worker_that_stops_cancels_its_jobs(
    connection: Connection, serve: Served, tools: Tools, name: str
) -> None:
    handle = start(connection, name)
    tools.gate.reached()
    (job,) = on_loop(serve, lambda: list(serve.worker._jobs._runs))
    assert job.handle == handle
    serve.worker.stop()
    assert job.describe()["state"] == "cancelled"
    if name != "t.wait":
        assert tools.stopped.acquire(timeout=LIMIT)


def test_a_job_may_end_within_the_grace(serve: Served, tools: Tools) -> None:
    connection = serve(tools, grace_ms=LONG)
    start(connection, "t.wait")
    tools.gate.reached()
    (job,) = on_loop(serve, lambda: list(serve.worker._jobs._runs))
    serve.worker.request_stop()
    while True:  # until it drains
        try:
            connection.call("worker.info")
        except (ToolFailure, grpc.RpcError):
            break
    tools.gate.open()
    serve.worker.join()
    assert job.describe()["state"] == "succeeded"


# --- Classes written for Snakepit -----------------------------------------------------------------


@pytest.fixture
def foreign_connection(serve: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    state = foreign.State()
    monkeypatch.setattr(foreign, "state", state)
    yield serve(adapters=(FOREIGN,))
    state.go_on.set()


def test_a_foreign_tool_runs_as_a_job(foreign_connection: Connection) -> None:
    found = result(foreign_connection, start(foreign_connection, "seen", n=7))
    assert found["state"] == "succeeded"
    assert found["result"]["arguments"] == {"n": 7}
    foreign.state.log.wait_for("cleanup")


@pytest.mark.parametrize("name", ["count", "count_async"])
def test_its_items_become_partial_results_where_asked_for(
    foreign_connection: Connection, name: str
) -> None:
    handle = start(foreign_connection, name, {"stream": True}, to=3)
    assert result(foreign_connection, handle)["result"] == 3
    parts = of_kind("partial", events(foreign_connection, handle))
    assert [part["value"] for part in parts] == [0, 1, 2]
    refused = result(foreign_connection, start(foreign_connection, name, to=3))
    assert refused["error"]["code"] == "FAILED_PRECONDITION"
    assert "stream: true" in refused["error"]["message"]


@pytest.mark.parametrize("name", ["wait", "wait_async"])
def test_a_cancelled_foreign_tool_is_cleaned_up(foreign_connection: Connection, name: str) -> None:
    handle = start(foreign_connection, name)
    foreign.state.log.wait_for("waiting")
    foreign_connection.call("job.cancel", {"handle": handle})
    assert result(foreign_connection, handle)["state"] == "cancelled"
    foreign.state.go_on.set()
    foreign.state.log.wait_for("cleanup")


@pytest.mark.parametrize("name", ["job.start", "job.nothing"])
def test_names_of_jobs_are_never_a_foreign_tools(foreign_connection: Connection, name: str) -> None:
    refused = failure(foreign_connection, name, {})
    assert refused["code"] in {"INVALID_ARGUMENT", "NOT_FOUND"}
    refused = failure(foreign_connection, "job.start", {"tool": "worker.nothing"})
    assert refused["code"] == "NOT_FOUND"
