"""Adapters start in the background: readiness does not wait for them, calls do."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from snakepit_worker.testing import ToolFailure
from tests.process.conftest import LIMIT, HealthOf

if TYPE_CHECKING:
    from pathlib import Path

    from tests.process.conftest import Gate, Workers

LIFESPANS = "tests.process.adapters.lifespans"

FAKE_DSPY = """
from tests.process.adapters import gate
gate.wait("dspy")
raise ImportError("this is no dspy")
"""


def test_readiness_does_not_wait_for_a_lifespan_and_calls_do(workers: Workers, gate: Gate) -> None:
    _, connection = workers.start(f"{LIFESPANS}.Slow", "tests.process.adapters.chatty.Chatty")
    gate.arrive("starting")
    health = HealthOf(connection)
    assert connection.call("worker.info")["adapters"]["slow"] == {
        "state": "starting",
        "failure": None,
    }
    assert health("adapter.slow") == "NOT_SERVING"
    assert (health(), health("snakepit.bridge.BridgeService")) == ("SERVING", "SERVING")
    (described,) = connection.call("worker.tools", {"adapter": "slow"})
    assert described["name"] == "slow.hello"
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(connection.call, "slow.hello")
        gate.open("starting")
        assert waiting.result(LIMIT) == "hello"
    assert connection.call("worker.info")["adapters"]["slow"]["state"] == "ready"
    health.becomes("SERVING", "adapter.slow")


def test_an_adapter_that_starts_for_too_long_is_a_failure_of_the_call(
    workers: Workers, gate: Gate
) -> None:
    _, connection = workers.start(f"{LIFESPANS}.Slow", arguments=("--adapter-timeout-ms", "20"))
    gate.arrive("starting")
    with pytest.raises(ToolFailure) as caught:
        connection.call("slow.hello", timeout=None)
    assert caught.value.failure["code"] == "DEADLINE_EXCEEDED"
    assert "slow" in caught.value.failure["message"]
    assert "starting" in caught.value.failure["message"]


def test_dspy_is_not_waited_for(workers: Workers, gate: Gate, tmp_path: Path) -> None:
    (tmp_path / "dspy.py").write_text(FAKE_DSPY)
    _, connection = workers.start("dspy")
    gate.arrive("dspy")
    health = HealthOf(connection)
    assert connection.call("worker.info")["adapters"]["dspy"]["state"] == "starting"
    assert health("adapter.dspy") == "NOT_SERVING"
    names = [tool["name"] for tool in connection.call("worker.tools", {"adapter": "dspy"})]
    assert "dspy.configure_lm" in names
    gate.open("dspy")
    with pytest.raises(ToolFailure, match="this is no dspy") as caught:
        connection.call("dspy.configure_lm", {"model": "openai/gpt-4o-mini"})
    assert caught.value.failure["code"] == "UNAVAILABLE"
    assert connection.call("worker.info")["adapters"]["dspy"]["state"] == "failed"
    assert (health(), health("adapter.dspy")) == ("SERVING", "NOT_SERVING")


@pytest.mark.parametrize(
    ("adapter", "cause"),
    [("Failing", "OSError: libfancy.so.7 is missing"), ("Leaving", "SystemExit: no licence found")],
)
def test_an_adapter_that_does_not_start_fails_its_own_calls_only(
    adapter: str, cause: str, workers: Workers
) -> None:
    worker, connection = workers.start(
        f"{LIFESPANS}.{adapter}", "tests.process.adapters.chatty.Chatty"
    )
    name = adapter.lower()
    with pytest.raises(ToolFailure) as caught:
        connection.call(f"{name}.hello")
    failure = caught.value.failure
    assert cause in failure["message"]
    assert failure["code"] == "UNAVAILABLE"
    assert failure["retryable"] is False
    assert failure["context"]["error"]["code"] == "UNAVAILABLE"
    assert cause.partition(": ")[2] in connection.call("worker.info")["adapters"][name]["failure"]
    assert connection.call("chatty.print_much", {"lines": 0}) == 0
    health = HealthOf(connection)
    assert health(f"adapter.{name}") == "NOT_SERVING"
    assert health("adapter.chatty") == "SERVING"
    assert (health(), health("snakepit.bridge.BridgeService")) == ("SERVING", "SERVING")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.wait(LIMIT) == 0
    assert cause.partition(": ")[2] in worker.output()


def test_lifespans_are_left_at_the_end(workers: Workers, gate: Gate) -> None:
    worker, connection = workers.start(f"{LIFESPANS}.Slow")
    gate.arrive("starting")
    gate.open("starting")
    connection.call("slow.hello")
    worker.terminate()
    gate.arrive("stopping")
    assert worker.wait(LIMIT) == 0


@pytest.mark.conforms("D49")
def test_numpy_is_not_needed(workers: Workers, tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise ImportError('there is no NumPy')")
    _, connection = workers.start("tests.process.adapters.importing.Importing")
    assert connection.call("importing.hello") == "hello"
    assert connection.call("worker.tools")
