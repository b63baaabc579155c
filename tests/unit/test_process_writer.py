"""Writing to stderr: never waiting for whoever reads it."""

from __future__ import annotations

import fcntl
import os
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_worker.telemetry.writer import LineStream, StderrWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

PIPE = 1 << 16
LONG = 20.0


class Pipe:
    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, PIPE)

    def read_all(self) -> str:
        """What is in it, after the last writer has gone."""
        os.close(self.writer)
        self.writer = -1
        with os.fdopen(self.reader, "rb") as file:
            self.reader = -1
            return file.read().decode()

    def close(self) -> None:
        for fd in (self.reader, self.writer):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


class Kept(StderrWriter):
    """Keeps what would be written."""

    def __init__(self) -> None:
        super().__init__(fd=-1)
        self.texts: list[str] = []

    def write(self, text: str) -> None:
        self.texts.append(text)


def test_what_is_written_arrives_in_order(pipe: Pipe) -> None:
    writer = StderrWriter(pipe.writer)
    for number in range(1000):
        writer.write(f"{number}\n")
    assert writer.flush(LONG)
    assert pipe.read_all() == "".join(f"{number}\n" for number in range(1000))


def test_threads_do_not_mix_their_lines(pipe: Pipe) -> None:
    writer = StderrWriter(pipe.writer)
    stream = LineStream(writer)

    def write(name: str) -> None:
        for _ in range(200):
            stream.write(name * 10)
            stream.write(f"{name * 10}\n")

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert writer.flush(LONG)
    lines = pipe.read_all().splitlines()
    assert sorted(lines) == sorted(name * 20 for name in "abcd" for _ in range(200))


def test_a_full_pipe_drops_and_counts_and_does_not_wait(pipe: Pipe) -> None:
    writer = StderrWriter(pipe.writer, max_bytes=1000)
    os.write(pipe.writer, b"x" * PIPE)
    for _ in range(50):  # ten of them fit, and those that the thread has taken away
        writer.write("y" * 99 + "\n")
    assert not writer.flush(0.0)
    os.read(pipe.reader, PIPE)
    assert writer.flush(LONG)
    writer.write("last\n")
    assert writer.flush(LONG)
    *lines, last = pipe.read_all().splitlines()
    kept = sum(line == "y" * 99 for line in lines)
    counted = [line for line in [*lines, last] if "dropped" in line]
    assert 10 <= kept <= 20
    assert sum(int(line.strip("(").split()[0]) for line in counted) == 50 - kept
    assert "last" in {*lines, last}


def test_a_text_larger_than_the_queue_is_counted_too(pipe: Pipe) -> None:
    writer = StderrWriter(pipe.writer, max_bytes=10)
    writer.write("much too long\n")
    writer.write("short\n")
    assert writer.flush(LONG)
    assert pipe.read_all() == "short\n(1 log writes dropped: written faster than stderr is read)\n"


def test_a_closed_pipe_ends_the_writing_and_nothing_else(pipe: Pipe) -> None:
    os.close(pipe.reader)
    pipe.reader = -1
    writer = StderrWriter(pipe.writer)
    for _ in range(3):
        writer.write("nobody reads this\n")
        assert writer.flush(LONG)


def test_flush_of_nothing_is_done_at_once() -> None:
    assert StderrWriter(-1).flush(0.0)


def test_what_cannot_be_encoded_is_replaced(pipe: Pipe) -> None:
    writer = StderrWriter(pipe.writer)
    writer.write("a \udcff b\n")
    assert writer.flush(LONG)
    assert pipe.read_all() == "a ? b\n"


@given(st.lists(st.text(st.sampled_from("ab\n"), max_size=4)))
def test_a_stream_loses_and_adds_nothing(parts: list[str]) -> None:
    kept = Kept()
    stream = LineStream(kept)
    assert [stream.write(part) for part in parts] == [len(part) for part in parts]
    assert all(text.endswith("\n") for text in kept.texts)
    stream.flush()
    assert "".join(kept.texts) == "".join(parts)


def test_a_progress_bar_without_newlines_does_not_pile_up() -> None:
    kept = Kept()
    stream = LineStream(kept)
    for _ in range(100_000):
        stream.write("\r50 %")
    assert len(kept.texts) > 1


def test_a_stream_is_what_print_and_libraries_expect() -> None:
    kept = Kept()
    stream = LineStream(kept)
    print("one", 2, file=stream, flush=True)
    stream.writelines(["three\n"])
    stream.buffer.write(b"four \xff\n")
    assert kept.texts == ["one 2\n", "three\n", "four \ufffd\n"]
    assert (stream.writable(), stream.readable(), stream.isatty()) == (True, False, False)
    assert (stream.encoding, stream.fileno(), stream.closed) == ("utf-8", 2, False)
