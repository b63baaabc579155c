"""Adapters as a worker lives with them: lifespans, failures to start, what the worker tells."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from snakepit_worker import Adapter, __version__, tool
from snakepit_worker.errors import StartError
from snakepit_worker.runtime import Worker
from snakepit_worker.settings import Settings
from snakepit_worker.testing import ToolFailure
from tests.bridge.conftest import LIMIT

if TYPE_CHECKING:
    from snakepit_worker.testing import Connection
    from tests.bridge.conftest import Gate, Served


class Living(Adapter):
    """Notes its life."""

    name = "living"

    def __init__(self, name: str = "living", notes: list[str] | None = None) -> None:
        self.notes = notes if notes is not None else []
        self.name = name  # type: ignore[misc]

    @contextmanager
    def lifespan(self) -> Iterator[None]:
        self.notes.append(f"{self.name} in on {threading.current_thread().name}")
        yield
        self.notes.append(f"{self.name} out on {threading.current_thread().name}")

    @tool
    def answer(self) -> int:
        return 42


class Starting(Adapter):
    name = "starting"

    def __init__(self, gate: Gate, error: BaseException | None = None) -> None:
        self.gate = gate
        self.error = error

    @contextmanager
    def lifespan(self) -> Iterator[None]:
        self.gate.wait()
        if self.error is not None:
            raise self.error
        yield

    @tool
    def answer(self) -> int:
        return 43

    @tool
    async def answer_async(self) -> int:
        return 44

    @tool
    def stream(self) -> Iterator[int]:
        yield 45


class Rude(Adapter):
    """Does not leave quietly."""

    name = "rude"

    def __init__(self, error: BaseException) -> None:
        self.error = error

    @contextmanager
    def lifespan(self) -> Iterator[None]:
        yield
        raise self.error

    @tool
    def stay(self) -> None: ...


def begin(connection: Connection, name: str) -> Any:
    return connection.stub.ExecuteTool.future(connection.request(name), timeout=LIMIT)


def test_lifespans_are_entered_in_order_and_left_in_reverse(serve: Served) -> None:
    notes: list[str] = []
    connection = serve(Living("one", notes), Living("two", notes))
    assert connection.call("two.answer") == 42
    thread = "main-thread"
    assert notes == [f"one in on {thread}", f"two in on {thread}"]
    serve.worker.stop()
    assert notes[2:] == [f"two out on {thread}", f"one out on {thread}"]


def test_calls_wait_for_their_adapter_and_not_for_others(serve: Served, gate: Gate) -> None:
    connection = serve(Starting(gate))
    gate.reached()
    calls = [begin(connection, f"starting.{name}") for name in ("answer", "answer_async")]
    assert connection.call("worker.info")["adapters"]["starting"] == {
        "state": "starting",
        "failure": None,
    }
    assert not any(call.done() for call in calls)
    gate.open()
    assert [call.result().result.value for call in calls] == [b"43", b"44"]
    assert connection.call("worker.info")["adapters"]["starting"]["state"] == "ready"
    assert next(iter(connection.stream("starting.stream")))["data"] == 45


def test_tools_are_described_before_their_adapter_has_started(serve: Served, gate: Gate) -> None:
    connection = serve(Starting(gate))
    gate.reached()
    described = connection.call("worker.tools", {"adapter": "starting"})
    assert [entry["name"] for entry in described] == [
        "starting.answer",
        "starting.answer_async",
        "starting.stream",
    ]
    gate.open()
    with pytest.raises(ToolFailure, match="unknown argument"):
        connection.call("starting.answer", {"unknown": 1})


@pytest.mark.parametrize(
    "error", [ImportError("no such framework"), SystemExit(3), KeyboardInterrupt()], ids=repr
)
def test_an_adapter_that_cannot_start_fails_each_call_and_no_other(
    serve: Served, gate: Gate, error: BaseException
) -> None:
    serve.expected_errors = ("adapter failed to start",)
    connection = serve(Starting(gate, error), Living())
    gate.reached()
    waiting = begin(connection, "starting.answer")
    gate.open()
    assert not waiting.result().success
    for _ in range(2):
        with pytest.raises(ToolFailure) as caught:
            connection.call("starting.answer")
        failure = caught.value.failure
        assert (failure["code"], failure["retryable"]) == ("UNAVAILABLE", False)
        assert failure["details"] == {"adapter": "starting"}
        assert type(error).__name__ in failure["message"]
    assert connection.call("living.answer") == 42
    told = connection.call("worker.info")["adapters"]["starting"]
    assert told == {"state": "failed", "failure": str(error)}


def test_a_call_waits_for_its_adapter_no_longer_than_it_may(serve: Served, gate: Gate) -> None:
    connection = serve(Starting(gate), adapter_timeout_ms=1)
    gate.reached()
    with pytest.raises(ToolFailure, match="still starting") as caught:
        connection.call("starting.answer", timeout=None)
    assert caught.value.failure["code"] == "DEADLINE_EXCEEDED"
    assert caught.value.failure["retryable"] is True


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3)], ids=repr)
def test_an_adapter_that_cannot_stop_does_not_keep_the_others(
    serve: Served, error: BaseException
) -> None:
    serve.expected_errors = ("adapter failed to stop", "a task tried to end the process")
    living = Living()
    serve(living, Rude(error)).call("living.answer")
    serve.worker.stop()
    assert living.notes[-1] == "living out on main-thread"


@pytest.mark.parametrize(
    ("adapters", "words"),
    [
        ([Living(), Living()], "two adapters are named 'living'"),
        ([Living("worker")], "may not be named|two adapters are named"),
        ([Living("session")], "may not be named|two adapters are named"),
        ([Living("job")], "may not be named|two adapters are named"),
        ([Living("Not-A-Name")], "needs a class attribute `name`"),
    ],
    ids=["twice", "worker", "session", "job", "bad name"],
)
def test_adapters_that_cannot_be_served_do_not_start(adapters: list[Adapter], words: str) -> None:
    before = threading.active_count()
    with pytest.raises(StartError, match=words):
        Worker(Settings(), adapters).start()
    assert threading.active_count() <= before, "a worker that did not start leaves no thread"


def test_the_worker_tells_what_it_is(serve: Served) -> None:
    info = serve(Living()).call("worker.info")
    assert (info["version"], info["pid"], info["host"]) == (__version__, os.getpid(), None)
    assert set(info["packages"]) == {"grpcio", "protobuf"}
    assert set(info["adapters"]) == {"worker", "session", "job", "living"}


def test_tools_are_described_with_schemas(serve: Served) -> None:
    connection = serve(Living())
    described = {entry["name"]: entry for entry in connection.call("worker.tools")}
    assert set(described) == {
        "living.answer",
        "job.cancel",
        "job.events",
        "job.list",
        "job.poll",
        "job.result",
        "job.start",
        "job.status",
        "session.clone",
        "session.close",
        "session.export",
        "session.get",
        "session.import",
        "session.info",
        "session.list",
        "session.put",
        "session.release",
        "worker.batch",
        "worker.info",
        "worker.stats",
        "worker.tools",
    }
    assert described["living.answer"]["returns"] == {"type": "integer"}
    release = described["session.release"]
    assert release["parameters"]["properties"] == {"handle": {"type": "string"}}
    assert release["parameters"]["required"] == ["handle"]
    assert all(entry["description"] for name, entry in described.items() if "living" not in name)
    with pytest.raises(ToolFailure, match="nobody") as caught:
        connection.call("worker.tools", {"adapter": "nobody"})
    assert caught.value.failure["code"] == "NOT_FOUND"


def test_a_worker_that_drains_refuses_new_calls(serve: Served, gate: Gate) -> None:
    class Waiting(Adapter):
        name = "waiting"

        @tool
        def wait(self) -> str:
            gate.wait()
            return "done"

    connection = serve(Waiting(), grace_ms=20_000)
    call = begin(connection, "waiting.wait")
    gate.reached()
    serve.worker.request_stop()
    while not serve.worker._dispatcher.draining:
        pass
    with pytest.raises(ToolFailure) as caught:
        connection.call("worker.info")
    assert caught.value.failure["code"] == "UNAVAILABLE"
    assert caught.value.failure["retryable"] is True
    assert caught.value.failure["retry_after_ms"] == 1000
    gate.open()
    assert call.result().success


def test_two_workers_in_one_process_are_apart(serve: Served) -> None:
    first = serve(Living("one"))
    second = serve(Living("two"))
    assert first.call("one.answer") == second.call("two.answer") == 42
    with pytest.raises(ToolFailure):
        first.call("two.answer")
