"""Starting and stopping a worker process from Python, the way the host does it.

Used by the demo, the tests and the benchmarks::

    with launch.start(adapters=["dspy"]) as worker:
        print(worker.address)
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Self

from snakepit_worker.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["MARKER", "WorkerProcess", "spawn", "start"]

MARKER: Final = ("-X", "snakepit=grpc_server.py")
"""An option that the interpreter ignores; the host finds its workers by the text in it."""

_ANNOUNCED: Final = re.compile(r"GRPC_READY:(\d+)")
_TAIL_LINES: Final = 200
_POLL: Final = 0.005
_READY_TIMEOUT: Final = 30.0
"""Seconds from spawn to readiness, the host's own limit (interop 1.5)."""
_STOP_TIMEOUT: Final = 6.0
"""Seconds from SIGTERM to SIGKILL, the host's own limit (interop 1.7)."""


class WorkerProcess:
    """A worker in a process group of its own.

    Build one with `start`.

    Attributes:
        process: The process.
        port: Where it serves, on 127.0.0.1.
        ready_after: Seconds from spawn to readiness.
        announced: The port that it has printed, 0 before.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.port = 0
        self.ready_after = 0.0
        self.announced = 0
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        if process.stdout is None:  # pragma: no cover - start() asks for pipes
            msg = "the process needs a pipe as stdout"
            raise ValueError(msg)
        self._drain = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        self._drain.start()
        # A program that forgets to stop its worker takes it along when it ends.
        atexit.register(self._signal, signal.SIGKILL)

    @property
    def pid(self) -> int:
        """Process id, which is the id of its group too."""
        return self.process.pid

    @property
    def address(self) -> str:
        """``host:port`` where it serves."""
        return f"127.0.0.1:{self.port}"

    def output(self) -> str:
        """The last lines that it wrote, stdout and stderr together as the host sees them.

        Complete once the process has ended.
        """
        if self.process.poll() is not None:
            self._drain.join(timeout=1.0)  # a surviving child may still hold the pipe
        return "".join(self._tail)

    def terminate(self) -> None:
        """Send SIGTERM to the group, without waiting."""
        self._signal(signal.SIGTERM)

    def wait(self, timeout: float = _STOP_TIMEOUT) -> int:
        """Wait for the end; the exit status, negative for a signal.

        Args:
            timeout: Seconds.

        Raises:
            subprocess.TimeoutExpired: When it takes longer.
        """
        return self.process.wait(timeout)

    def stop(self, timeout: float = _STOP_TIMEOUT) -> int:
        """End the process and its group: SIGTERM, and SIGKILL when that is not enough.

        Args:
            timeout: Seconds between the two.

        Returns:
            The exit status, negative for a signal.
        """
        self.terminate()
        try:
            status = self.wait(timeout)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            status = self.wait()
        self._signal(signal.SIGKILL)  # whoever of the group has survived its leader
        atexit.unregister(self._signal)
        self._drain.join(timeout=1.0)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _read(self, stdout: IO[bytes]) -> None:
        with contextlib.suppress(ValueError):  # closed by stop()
            for data in stdout:
                line = data.decode("utf-8", "replace")
                self._tail.append(line)
                # Anywhere in a line: what adapters print goes into the same pipe.
                if self.announced == 0 and (found := _ANNOUNCED.search(line)):
                    self.announced = int(found[1])


def start(  # noqa: PLR0913 - the parts of a command line
    *,
    adapters: Sequence[str] = (),
    host: str | None = None,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    worker_id: str = "default_worker_1",
    python: str = sys.executable,
    ready_timeout: float = _READY_TIMEOUT,
) -> WorkerProcess:
    """Start a worker and wait until it serves.

    With a host it is started as the host starts it: readiness through a file, stdin a pipe.
    Without one it serves standalone, and its port is read from stdout.

    Args:
        adapters: Entry-point names or dotted class paths.
        host: ``host:port`` of the host's gRPC server.
        arguments: More flags.
        environment: Variables beside those of this process.
        worker_id: The host's name for the worker.
        python: Interpreter to use.
        ready_timeout: Seconds to wait.

    Raises:
        StartError: When it ends or does not get ready; the message holds what it wrote.
    """
    with tempfile.TemporaryDirectory(prefix="snakepit-launch-") as folder:
        ready = Path(folder) / f"snakepit_ready_{worker_id}_{os.getpid()}"
        worker = spawn(
            adapters=adapters,
            host=host,
            arguments=arguments,
            environment=environment,
            ready_file=ready if host else None,
            python=python,
        )
        begun = time.monotonic()
        try:
            while worker.port == 0:
                worker.port = _port(ready) if host else worker.announced
                if worker.port == 0:
                    _check(worker, begun + ready_timeout)
                    time.sleep(_POLL)
        except BaseException:
            worker.stop(timeout=0)
            raise
        worker.ready_after = time.monotonic() - begun
    return worker


def spawn(  # noqa: PLR0913 - as start()
    *,
    adapters: Sequence[str] = (),
    host: str | None = None,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    ready_file: Path | None = None,
    python: str = sys.executable,
) -> WorkerProcess:
    """Start a worker without waiting for it.

    Args:
        adapters: As for `start`.
        host: As for `start`.
        arguments: As for `start`.
        environment: As for `start`.
        ready_file: Where the worker shall report its port.
        python: As for `start`.
    """
    command = [python, *MARKER, "-m", "snakepit_worker"]
    command += [part for adapter in adapters for part in ("--adapter", adapter)]
    command += ["--port", "0", *arguments]
    if host:
        command += ["--elixir-address", host]
    command += ["--snakepit-run-id", "launch0", "--snakepit-instance-name", "launch"]
    variables = {**os.environ, "SNAKEPIT_PROCESS_GROUP": "1", **(environment or {})}
    variables.pop("SNAKEPIT_READY_FILE", None)
    if ready_file is not None:
        variables["SNAKEPIT_READY_FILE"] = str(ready_file)
    process = subprocess.Popen(
        command,
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # As a leader from the start, it can be signalled as a group before it says a word.
        start_new_session=True,
    )
    return WorkerProcess(process)


def _port(ready_file: Path) -> int:
    try:
        text = ready_file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return 0
    if not text.isdigit():
        return 0
    ready_file.unlink()
    return int(text)


def _check(worker: WorkerProcess, deadline: float) -> None:
    status = worker.process.poll()
    if status is not None:
        msg = f"the worker ended with status {status} before it was ready:\n{worker.output()}"
        raise StartError(msg)
    if time.monotonic() > deadline:
        msg = f"the worker did not get ready in time:\n{worker.output()}"
        raise StartError(msg)
