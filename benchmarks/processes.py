"""The processes of a benchmark: host, servers, client and others, each started when first needed.

Each server has one core, the same one for all, and the rest of the machine is for the others.  One
core is what one event loop can use; and left to the scheduler, two processes that talk to each
other fall into one of several rhythms, which differ by a factor of two.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol

import psutil

from benchmarks.children import STOP_TIMEOUT, Client, Floor, Sessions
from snakepit_worker import launch
from snakepit_worker.testing import Connection, StandInHost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Self

    from benchmarks.load import Order

__all__ = ["Processes", "Server"]

_ADAPTER: Final = "benchmarks.adapter.Bench"
_FOREIGN: Final = "benchmarks.adapter.Foreign"
_IDLE: Final = 0.3
"""Seconds from readiness to the look at the memory."""
_BEATS: Final = ("Heartbeat", "Ping", "InitializeSession", "RegisterTools")
"""What the worker sends its host every two seconds, calls or not, and once for each session."""


class Server(Protocol):
    """A process that serves."""

    @property
    def pid(self) -> int:
        """Process id."""

    @property
    def address(self) -> str:
        """``host:port`` where it serves."""

    def stop(self, timeout: float = STOP_TIMEOUT) -> int:
        """End it, by force after so many seconds."""


class Processes:
    """What takes part, until the end of the ``with`` block.

    Attributes:
        calls: Calls made to workers so far.
        host_rpcs: RPCs that came to the host during these calls, heartbeats aside.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.host_rpcs = 0
        self._workers: list[Server] = []
        self._stack = ExitStack()
        self._cores = sorted(os.sched_getaffinity(0))

    def __enter__(self) -> Self:
        os.sched_setaffinity(0, self._cores[1:] or self._cores)
        self._stack.callback(os.sched_setaffinity, 0, self._cores)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def host(self) -> StandInHost:
        """The host, in threads of this process, which otherwise waits while others work."""
        return self._stack.enter_context(StandInHost())

    @cached_property
    def floor(self) -> Server:
        """The floor."""
        return self._kept(self.start_floor())

    @cached_property
    def floor_again(self) -> Server:
        """The floor, in a second process."""
        return self._kept(self.start_floor())

    @cached_property
    def worker(self) -> Server:
        """The worker, in the host's pool."""
        return self._pooled()

    @cached_property
    def worker_again(self) -> Server:
        """The worker, in a second process."""
        return self._pooled()

    @cached_property
    def archiving_worker(self) -> Server:
        """The worker with an archive, a new file of SQLite."""
        return self._pooled("--archive", f"sqlite:///{self._folder}/archive.db")

    def start_floor(self) -> Server:
        """Start a floor that the caller stops.

        Raises:
            ChildError: When it does not serve.
        """
        with self._on_the_servers_core():
            return Floor(self._environment)

    def start_worker(self, *adapters: str, arguments: Sequence[str] = ()) -> Server:
        """Start a worker that the caller stops.

        Args:
            *adapters: What it serves beside the benchmarked adapter.
            arguments: More flags.

        Raises:
            StartError: When it does not get ready.
        """
        host = self.host.address  # started before, on the other cores
        with self._on_the_servers_core():
            return launch.start(
                adapters=[_ADAPTER, *adapters],
                host=host,
                arguments=arguments,
                environment=self._environment,
            )

    def load(self, server: Server, order: Order) -> dict[str, float]:
        """Put load on a server.

        Args:
            server: Which.
            order: What to call; its address is the server's.

        Returns:
            ``cpu``, the server's processor time for one item in microseconds; ``p50``, a call's
            median duration in microseconds; ``rate``, items per second.

        Raises:
            ChildError: When a call goes wrong.
        """
        rpcs = self._host_rpcs()
        cpu = _cpu_seconds(server.pid)
        outcome = self._client.run(server.address, order)
        cpu = _cpu_seconds(server.pid) - cpu
        if server in self._workers:
            self.calls += order.calls
            self.host_rpcs += self._host_rpcs() - rpcs
        return {
            "cpu": cpu / order.items * 1e6,
            "p50": outcome.median * 1e6,
            "rate": order.items / outcome.seconds,
        }

    def boot(self, start: Callable[[], Server]) -> dict[str, float]:
        """Start a server, look at it, and end it.

        Args:
            start: Starts it, and returns when it serves.

        Returns:
            ``ready``, milliseconds until it serves; ``cpu``, its processor time by then, in
            milliseconds; ``memory``, its resident MiB a moment later.

        Raises:
            ChildError: When it is a floor that does not get ready.
            StartError: When it is a worker that does not.
        """
        begun = time.perf_counter()
        server = start()
        ready = time.perf_counter() - begun
        try:
            cpu = _cpu_seconds(server.pid)
            time.sleep(_IDLE)
            memory = psutil.Process(server.pid).memory_info().rss
        finally:
            server.stop(timeout=0)
        return {"ready": ready * 1e3, "cpu": cpu * 1e3, "memory": memory / 2**20}

    def live(self, sessions: int) -> dict[str, float]:
        """Let sessions live and end in a store.

        Args:
            sessions: How many at once.

        Returns:
            As `benchmarks.children.Sessions.run`.

        Raises:
            ChildError: When its process has ended.
        """
        return self._sessions.run(sessions)

    @cached_property
    def _folder(self) -> str:
        temporary = tempfile.TemporaryDirectory(prefix="snakepit-benchmarks-")
        return self._stack.enter_context(temporary)

    @cached_property
    def _environment(self) -> dict[str, str]:
        return {
            # Compiled once, at the warm-up, as an installed package is.
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": self._folder,
            # Those that are killed leave their own temporary folders behind.
            "TMPDIR": self._folder,
            "SNAKEPIT_LOG_LEVEL": "error",  # as the host sets it
        }

    @cached_property
    def _client(self) -> Client:
        client = Client(self._environment)
        self._stack.callback(client.stop)
        return client

    @cached_property
    def _sessions(self) -> Sessions:
        with self._on_the_servers_core():
            sessions = Sessions(self._environment)
        self._stack.callback(sessions.stop)
        return sessions

    def _pooled(self, *arguments: str) -> Server:
        """A worker that stays, as the host's pool starts it."""
        worker = self._kept(self.start_worker(_FOREIGN, arguments=arguments))
        with Connection(worker.address) as connection:
            connection.greet()
        self._workers.append(worker)
        return worker

    def _kept(self, server: Server) -> Server:
        self._stack.callback(server.stop)
        return server

    @contextmanager
    def _on_the_servers_core(self) -> Iterator[None]:
        """Where a process is started is where it stays."""
        others = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._cores[:1])
        try:
            yield
        finally:
            os.sched_setaffinity(0, others)

    def _host_rpcs(self) -> int:
        received = self.host.received
        return received.total() - sum(received[rpc] for rpc in _BEATS)


def _cpu_seconds(pid: int) -> float:
    """Processor time of all threads, from Linux's clock of the process, which counts nanoseconds.

    The numbers in ``/proc`` come in steps of 10 ms, the work of a few dozen calls.
    """
    return time.clock_gettime((~pid << 3) | 2)
