"""The benchmark's own processes, seen from the one that measures: floor, client and sessions.

Each ends when its standard input does, so none is left behind, however this process ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import msgspec

from benchmarks.load import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.load import Order

__all__ = ["STOP_TIMEOUT", "ChildError", "Client", "Floor", "Sessions"]

STOP_TIMEOUT: Final = 5.0
"""Seconds that a process gets to end by itself."""


class ChildError(Exception):
    """A process did not do its part; the message says what is missing."""


class _Child:
    """A module of this package, running.

    Args:
        module: Its name.
        environment: Variables beside those of this process.

    Attributes:
        pid: Process id.
    """

    def __init__(self, module: str, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A Ctrl-C is for this process, which then ends the others.
            start_new_session=True,
        )
        self._module = module
        self.pid = self._process.pid

    def stop(self, timeout: float = STOP_TIMEOUT) -> int:
        """End the process, by force after so many seconds.

        Args:
            timeout: Seconds.

        Returns:
            The exit status, negative for a signal.
        """
        try:
            self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        return self._process.returncode

    def _tell(self, line: bytes) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()

    def _hear(self) -> bytes:
        """The next line.

        Raises:
            ChildError: When the process has ended.
        """
        line = self._process.stdout.readline() if self._process.stdout is not None else b""
        if not line:
            raise ChildError(f"{self._module} ended with status {self.stop()}")
        return line


class Floor(_Child):
    """The floor.

    Args:
        environment: Variables beside those of this process.

    Raises:
        ChildError: When it does not serve.

    Attributes:
        address: ``host:port`` where it serves.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__("benchmarks.floor", environment)
        self.address = f"127.0.0.1:{int(self._hear())}"


class Client(_Child):
    """The client that puts load on servers.

    Args:
        environment: Variables beside those of this process.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__("benchmarks.load", environment)

    def run(self, address: str, order: Order) -> Outcome:
        """Make calls and wait for their end.

        Args:
            address: ``host:port`` of the server.
            order: Which calls.

        Raises:
            ChildError: When one of them goes wrong.
        """
        self._tell(msgspec.json.encode((address, order)))
        outcome = msgspec.json.decode(self._hear(), type=Outcome)
        if outcome.error:
            raise ChildError(f"{order.tool}: {outcome.error}")
        return outcome


class Sessions(_Child):
    """A store of sessions without a server around it.

    Args:
        environment: Variables beside those of this process.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__("benchmarks.sessions", environment)

    def run(self, sessions: int) -> dict[str, float]:
        """Let sessions live and end.

        Args:
            sessions: How many at once.

        Returns:
            As `benchmarks.sessions.measure`, and ``start``: what was left of the resident MiB when
            the process had warmed up with sessions that came and went.

        Raises:
            ChildError: When the process has ended.
        """
        self._tell(b"%d" % sessions)
        return msgspec.json.decode(self._hear(), type=dict[str, float])
