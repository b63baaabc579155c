"""One loop that keeps the worker's session on the host alive and notices when the host is gone."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc
import grpc.aio

from snakepit_worker.telemetry.logging import logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from snakepit_worker.host.client import HostClient
    from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb

__all__ = ["KeepAlive", "Rhythm"]

_NO_ANSWER: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_STALL: Final = 0.5
"""Seconds by which a beat may overrun its own limit before the delay counts as ours."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When to beat, in seconds.

    Attributes:
        interval: Pause after each beat.
        timeout: Limit of one beat.
        max_missed: Beats missed in a row that mean a lost host.
        initial_delay: Pause before the first beat.
        jitter: Largest random addition to the pause.
    """

    interval: float = 2.0
    timeout: float = 10.0
    max_missed: int = 3
    initial_delay: float = 0.0
    jitter: float = 0.0


class KeepAlive:
    """Heartbeats for one session: the one that the host made for this worker.

    The host's own check stops a worker whose session it has forgotten, so a session that is not
    known any more is made again.  Until the host names the session, pings take its place.

    Args:
        host: The host.
        rhythm: When to beat.
        lost: Called when the host is lost; says whether that is the end.
    """

    def __init__(self, host: HostClient, rhythm: Rhythm, lost: Callable[[], bool]) -> None:
        self._host = host
        self._rhythm = rhythm
        self._lost = lost
        self._session: pb.InitializeSessionRequest | None = None

    def watch(self, session: pb.InitializeSessionRequest) -> None:
        """Keep this session alive from now on.  The first one counts: later ones are users'."""
        if self._session is None:
            self._session = session

    async def run(self) -> None:
        """Beat until cancelled, or until the host is lost."""
        rhythm = self._rhythm
        await asyncio.sleep(rhythm.initial_delay)
        missed = 0
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            try:
                await self._beat()
                missed = 0
            except grpc.aio.AioRpcError as error:
                # A beat that this process was too busy to receive says nothing about the host.
                if loop.time() - begun <= rhythm.timeout + _STALL:
                    missed += 1
                logger().warning("heartbeat missed", missed=missed, code=error.code().name)
            if missed >= max(1, rhythm.max_missed):
                missed = 0
                if self._lost():
                    return
            await asyncio.sleep(rhythm.interval + random.uniform(0, rhythm.jitter))  # noqa: S311

    async def _beat(self) -> None:
        session = self._session
        if session is None:
            await self._host.ping("heartbeat", self._rhythm.timeout)
        elif not await self._host.heartbeat(session.session_id, self._rhythm.timeout):
            logger().info("the host forgot the session of this worker; making it again")
            try:
                await self._host.initialize_session(session)
            except grpc.aio.AioRpcError as error:
                if error.code() in _NO_ANSWER:
                    raise
                # It is there, and refuses: a full session store, for one.
                logger().warning("the host refuses the session", reason=error.details())
