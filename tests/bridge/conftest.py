"""Workers in this process, spoken to over loopback as the host does."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pytest

from snakepit_worker.runtime import Worker
from snakepit_worker.settings import Settings
from snakepit_worker.telemetry.logging import is_of_a_peer
from snakepit_worker.testing import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from snakepit_worker import Adapter

T = TypeVar("T")

LIMIT: Final = 20.0
"""Seconds after which a test gives up.  No test passes by time."""
_THREADS: Final = ("bridge", "tool-", "main-thread", "default")


class Gate:
    """Where tools wait until the test lets them go on."""

    def __init__(self) -> None:
        self._arrived = threading.Semaphore(0)
        self._open = threading.Event()

    def wait(self) -> None:
        """For tools: say that this place is reached, and wait."""
        self._arrived.release()
        if not self._open.wait(LIMIT):
            raise TimeoutError

    async def wait_async(self) -> None:
        """The same on the event loop, which goes on meanwhile."""
        self._arrived.release()
        while not self._open.is_set():  # noqa: ASYNC110 - set by another thread
            await asyncio.sleep(0.001)

    def pass_by(self) -> None:
        """For tools: say that this place is reached."""
        self._arrived.release()

    def reached(self, count: int = 1) -> None:
        """Wait until so many more have come."""
        for _ in range(count):
            assert self._arrived.acquire(timeout=LIMIT), "nobody came"

    def reached_by_more(self) -> bool:
        """Whether somebody has come that nobody waited for."""
        return self._arrived.acquire(blocking=False)

    def open(self) -> None:
        """Let all go on, those too that have yet to come."""
        self._open.set()


class Served:
    """The workers of a test."""

    def __init__(self) -> None:
        self.expected_errors: tuple[str, ...] = ()
        """Beginnings of log messages at level error that the test provokes, beside that of failures
        which nobody foresaw."""
        self.worker: Worker
        """The last one started."""
        self.stack = ExitStack()

    def __call__(self, *adapters: Adapter, **settings: Any) -> Connection:
        """Start a worker in this process; a connection to it."""
        chosen = Settings(**{"grace_ms": 50, **settings})
        self.worker = self.stack.enter_context(Worker(chosen, adapters))
        return self.connect()

    def connect(self, session_id: str | None = None) -> Connection:
        """One more connection to the last worker."""
        return self.stack.enter_context(Connection(self.worker.address, session_id))


@pytest.fixture
def serve(caplog: pytest.LogCaptureFixture) -> Iterator[Served]:
    """Starts workers; when the test is over they leave no thread and have logged no error."""
    before = set(threading.enumerate())
    served = Served()
    with served.stack:
        yield served
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith(_THREADS):
            thread.join(LIMIT)
            assert not thread.is_alive(), f"{thread.name} survived its worker"
    records = [*caplog.get_records("call"), *caplog.get_records("teardown")]
    errors = [
        record.getMessage()
        for record in records
        if record.levelno >= logging.ERROR
        and not is_of_a_peer(record)
        and not record.getMessage().startswith(("call failed", *served.expected_errors))
    ]
    assert errors == []


@pytest.fixture
def session(worker: Worker) -> Iterator[Connection]:
    """A session of one test's own, in the worker of its module."""
    with Connection(worker.address) as connection:
        yield connection
        connection.call("session.close")


@pytest.fixture
def gate(serve: Served) -> Iterator[Gate]:
    """Opens before the worker is stopped."""
    del serve
    gate = Gate()
    yield gate
    gate.open()


def in_thread(function: Callable[[], T]) -> Callable[[], T]:
    """Run a function in a thread of its own; call what is returned for the result."""
    outcome: list[tuple[T | None, BaseException | None]] = []

    def run() -> None:
        try:
            outcome.append((function(), None))
        except BaseException as error:  # noqa: BLE001 - raised for whoever asks for the result
            outcome.append((None, error))

    thread = threading.Thread(target=run, name="in_thread", daemon=True)
    thread.start()

    def result() -> T:
        thread.join(LIMIT)
        assert outcome, "still running"
        value, error = outcome[0]
        if error is not None:
            raise error
        return value  # type: ignore[return-value]  # None only where T allows it

    return result
