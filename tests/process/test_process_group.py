"""The worker leads a group of its own, and nobody of it stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from snakepit_worker.testing.connection import decode_response
from tests.process.conftest import LIMIT, HealthOf

if TYPE_CHECKING:
    from tests.process.conftest import Gate, Workers

CHILDREN = "tests.process.adapters.children.Children"
STUBBORN = "tests.process.adapters.waiting.Stubborn"
WAITING = "tests.process.adapters.waiting.Waiting"


@pytest.mark.conforms(10, 11)
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="member of our group"),
        pytest.param({"process_group": 0}, id="leader of a group"),
        pytest.param({"start_new_session": True}, id="leader of a session"),
    ],
)
def test_it_leads_a_group_before_it_is_ready(
    options: dict[str, object], workers: Workers, gate: Gate
) -> None:
    process = workers.popen(
        *("--adapter", "tests.process.adapters.importing.Importing"),
        environment={"SNAKEPIT_PROCESS_GROUP": "1", "IMPORT_WAITS": "receiving"},
        **options,
    )
    assert int(gate.arrive("import")) == process.pid
    assert os.getpgid(process.pid) == process.pid
    gate.open("import")
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"GRPC_READY:")


def test_it_stays_in_the_group_of_its_starter_otherwise_and_leaves_the_others_alone(
    workers: Workers,
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1, process_group=0) as other:
        process = workers.popen(process_group=other.pid)
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"GRPC_READY:")
        assert os.getpgid(process.pid) == other.pid
        process.terminate()
        assert process.wait(LIMIT) == 0
        assert other.poll() is None
        other.communicate(b"\n")
        assert other.returncode == 0


@pytest.mark.conforms(16)
@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("plain", signal.SIGINT),
        ("deaf", signal.SIGTERM),
        ("grandchild", signal.SIGTERM),
    ],
)
def test_children_of_tools_end_with_the_worker(
    kind: str, number: signal.Signals, workers: Workers, gate: Gate
) -> None:
    worker, connection = workers.start(CHILDREN)
    connection.call(f"children.{kind}")
    child = int(gate.arrive("child"))
    assert os.getpgid(child) == worker.pid
    worker.process.send_signal(number)  # to the worker alone: nobody else ends the child
    assert worker.wait(LIMIT) == 0
    gate.gone("child")
    workers.all_gone()


@pytest.mark.conforms(16)
def test_children_end_with_a_worker_that_has_to_end_hard(workers: Workers, gate: Gate) -> None:
    worker, connection = workers.start(CHILDREN, STUBBORN, arguments=("--grace-ms", "1"))
    connection.call("children.deaf")
    gate.arrive("child")
    blocked = workers.begin(connection, "stubborn.block_the_loop", label="blocked")
    gate.arrive("blocked")
    worker.process.terminate()
    assert worker.wait(LIMIT) == 0
    gate.gone("child")
    assert blocked.exception(LIMIT) is not None


@pytest.mark.conforms(16)
def test_children_end_with_a_worker_whose_host_is_gone(workers: Workers, gate: Gate) -> None:
    worker, connection = workers.start(CHILDREN)
    connection.call("children.deaf")
    gate.arrive("child")
    assert worker.process.stdin is not None
    worker.process.stdin.close()
    assert worker.wait(LIMIT) == 0
    gate.gone("child")


def test_a_signal_to_the_group_reaches_a_child_that_a_tool_waits_for(
    workers: Workers, gate: Gate
) -> None:
    worker, connection = workers.start(CHILDREN, arguments=("--grace-ms", "60000"))
    call = workers.begin(connection, "children.wait_for_a_child")
    gate.arrive("child")
    worker.terminate()  # to the group, as the host does
    assert call.result(LIMIT).success
    assert worker.wait(LIMIT) == 0


def test_a_child_that_signals_its_parent_does_no_harm(workers: Workers, gate: Gate) -> None:
    worker, connection = workers.start(CHILDREN)
    connection.call("children.backtalking")
    gate.arrive("child")
    worker.process.terminate()
    gate.arrive("answered")
    gate.open("answered")
    assert worker.wait(LIMIT) == 0
    assert "Traceback" not in worker.output()


def test_forks_do_not_crash(workers: Workers) -> None:
    _, connection = workers.start(CHILDREN)
    assert connection.call("children.fork_often", {"times": 40}) == [0] * 40


def test_a_fork_can_be_terminated_without_the_worker(workers: Workers, gate: Gate) -> None:
    _, connection = workers.start(CHILDREN)
    call = workers.begin(connection, "children.terminate_a_fork")
    gate.arrive("fork")
    gate.arrive("forked")
    gate.open("forked")
    gate.gone("fork")
    assert decode_response(call.result(LIMIT)) == -signal.SIGTERM
    assert HealthOf(connection)() == "SERVING"


def test_a_signal_to_a_fork_is_not_one_to_the_worker(workers: Workers, gate: Gate) -> None:
    """The host signals the group: a fork must not make a second signal of it, which ends calls."""
    worker, connection = workers.start(CHILDREN, WAITING, arguments=("--grace-ms", "600000"))
    connection.call("children.keep_a_fork")
    gate.arrive("fork")
    running = workers.begin(connection, "wait.asynchronous", label="running")
    gate.arrive("running")
    worker.terminate()
    HealthOf(connection).becomes("NOT_SERVING")
    gate.gone("fork")
    gate.open("running")
    assert decode_response(running.result(LIMIT)) == "running"
    assert worker.wait(LIMIT) == 0


def test_what_a_fork_prints_is_not_lost(workers: Workers) -> None:
    worker, connection = workers.start(CHILDREN)
    assert connection.call("children.print_in_a_fork", {"text": "from the fork"}) == 0
    assert worker.stop() == 0
    assert "from the fork" in worker.output().splitlines()
