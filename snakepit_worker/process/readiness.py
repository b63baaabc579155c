"""Telling the host that the worker serves (interop 1.5)."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["RealStdout", "announce"]


class RealStdout:
    """The process's real stdout, kept aside for what the process itself has to say.

    Everything else that is written to stdout, by whatever library or child process, goes to
    stderr from now on.
    """

    def __init__(self) -> None:
        self._fd = os.dup(1)
        os.dup2(2, 1)

    def write(self, text: str) -> None:
        """Write a line."""
        data = f"{text}\n".encode()
        while data:
            data = data[os.write(self._fd, data) :]


def announce(port: int, ready_file: str | None, stdout: RealStdout) -> None:
    """Report the port, once.

    Args:
        port: Where the worker serves now.
        ready_file: File that appears atomically, holding the port; the host deletes it.
        stdout: Takes ``GRPC_READY:<port>`` where no file is asked for.

    Raises:
        OSError: When the file cannot be written.
    """
    if ready_file is None:
        stdout.write(f"GRPC_READY:{port}")
        return
    path = Path(ready_file)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(str(port))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
