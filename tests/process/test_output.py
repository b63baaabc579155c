"""What a worker writes: nothing, or lines that programs can read; and never by waiting."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from typing import TYPE_CHECKING, Any, Final

import grpc
import pytest

from snakepit_worker.testing import ToolFailure
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from tests.process.conftest import LIMIT, Reader, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from snakepit_worker.testing import Connection, StandInHost
    from tests.process.conftest import Workers

CHATTY: Final = "tests.process.adapters.chatty.Chatty"
IMPORTING: Final = "tests.process.adapters.importing.Importing"
FAILING: Final = "tests.process.adapters.lifespans.Failing"
MEGABYTES: Final = 2_000
"""Lines of a kilobyte: many times what the pipe and the queue behind it hold."""


def beat(connection: Connection) -> bool:
    request = pb.HeartbeatRequest(session_id=connection.session_id)
    return connection.stub.Heartbeat(request, timeout=LIMIT).session_valid


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.conforms(23)
@pytest.mark.parametrize("level", ["error", "nonsense", "none"])
def test_a_normal_life_is_silent(level: str, workers: Workers) -> None:
    worker, connection = workers.start(IMPORTING, environment={"SNAKEPIT_LOG_LEVEL": level})
    assert connection.call("importing.hello") == "hello"
    with pytest.raises(ToolFailure):
        connection.call("importing.helo")
    assert worker.stop() == 0
    assert worker.output() == ""


@pytest.mark.conforms(23)
def test_at_level_none_trouble_is_silent_too(workers: Workers) -> None:
    worker, connection = workers.start(FAILING, environment={"SNAKEPIT_LOG_LEVEL": "none"})
    with pytest.raises(ToolFailure):
        connection.call("failing.hello")
    assert worker.stop() == 0
    assert worker.output() == ""


@pytest.mark.conforms(23)
def test_at_level_error_trouble_is_written(workers: Workers) -> None:
    worker, connection = workers.start(FAILING, environment={"SNAKEPIT_LOG_LEVEL": "error"})
    with pytest.raises(ToolFailure):
        connection.call("failing.hello")
    assert worker.stop() == 0
    (line,) = json_lines(worker.output())
    assert (line["level"], line["adapter"]) == ("error", "failing")
    assert "libfancy.so.7" in line["exception"]


def test_lines_are_json_and_those_of_a_call_say_whose_they_are(workers: Workers) -> None:
    worker, connection = workers.start(IMPORTING, CHATTY)
    marks = ("thread", "loop", "failure", "wrong")
    metadata = {mark: {"correlation_id": f"sp-{mark}"} for mark in marks}
    connection.call("chatty.log", {"text": "thread"}, metadata=metadata["thread"])
    connection.call(
        "chatty.log_async",
        {"text": "loop", "session_id": "user-session"},
        metadata=metadata["loop"],
    )
    for mark, arguments in (("failure", {"text": "failure"}), ("wrong", {"txt": "wrong"})):
        with pytest.raises(ToolFailure):
            connection.call("chatty.fail", arguments, metadata=metadata[mark])
    assert worker.stop() == 0
    lines = json_lines(worker.output())
    assert all({"event", "level", "timestamp"} <= line.keys() for line in lines)
    assert {"serving", "stopped"} <= {line["event"] for line in lines}
    session = connection.session_id
    expected = {
        "sp-thread": ("chatty.log", session, "thread"),
        "sp-loop": ("chatty.log_async", "user-session", "loop"),
        "sp-failure": ("chatty.fail", session, "call failed"),
        "sp-wrong": ("chatty.fail", session, "call failed"),
    }
    found = {
        line["correlation_id"]: (line["tool"], line["session_id"], line["event"])
        for line in lines
        if "correlation_id" in line
    }
    assert found == expected


def test_nothing_that_frameworks_log_breaks_a_call_or_a_line(workers: Workers) -> None:
    worker, connection = workers.start(CHATTY)
    expected = {
        "level": "of a level in between",
        "format": "not a format: ",
        "characters": "a file name: ",
        "lines": "two\nlines",
        "number": str(1 << 70),
        "secret": "secret=",
        "field": "token",
        "traceback": "with a traceback",
        "warning": "as a warning",
    }
    failures = {}
    for oddity in expected:
        try:
            metadata = {"correlation_id": oddity}
            connection.call("chatty.log_oddly", {"oddity": oddity}, metadata=metadata)
        except ToolFailure as failure:
            failures[oddity] = failure
    assert failures == {}
    assert worker.stop() == 0
    output = worker.output()
    lines = [line for line in json_lines(output) if "logger" in line]
    events = {line["correlation_id"]: line["event"] for line in lines}
    wrong = {k: events.get(k) for k, text in expected.items() if text not in events.get(k, "")}
    assert wrong == {}
    assert "abc-0123456789" not in output


def test_nothing_that_tools_raise_breaks_a_reply_or_a_line(workers: Workers) -> None:
    worker, connection = workers.start(CHATTY)
    problems = {}
    texts = ("a file name: \udcff", 'token: "abc"', "two\nlines", "\0")
    for text in texts:
        try:
            connection.call("chatty.fail_oddly", {"literal": ascii(text)}, timeout=10.0)
        except ToolFailure as failure:
            if failure.failure["type"] != "ValueError":
                problems[text] = str(failure)
        except grpc.RpcError as error:
            problems[text] = f"no reply: {error}"
    assert problems == {}
    assert worker.stop() == 0
    events = [line["event"] for line in json_lines(worker.output())]
    assert events.count("call failed") == len(texts)


def test_no_shape_of_text_stops_the_worker(workers: Workers) -> None:
    """Secrets are looked for in what is logged and raised; the search must not take for ever."""
    _, connection = workers.start(CHATTY)
    for unit in ("sk-", "a-", "a.b", "token=", "'", "a://b:"):
        text = unit * (200_000 // len(unit))
        connection.call("chatty.log", {"text": text}, timeout=LIMIT)
        with pytest.raises(ToolFailure):
            connection.call("chatty.fail", {"text": text}, timeout=LIMIT)
        assert beat(connection)


def test_on_a_terminal_lines_are_for_people(
    workers: Workers, host: StandInHost, ready_file: Path
) -> None:
    ours, theirs = pty.openpty()
    try:
        process = workers.popen(
            *("--elixir-address", host.address),
            environment={"SNAKEPIT_READY_FILE": str(ready_file)},
            stdout=theirs,
            stderr=theirs,
        )
        wait_until(ready_file.exists, "readiness")
        process.terminate()
        assert process.wait(LIMIT) == 0
        text = os.read(ours, 1 << 16).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "serving" in text
    assert not text.startswith("{")


@pytest.mark.parametrize("tool", ["print_much", "log_much"])
def test_a_reader_that_stalls_holds_nobody_up(
    tool: str, workers: Workers, host: StandInHost, ready_file: Path
) -> None:
    process = workers.popen(
        *("--elixir-address", host.address, "--adapter", CHATTY),
        environment={"SNAKEPIT_READY_FILE": str(ready_file)},
        stderr=subprocess.STDOUT,
    )
    wait_until(ready_file.exists, "readiness")
    connection = workers.connect(int(ready_file.read_text()))
    connection.greet()
    assert connection.call(f"chatty.{tool}", {"lines": MEGABYTES}) == MEGABYTES
    assert beat(connection)
    process.terminate()
    assert process.wait(LIMIT) == 0


def test_what_was_dropped_is_counted_once_somebody_reads(
    workers: Workers, host: StandInHost, ready_file: Path
) -> None:
    process = workers.popen(
        *("--elixir-address", host.address, "--adapter", CHATTY),
        environment={"SNAKEPIT_READY_FILE": str(ready_file)},
        stderr=subprocess.STDOUT,
    )
    wait_until(ready_file.exists, "readiness")
    connection = workers.connect(int(ready_file.read_text()))
    connection.call("chatty.print_much", {"lines": MEGABYTES})
    output = Reader(process.stdout)
    connection.call("chatty.print_much", {"lines": 1})
    process.terminate()
    assert process.wait(LIMIT) == 0
    lines = output.lines()
    printed = sum(line.endswith("x" * 1000) for line in lines)
    dropped = sum(int(line.strip("(").split()[0]) for line in lines if "writes dropped" in line)
    assert 0 < printed < MEGABYTES
    assert dropped == MEGABYTES + 1 - printed


def test_a_tool_that_writes_past_python_holds_up_only_itself(
    workers: Workers, host: StandInHost, ready_file: Path
) -> None:
    process = workers.popen(
        *("--elixir-address", host.address, "--adapter", CHATTY, "--grace-ms", "1"),
        environment={"SNAKEPIT_READY_FILE": str(ready_file)},
        stderr=subprocess.STDOUT,
    )
    wait_until(ready_file.exists, "readiness")
    connection = workers.connect(int(ready_file.read_text()))
    connection.greet()
    workers.begin(connection, "chatty.write_much", size=1_000_000)
    busy = {"size": 10, "busy": 1, "waiting": 0, "abandoned": 0}
    wait_until(lambda: connection.call("worker.stats")["threads"] == busy, "the tool")
    assert connection.call("chatty.print_much", {"lines": MEGABYTES}) == MEGABYTES
    assert beat(connection)
    process.terminate()
    assert process.wait(LIMIT) == 0


def test_a_reader_that_is_gone_changes_nothing(
    workers: Workers, host: StandInHost, ready_file: Path
) -> None:
    process = workers.popen(
        *("--elixir-address", host.address, "--adapter", CHATTY),
        environment={"SNAKEPIT_READY_FILE": str(ready_file)},
        stderr=subprocess.STDOUT,
    )
    wait_until(ready_file.exists, "readiness")
    connection = workers.connect(int(ready_file.read_text()))
    connection.greet()
    assert process.stdout is not None
    process.stdout.close()
    for tool in ("print_much", "log_much"):
        assert connection.call(f"chatty.{tool}", {"lines": 100}) == 100
    assert beat(connection)
    process.terminate()
    assert process.wait(LIMIT) == 0
