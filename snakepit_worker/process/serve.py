"""The life of a worker process, from its first line to its exit status."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Final

from snakepit_worker.calls.threads import MainThread
from snakepit_worker.errors import StartError
from snakepit_worker.process.group import ProcessGroup
from snakepit_worker.process.memory import give_memory_back, keep_freed_memory
from snakepit_worker.process.readiness import announce
from snakepit_worker.process.signals import Signals
from snakepit_worker.process.watchdog import watch_parent
from snakepit_worker.telemetry.logging import logger
from snakepit_worker.wire.redaction import redact

if TYPE_CHECKING:
    from snakepit_worker.process.readiness import RealStdout
    from snakepit_worker.runtime import Worker
    from snakepit_worker.settings import Settings
    from snakepit_worker.telemetry.writer import StderrWriter

__all__ = ["Process", "enable_stack_dumps", "report"]

_LAST_WORDS: Final = 0.1
"""Seconds for log lines to leave when the process ends by force."""
_SUMMARY_LENGTH: Final = 1000
_CLOSING_TIME: Final = 1.0
"""Seconds that everything after the grace of running calls may take; then the process ends."""


class Process:
    """A worker that is this process.

    Args:
        settings: How to serve.
        writer: Where log lines go.
        stdout: The real stdout.
    """

    def __init__(self, settings: Settings, writer: StderrWriter, stdout: RealStdout) -> None:
        self._settings = settings
        self._writer = writer
        self._stdout = stdout
        self._group = ProcessGroup()
        self._worker: Worker | None = None
        self._serving = False
        self._stop_begun = threading.Event()

    def run(self) -> int:
        """Serve until told to stop; the exit status."""
        settings = self._settings
        if settings.ready_file is not None and settings.elixir_address is None:
            msg = (
                "a readiness file is asked for (SNAKEPIT_READY_FILE) but no host is named: give "
                "--elixir-address, so that a pooled worker never runs detached by accident"
            )
            raise StartError(msg, exit_status=2)
        if settings.process_group:
            self._group.lead()
        signals = Signals(self._signalled)
        gc.disable()  # nothing that a start makes is garbage
        if settings.elixir_address is not None and settings.heartbeat_dependent:
            watch_parent(self._orphaned)
        main_thread = MainThread(after_each=signals.install)
        # gRPC's fork handlers crash children that tools fork while calls are running.
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
        # Its C core writes to stderr by itself, in a format of its own.
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        keep_freed_memory()
        # grpc and all that needs it come only now: from here on a signal ends the process at once.
        from snakepit_worker.runtime import Worker  # noqa: PLC0415

        try:
            self._worker = Worker(
                settings,
                main_thread=main_thread,
                host_lost=self._stop,
                many_ended=give_memory_back,
            )
            port = self._worker.start()
            signals.install()  # an adapter's import may have set its own
            self._serving = True
            announce(port, settings.ready_file, self._stdout)
            gc.freeze()  # what is there now stays: no collection has to look at it
            gc.enable()
        except BaseException:
            self._group.end_members()
            raise
        logger().info("serving", port=port, adapters=list(settings.adapters), pid=os.getpid())
        main_thread.run()
        self._worker.join()
        logger().info("stopped")
        self._close()
        return 0

    def _signalled(self, number: int) -> None:
        if self._serving:
            self._stop()
        else:
            self._close()
            os._exit(128 + number)

    def _orphaned(self, reason: str) -> None:
        logger().error("orphaned; stopping", reason=reason)
        if self._serving:
            self._stop()
        else:
            self._close()
            os._exit(1)

    def _stop(self) -> None:
        """Begin to stop; the process ends in bounded time whatever tools and closers do.

        A second time: no more waiting for running calls.
        """
        grace = 0.0 if self._stop_begun.is_set() else self._settings.grace_ms / 1000
        self._stop_begun.set()
        timer = threading.Timer(grace + _CLOSING_TIME, self._end_hard)
        timer.daemon = True
        timer.start()
        if self._worker is not None:
            self._worker.request_stop()

    def _end_hard(self) -> None:
        logger().warning("something does not stop; ending the process")
        self._close(_LAST_WORDS)
        os._exit(0)

    def _close(self, flush_timeout: float = 0.5) -> None:
        self._writer.flush(flush_timeout)
        self._group.end_members()


def report(error: BaseException) -> int:
    """Say on stderr why the process could not start; the exit status.

    The cause comes last, since the host keeps only the last 4,096 bytes of output.
    """
    known = isinstance(error, StartError)
    cause = error.__cause__ if known else error
    if cause is not None:
        sys.stderr.write(redact("".join(traceback.format_exception(cause))))
    text = redact(str(error) if known else f"{type(error).__name__}: {error}")
    if len(text) > _SUMMARY_LENGTH:
        text = f"{text[:_SUMMARY_LENGTH]}…"
    sys.stderr.write(f"snakepit-worker: cannot start: {text}\n")
    sys.stderr.flush()
    return error.exit_status if isinstance(error, StartError) else 1


def enable_stack_dumps() -> None:
    """Print the stacks of all threads when the interpreter crashes."""
    with contextlib.suppress(OSError, ValueError):  # no stderr
        faulthandler.enable(file=2)
