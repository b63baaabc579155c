"""Tools that need the process's main thread get it; what tries to end the process does not."""

from __future__ import annotations

import json
import statistics
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from snakepit_worker import launch
from snakepit_worker.testing import Connection, ToolFailure
from snakepit_worker.testing.connection import decode_response
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from tests.bridge.conftest import LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snakepit_worker.launch import WorkerProcess

MODULE = "tests.bridge.adapters.on_main_thread"
ANSWER = 5.0
"""Seconds within which everything that must not be held up answers."""


@contextmanager
def process(adapter: str, **environment: str) -> Iterator[tuple[WorkerProcess, Connection]]:
    with (
        launch.start(adapters=[f"{MODULE}.{adapter}"], environment=environment) as worker,
        Connection(worker.address) as connection,
    ):
        connection.greet()
        yield worker, connection


@pytest.fixture(scope="module")
def worker() -> Iterator[tuple[WorkerProcess, Connection]]:
    entries = "cv2, torch.cuda.init ,numpy"
    with process("OnMainThread", SNAKEPIT_THREAD_SENSITIVE=entries) as started:
        yield started


@pytest.fixture
def connection(worker: tuple[WorkerProcess, Connection]) -> Connection:
    return worker[1]


def test_a_marked_tool_runs_on_the_main_thread(
    worker: tuple[WorkerProcess, Connection],
) -> None:
    process, connection = worker
    assert connection.call("main.marked") == {
        "main": True,
        "thread": "MainThread",
        "pid": process.pid,
    }


def test_a_marked_generator_runs_on_the_main_thread(connection: Connection) -> None:
    items = list(connection.stream("main.stream_marked"))[:-1]
    assert [item["main"] for item in items] == [True, True]


def test_other_tools_do_not(connection: Connection) -> None:
    assert connection.call("main.plain")["thread"].startswith("tool-")
    assert connection.call("main.coroutine")["thread"] == "bridge"
    assert not next(iter(connection.stream("main.stream_plain")))["main"]


@pytest.mark.conforms(68)
@pytest.mark.parametrize("value", ["1", "true", "TRUE", "t", "yes", "Y", "on", "On"])
def test_a_call_may_ask_for_the_main_thread(connection: Connection, value: str) -> None:
    assert connection.call("main.plain", metadata={"thread_sensitive": value})["main"]


@pytest.mark.parametrize("value", ["", "0", "false", "no", "off", "maybe"])
def test_other_words_do_not_ask_for_it(connection: Connection, value: str) -> None:
    assert not connection.call("main.plain", metadata={"thread_sensitive": value})["main"]


def test_a_stream_may_ask_for_it_too(connection: Connection) -> None:
    request = connection.request("main.stream_plain", metadata={"thread_sensitive": "true"})
    first, _ = connection.stub.ExecuteStreamingTool(request, timeout=LIMIT)
    assert json.loads(first.data)["main"]


def test_a_coroutine_stays_on_the_loop_whatever_is_asked(connection: Connection) -> None:
    seen = connection.call("main.coroutine", metadata={"thread_sensitive": "true"})
    assert seen["thread"] == "bridge"


@pytest.mark.conforms(69)
@pytest.mark.parametrize(
    ("arguments", "main"),
    [
        ({"library": "cv2"}, True),
        ({"python_module": "numpy"}, True),
        ({"module_path": "numpy"}, True),
        ({"library": "torch.cuda", "function": "init"}, True),
        ({"library": "torch.cuda", "method": "init"}, True),
        ({"library": "torch.cuda", "function": "other"}, False),
        ({"library": "torch.cuda"}, False),
        ({"library": "torch"}, False),
        ({"module_path": "os", "library": "cv2"}, False),
        ({"python_module": "os", "library": "cv2"}, False),
        ({"module_path": "numpy", "library": "os"}, True),
        ({"library": "CV2"}, False),
        ({"function": "cv2"}, False),
        ({}, False),
    ],
    ids=repr,
)
def test_modules_of_the_environment_run_there(
    connection: Connection,
    arguments: dict[str, str],
    main: bool,  # noqa: FBT001 - a row of the table
) -> None:
    assert connection.call("main.plain", arguments)["main"] is main


@pytest.mark.conforms(29, 68, "D24")
def test_everything_else_answers_while_the_main_thread_is_held() -> None:
    with process("OnMainThread") as (_, connection):
        held = connection.stub.ExecuteTool.future(connection.request("main.wait"), timeout=LIMIT)
        queued = connection.stub.ExecuteTool.future(
            connection.request("main.marked"), timeout=LIMIT
        )
        session = pb.HeartbeatRequest(session_id=connection.session_id)
        took = []
        for _ in range(5):
            begun = time.monotonic()
            assert connection.stub.Heartbeat(session, timeout=ANSWER).session_valid
            took.append(time.monotonic() - begun)
            connection.stub.Ping(pb.PingRequest(), timeout=ANSWER)
            assert connection.call("main.plain", timeout=ANSWER)["main"] is False
            assert connection.call("main.coroutine", timeout=ANSWER)
        assert statistics.median(took) < 1.0
        assert not held.done()
        assert not queued.done()
        connection.call("main.release")
        assert decode_response(held.result()) == "released"
        assert decode_response(queued.result())["main"] is True


def test_a_call_that_leaves_frees_the_main_thread_for_the_next(connection: Connection) -> None:
    held = connection.stub.ExecuteTool.future(connection.request("main.wait"), timeout=LIMIT)
    while connection.call("worker.stats")["calls"]["in_flight"] < 2:
        pass
    held.cancel()
    assert connection.call("main.marked")["main"]


@pytest.mark.parametrize("how", ["SystemExit", "KeyboardInterrupt"])
def test_a_tool_cannot_end_the_main_thread(connection: Connection, how: str) -> None:
    with pytest.raises(ToolFailure) as caught:
        connection.call("main.leave", {"how": how})
    assert caught.value.failure["type"] == how
    assert connection.call("main.marked")["main"]


def test_signals_are_heard_after_a_tool_has_changed_them() -> None:
    with process("OnMainThread") as (worker, connection):
        assert connection.call("main.change_signals") == "changed"
        assert connection.call("main.marked")["main"]
        worker.terminate()
        assert worker.wait(LIMIT) == 0


# --- Ends of the process --------------------------------------------------------------------------

HOW = pytest.mark.parametrize("how", ["SystemExit", "KeyboardInterrupt"])


def served_on(worker: WorkerProcess, connection: Connection) -> None:
    assert connection.call("leaving.pid", timeout=ANSWER) == worker.pid
    connection.stub.Ping(pb.PingRequest(), timeout=ANSWER)


@HOW
def test_no_tool_ends_the_worker(how: str) -> None:
    with process("Leaving") as (worker, connection):
        for name in ("plain", "coroutine", "to_dict"):
            with pytest.raises(ToolFailure) as caught:
                connection.call(f"leaving.{name}", {"how": how}, timeout=ANSWER)
            assert caught.value.failure["type"] == how
            served_on(worker, connection)


@HOW
def test_no_stream_ends_the_worker(how: str) -> None:
    with process("Leaving") as (worker, connection):
        for name in ("generator", "generator_async", "to_dict"):
            with pytest.raises(grpc.RpcError) as caught:
                list(connection.stream(f"leaving.{name}", {"how": how}, timeout=ANSWER))
            assert caught.value.code() is grpc.StatusCode.INTERNAL
            assert json.loads(caught.value.details() or "")["type"] == how
            served_on(worker, connection)


@HOW
def test_no_text_of_an_exception_ends_the_worker(how: str) -> None:
    with process("Leaving") as (worker, connection):
        with pytest.raises(ToolFailure) as caught:
            connection.call("leaving.text", {"how": how}, timeout=ANSWER)
        assert caught.value.failure["type"] == "_LeavingTextError"
        served_on(worker, connection)


@HOW
def test_no_closer_ends_the_worker(how: str) -> None:
    with process("Leaving") as (worker, connection):
        request = connection.request("leaving.closer", {"how": how})
        assert connection.stub.ExecuteTool(request, timeout=ANSWER).success
        assert connection.call("session.close", timeout=ANSWER)["released"] == 1
        served_on(worker, connection)
        assert connection.stub.ExecuteTool(request, timeout=ANSWER).success
        cleanup = pb.CleanupSessionRequest(session_id=connection.session_id)
        assert connection.stub.CleanupSession(cleanup, timeout=ANSWER).resources_cleaned == 1
        served_on(worker, connection)
        request.session_id = ""
        assert connection.stub.ExecuteTool(request, timeout=ANSWER).success
        served_on(worker, connection)


def test_a_message_that_no_log_line_can_hold_is_a_failure_like_any_other() -> None:
    """At the level that a standalone worker logs at."""
    with process("Leaving", SNAKEPIT_LOG_LEVEL="info") as (worker, connection):
        with pytest.raises(ToolFailure) as caught:
            connection.call("leaving.surrogates", timeout=ANSWER)
        assert caught.value.failure["type"] == "ValueError"
        served_on(worker, connection)


def test_a_worker_with_all_of_them_stops_as_told() -> None:
    with process("Leaving") as (worker, connection):
        served_on(worker, connection)
        closer: dict[str, Any] = {"how": "SystemExit"}
        connection.call("leaving.closer", closer)
        worker.terminate()
        assert worker.wait(LIMIT) == 0
