from __future__ import annotations

import importlib
import json
import logging as standard
import warnings
from typing import TYPE_CHECKING, Any, cast

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from snakepit_worker.telemetry import logging

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snakepit_worker.settings import LogLevel
    from snakepit_worker.telemetry.writer import StderrWriter

ExecuteBatchError: type[Exception] = importlib.import_module(
    "grpc._cython.cygrpc"
).ExecuteBatchError
LEVELS: tuple[LogLevel, ...] = ("debug", "info", "warning", "error", "none")


class Log:
    """Takes what would go to stderr."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def configure(self, level: LogLevel = "info", *, terminal: bool = False) -> None:
        logging.configure(level, cast("StderrWriter", self), terminal=terminal)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    def line(self) -> dict[str, Any]:
        (line,) = self.lines()
        return line


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    root = standard.getLogger()
    handlers, level = list(root.handlers), root.level
    monkeypatch.setattr(logging, "_current", None)
    monkeypatch.setattr(logging, "_build", logging._build)
    with warnings.catch_warnings():
        yield Log()
        standard.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.conforms(23)
@pytest.mark.parametrize("level", LEVELS)
def test_a_level_lets_through_what_is_as_important(level: LogLevel, log: Log) -> None:
    log.configure(level)
    for name in LEVELS[:-1]:
        getattr(logging.logger(), name)(name)
    assert [line["event"] for line in log.lines()] == list(LEVELS[LEVELS.index(level) : -1])
    assert [line["level"] for line in log.lines()] == list(LEVELS[LEVELS.index(level) : -1])


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["debug", "info", "warning", "error", "critical"]),
        ("info", ["warning", "error", "critical"]),  # frameworks chat at info
        ("warning", ["warning", "error", "critical"]),
        ("error", ["error", "critical"]),
        ("none", []),
    ],
)
def test_other_loggers_take_the_same_way(level: LogLevel, written: list[str], log: Log) -> None:
    log.configure(level)
    other = standard.getLogger("some.framework")
    for name in ("debug", "info", "warning", "error", "critical"):
        getattr(other, name)("about %s", name)
    assert [line["event"] for line in log.lines()] == [f"about {name}" for name in written]
    assert all(line["logger"] == "some.framework" for line in log.lines())


def test_a_line_carries_the_fields_of_its_call(log: Log) -> None:
    log.configure()
    fields = {"tool": "a.b", "session_id": "s", "correlation_id": "c"}
    token = logging.call_fields.set(fields)
    try:
        logging.logger().info("one", tool="of its own")
        standard.getLogger("other").warning("two")
    finally:
        logging.call_fields.reset(token)
    logging.logger().info("three")
    one, two, three = log.lines()
    assert (one["tool"], one["session_id"], one["correlation_id"]) == ("of its own", "s", "c")
    assert {key: two[key] for key in fields} == fields
    assert "tool" not in three


def test_exceptions_become_text_within_the_line(log: Log) -> None:
    log.configure()
    try:
        raise ValueError("wrong")
    except ValueError as error:
        logging.logger().exception("ours")
        standard.getLogger("other").exception("theirs")
        caught = error
    logging.logger().error("later", exc_info=caught)
    assert all("ValueError: wrong" in line["exception"] for line in log.lines())
    assert [line["event"] for line in log.lines()] == ["ours", "theirs", "later"]


def test_warnings_are_lines_too(log: Log) -> None:
    log.configure()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning("old news", DeprecationWarning, "file.py", 7)
    assert "old news" in log.line()["event"]
    assert log.line()["logger"] == "py.warnings"


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("\udcff", id="surrogate"),
        pytest.param(1 << 70, id="big integer"),
        pytest.param({1: {(2,): "three"}}, id="keys"),
        pytest.param(float("nan"), id="nan"),
        pytest.param(b"\xff", id="bytes"),
        pytest.param({"a"}, id="set"),
        pytest.param(object, id="class"),
        pytest.param(Unprintable(), id="unprintable"),
        pytest.param("two\nlines \0 \x1b[31m", id="control characters"),
    ],
)
def test_no_value_breaks_a_line(value: object, log: Log) -> None:
    log.configure()
    logging.logger().info("event", value=value)
    assert log.line()["event"] == "event"


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        pytest.param("\udcff", (), id="surrogate"),
        pytest.param("%d", ("text",), id="format"),
        pytest.param("%s", (Unprintable(),), id="unprintable"),
        pytest.param({"not": "text"}, (), id="not text"),
        pytest.param("100%", (), id="percent"),
    ],
)
def test_no_message_of_another_logger_breaks_it(
    message: Any, arguments: tuple[object, ...], log: Log
) -> None:
    log.configure()
    standard.getLogger("other").warning(message, *arguments)
    assert log.line()["logger"] == "other"


@pytest.mark.parametrize("number", [15, 25, 35, 45, 55, 1000])
def test_levels_in_between_are_levels(number: int, log: Log) -> None:
    log.configure("debug")
    standard.getLogger("other").log(number, "in between")
    assert log.line()["event"] == "in between"


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        ('api_key="abc-0123456789"', {}),
        ("api_key='abc-0123456789'", {}),
        ('{"token": "abc-0123456789"}', {}),
        ("event", {"token": "abc-0123456789"}),
        ("event", {"nested": {"password": "abc-0123456789"}}),
        ("event", {"nested": [{"headers": {"Authorization": ["abc-0123456789"]}}]}),
        ("event", {"nested": ["Bearer abc-0123456789"]}),
        ("event", {"clientSecret": 123456789012345}),
        ("event", {"value": KeyError("password='abc-0123456789'")}),
        ("event", {"value": b"password='abc-0123456789'"}),
        ("event", {"exc_info": ValueError("password='abc-0123456789'")}),
        ("Bearer abc-0123456789", {}),
        ("https://me:abc-0123456789@example.com", {}),
    ],
)
@pytest.mark.parametrize("terminal", [False, True])
def test_secrets_do_not_get_out_and_lines_stay_whole(
    event: str,
    fields: dict[str, object],
    terminal: bool,  # noqa: FBT001
    log: Log,
) -> None:
    log.configure(terminal=terminal)
    logging.logger().info(event, **fields)
    assert "0123456789" not in log.text
    if not terminal:
        assert log.line()["level"] == "info"


@pytest.mark.parametrize("terminal", [False, True])
def test_tracebacks_lose_their_secrets_too(
    terminal: bool,  # noqa: FBT001
    log: Log,
) -> None:
    log.configure(terminal=terminal)
    try:
        try:
            raise KeyError("token='abc-0123456789'")
        except KeyError as error:
            error.add_note(f"-----BEGIN {'PRIVATE'} KEY-----\n{'0123456789' * 6}")
            raise ValueError("https://me:abc-0123456789@example.com") from error
    except ValueError:
        logging.logger().exception("ours")
        standard.getLogger("other").exception("theirs with password='abc-0123456789'")
    assert "0123456789" not in log.text
    assert log.text.count("ValueError: https://me:[REDACTED]@example.com") == 2
    assert log.text.count("direct cause") == 2


fragments = st.lists(
    st.sampled_from(
        ["token", ": ", "=", "'", '"', "\\", "https://", "a:b", "@", "?key=", "x1y2z3", "Bearer "]
    )
)


@given(st.dictionaries(st.sampled_from("abcde"), fragments.map("".join)), fragments.map("".join))
def test_no_pattern_reaches_beyond_its_field(fields: dict[str, str], event: str) -> None:
    written = Log()
    line = logging._for_process(0, cast("StderrWriter", written), terminal=False)
    line.info(event, **fields, last="one")
    assert set(written.line()) == {"event", "last", "level", "timestamp", *fields}
    assert written.line()["last"] == "one"


def test_lines_for_a_terminal_are_text(log: Log) -> None:
    log.configure(terminal=True)
    logging.logger().info("serving", port=7)
    assert "serving" in log.text
    assert not log.text.startswith("{")
    assert log.text.count("\n") == 1


def test_a_program_that_embeds_a_worker_keeps_its_own_logging(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    token = logging.call_fields.set({"tool": "a.b"})
    try:
        with caplog.at_level("INFO", "snakepit_worker"):
            logging.logger().info("serving", port=7)
    finally:
        logging.call_fields.reset(token)
    (record,) = caplog.records
    assert (record.name, record.getMessage()) == ("snakepit_worker", "serving")
    assert (record.__dict__["port"], record.__dict__["tool"]) == (7, "a.b")
    assert log.text == ""


def test_exceptions_in_an_embedding_programs_log_lose_their_secrets(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        raise ValueError("token='abc-0123456789'")
    except ValueError as error:
        logging.logger().exception("failed", details={"token": "abc-0123456789"})
        caught = error
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is caught  # for handlers that look at exceptions themselves
    assert "ValueError: token='[REDACTED]'" in caplog.text
    assert "0123456789" not in caplog.text
    assert record.__dict__["details"] == {"token": "[REDACTED]"}
    assert log.text == ""


def _logged_by_grpc(error: Exception) -> None:
    try:
        raise error
    except Exception:
        standard.getLogger("grpc._cython.cygrpc").exception("Unexpected [%s]\nraised", "Error")


@pytest.mark.parametrize("error", [ExecuteBatchError("late"), DecodeError("garbage")])
def test_what_grpc_says_of_a_peer_is_a_warning_in_one_line(error: Exception, log: Log) -> None:
    log.configure("warning")
    _logged_by_grpc(error)
    line = log.line()
    assert (line["level"], line["logger"]) == ("warning", "grpc._cython.cygrpc")
    assert line["event"] == "Unexpected [Error] raised"
    assert line["reason"] == f"{type(error).__name__}: {error}"
    assert "exception" not in line


def test_what_grpc_says_of_us_stays_an_error(log: Log) -> None:
    log.configure("error")
    _logged_by_grpc(ZeroDivisionError("ours"))
    line = log.line()
    assert line["level"] == "error"
    assert "ZeroDivisionError" in line["exception"]
