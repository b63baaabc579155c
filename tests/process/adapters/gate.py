"""Waiting for the test: the other end of its ``Gate``."""

from __future__ import annotations

import asyncio
import os
import socket

_kept: list[socket.socket] = []


def _port() -> int:
    return int(os.environ["GATE"])


def announce(label: str, text: object = "") -> socket.socket:
    """Say that this place is reached, and go on; the connection ends with the process."""
    connection = socket.create_connection(("127.0.0.1", _port()))
    connection.sendall(f"{label} {text}\n".encode())
    _kept.append(connection)
    return connection


def wait(label: str, text: object = "") -> None:
    """Say that this place is reached, and wait in a system call."""
    connection = announce(label, text)
    connection.recv(1)
    connection.close()


async def wait_async(label: str) -> None:
    """The same on the event loop."""
    reader, writer = await asyncio.open_connection("127.0.0.1", _port())
    try:
        writer.write(f"{label}\n".encode())
        await reader.read(1)
    finally:
        writer.close()
