"""Real worker processes, and a watch over what they leave behind."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import defaultdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from snakepit_worker import launch
from snakepit_worker.testing import Connection, StandInHost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from snakepit_worker.launch import WorkerProcess

ROOT: Final = Path(__file__).resolve().parents[2]
LIMIT: Final = 25.0
"""Seconds after which a test gives up.  No test passes or fails by a shorter time than this."""
_STOP_LIMIT: Final = 10.0
"""Seconds that a worker gets at the end of its test."""
_MARK: Final = "SNAKEPIT_TEST_MARK"


class Gate:
    """Where code in a worker waits until the test lets it go on; see ``adapters/gate.py``."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.settimeout(LIMIT)
        self._arrived: dict[str, list[socket.socket]] = defaultdict(list)
        self.port: int = self._listener.getsockname()[1]

    def arrive(self, label: str, count: int = 1) -> str:
        """Wait until ``count`` have come; what the last one had to say."""
        text = ""
        while len(self._arrived[label]) < count:
            connection, _ = self._listener.accept()
            connection.settimeout(LIMIT)
            line = b""
            while not line.endswith(b"\n"):
                line += connection.recv(1)
            came, _, text = line.decode().strip().partition(" ")
            self._arrived[came].append(connection)
        return text

    def open(self, label: str) -> None:
        """Let all go on that have come."""
        for connection in self._arrived.pop(label):
            with contextlib.suppress(OSError):  # it has gone meanwhile
                connection.sendall(b".")
            connection.close()

    def gone(self, label: str) -> None:
        """Wait until the one that came has ended, or has lost its process."""
        (connection,) = self._arrived.pop(label)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
        connection.close()

    def close(self) -> None:
        """Let everybody go on, those too that have yet to come."""
        for label in list(self._arrived):
            self.open(label)
        self._listener.close()


class Workers:
    """The worker processes of a test, and everything that they start."""

    def __init__(self, gate: Gate, host: StandInHost, folder: Path) -> None:
        self.gate = gate
        self.host = host
        self.folder = folder
        """Modules written here can be imported by the workers."""
        self.environment = {
            "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT))),
            "GATE": str(gate.port),
            _MARK: uuid.uuid4().hex,
        }
        self._launched: list[WorkerProcess] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._connections: list[Connection] = []
        self._calls: list[Any] = []

    def start(
        self, *adapters: str, standalone: bool = False, greet: bool = True, **options: Any
    ) -> tuple[WorkerProcess, Connection]:
        """Start a worker as the host does."""
        worker = launch.start(**self._options(adapters, options, standalone=standalone))
        self._launched.append(worker)
        connection = self.connect(worker.port)
        if greet:
            connection.greet()
        return worker, connection

    def spawn(self, *adapters: str, standalone: bool = False, **options: Any) -> WorkerProcess:
        """Start a worker without waiting for it."""
        worker = launch.spawn(**self._options(adapters, options, standalone=standalone))
        self._launched.append(worker)
        return worker

    def connect(self, port: int) -> Connection:
        connection = Connection(f"127.0.0.1:{port}")
        self._connections.append(connection)
        return connection

    def begin(self, connection: Connection, tool: str, **arguments: Any) -> Any:
        """Begin a call; its future."""
        request = connection.request(tool, arguments)
        call = connection.stub.ExecuteTool.future(request, timeout=LIMIT)
        self._calls.append(call)  # one that nobody holds is cancelled
        return call

    def popen(
        self, *arguments: str, environment: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[bytes]:
        """Start a worker with a plain command line; its pipes are the caller's business."""
        process: subprocess.Popen[bytes] = subprocess.Popen(
            [sys.executable, *launch.MARKER, "-m", "snakepit_worker", *arguments],
            **self.popen_options(environment, options),
        )
        self._processes.append(process)
        return process

    def popen_options(
        self, environment: Mapping[str, str] | None, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        variables = {**os.environ, **self.environment, **(environment or {})}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return {"env": variables, **pipes, **options}

    def adopt(self, process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        """Take care of a process that a test started by itself."""
        self._processes.append(process)
        return process

    def run(
        self, *arguments: str, environment: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        options.setdefault("stdin", subprocess.DEVNULL)  # closing a pipe would stop a worker
        process = self.popen(*arguments, environment=environment, **options)
        stdout, stderr = process.communicate(timeout=LIMIT)
        return subprocess.CompletedProcess(
            arguments, process.returncode, (stdout or b"").decode(), (stderr or b"").decode()
        )

    def alive(self) -> list[int]:
        """Ids of all processes that come from this test, in whatever group they are."""
        mark = f"{_MARK}={self.environment[_MARK]}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))  # a zombie has no environment any more
        return found

    def all_gone(self) -> None:
        """Wait until no process of this test is left."""
        wait_until(lambda: not self.alive(), "the end of every process")

    def close(self) -> None:
        """Stop what still runs; fail when a worker, or what it started, does not end by itself."""
        processes = [*(worker.process for worker in self._launched), *self._processes]
        problems = [problem for process in processes if (problem := _stop(process))]
        try:
            wait_until(lambda: not self.alive(), "the end of every process", _STOP_LIMIT)
        except TimeoutError:
            left = self.alive()
            problems.append(f"processes survived: {left}")
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for connection in self._connections:
            connection.close()
        for worker in self._launched:
            worker.stop()
        for process in self._processes:
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        assert not problems, problems

    def _options(
        self, adapters: tuple[str, ...], options: dict[str, Any], *, standalone: bool
    ) -> dict[str, Any]:
        environment = {**self.environment, **options.pop("environment", {})}
        host = None if standalone else self.host.address
        return {"adapters": adapters, "host": host, **options, "environment": environment}


def _stop(process: subprocess.Popen[bytes]) -> str | None:
    """Stop a process that still runs; what is wrong with the way it ended."""
    if process.poll() is not None:
        return None
    process.terminate()
    try:
        status = process.wait(_STOP_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return f"process {process.pid} did not stop"
    return f"process {process.pid} stopped with status {status}" if status else None


class Reader:
    """Reads a pipe to its end, beside the test."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        assert pipe is not None
        self._lines: list[bytes] = []
        self._thread = threading.Thread(target=lambda: self._lines.extend(pipe), daemon=True)
        self._thread.start()

    def lines(self) -> list[str]:
        """All lines, once the pipe has ended."""
        self._thread.join(LIMIT)
        return b"".join(self._lines).decode().splitlines()


def wait_until(condition: Callable[[], object], what: str, limit: float = LIMIT) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: When it never does.
    """
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            msg = f"waited in vain for {what}"
            raise TimeoutError(msg)
        time.sleep(0.01)


def shortest(measure: Callable[[], float], limit: float, tries: int = 5) -> float:
    """The shortest of several measured times, in seconds.

    For limits that count: what a busy machine adds to one, it does not add to each.

    Args:
        measure: Does something, and says how long that took.
        limit: No further try once one was shorter.
        tries: How many there may be.
    """
    best = math.inf
    while tries and best >= limit:
        best = min(best, measure())
        tries -= 1
    return best


class HealthOf:
    """The standard health service of a worker."""

    def __init__(self, connection: Connection) -> None:
        self._stub: Any = health_pb2_grpc.HealthStub(connection.channel)

    def __call__(self, service: str = "") -> str:
        request = health_pb2.HealthCheckRequest(service=service)
        response = self._stub.Check(request, timeout=LIMIT)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)

    def becomes(self, wanted: str, service: str = "") -> None:
        """Wait for a status; the worker reports each change."""
        request = health_pb2.HealthCheckRequest(service=service)
        changes = self._stub.Watch(request, timeout=LIMIT)
        for change in changes:
            if health_pb2.HealthCheckResponse.ServingStatus.Name(change.status) == wanted:
                changes.cancel()
                return


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("SNAKEPIT_"):
            monkeypatch.delenv(name)


@pytest.fixture
def host() -> Iterator[StandInHost]:
    with StandInHost() as stand_in:
        yield stand_in


@pytest.fixture
def gate() -> Iterator[Gate]:
    opened = Gate()
    yield opened
    opened.close()


@pytest.fixture
def workers(gate: Gate, host: StandInHost, tmp_path: Path) -> Iterator[Workers]:
    started = Workers(gate, host, tmp_path)
    yield started
    gate.close()
    started.close()


@pytest.fixture
def ready_file(tmp_path: Path) -> Path:
    return tmp_path / "snakepit_ready_default_worker_1_7"
