"""SIGTERM, SIGINT: what still gets a reply, and how long the end may take."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import grpc
import pytest

from snakepit_worker.testing import Connection, StandInHost, ToolFailure
from snakepit_worker.testing.connection import decode_response
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from snakepit_worker.wire.values import decode, to_any
from tests.process.conftest import LIMIT, HealthOf, shortest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.process.conftest import Gate, Workers

WAITING = "tests.process.adapters.waiting.Waiting"
STUBBORN = "tests.process.adapters.waiting.Stubborn"
LIFESPANS = "tests.process.adapters.lifespans"
LONG_GRACE: Final = ("--grace-ms", "600000")
"""Longer than any test; so nothing here ends because time has passed."""
SHORT_GRACE: Final = ("--grace-ms", "20")
OFTEN: Final = {"SNAKEPIT_HEARTBEAT_CONFIG": '{"interval_ms": 20}'}
BEATS: Final = 30
"""Heartbeats of a worker that drains, so many that it has had the time to do something wrong."""
AT_ONCE: Final = 1.0
"""Seconds."""
HOST_LIMIT: Final = 6.0
"""Seconds after which the host kills (interop 1.7); a worker needs its grace and one second."""

HANDLERS = """
import signal
from snakepit_worker import Adapter, tool
from tests.process.adapters import gate
{code}
class Rude(Adapter):
    name = "rude"
    @tool
    def wait(self) -> str:
        gate.wait("rude")
        return "done"
"""


@pytest.mark.conforms(14, 17)
@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (signal.SIGTERM, "pooled"),
        (signal.SIGINT, "pooled"),
        (signal.SIGTERM, "standalone"),
    ],
)
def test_an_idle_worker_ends(number: signal.Signals, kind: str, workers: Workers) -> None:
    def seconds() -> float:
        worker, _ = workers.start(standalone=kind == "standalone", arguments=LONG_GRACE)
        begun = time.monotonic()
        worker.process.send_signal(number)
        assert worker.wait(LIMIT) == 0
        took = time.monotonic() - begun
        workers.all_gone()
        assert "Traceback" not in worker.output()
        return took

    assert shortest(seconds, AT_ONCE) < AT_ONCE


def test_many_signals_are_no_more_than_one(workers: Workers) -> None:
    worker, _ = workers.start(arguments=LONG_GRACE)
    for _ in range(50):
        worker.process.send_signal(signal.SIGTERM)
        worker.process.send_signal(signal.SIGINT)
    assert worker.wait(LIMIT) == 0
    assert "Traceback" not in worker.output()


@pytest.mark.conforms(17)
@pytest.mark.parametrize(
    ("tool", "number"),
    [
        ("asynchronous", signal.SIGTERM),
        ("synchronous", signal.SIGTERM),
        ("on_main_thread", signal.SIGTERM),
        ("asynchronous", signal.SIGINT),
    ],
)
def test_running_calls_get_their_replies_and_new_ones_a_failure(
    tool: str, number: signal.Signals, workers: Workers, gate: Gate, host: StandInHost
) -> None:
    worker, connection = workers.start(WAITING, arguments=LONG_GRACE, environment=OFTEN)
    health = HealthOf(connection)
    running = workers.begin(connection, f"wait.{tool}", label="running")
    gate.arrive("running")
    worker.process.send_signal(number)
    health.becomes("NOT_SERVING")
    assert health("snakepit.bridge.BridgeService") == "NOT_SERVING"
    assert health("adapter.wait") == "NOT_SERVING"
    with pytest.raises(ToolFailure) as caught:
        connection.call("wait.asynchronous", {"label": "late"})
    assert caught.value.failure["code"] == "UNAVAILABLE"
    assert caught.value.failure["retryable"] is True
    # What runs may still need the host, and the host asks for signs of life.
    host.wait_for("Heartbeat", host.received["Heartbeat"] + BEATS)
    connection.greet()
    gate.open("running")
    assert decode_response(running.result(LIMIT)) == "running"
    assert worker.wait(LIMIT) == 0
    assert "Traceback" not in worker.output()


class AnsweringHost(StandInHost):
    def ExecuteElixirTool(
        self,
        request: pb.ExecuteElixirToolRequest,
        context: grpc.ServicerContext,  # noqa: ARG002 - the signature is the protocol's
    ) -> pb.ExecuteElixirToolResponse:
        asked = f"{request.tool_name} to {decode(request.parameters['to'], 'to')}"
        return pb.ExecuteElixirToolResponse(success=True, result=to_any(asked))


@pytest.mark.conforms(18, "D37")
@pytest.mark.parametrize("tool", ["ask_elixir", "ask_elixir_blocking"])
def test_running_calls_can_call_the_host(tool: str, workers: Workers, gate: Gate) -> None:
    with AnsweringHost() as host:
        environment = {"SNAKEPIT_GRPC_ADDRESS": host.address}
        worker, connection = workers.start(
            WAITING, standalone=True, arguments=LONG_GRACE, environment=environment
        )
        running = workers.begin(connection, f"wait.{tool}", label="running")
        gate.arrive("running")
        worker.process.terminate()
        HealthOf(connection).becomes("NOT_SERVING")
        gate.open("running")
        assert decode_response(running.result(LIMIT)) == "answer to running"
        assert worker.wait(LIMIT) == 0


@pytest.mark.parametrize("tool", ["stream_async", "stream_sync"])
def test_running_streams_come_to_their_end(tool: str, workers: Workers, gate: Gate) -> None:
    worker, connection = workers.start(WAITING, arguments=LONG_GRACE)
    chunks = connection.stream(f"wait.{tool}", {"label": "running"})
    assert next(chunks)["data"] == 1
    gate.arrive("running")
    worker.process.terminate()
    HealthOf(connection).becomes("NOT_SERVING")
    with pytest.raises(grpc.RpcError) as caught:
        list(connection.stream(f"wait.{tool}", {"label": "late"}))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    gate.open("running")
    assert [(c.get("data"), c["is_final"]) for c in chunks] == [(2, False), (None, True)]
    assert worker.wait(LIMIT) == 0


@pytest.mark.conforms("D17", "D38")
@pytest.mark.parametrize(
    "tools",
    [
        ("sleep", "spin", "sleep_on_main_thread"),
        ("shrug", "sleep_in_default_executor"),
        ("block_the_loop",),
        ("leave_a_thread",),
        ("keep_what_does_not_close",),
    ],
    ids=" and ".join,
)
def test_what_does_not_end_is_left_behind(
    tools: tuple[str, ...], workers: Workers, gate: Gate
) -> None:
    worker, connection = workers.start(STUBBORN, arguments=SHORT_GRACE)
    calls = [workers.begin(connection, f"stubborn.{tool}", label=tool) for tool in tools]
    for tool in tools:
        gate.arrive(tool)
    worker.process.terminate()
    assert worker.wait(HOST_LIMIT) == 0
    workers.all_gone()
    for call in calls:
        call.exception(LIMIT)  # the callers are not left waiting


@pytest.mark.conforms(15, "D17")
@pytest.mark.parametrize("tool", ["sleep", "spin"])
def test_with_the_usual_grace_the_host_need_not_kill(
    tool: str, workers: Workers, gate: Gate
) -> None:
    worker, connection = workers.start(STUBBORN)
    workers.begin(connection, f"stubborn.{tool}", label="running")
    gate.arrive("running")
    worker.terminate()
    assert worker.wait(HOST_LIMIT) == 0


def test_a_lifespan_that_does_not_end_is_left_behind(workers: Workers, gate: Gate) -> None:
    worker, connection = workers.start(f"{LIFESPANS}.NeverStopping", arguments=SHORT_GRACE)
    connection.call("endless.hello")
    worker.process.terminate()
    gate.arrive("stopping")
    assert worker.wait(HOST_LIMIT) == 0


def test_a_lifespan_that_has_not_begun_to_serve_is_left_behind(
    workers: Workers, gate: Gate
) -> None:
    worker, connection = workers.start(f"{LIFESPANS}.Slow", arguments=SHORT_GRACE)
    gate.arrive("starting")
    call = workers.begin(connection, "slow.hello")
    worker.process.terminate()
    assert worker.wait(HOST_LIMIT) == 0
    assert call.exception(LIMIT) or not call.result(LIMIT).success


def test_a_call_that_waits_for_its_adapter_gets_its_time_too(
    workers: Workers, gate: Gate, host: StandInHost
) -> None:
    worker, connection = workers.start(f"{LIFESPANS}.Slow", arguments=LONG_GRACE, environment=OFTEN)
    gate.arrive("starting")
    call = workers.begin(connection, "slow.hello")
    for _ in range(20):  # on the same connection: what was sent before has come by then
        connection.call("worker.info")
    worker.process.terminate()
    HealthOf(connection).becomes("NOT_SERVING")
    host.wait_for("Heartbeat", host.received["Heartbeat"] + BEATS)
    gate.open("starting")
    assert decode_response(call.result(LIMIT)) == "hello"
    assert worker.wait(LIMIT) == 0


def test_a_tool_can_see_that_its_time_is_over(workers: Workers, gate: Gate) -> None:
    worker, connection = workers.start(STUBBORN, arguments=SHORT_GRACE)
    workers.begin(connection, "stubborn.until_cancelled", label="polite")
    gate.arrive("polite")
    worker.process.terminate()
    gate.arrive("polite-cancelled")
    assert worker.wait(HOST_LIMIT) == 0


@pytest.mark.conforms(17, "D38")
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_grace(
    second: signal.Signals, workers: Workers, gate: Gate
) -> None:
    worker, connection = workers.start(WAITING, arguments=LONG_GRACE)
    workers.begin(connection, "wait.synchronous", label="running")
    gate.arrive("running")
    worker.process.terminate()
    HealthOf(connection).becomes("NOT_SERVING")
    worker.process.send_signal(second)
    assert worker.wait(LIMIT) == 0


@pytest.mark.conforms(17, "D38")
@pytest.mark.parametrize("tool", ["shrug", "sleep_on_main_thread", "leave_a_thread"])
def test_a_second_signal_ends_what_does_not_end(tool: str, workers: Workers, gate: Gate) -> None:
    worker, connection = workers.start(STUBBORN, WAITING, arguments=LONG_GRACE)
    workers.begin(connection, f"stubborn.{tool}", label="stubborn")
    workers.begin(connection, "wait.synchronous", label="running")
    gate.arrive("stubborn")
    gate.arrive("running")
    worker.process.terminate()
    HealthOf(connection).becomes("NOT_SERVING")
    worker.process.terminate()
    assert worker.wait(LIMIT) == 0


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("signal.signal(signal.SIGTERM, signal.SIG_IGN)", id="ignored"),
        pytest.param("signal.signal(signal.SIGTERM, signal.SIG_DFL)", id="default"),
        pytest.param("signal.set_wakeup_fd(-1)", id="no wakeup"),
    ],
)
def test_an_adapter_that_sets_signal_handlers_changes_nothing(
    code: str, workers: Workers, gate: Gate, tmp_path: Path
) -> None:
    (tmp_path / "rude.py").write_text(HANDLERS.format(code=code))
    worker, connection = workers.start("rude.Rude", arguments=LONG_GRACE)
    running = workers.begin(connection, "rude.wait")
    gate.arrive("rude")
    worker.process.terminate()
    HealthOf(connection).becomes("NOT_SERVING")
    gate.open("rude")
    assert decode_response(running.result(LIMIT)) == "done"
    assert worker.wait(LIMIT) == 0


def test_a_worker_that_is_stopped_before_anybody_has_called_it(
    workers: Workers, host: StandInHost, ready_file: Path
) -> None:
    """The host stops workers that it has just started, too."""
    process = workers.popen(
        "--elixir-address", host.address, environment={"SNAKEPIT_READY_FILE": str(ready_file)}
    )
    host.wait_for("Ping")
    process.terminate()
    assert process.wait(LIMIT) in {0, -signal.SIGTERM, 128 + signal.SIGTERM}


def test_connections_that_stay_open_do_not_hold_the_worker(workers: Workers) -> None:
    worker, connection = workers.start(arguments=LONG_GRACE)
    with ThreadPoolExecutor() as pool, Connection(worker.address) as other:
        watching = pool.submit(HealthOf(connection).becomes, "NOT_SERVING")
        other.greet()
        worker.process.terminate()
        watching.result(LIMIT)
        assert worker.wait(LIMIT) == 0
