"""Tools wait together, and nothing that they do keeps the worker from answering."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from snakepit_worker.testing.connection import decode_response
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from tests.process.conftest import LIMIT, HealthOf, wait_until

if TYPE_CHECKING:
    from snakepit_worker.testing import Connection, StandInHost
    from tests.process.conftest import Gate, Workers

WAITING = "tests.process.adapters.waiting.Waiting"
STUBBORN = "tests.process.adapters.waiting.Stubborn"
LOCKING = "tests.process.adapters.locking.Locking"


def answers(connection: Connection) -> None:
    """What the host asks while tools run."""
    stub = connection.stub
    reply = stub.Ping(pb.PingRequest(message="health_check_1"), timeout=LIMIT)
    assert "health_check_1" in reply.message
    beat = pb.HeartbeatRequest(session_id=connection.session_id)
    assert stub.Heartbeat(beat, timeout=LIMIT).session_valid
    assert HealthOf(connection)() == "SERVING"


def test_200_asynchronous_calls_are_in_flight_at_once(workers: Workers, gate: Gate) -> None:
    _, connection = workers.start(WAITING)
    calls = [workers.begin(connection, "wait.asynchronous", label="all") for _ in range(200)]
    gate.arrive("all", 200)
    answers(connection)
    assert connection.call("worker.stats")["calls"]["in_flight"] == 201
    gate.open("all")
    assert [decode_response(call.result(LIMIT)) for call in calls] == ["all"] * 200


@pytest.mark.conforms(70, "D2")
def test_as_many_synchronous_calls_run_at_once_as_there_are_threads(
    workers: Workers, gate: Gate
) -> None:
    _, connection = workers.start(WAITING, arguments=("--max-workers", "32"))
    calls = [workers.begin(connection, "wait.synchronous", label="all") for _ in range(32)]
    gate.arrive("all", 32)
    answers(connection)
    late = workers.begin(connection, "wait.synchronous", label="late")
    threads = {"size": 32, "busy": 32, "waiting": 1, "abandoned": 0}
    wait_until(lambda: connection.call("worker.stats")["threads"] == threads, "one that waits")
    gate.open("all")
    gate.arrive("late")
    gate.open("late")
    assert [decode_response(call.result(LIMIT)) for call in calls] == ["all"] * 32
    assert decode_response(late.result(LIMIT)) == "late"


@pytest.mark.conforms(84)
def test_everything_may_wait_at_once(workers: Workers, gate: Gate, host: StandInHost) -> None:
    often = {"SNAKEPIT_HEARTBEAT_CONFIG": '{"interval_ms": 10}'}
    _, connection = workers.start(WAITING, arguments=("--max-workers", "2"), environment=often)
    tools = ("synchronous", "synchronous", "asynchronous", "on_main_thread")
    calls = [workers.begin(connection, f"wait.{tool}", label="all") for tool in tools]
    gate.arrive("all", len(tools))
    answers(connection)
    # The worker's own heartbeats go on, too.
    host.wait_for("Heartbeat", host.received["Heartbeat"] + 5)
    gate.open("all")
    assert [decode_response(call.result(LIMIT)) for call in calls] == ["all"] * len(tools)


@pytest.mark.conforms(84)
def test_tools_that_never_end_are_nobody_else_s_business(workers: Workers, gate: Gate) -> None:
    worker, connection = workers.start(STUBBORN, arguments=("--grace-ms", "1"))
    for tool in ("sleep", "spin", "sleep_on_main_thread"):
        workers.begin(connection, f"stubborn.{tool}", label=tool)
        gate.arrive(tool)
    for _ in range(10):
        answers(connection)
    worker.process.terminate()
    assert worker.wait(LIMIT) == 0


@pytest.mark.conforms(84)
def test_locks_that_tools_hold_are_nobody_else_s_business(workers: Workers, gate: Gate) -> None:
    _, connection = workers.start(LOCKING, environment={"SNAKEPIT_LOG_LEVEL": "debug"})
    holding = workers.begin(connection, "locking.hold", label="held")
    gate.arrive("held")
    wanting = [workers.begin(connection, "locking.want", label="wanted") for _ in range(3)]
    gate.arrive("wanted", 3)
    for _ in range(10):
        answers(connection)
    assert not any(call.done() for call in (holding, *wanting))
    gate.open("held")
    for call in (holding, *wanting):
        assert call.result(LIMIT).success
