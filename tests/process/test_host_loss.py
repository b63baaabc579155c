"""A worker does not outlive its host, however that ends; unless it is told to."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.process.conftest import LIMIT, Reader, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from snakepit_worker.testing import StandInHost
    from tests.process.conftest import Gate, Workers

WAITING = "tests.process.adapters.waiting.Waiting"
IMPORTING = "tests.process.adapters.importing.Importing"

# Starts a worker as its own child, and waits: to be killed.
PARENT = """
import subprocess, sys
stdin = {"pipe": subprocess.PIPE, "nothing": subprocess.DEVNULL}[sys.argv[1]]
worker = subprocess.Popen(sys.argv[2:], stdin=stdin)
worker.wait()
"""


def beating(**config: Any) -> dict[str, str]:
    """Heartbeats so often that a test can wait for them."""
    often = {"interval_ms": 20, "timeout_ms": 10_000, "max_missed_heartbeats": 3}
    return {"SNAKEPIT_HEARTBEAT_CONFIG": json.dumps({**often, **config})}


SILENT: Final = beating(enabled=False)
"""Only stdin or the parent can tell that the host is gone."""


@pytest.mark.conforms(22, "D36")
@pytest.mark.parametrize("greeted", [True, False], ids=["greeted", "before any session"])
def test_the_end_of_stdin_is_the_end(greeted: bool, workers: Workers) -> None:  # noqa: FBT001
    worker, _ = workers.start(greet=greeted, environment=SILENT)
    assert worker.process.stdin is not None
    worker.process.stdin.close()
    assert worker.wait(LIMIT) == 0
    workers.all_gone()
    assert "stdin was closed" in worker.output()


def test_what_runs_when_stdin_ends_gets_its_grace(workers: Workers, gate: Gate) -> None:
    arguments = ("--grace-ms", "600000")
    worker, connection = workers.start(WAITING, environment=SILENT, arguments=arguments)
    running = workers.begin(connection, "wait.synchronous", label="running")
    gate.arrive("running")
    assert worker.process.stdin is not None
    worker.process.stdin.close()
    wait_until(lambda: "stdin was closed" in worker.output(), "notice of it")
    gate.open("running")
    assert running.result(LIMIT).success
    assert worker.wait(LIMIT) == 0


def test_what_is_written_to_stdin_is_not_its_end(workers: Workers, host: StandInHost) -> None:
    worker, connection = workers.start(environment=beating())
    assert worker.process.stdin is not None
    worker.process.stdin.write(b"x" * 50_000)
    worker.process.stdin.flush()
    host.wait_for("Heartbeat", host.received["Heartbeat"] + 10)
    assert connection.call("worker.info")["pid"] == worker.pid
    worker.process.stdin.close()
    assert worker.wait(LIMIT) == 0


def test_a_worker_without_a_pipe_as_stdin_is_not_ended_by_it(
    workers: Workers, host: StandInHost, ready_file: Path
) -> None:
    process = workers.popen(
        *("--elixir-address", host.address),
        environment={"SNAKEPIT_READY_FILE": str(ready_file), **beating()},
        stdin=subprocess.DEVNULL,
    )
    # Of /dev/null every read is an end: it would not get this far.
    host.wait_for("Ping", 20)
    wait_until(ready_file.exists, "readiness")
    assert process.poll() is None


def test_a_standalone_worker_is_not_ended_by_stdin(workers: Workers) -> None:
    worker, connection = workers.start(standalone=True)
    assert worker.process.stdin is not None
    worker.process.stdin.close()
    for _ in range(20):
        assert connection.call("worker.info")["pid"] == worker.pid


@pytest.mark.conforms(22, "D36")
@pytest.mark.parametrize("stdin", ["pipe", "nothing"])
@pytest.mark.parametrize("moment", ["import", "serving"])
def test_a_worker_ends_when_its_parent_is_killed(
    stdin: str, moment: str, workers: Workers, gate: Gate, ready_file: Path
) -> None:
    environment = {
        **SILENT,
        "SNAKEPIT_READY_FILE": str(ready_file),
        "SNAKEPIT_PROCESS_GROUP": "1",
        "IMPORT_WAITS": "receiving",
    }
    command = (sys.executable, "-m", "snakepit_worker", "--adapter", IMPORTING)
    named = ("--elixir-address", workers.host.address)
    parent = workers.adopt(
        subprocess.Popen(
            [sys.executable, "-c", PARENT, stdin, *command, *named],
            **workers.popen_options(environment, {"stdout": subprocess.DEVNULL, "stderr": None}),
        )
    )
    gate.arrive("import")
    if moment == "serving":
        gate.open("import")
        wait_until(ready_file.exists, "readiness")
        workers.connect(int(ready_file.read_text())).greet()
    parent.kill()
    assert parent.wait(LIMIT) == -signal.SIGKILL
    workers.all_gone()


@pytest.mark.conforms(22, 85, "D36")
@pytest.mark.parametrize("greeted", [True, False], ids=["greeted", "before any session"])
def test_a_dependent_worker_ends_after_so_many_missed_heartbeats(
    greeted: bool,  # noqa: FBT001
    workers: Workers,
    host: StandInHost,
    ready_file: Path,
) -> None:
    process = workers.popen(
        *("--elixir-address", host.address),
        environment={"SNAKEPIT_READY_FILE": str(ready_file), **beating(max_missed_heartbeats=4)},
    )
    stderr = Reader(process.stderr)
    wait_until(ready_file.exists, "readiness")
    if greeted:
        workers.connect(int(ready_file.read_text())).greet()
        host.wait_for("Heartbeat", 2)
    else:
        host.wait_for("Ping", 3)
    host.close()
    assert process.wait(LIMIT) == 0
    lines = [json.loads(line) for line in stderr.lines()]
    assert [line["missed"] for line in lines if line["event"] == "heartbeat missed"] == [1, 2, 3, 4]


@pytest.mark.conforms(85)
@pytest.mark.parametrize(
    ("arguments", "config"),
    [((), {"dependent": False}), (("--heartbeat-independent",), {})],
    ids=["by configuration", "by flag"],
)
def test_an_independent_worker_serves_on(
    arguments: tuple[str, ...], config: dict[str, Any], workers: Workers, host: StandInHost
) -> None:
    worker, connection = workers.start(arguments=arguments, environment=beating(**config))
    host.wait_for("Heartbeat")
    host.close()
    wait_until(lambda: worker.output().count("the host is lost; serving on") > 2, "loss, thrice")
    assert connection.call("worker.info")["pid"] == worker.pid
    assert worker.stop() == 0


def test_without_heartbeats_the_host_is_not_asked(workers: Workers, host: StandInHost) -> None:
    _, connection = workers.start(environment=SILENT)
    for _ in range(20):
        connection.call("worker.info")
    assert host.received["Heartbeat"] == 0
    assert host.received["Ping"] == 1
    host.close()
    assert connection.call("worker.info")["host"] == host.address
