"""How the host looks after a worker: one heartbeat monitor, one telemetry stream."""

from __future__ import annotations

import contextlib
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc

from snakepit_worker.testing.deadlines import truncated
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from snakepit_worker.wire.generated.snakepit_bridge_pb2_grpc import BridgeServiceStub

__all__ = ["HeartbeatMonitor", "Supervision", "TelemetryStream", "is_accepted"]

_LIMIT: Final = 20.0
"""Seconds that `wait_for` waits unless told otherwise."""
_MARGIN: Final = 0.001
"""Seconds by which the monitor gives up before the deadline, and never counts to three for it."""
_EVENTS: Final = frozenset(
    (
        *("python.call.start", "python.call.stop", "python.call.exception"),
        *("python.memory.sampled", "python.cpu.sampled", "python.gc.completed"),
        "python.error.occurred",
        *("tool.execution.start", "tool.execution.stop", "tool.execution.exception"),
        "tool.result_size",
    )
)
_MEASUREMENTS: Final = frozenset(
    [
        "duration",
        "duration_ms",
        "bytes",
        "system_time",
        "queue_depth",
        "queue_time",
        "available_workers",
        "busy_workers",
        "total_workers",
        "worker_count",
        "lifetime",
        "total_commands",
        "command_count",
        "downtime",
        "restart_count",
        "retry_count",
        "request_size",
        "response_size",
        "message_size",
        "sequence_number",
        "message_count",
        "network_time",
        "uptime",
        "call_count",
        "affinity_duration",
        "commands_with_affinity",
        "rss_bytes",
        "vms_bytes",
        "cpu_percent",
        "collected",
        "generation",
        "latency_ms",
        "count",
        "python_pid",
    ]
)


@dataclass(frozen=True, slots=True)
class Supervision:
    """How a host looks after its workers; the defaults are the host's own.

    Attributes:
        heartbeat_interval: Seconds from one heartbeat to the next.
        heartbeat_timeout: Seconds that one may take.
        dependent: Whether the first bad heartbeat stops the worker.
        telemetry: Whether the stream is switched on.
        telemetry_deadline: Seconds after which the stream ends; it is not opened again.
    """

    heartbeat_interval: float = 2.0
    heartbeat_timeout: float = 10.0
    dependent: bool = True
    telemetry: bool = True
    telemetry_deadline: float = 5.0


class HeartbeatMonitor:
    """Heartbeats for the session of a worker, and the verdict on each (interop 6.3).

    Args:
        stub: The worker.
        session_id: Its session.
        supervision: When to beat.
        failed: Called at the first bad verdict, which ends the monitor; without it goes on.

    Attributes:
        beats: Heartbeats answered, or given up.
        failures: What was wrong with the bad ones.
    """

    def __init__(
        self,
        stub: BridgeServiceStub,
        session_id: str,
        supervision: Supervision,
        failed: Callable[[], object] | None = None,
    ) -> None:
        self.beats = 0
        self.failures: list[str] = []
        self._stub = stub
        self._session_id = session_id
        self._supervision = supervision
        self._failed = failed
        self._stopped = threading.Event()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="host-heartbeats", daemon=True)
        self._thread.start()

    def wait_for(self, beats: int, timeout: float = _LIMIT) -> None:
        """Wait until there have been so many heartbeats.

        Args:
            beats: How many.
            timeout: Seconds.

        Raises:
            TimeoutError: When there have not.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self.beats >= beats, timeout):
                raise TimeoutError(f"{self.beats} heartbeats, expected {beats}")

    def stop(self) -> None:
        """Begin no further heartbeat, and take no further verdict."""
        self._stopped.set()

    def join(self) -> None:
        """Wait for the end; one that is still under way has to be ended by its channel."""
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            verdict = self._beat()
            if self._stopped.is_set():
                return
            with self._changed:
                self.beats += 1
                if verdict:
                    self.failures.append(verdict)
                self._changed.notify_all()
            if verdict and self._failed is not None:
                self._failed()
                return
            self._stopped.wait(self._supervision.heartbeat_interval)

    def _beat(self) -> str:
        """What is wrong, empty when nothing is."""
        timeout = self._supervision.heartbeat_timeout
        patience = timeout - _MARGIN
        late = f"no answer within {patience:g} s"
        try:
            request = pb.HeartbeatRequest(session_id=self._session_id)
            call = self._stub.Heartbeat.future(request, timeout=truncated(timeout))
            answer = call.result(patience)
        except grpc.FutureTimeoutError:
            return late
        except (grpc.FutureCancelledError, ValueError):  # the latter before it was under way
            return "the connection was closed"
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return late
            return f"{error.code().name}: {error.details()}"
        return "" if answer.session_valid else "session_valid is false"


class TelemetryStream:
    """The one stream of events that the host opens for a worker (interop 7).

    Args:
        stub: The worker.
        supervision: How long it stays open, and whether it is switched on.

    Attributes:
        events: What came, and what the host would pass on.
        dropped: What came, and what the host would drop without a word.
        status: How the stream ended, None while it is open.
    """

    def __init__(self, stub: BridgeServiceStub, supervision: Supervision) -> None:
        self.events: list[pb.TelemetryEvent] = []
        self.dropped: list[pb.TelemetryEvent] = []
        self.status: grpc.StatusCode | None = None
        self._changed = threading.Condition()
        # The host never closes its side: the iterator ends only when the stream has.
        self._controls: queue.SimpleQueue[pb.TelemetryControl | None] = queue.SimpleQueue()
        self.send(pb.TelemetryControl(toggle=pb.TelemetryToggle(enabled=supervision.telemetry)))
        self._call = stub.StreamTelemetry(
            iter(self._controls.get, None), timeout=truncated(supervision.telemetry_deadline)
        )
        threading.Thread(target=self._read, name="host-telemetry", daemon=True).start()

    def send(self, control: pb.TelemetryControl) -> None:
        """Send a control message.

        Args:
            control: Toggle, sampling or filter.
        """
        self._controls.put(control)

    def wait_for(self, name: str, count: int = 1, timeout: float = _LIMIT) -> None:
        """Wait until so many events of a name have come.

        Args:
            name: Dotted name.
            count: How many.
            timeout: Seconds.

        Raises:
            TimeoutError: When they have not.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._count(name) >= count, timeout):
                raise TimeoutError(f"{self._count(name)} events {name}, expected {count}")

    def wait_until_ended(self, timeout: float = _LIMIT) -> grpc.StatusCode:
        """Wait for the end of the stream; its status.

        Args:
            timeout: Seconds.

        Raises:
            TimeoutError: When it goes on.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self.status is not None, timeout):
                raise TimeoutError("the telemetry stream is still open")
        return self.status or grpc.StatusCode.OK

    def _count(self, name: str) -> int:
        return sum(".".join(event.event_parts) == name for event in self.events)

    def _read(self) -> None:
        with contextlib.suppress(grpc.RpcError):
            self._call.initial_metadata()  # the host reads events only when it has seen these
            for event in self._call:
                with self._changed:
                    (self.events if is_accepted(event) else self.dropped).append(event)
                    self._changed.notify_all()
        with self._changed:
            self.status = self._call.code()
            self._changed.notify_all()
        self._controls.put(None)


def is_accepted(event: pb.TelemetryEvent) -> bool:
    """Whether the host passes an event on (interop 7.6).

    Args:
        event: The event; an unknown name, or one unknown measurement, and it is dropped.
    """
    return ".".join(event.event_parts) in _EVENTS and set(event.measurements) <= _MEASUREMENTS
