"""What a caller must keep to himself goes into a call, and comes out of it nowhere."""

from __future__ import annotations

import asyncio
import json
import queue
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import grpc
import msgspec
import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from snakepit_worker import Adapter, tool
from snakepit_worker.errors import NotFound, ProviderError, StartError, Violation
from snakepit_worker.process.serve import report
from snakepit_worker.telemetry.events import Events
from snakepit_worker.telemetry.spans import Spans
from snakepit_worker.wire.status import DETAILS_TRAILER
from tests.bridge.conftest import LIMIT
from tests.conftest import name_of

if TYPE_CHECKING:
    from snakepit_worker.testing import Connection
    from tests.bridge.conftest import Served

SECRET = "Xq7hTz0pLm93wVbNs2Rk"  # noqa: S105 - it opens nothing
PRIVATE_KEY = f"-----BEGIN {'PRIVATE'} KEY-----\n{SECRET}\n-----END {'PRIVATE'} KEY-----"


class Model(msgspec.Struct):
    name: str
    api_key: Annotated[str, msgspec.Meta(max_length=8)] = ""


def fail(text: str, how: str) -> NoReturn:
    """In each way in which an exception carries what it was about."""
    if how == "message":
        raise ValueError(text)
    if how == "note":
        error = ValueError("no")
        error.add_note(text)
        raise error
    if how == "cause":
        raise ValueError("no") from KeyError(text)
    if how == "group":
        raise ExceptionGroup("no", [ValueError(text)])
    if how == "not found":
        raise NotFound(text, details={"tool": text})
    raise ProviderError(
        "no",
        help=text,
        details={"request": {"headers": [text]}, "password": SECRET},
        violations=[Violation(text, text)],
    )


HOW = ["message", "note", "cause", "group", "not found", "facts"]


class Careless(Adapter):
    name = "careless"

    @tool
    def call(self, text: str, how: str, function: str = "") -> None:
        del function
        fail(text, how)

    @tool
    def stream(self, text: str, how: str) -> Iterator[int]:
        yield 1
        fail(text, how)

    @tool
    def configure(self, model: Model, token: Annotated[str, msgspec.Meta(max_length=8)]) -> None:
        del model, token


TEXTS = [
    f"api_key='{SECRET}'",
    f"Authorization: Bearer {SECRET}",
    f"Authorization: Basic {SECRET}",
    f"sk-proj-{SECRET}",
    f"github_pat_{SECRET}",
    f"https://me:{SECRET}@example.org/",
    f"https://example.org/?key={SECRET}",
    PRIVATE_KEY,
]


@pytest.fixture
def connection(serve: Served) -> Connection:
    return serve(Careless())


@pytest.fixture
def events(connection: Connection, serve: Served) -> Iterator[Any]:
    controls: queue.SimpleQueue[Any] = queue.SimpleQueue()
    call = connection.stub.StreamTelemetry(iter(controls.get, None), timeout=LIMIT)
    call.initial_metadata()
    serve.stack.callback(controls.put, None)
    serve.stack.callback(call.cancel)
    return call


def until_failed(events: Any) -> str:
    """The events up to that of a failed call, as text."""
    seen = []
    for event in events:
        seen.append(str(event))
        if "exception" in event.event_parts:
            break
    return "".join(seen)


@pytest.mark.parametrize("text", TEXTS, ids=name_of)
@pytest.mark.parametrize("how", HOW)
def test_a_failed_call_tells_no_secret(
    connection: Connection, events: Any, caplog: pytest.LogCaptureFixture, text: str, how: str
) -> None:
    request = connection.request("careless.call", {"text": text, "how": how, "function": text})
    with caplog.at_level("DEBUG"):
        response = connection.stub.ExecuteTool(request, timeout=LIMIT)
        told = until_failed(events)
    assert not response.success
    assert SECRET not in response.error_message
    assert "[REDACTED]" in response.error_message
    assert SECRET not in caplog.text
    assert "call failed" in caplog.text
    assert SECRET not in repr([record.__dict__ for record in caplog.records])
    assert "error_message" in told
    assert SECRET not in told


@pytest.mark.parametrize("text", TEXTS, ids=name_of)
@pytest.mark.parametrize("how", HOW)
def test_a_failed_stream_tells_no_secret(
    connection: Connection, caplog: pytest.LogCaptureFixture, text: str, how: str
) -> None:
    request = connection.request("careless.stream", {"text": text, "how": how})
    with caplog.at_level("DEBUG"), pytest.raises(grpc.RpcError) as caught:
        list(connection.stub.ExecuteStreamingTool(request, timeout=LIMIT))
    assert json.loads(caught.value.details() or "")["type"]
    assert SECRET not in (caught.value.details() or "")
    trailing: Any = caught.value.trailing_metadata()
    trailers = dict(trailing)
    details = trailers[DETAILS_TRAILER]
    assert Status.FromString(details).details
    assert SECRET.encode() not in details
    assert SECRET not in caplog.text


def test_wrong_arguments_are_named_without_their_secrets(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = {
        "model": {"name": f"Bearer {SECRET}", "api_key": SECRET},
        "token": SECRET,
        f"sk-{SECRET}": 1,
    }
    with caplog.at_level("DEBUG"):
        request = connection.request("careless.configure", arguments)
        response = connection.stub.ExecuteTool(request, timeout=LIMIT)
    failure = json.loads(response.error_message)
    assert failure["code"] == "INVALID_ARGUMENT"
    assert [violation["field"] for violation in failure["violations"]] == [
        "model.api_key",
        "token",
        "[REDACTED]",
    ]
    assert SECRET not in response.error_message
    assert SECRET not in caplog.text


def test_events_carry_no_secret() -> None:
    events = Events()
    metadata = {"api_key": SECRET, "url": f"https://me:{SECRET}@example.org", "tool": "a.b"}
    events.emit("first.thing", {"text": f"sk-{SECRET}"}, metadata)
    events.close()

    async def read() -> list[Any]:
        return [event async for event in events.read()]

    (event,) = asyncio.run(read())
    assert SECRET not in str(event)
    assert event.metadata["tool"] == "a.b"


def test_spans_carry_no_secret() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spans = Spans(provider)
    Spans.end(spans.begin("call", {"tool": f"sk-{SECRET}"}, {}), None, cancelled=True)
    with pytest.raises(ValueError, match="Bearer"), spans.outgoing("elixir tool"):
        raise ValueError(f"Bearer {SECRET}")
    call, outgoing = exporter.get_finished_spans()
    assert (call.attributes or {})["snakepit.tool"] == "[REDACTED]"
    assert (outgoing.attributes or {})["error.type"] == "ValueError"
    assert outgoing.status.description == "Bearer [REDACTED]"
    assert SECRET not in call.to_json() + outgoing.to_json()


@pytest.mark.parametrize("error", [StartError, ValueError])
@pytest.mark.parametrize("text", TEXTS, ids=name_of)
def test_a_failed_start_tells_no_secret(
    error: type[Exception], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    raised = error(f"cannot import it: {text}")
    raised.__cause__ = ImportError(text)
    assert report(raised) == 1
    told = capsys.readouterr().err
    assert SECRET not in told
    assert "cannot start: " in told
    assert "[REDACTED]" in told
