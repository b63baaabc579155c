"""How the host learns the port: a file that appears at once, or a line; and nothing else."""

from __future__ import annotations

import ctypes
import os
import re
import struct
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import psutil
import pytest

from snakepit_worker.testing import Connection, StandInHost
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from tests.process.conftest import LIMIT, Reader, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import grpc

    from tests.process.conftest import Gate, Workers

NOISY = "tests.process.adapters.noisy.Noisy"
IMPORTING = "tests.process.adapters.importing.Importing"
HOST_LIMIT: Final = 30.0
"""Seconds after which the host kills what is not ready (interop 1.5)."""
MOMENTS = ("import", "start", "tool", "coroutine", "stop", "exit")
WAYS = ("print", "stderr", "descriptor", "child", "library")

TALKATIVE = """
from contextlib import contextmanager
from snakepit_worker import Adapter, tool
{at_import}
class Talkative(Adapter):
    name = "talkative"
    @contextmanager
    def lifespan(self):
        {at_start}
        yield
    @tool
    def go(self) -> None: ...
"""

_EVENTS: Final = {
    0x2: "modified",
    0x8: "written",
    0x40: "moved from",
    0x80: "moved to",
    0x100: "created",
    0x200: "deleted",
}


class Folder:
    """What happens in a folder, as the kernel (inotify) tells it."""

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._fd >= 0, os.strerror(ctypes.get_errno())
        assert libc.inotify_add_watch(self._fd, bytes(path), sum(_EVENTS)) >= 0
        self._seen: list[tuple[str, str]] = []

    def seen(self) -> list[tuple[str, str]]:
        """All events so far, as (what, name)."""
        try:
            data = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return self._seen
        while data:
            _, mask, _, length = struct.unpack_from("iIII", data)
            name = data[16 : 16 + length].rstrip(b"\0").decode()
            self._seen += [(what, name) for bit, what in _EVENTS.items() if mask & bit]
            data = data[16 + length :]
        return self._seen

    def close(self) -> None:
        os.close(self._fd)


@contextmanager
def watched(path: Path) -> Iterator[Folder]:
    folder = Folder(path)
    try:
        yield folder
    finally:
        folder.close()


@pytest.mark.conforms(3, 4, 5)
def test_the_file_appears_at_once_when_calls_are_answered_and_only_once(
    workers: Workers, host: StandInHost, ready_file: Path
) -> None:
    ready_file = ready_file.parent / "ready" / ready_file.name
    ready_file.parent.mkdir()
    environment = {"SNAKEPIT_READY_FILE": str(ready_file)}
    with watched(ready_file.parent) as folder:
        process = workers.popen("--elixir-address", host.address, environment=environment)
        wait_until(ready_file.exists, "readiness")
        text = ready_file.read_text()
        # The first attempt must do, without waiting for the server to come up.
        with Connection(f"127.0.0.1:{text.strip()}") as connection:
            reply = connection.stub.Ping(pb.PingRequest(message="at once"), timeout=LIMIT)
            assert "at once" in reply.message
            ready_file.unlink()
            connection.greet()
            connection.call("worker.info")
        process.terminate()
        assert process.wait(LIMIT) == 0
        events = folder.seen()
    assert re.fullmatch(r"\d+\s*", text)
    final = [what for what, name in events if name == ready_file.name]
    assert final == ["moved to", "deleted"]
    temporary = [what for what, name in events if name == f"{ready_file.name}.tmp"]
    assert temporary == ["created", "modified", "written", "moved from"]
    assert len(events) == 6


@pytest.mark.conforms(3)
def test_readiness_is_told_after_the_adapters_are_imported(
    workers: Workers, gate: Gate, host: StandInHost, ready_file: Path
) -> None:
    process = workers.popen(
        *("--adapter", IMPORTING, "--elixir-address", host.address),
        environment={"SNAKEPIT_READY_FILE": str(ready_file), "IMPORT_WAITS": "receiving"},
    )
    gate.arrive("import")
    assert not ready_file.exists()
    connections = psutil.Process(process.pid).net_connections("all")
    assert [c for c in connections if c.status == psutil.CONN_LISTEN] == []
    gate.open("import")
    wait_until(ready_file.exists, "readiness")


class HoldingHost(StandInHost):
    """Does not answer a ping before it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.may_answer = threading.Event(), threading.Event()

    def Ping(self, request: pb.PingRequest, context: grpc.ServicerContext) -> pb.PingResponse:
        self.asked.set()
        self.may_answer.wait(LIMIT)
        return super().Ping(request, context)


@pytest.mark.conforms(8)
def test_nothing_listens_before_the_host_has_answered(workers: Workers, ready_file: Path) -> None:
    with HoldingHost() as host:
        process = workers.popen(
            *("--adapter", IMPORTING, "--elixir-address", host.address),
            environment={"SNAKEPIT_READY_FILE": str(ready_file)},
        )
        assert host.asked.wait(LIMIT)
        connections = psutil.Process(process.pid).net_connections("all")
        assert [c for c in connections if c.status == psutil.CONN_LISTEN] == []
        host.may_answer.set()
        wait_until(ready_file.exists, "readiness")
        process.terminate()
        assert process.wait(LIMIT) == 0


@pytest.mark.conforms(7)
def test_readiness_comes_within_the_limit_of_the_host(workers: Workers) -> None:
    (workers.folder / "importing_much.py").write_text(
        "import numpy, msgspec\n"
        "from snakepit_worker import Adapter, tool\n"
        "class Much(Adapter):\n"
        "    name = 'much'\n"
        "    @tool\n"
        "    def go(self) -> None: ...\n"
    )
    worker, _ = workers.start("importing_much.Much", "dspy", ready_timeout=HOST_LIMIT)
    assert worker.ready_after < HOST_LIMIT


@pytest.mark.conforms(6)
def test_without_a_file_the_port_is_a_line_and_nothing_else_is_on_stdout(workers: Workers) -> None:
    process = workers.popen("--adapter", NOISY)
    assert process.stdout is not None
    line = process.stdout.readline().decode()
    port = re.fullmatch(r"GRPC_READY:(\d+)\n", line)
    assert port is not None, line
    stdout, stderr = Reader(process.stdout), Reader(process.stderr)
    connection = workers.connect(int(port[1]))
    connection.call("noisy.shout")
    connection.call("noisy.shout_async")
    process.terminate()
    assert process.wait(LIMIT) == 0
    assert stdout.lines() == []
    said = stderr.lines()
    missing = [f"{m}: {w}" for m in MOMENTS for w in WAYS if f"{m}: {w}" not in said]
    assert missing == []


@pytest.mark.conforms(6, 23)
def test_with_a_file_nothing_is_on_stdout(
    workers: Workers, host: StandInHost, ready_file: Path
) -> None:
    process = workers.popen(
        *("--adapter", NOISY, "--elixir-address", host.address),
        environment={"SNAKEPIT_READY_FILE": str(ready_file)},
    )
    stdout, stderr = Reader(process.stdout), Reader(process.stderr)
    wait_until(ready_file.exists, "readiness")
    workers.connect(int(ready_file.read_text())).call("noisy.shout")
    process.terminate()
    assert process.wait(LIMIT) == 0
    assert stdout.lines() == []
    assert "tool: print" in stderr.lines()


def test_a_file_without_a_host_is_wrong_usage(workers: Workers, ready_file: Path) -> None:
    done = workers.run("--port", "0", environment={"SNAKEPIT_READY_FILE": str(ready_file)})
    assert (done.returncode, done.stdout) == (2, "")
    assert "SNAKEPIT_READY_FILE" in done.stderr
    assert "--elixir-address" in done.stderr
    assert not ready_file.exists()


def test_a_file_that_cannot_be_written_is_a_failed_start(
    workers: Workers, host: StandInHost, tmp_path: Path
) -> None:
    done = workers.run(
        *("--elixir-address", host.address),
        environment={"SNAKEPIT_READY_FILE": str(tmp_path / "missing" / "ready")},
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert str(tmp_path / "missing") in done.stderr[-4096:]


@pytest.mark.conforms(2, 25, "D7")
def test_the_worker_listens_on_loopback_and_nowhere_else(workers: Workers) -> None:
    worker, _ = workers.start()
    connections = psutil.Process(worker.pid).net_connections("all")
    (listening,) = [c for c in connections if c.status == psutil.CONN_LISTEN]
    # An IPv6 socket may stand for the IPv4 address; no other address leads to it.
    assert listening.laddr.ip.removeprefix("::ffff:") == "127.0.0.1"
    assert listening.laddr.port == worker.port


@pytest.mark.parametrize(
    ("at_import", "at_start"),
    [
        pytest.param("print('loading ', end='', flush=True)", "pass", id="a line without end"),
        pytest.param("pass", "print('starting\\n' * 10_000)", id="many lines after it"),
    ],
)
def test_what_adapters_print_does_not_hide_the_line_from_launch(
    at_import: str, at_start: str, workers: Workers, tmp_path: Path
) -> None:
    code = TALKATIVE.format(at_import=at_import, at_start=at_start)
    (tmp_path / "talkative.py").write_text(code)
    # Standalone, since only then the line is read; stdout and stderr are one pipe, as the host's.
    worker, connection = workers.start("talkative.Talkative", standalone=True, ready_timeout=10.0)
    assert connection.call("worker.info")["pid"] == worker.pid
