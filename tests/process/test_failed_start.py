"""Starts that fail: soon, with a status that the host understands, and with the cause last."""

from __future__ import annotations

import signal
import socket
import time
from typing import TYPE_CHECKING, Final

import pytest

from tests.process.conftest import LIMIT, shortest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from tests.process.conftest import Gate, Workers

IMPORTING = "tests.process.adapters.importing.Importing"
SIGNALLED: Final = {
    signal.SIGTERM: (-signal.SIGTERM, 128 + signal.SIGTERM),
    signal.SIGINT: (-signal.SIGINT, 128 + signal.SIGINT),
}
"""The process dies of the signal, or ends with the status that a shell gives for it."""

AT_ONCE: Final = 1.0
"""Seconds."""

ADAPTER = """
from snakepit_worker import Adapter
class Broken(Adapter):
    name = "broken"
"""
FOREIGN = """
class Unsafe:
    def execute_tool(self, tool_name, arguments, context):
        return tool_name
"""
DEEP = """
def fail(depth):
    if depth:
        fail(depth - 1)
    raise RuntimeError("the root of it")
try:
    fail(200)
except RuntimeError as error:
    raise ImportError("libfancy.so.7 is missing") from error
"""


@pytest.fixture
def mute_host() -> Iterator[socket.socket]:
    """Takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LIMIT)
        yield listener


def address(listener: socket.socket) -> str:
    return f"127.0.0.1:{listener.getsockname()[1]}"


def fail(
    workers: Workers, ready_file: Path, adapter: str, *more: str
) -> subprocess.CompletedProcess[str]:
    """Run a worker that cannot start; what the host would read of it."""
    environment = {"SNAKEPIT_READY_FILE": str(ready_file), "SNAKEPIT_PROCESS_GROUP": "1"}
    arguments = ("--adapter", adapter, *more, "--elixir-address", workers.host.address)
    done = workers.run(*arguments, environment=environment)
    assert done.returncode == 1, done.stderr
    assert not ready_file.exists()
    assert done.stdout == ""
    workers.all_gone()
    done.stderr = done.stderr[-4096:]
    return done


@pytest.mark.conforms(19, 20)
@pytest.mark.parametrize(
    ("adapter", "cause"),
    [
        ("no_such_package.Adapter", "No module named 'no_such_package'"),
        ("snakepit_worker.NoSuchClass", "NoSuchClass"),
        ("snakepit_worker.CallContext", "neither a subclass of snakepit_worker.Adapter"),
        ("no-such-entry-point", "unknown adapter 'no-such-entry-point'; installed are: dspy"),
    ],
)
def test_an_adapter_that_cannot_be_found(
    adapter: str, cause: str, workers: Workers, ready_file: Path
) -> None:
    done = fail(workers, ready_file, adapter)
    assert cause in done.stderr
    assert adapter in done.stderr


@pytest.mark.conforms(19, 20)
@pytest.mark.parametrize(
    ("code", "cause"),
    [
        pytest.param("import", "SyntaxError", id="syntax"),
        pytest.param(DEEP, "ImportError: libfancy.so.7 is missing", id="deep"),
        pytest.param("raise SystemExit(0)", "SystemExit", id="exit 0"),
        pytest.param("raise SystemExit(143)", "SystemExit", id="exit 143"),
        pytest.param(
            f"{ADAPTER}    def __init__(self): raise SystemExit(0)", "SystemExit", id="constructor"
        ),
        pytest.param("raise OSError('long ' * 2_000)", "OSError: long", id="long message"),
        pytest.param("raise OSError('no \\udcff')", "OSError", id="not UTF-8"),
    ],
)
def test_an_adapter_that_cannot_be_imported(
    code: str, cause: str, workers: Workers, ready_file: Path
) -> None:
    (workers.folder / "broken.py").write_text(code, encoding="utf-8")
    done = fail(workers, ready_file, "broken.Broken")
    assert cause in done.stderr
    assert "Broken" in done.stderr


@pytest.mark.conforms(71)
def test_a_class_of_snakepit_s_own_kind_has_to_be_safe_for_threads(
    workers: Workers, ready_file: Path
) -> None:
    (workers.folder / "unsafe.py").write_text(FOREIGN)
    done = fail(workers, ready_file, "unsafe.Unsafe", "--max-workers", "4")
    assert "unsafe.Unsafe" in done.stderr
    assert "__thread_safe__" in done.stderr
    worker, _ = workers.start("unsafe.Unsafe")
    assert worker.stop() == 0


@pytest.mark.conforms(16, 19)
def test_what_a_failed_start_has_started_is_ended(
    workers: Workers, gate: Gate, ready_file: Path
) -> None:
    (workers.folder / "broken.py").write_text(
        "from tests.process.adapters import children, gate\n"
        "children.start(children.DEAF)\n"
        "gate.wait('import')\n"
        "raise ImportError('no')\n"
    )
    environment = {"SNAKEPIT_READY_FILE": str(ready_file), "SNAKEPIT_PROCESS_GROUP": "1"}
    arguments = ("--adapter", "broken.Broken", "--elixir-address", workers.host.address)
    process = workers.popen(*arguments, environment=environment)
    gate.arrive("import")
    gate.arrive("child")
    gate.open("import")
    assert process.wait(LIMIT) == 1
    workers.all_gone()


@pytest.mark.conforms(8, 19)
def test_the_worker_gives_up_on_a_host_that_is_not_there(
    workers: Workers, ready_file: Path
) -> None:
    with socket.socket() as nobody:  # bound, so that nobody else listens there
        nobody.bind(("127.0.0.1", 0))
        host = address(nobody)
        done = workers.run(
            *("--host-attempts", "3", "--elixir-address", host),
            environment={"SNAKEPIT_READY_FILE": str(ready_file)},
        )
    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-1]
    assert f"the host at {host} did not answer 3 pings" in last
    assert not ready_file.exists()


@pytest.mark.conforms(8, 19)
def test_the_worker_gives_up_on_a_host_that_does_not_answer(
    workers: Workers, mute_host: socket.socket
) -> None:
    done = workers.run("--host-attempts", "1", "--elixir-address", address(mute_host))
    assert (done.returncode, done.stdout) == (1, "")
    assert address(mute_host) in done.stderr.splitlines()[-1]


@pytest.mark.conforms(9, "D35")
@pytest.mark.parametrize("number", SIGNALLED)
def test_a_signal_ends_the_wait_for_the_host(
    number: signal.Signals, workers: Workers, mute_host: socket.socket
) -> None:
    def seconds() -> float:
        process = workers.popen("--host-attempts", "10000", "--elixir-address", address(mute_host))
        connection, _ = mute_host.accept()
        with connection:
            begun = time.monotonic()
            process.send_signal(number)
            assert process.wait(LIMIT) in SIGNALLED[number]
        return time.monotonic() - begun

    assert shortest(seconds, AT_ONCE) < AT_ONCE


@pytest.mark.conforms(19, 22)
def test_the_end_of_stdin_ends_the_wait_for_the_host(
    workers: Workers, mute_host: socket.socket
) -> None:
    process = workers.popen("--host-attempts", "10000", "--elixir-address", address(mute_host))
    connection, _ = mute_host.accept()
    with connection:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(LIMIT) not in {0, 143}


@pytest.mark.parametrize(
    ("how", "number"),
    [
        ("receiving", signal.SIGTERM),
        ("receiving", signal.SIGINT),
        ("sleeping", signal.SIGTERM),  # within a C call, where Python runs no signal handler
        ("spinning", signal.SIGTERM),
    ],
)
def test_a_signal_ends_a_slow_import(
    how: str, number: signal.Signals, workers: Workers, gate: Gate
) -> None:
    worker = workers.spawn(IMPORTING, environment={"IMPORT_WAITS": how})
    gate.arrive("import")
    worker.process.send_signal(number)
    assert worker.wait(LIMIT) in SIGNALLED[number]
    workers.all_gone()


@pytest.mark.conforms(19, 22)
def test_the_end_of_stdin_ends_a_slow_import(workers: Workers, gate: Gate) -> None:
    worker = workers.spawn(IMPORTING, environment={"IMPORT_WAITS": "sleeping"})
    gate.arrive("import")
    assert worker.process.stdin is not None
    worker.process.stdin.close()
    assert worker.wait(LIMIT) not in {0, 143}
