"""Adapters written for Snakepit's own worker: one instance for a request, cleaned up once."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from snakepit_worker import launch
from snakepit_worker.errors import StartError
from snakepit_worker.testing import Connection, ToolFailure
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from tests.bridge.adapters import foreign
from tests.bridge.conftest import LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.bridge.conftest import Served

MODULE = "tests.bridge.adapters.foreign"
SOON = 5.0
"""Seconds within which everything that must not be held up answers."""
BEGIN = ["build", "context", "initialize"]

both = pytest.mark.parametrize("kind", ["Plain", "Async"])


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[foreign.Log]:
    state = foreign.State()
    monkeypatch.setattr(foreign, "state", state)
    yield state.log
    state.go_on.set()


@pytest.fixture
def start(serve: Served, log: foreign.Log) -> Iterator[Callable[..., Connection]]:
    del log
    yield lambda kind, **settings: serve(adapters=(f"{MODULE}.{kind}",), **settings)
    foreign.state.go_on.set()  # before the worker is stopped


def failure(connection: Connection, tool: str) -> Any:
    with pytest.raises(ToolFailure) as caught:
        connection.call(tool)
    return caught.value.failure


def ended(call: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert isinstance(caught.value, grpc.Call)
    code: grpc.StatusCode = caught.value.code()
    return code


def begin(connection: Connection, tool: str, timeout: float = LIMIT) -> Any:
    return connection.stub.ExecuteTool.future(connection.request(tool), timeout=timeout)


def heart_beats(connection: Connection) -> bool:
    request = pb.HeartbeatRequest(session_id=connection.session_id)
    connection.stub.Heartbeat(request, timeout=SOON)
    return True


# --- One request ----------------------------------------------------------------------------------


@pytest.mark.conforms(52, "D27")
@both
def test_each_request_has_its_own_instance(
    start: Callable[..., Connection], log: foreign.Log, kind: str
) -> None:
    connection = start(kind)
    numbers = [connection.call("number_of") for _ in range(3)]
    assert len(set(numbers)) == 3
    log.wait_for("cleanup")
    assert log.instances() == set(numbers)


@pytest.mark.conforms(50, 94)
@both
def test_arguments_come_as_they_were_sent(start: Callable[..., Connection], kind: str) -> None:
    connection = start(kind)
    arguments = {"session_id": "the caller's", "n": 7, "none": None, "deep": {"list": [1.5]}}
    request = connection.request("seen", arguments, metadata={"extra": "text"})
    seen = json.loads(connection.execute(request).result.value)
    assert seen["arguments"] == arguments
    assert seen["session"] == connection.session_id
    assert seen["same"] is True
    assert seen["metadata"] == dict(request.metadata)


@pytest.mark.conforms(93, 94)
def test_the_context_may_have_no_setter(start: Callable[..., Connection]) -> None:
    connection = start("Bare")
    answer = connection.call("any.name at all", {"a": 1})
    assert answer == ["any.name at all", {"a": 1}, connection.session_id]


@pytest.mark.conforms(51, 52)
@both
@pytest.mark.parametrize("tool", ["number_of", "awaited"])
def test_a_result_is_what_it_is_or_awaited(
    start: Callable[..., Connection], log: foreign.Log, kind: str, tool: str
) -> None:
    assert start(kind).call(tool) in log.instances()
    assert log.steps() == [*BEGIN, tool, "cleanup"]


@pytest.mark.conforms(51)
def test_tools_are_called_by_keyword(start: Callable[..., Connection], log: foreign.Log) -> None:
    assert start("Keywords").call("number_of") in log.instances()


@pytest.mark.conforms(58)
def test_a_generator_is_no_result_of_a_unary_call(
    start: Callable[..., Connection], log: foreign.Log
) -> None:
    assert failure(start("Plain"), "count_and_fail")["code"] == "FAILED_PRECONDITION"
    assert log.steps() == [*BEGIN, "count_and_fail", "cleanup"]


@pytest.mark.conforms("D26")
def test_all_steps_run_on_the_main_thread_where_the_environment_says_so(
    start: Callable[..., Connection], log: foreign.Log
) -> None:
    connection = start("Plain", thread_sensitive=("lib",))
    assert connection.call("number_of", {"library": "lib"}) in log.instances()
    assert log.steps() == [*BEGIN, "number_of", "cleanup"]
    assert log.threads() == {"main-thread"}


@pytest.mark.conforms("D25", "D26")
def test_one_thread_serves_a_request_and_those_that_follow(
    start: Callable[..., Connection], log: foreign.Log
) -> None:
    connection = start("Plain")
    for _ in range(5):
        connection.call("number_of")
        list(connection.stream("count", {"to": 3}))
    assert len(log.instances()) == 10
    assert log.threads() == {"tool-0"}


@pytest.mark.parametrize("value", ["one_value", "a_list"])
def test_a_value_is_served_as_a_stream_too(start: Callable[..., Connection], value: str) -> None:
    chunks = list(start("Plain").stream(value))
    expected = {"one_value": [{"n": 1}], "a_list": [{"data": 1}, {"data": 2}]}[value]
    assert [
        {k: v for k, v in c.items() if k in {"n", "data"}}
        for c in chunks
        if c.keys() > {"is_final"}
    ] == expected
    assert chunks[-1]["is_final"]


# --- Cleaned up once ------------------------------------------------------------------------------


@pytest.mark.conforms(52)
@both
def test_cleaned_up_after_an_error(
    start: Callable[..., Connection], log: foreign.Log, kind: str
) -> None:
    assert failure(start(kind), "fail")["type"] == "ValueError"
    assert log.steps() == [*BEGIN, "fail", "cleanup"]


@pytest.mark.conforms(55, "D48")
def test_an_argument_that_is_no_json_does_not_spoil_the_error(
    start: Callable[..., Connection],
) -> None:
    connection = start("Plain")
    with pytest.raises(ToolFailure) as caught:
        connection.call("fail", {"function": "inv"}, binary={"library": b"\xff\x00"})
    failure = caught.value.failure
    assert (failure["type"], failure["message"]) == ("ValueError", "no")
    assert failure["context"]["function"] == "inv"
    assert "library" not in failure["context"]


def test_cleaned_up_after_a_failed_initialize(
    start: Callable[..., Connection], log: foreign.Log
) -> None:
    assert failure(start("BadInitialize"), "number_of")["message"] == "not ready"
    assert log.steps() == [*BEGIN, "cleanup"]


def test_a_failed_cleanup_spoils_no_reply(
    serve: Served, start: Callable[..., Connection], log: foreign.Log
) -> None:
    serve.expected_errors = ("cleanup failed",)
    connection = start("BadCleanup")
    assert connection.call("number_of") in log.instances()
    assert failure(connection, "fail")["message"] == "no"
    assert log.steps().count("cleanup") == 2


@pytest.mark.conforms(52, "D16")
def test_a_tool_that_runs_on_is_cleaned_up_when_it_ends(
    start: Callable[..., Connection], log: foreign.Log
) -> None:
    connection = start("Plain")
    call = begin(connection, "wait")
    log.wait_for("waiting")
    call.cancel()
    while connection.call("worker.stats")["calls"]["in_flight"] > 1:
        pass
    assert log.steps() == [*BEGIN, "wait", "waiting"]
    foreign.state.go_on.set()
    log.wait_for("cleanup")
    assert log.steps() == [*BEGIN, "wait", "waiting", "waited", "cleanup"]


@pytest.mark.conforms(52, 67)
@both
def test_a_deadline_cancels_a_coroutine_and_cleans_up(
    start: Callable[..., Connection], log: foreign.Log, kind: str
) -> None:
    connection = start(kind)
    assert ended(begin(connection, "wait_async", 2.0).result) is grpc.StatusCode.DEADLINE_EXCEEDED
    log.wait_for("cleanup")
    log.wait_for("cancelled")
    assert log.steps()[:5] == [*BEGIN, "wait_async", "waiting"]
    assert log.steps()[5:] == ["cancelled", "cleanup"]
    assert connection.call("number_of") in log.instances()
    assert log.steps().count("cleanup") == 2


@pytest.mark.conforms(52, 59)
@both
@pytest.mark.parametrize("tool", ["count", "count_async"])
def test_a_stream_is_cleaned_up(
    start: Callable[..., Connection], log: foreign.Log, kind: str, tool: str
) -> None:
    chunks = list(start(kind).stream(tool, {"to": 3}))
    assert [chunk["data"] for chunk in chunks if "data" in chunk] == [0, 1, 2]
    assert [chunk["is_final"] for chunk in chunks] == [False, False, False, True]
    steps = [step for step in log.steps() if step != "item"]
    assert steps == [*BEGIN, tool, "closed", "cleanup"]


@pytest.mark.conforms(52, "D12")
@both
def test_a_failed_stream_is_cleaned_up(
    start: Callable[..., Connection], log: foreign.Log, kind: str
) -> None:
    connection = start(kind)
    code = ended(lambda: list(connection.stream("count_and_fail")))
    assert code is grpc.StatusCode.INTERNAL
    assert log.steps() == [*BEGIN, "count_and_fail", "cleanup"]


@pytest.mark.conforms(52, 66, "D10", "D11")
@both
@pytest.mark.parametrize("tool", ["endless", "endless_async"])
def test_an_abandoned_stream_is_closed_and_cleaned_up(
    start: Callable[..., Connection], log: foreign.Log, kind: str, tool: str
) -> None:
    connection = start(kind)
    chunks = connection.stream(tool)
    with contextlib.closing(chunks):  # type: ignore[type-var]  # is a generator
        assert next(chunks)["data"] == 0
    log.wait_for("cleanup")
    log.wait_for("closed")
    assert log.steps()[:4] == [*BEGIN, tool]
    assert log.steps()[4:] == ["closed", "cleanup"]


# --- What does not end or delay the worker --------------------------------------------------------


@pytest.mark.conforms(56, "D18", "D19")
@both
@pytest.mark.parametrize(
    ("tool", "kind_of_error"),
    [("stop", "StopIteration"), ("leave", "SystemExit"), ("leave_async", "SystemExit")],
)
def test_no_tool_ends_the_worker(kind: str, tool: str, kind_of_error: str) -> None:
    with (
        launch.start(adapters=[f"{MODULE}.{kind}"]) as worker,
        Connection(worker.address) as connection,
    ):
        connection.greet()
        assert failure(connection, tool)["type"] == kind_of_error
        assert connection.call("number_of") == 1
        assert worker.process.poll() is None


@pytest.mark.conforms(84, 97, "D25")
@pytest.mark.parametrize("step", ["build", "context", "initialize", "cleanup", "number_of"])
@both
def test_no_step_that_blocks_delays_a_heartbeat(
    start: Callable[..., Connection], log: foreign.Log, kind: str, step: str
) -> None:
    foreign.state.blocked_in = step
    connection = start(kind)
    call = begin(connection, "number_of")
    log.wait_for("blocked")
    assert all(heart_beats(connection) for _ in range(5))
    assert connection.call("worker.stats", timeout=SOON)["calls"]["in_flight"] == 2
    assert not call.done()
    foreign.state.go_on.set()
    assert call.result().success


def test_a_coroutine_that_blocks_delays_no_heartbeat(
    start: Callable[..., Connection], log: foreign.Log
) -> None:
    connection = start("Plain")
    call = begin(connection, "block")
    log.wait_for("waiting")
    assert all(heart_beats(connection) for _ in range(5))
    assert not call.done()
    foreign.state.go_on.set()
    assert call.result().success


# --- Which classes --------------------------------------------------------------------------------


@pytest.mark.conforms(75, "D42")
def test_decorated_methods_are_tools(start: Callable[..., Connection]) -> None:
    connection = start("Decorated")
    assert connection.call("add", {"a": 2}) == 3
    assert connection.call("add_async", {"a": 2, "b": 3}) == 5
    for name in ("other", "set_session_context", "missing"):
        assert "has no tool" in failure(connection, name)["message"]


@pytest.mark.conforms(75, "D42")
def test_decorated_methods_are_called_through_call_tool(start: Callable[..., Connection]) -> None:
    assert start("Calling").call("add", {"a": 2}) == ["add", {"a": 2}]


@pytest.mark.conforms(71)
def test_concurrent_calls_need_a_class_that_allows_them() -> None:
    adapters = [f"{MODULE}.Plain"]
    worker = launch.spawn(adapters=adapters, arguments=["--max-workers", "4"])
    try:
        assert worker.wait(LIMIT) != 0
        assert "__thread_safe__" in worker.output()
    finally:
        worker.stop()
    with pytest.raises(StartError, match="__thread_safe__"):
        launch.start(adapters=adapters, arguments=["--max-workers", "4"])


@pytest.mark.conforms(70, "D2")
def test_a_class_that_allows_them_is_served_at_once(
    start: Callable[..., Connection], log: foreign.Log
) -> None:
    connection = start("Safe", max_workers=4)
    call = begin(connection, "wait")
    log.wait_for("waiting")
    assert connection.call("number_of") in log.instances()
    foreign.state.go_on.set()
    assert call.result().success
