"""Waiting for a host that is not there yet."""

from __future__ import annotations

import asyncio
import socket
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final

import grpc
import pytest

from snakepit_worker.errors import Unavailable
from snakepit_worker.host import client
from snakepit_worker.host.client import HostClient
from snakepit_worker.testing import StandInHost

if TYPE_CHECKING:
    from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb

PAUSES: Final = [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


class LateHost(StandInHost):
    """Answers the last of so many pings."""

    def __init__(self, pings: int) -> None:
        super().__init__()
        self.pings = pings
        self.peers: set[str] = set()

    def Ping(self, request: pb.PingRequest, context: grpc.ServicerContext) -> pb.PingResponse:
        self.peers.add(context.peer())
        response = super().Ping(request, context)
        if self.received["Ping"] < self.pings:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        return response


async def wait(address: str, attempts: int) -> None:
    host = HostClient(address)
    try:
        await host.wait(attempts)
    finally:
        await host.close()


@pytest.mark.conforms(8, "D35")
def test_pauses_double_up_to_two_seconds_and_one_connection_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paused = []

    async def note(seconds: float) -> None:
        paused.append(seconds)

    own = SimpleNamespace(sleep=note, get_running_loop=asyncio.get_running_loop)
    monkeypatch.setattr(client, "asyncio", own)
    with LateHost(len(PAUSES) + 1) as host:
        asyncio.run(wait(host.address, 60))
        assert host.received["Ping"] == len(PAUSES) + 1
        assert len(host.peers) == 1
    assert paused == PAUSES


@pytest.mark.conforms(8)
def test_a_host_that_comes_up_late_is_noticed() -> None:
    """Left to itself gRPC would try to connect at most twice in this time."""
    connections = 0

    def refuse(listener: socket.socket) -> None:
        nonlocal connections
        while True:
            try:
                listener.accept()[0].close()
            except OSError:  # the test is over
                return
            connections += 1

    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        refusing = threading.Thread(target=refuse, args=(listener,))
        refusing.start()
        try:
            with pytest.raises(Unavailable, match=f"the host at {address} did not answer 6 pings"):
                asyncio.run(wait(address, 6))
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            refusing.join()
    assert connections >= 4
