"""Heartbeats while tools compete for the interpreter."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import pytest

from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from tests.process.conftest import LIMIT, wait_until

if TYPE_CHECKING:
    from tests.process.conftest import Workers

COMPUTING: Final = "tests.process.adapters.computing.Computing"
TOOLS: Final = 20
BEATS: Final = 100
ALWAYS: Final = 5.0
"""Seconds; the host stops a worker whose answer takes ten."""
MOSTLY: Final = 1.0


@pytest.mark.conforms(29, 84)
def test_twenty_computing_tools_delay_neither_heartbeats_nor_pings(workers: Workers) -> None:
    _, connection = workers.start(
        COMPUTING, environment={"SNAKEPIT_WORKER_MAX_WORKERS": str(TOOLS)}
    )
    request = connection.request("computing.until_cancelled")
    calls = [connection.stub.ExecuteTool.future(request, timeout=LIMIT * 2) for _ in range(TOOLS)]
    wait_until(lambda: connection.call("worker.stats")["threads"]["busy"] == TOOLS, "the tools")
    beat = pb.HeartbeatRequest(session_id=connection.session_id)
    for ask in (
        lambda: connection.stub.Heartbeat(beat, timeout=LIMIT).session_valid,
        lambda: connection.stub.Ping(pb.PingRequest(message="?"), timeout=LIMIT).message,
    ):
        took = []
        for _ in range(BEATS):
            begun = time.monotonic()
            assert ask()
            took.append(time.monotonic() - begun)
        took.sort()
        assert took[-1] < ALWAYS
        assert took[int(0.99 * BEATS)] < MOSTLY
    for call in calls:
        call.cancel()
