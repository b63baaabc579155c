"""Lines to stderr that never block the thread that writes them.

The host merges stdout and stderr into one pipe of 64 KiB and may stop reading it.  So lines go
into a bounded queue, and a thread of its own writes them: a full queue drops lines and counts
them, a closed pipe ends the writing and nothing else.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
import time
from collections import deque
from typing import Any, Final

__all__ = ["LineStream", "StderrWriter"]

_QUEUE_BYTES: Final = 1 << 20


class StderrWriter:
    """Writes to a file descriptor from a thread of its own.

    Args:
        fd: Descriptor to write to.
        max_bytes: Bytes that may wait; what comes on top is dropped and counted.
    """

    def __init__(self, fd: int = 2, max_bytes: int = _QUEUE_BYTES) -> None:
        self._fd = fd
        self._max_bytes = max_bytes
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = 0
        self._broken = False
        self._writing = False
        self._is_child = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def write(self, text: str) -> None:
        """Queue text; drop it when the reader does not keep up."""
        data = text.encode("utf-8", "replace")
        if self._is_child:
            with contextlib.suppress(OSError):
                _write_all(self._fd, data)
            return
        with self._changed:
            if self._broken:
                return
            if self._bytes + len(data) > self._max_bytes:
                self._dropped += 1
                return
            self._waiting.append(data)
            self._bytes += len(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="stderr", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout: float = 0.5) -> bool:
        """Wait until everything queued is written.

        Args:
            timeout: Seconds to wait at most, since the reader may have stalled.

        Returns:
            Whether all of it was written.
        """
        end = time.monotonic() + timeout
        with self._changed:
            while (self._waiting or self._writing) and not self._broken:
                left = end - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def _forked(self) -> None:
        """A forked child has neither our thread nor time to start one: it writes by itself."""
        self._is_child = True
        self._changed = threading.Condition()
        self._waiting.clear()
        self._writing = False

    def _run(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                while not self._waiting:
                    self._changed.wait()
                data = b"".join(self._waiting)
                self._waiting.clear()
                taken = len(data)  # which count until they are written
                self._writing = True
                if self._dropped:
                    count = self._dropped
                    said = f"({count} log writes dropped: written faster than stderr is read)\n"
                    data += said.encode()
                    self._dropped = 0
            try:
                _write_all(self._fd, data)
                with self._changed:
                    self._bytes -= taken
            except OSError:
                with self._changed:
                    self._broken = True
                    self._waiting.clear()
                    self._writing = False
                    self._changed.notify_all()
                return


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


class _Bytes(io.RawIOBase):
    """The binary side of a `LineStream`."""

    def __init__(self, stream: LineStream) -> None:
        super().__init__()
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401 - any buffer
        return self._stream.write(bytes(data).decode("utf-8", "replace"))


class LineStream(io.TextIOBase):
    """A text stream over a `StderrWriter`, in place of ``sys.stdout`` and ``sys.stderr``.

    Frameworks print; what they print must neither reach the host's stdout nor block a thread.
    Whole lines are handed on at once, the rest with the next newline or flush.
    """

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, writer: StderrWriter) -> None:
        super().__init__()
        self._writer = writer
        self._partial = threading.local()

    def writable(self) -> bool:
        """True."""
        return True

    @property
    def buffer(self) -> io.RawIOBase:
        """The same for bytes."""
        return _Bytes(self)

    def fileno(self) -> int:
        """The descriptor of stderr, for libraries that write to it themselves."""
        return 2

    def write(self, text: str) -> int:
        """Queue the complete lines of ``text``; the number of characters taken."""
        buffered = getattr(self._partial, "text", "") + text
        lines, newline, rest = buffered.rpartition("\n")
        if newline:
            self._writer.write(lines + newline)
        if len(rest) > _QUEUE_BYTES // 16:  # a progress bar without newlines must not pile up
            self._writer.write(rest)
            rest = ""
        self._partial.text = rest
        return len(text)

    def flush(self) -> None:
        """Queue what is left without a newline."""
        rest = getattr(self._partial, "text", "")
        if rest:
            self._partial.text = ""
            self._writer.write(rest)
