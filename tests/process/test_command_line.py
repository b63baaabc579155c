"""The command line that the host gives, and what it reads back from the process table."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from snakepit_worker.testing import StandInHost
    from tests.process.conftest import Workers

HELLO = "tests.process.adapters.importing.Importing"
ON_MAIN_THREAD = "tests.bridge.adapters.on_main_thread.OnMainThread"

PROCESS_PROFILE = (
    "--heartbeat-enabled",
    *("--heartbeat-interval-ms", "2000"),
    *("--heartbeat-timeout-ms", "10000"),
    *("--heartbeat-max-missed", "3"),
    *("--heartbeat-initial-delay-ms", "0"),
    "--heartbeat-dependent",
)
THREAD_PROFILE = ("--max-workers", "4", "--thread-safety-check")


@pytest.mark.conforms(1, "D39")
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(PROCESS_PROFILE, id="process profile"),
        pytest.param(THREAD_PROFILE, id="thread profile"),
        pytest.param((*THREAD_PROFILE, "--heartbeat-independent", "--port", "0"), id="both"),
        pytest.param(("--mode", "threaded", *THREAD_PROFILE), id="published example"),
        # The host cuts the arguments of the thread profile into pairs.
        pytest.param(("--verbose", *THREAD_PROFILE), id="odd number before"),
        pytest.param((*THREAD_PROFILE, "--future=1", "-q", "-1", "stray"), id="unknown"),
        pytest.param(("--adapt", "nothing", "--heartbeat", "--por=9"), id="abbreviations"),
    ],
)
def test_the_worker_serves_with(arguments: tuple[str, ...], workers: Workers) -> None:
    token = ("--snakepit-instance-token", "token_1")
    worker, connection = workers.start(HELLO, arguments=(*token, *arguments))
    assert connection.call("importing.hello") == "hello"
    assert connection.call("worker.info")["adapters"]["importing"]["state"] == "ready"
    assert worker.stop() == 0


def test_what_is_ignored_is_said(workers: Workers) -> None:
    worker, _ = workers.start(arguments=("--mode", "threaded", "--max-workers", "2"))
    assert worker.stop() == 0
    assert "ignored unknown arguments: --mode threaded" in worker.output()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--max-workers", "many"), "--max-workers"),
        (("--max-workers",), "--max-workers"),
        (("--port", "70000"), "--port"),
        (("--values", "loose"), "--values"),
    ],
)
def test_a_wrong_value_is_wrong_usage(
    arguments: tuple[str, ...], named: str, workers: Workers
) -> None:
    done = workers.run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_the_flag_beats_the_environment(workers: Workers, host: StandInHost) -> None:
    environment = {"SNAKEPIT_WORKER_VALUES": "compatible", "SNAKEPIT_GRPC_ADDRESS": "nowhere:1"}
    _, connection = workers.start(environment=environment)
    info = connection.call("worker.info")
    assert (info["values"], info["host"]) == ("compatible", host.address)
    _, connection = workers.start(environment=environment, arguments=("--values", "exact"))
    assert connection.call("worker.info")["values"] == "exact"


def test_the_environment_may_name_the_host(workers: Workers, host: StandInHost) -> None:
    named = {"SNAKEPIT_GRPC_ADDRESS": host.address, "SNAKEPIT_ELIXIR_ADDRESS": "nowhere:1"}
    _, connection = workers.start(standalone=True, environment=named)
    assert connection.call("worker.info")["host"] == host.address
    host.wait_for("Ping")


@pytest.mark.conforms("D39")
def test_the_thread_profile_lacks_nothing(workers: Workers, host: StandInHost) -> None:
    arguments = (*THREAD_PROFILE, "--mode", "threaded", "--heartbeat-interval-ms", "20")
    _, connection = workers.start(ON_MAIN_THREAD, arguments=arguments)
    host.wait_for("Heartbeat", 3)
    connection.supervise()
    assert connection.call("main.plain")["thread"] == "tool-0"
    assert connection.call("main.plain", metadata={"thread_sensitive": "true"})["main"]
    assert connection.telemetry is not None
    connection.telemetry.wait_for("tool.execution.stop", 2)
    assert connection.heartbeats is not None
    connection.heartbeats.wait_for(1)
    assert connection.heartbeats.failures == []


@pytest.mark.conforms(12, 13)
def test_the_host_finds_the_worker_in_the_process_table_all_its_life(workers: Workers) -> None:
    worker, connection = workers.start(
        "tests.process.adapters.lifespans.Slow",
        arguments=("--snakepit-instance-token", "token_1"),
    )

    def check() -> None:
        folder = Path("/proc", str(worker.pid))
        arguments = (folder / "cmdline").read_bytes().rstrip(b"\0").decode().split("\0")
        command = " ".join(arguments)
        assert "grpc_server.py" in command
        assert re.search(r"--snakepit-run-id launch0( |$)", command)
        assert re.search(r"--snakepit-instance-name launch( |$)", command)
        assert re.search(r"--snakepit-instance-token token_1( |$)", command)
        assert "python" in (folder / "comm").read_text().lower()

    workers.gate.arrive("starting")
    check()
    workers.gate.open("starting")
    connection.call("slow.hello")
    check()
    worker.terminate()
    workers.gate.arrive("stopping")
    check()
    workers.gate.open("stopping")
    assert worker.wait() == 0


def test_a_port_that_is_taken_is_not_shared(workers: Workers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = workers.run("--port", str(port))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr[-4096:]


def test_two_workers_do_not_share_a_port(workers: Workers) -> None:
    first, _ = workers.start(standalone=True)
    done = workers.run("--port", str(first.port))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"cannot listen on 127.0.0.1:{first.port}" in done.stderr[-4096:]
