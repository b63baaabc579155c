"""OpenTelemetry: spans of real workers, as a collector receives them."""

from __future__ import annotations

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from snakepit_worker.testing import StandInHost, ToolFailure
from tests.process.conftest import LIMIT, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import grpc

    from snakepit_worker.testing import Connection
    from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
    from tests.process.conftest import Workers

TRACED: Final = "tests.process.adapters.traced.Traced"
PLAIN: Final = "tests.process.adapters.chatty.Chatty"
TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
PARENT: Final = "b7ad6b7169203331"
TRACEPARENT: Final = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)


class Collector:
    """Takes spans over OTLP/HTTP."""

    def __init__(self) -> None:
        self.spans: dict[str, trace_pb2.Span] = {}
        self.resource: dict[str, str] = {}
        self.paths: list[str] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(self.path, body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def take(self, path: str, body: bytes) -> None:
        self.paths.append(path)
        export = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
        for resource in export.resource_spans:
            self.resource = {
                pair.key: pair.value.string_value for pair in resource.resource.attributes
            }
            for scope in resource.scope_spans:
                self.spans.update({span.name: span for span in scope.spans})

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(LIMIT)


@pytest.fixture
def collector() -> Iterator[Collector]:
    opened = Collector()
    yield opened
    opened.close()


class Host(StandInHost):
    """Notes the headers of calls of Elixir tools."""

    def __init__(self) -> None:
        super().__init__()
        self.headers: list[dict[str, Any]] = []

    def ExecuteElixirTool(
        self, request: pb.ExecuteElixirToolRequest, context: grpc.ServicerContext
    ) -> pb.ExecuteElixirToolResponse:
        self.headers.append(dict(context.invocation_metadata()))
        return super().ExecuteElixirTool(request, context)


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as stand_in:
        yield stand_in


def facts(span: trace_pb2.Span) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in span.attributes}


def execute(connection: Connection, tool: str, **arguments: Any) -> Any:
    request = connection.request(tool, arguments)
    return connection.stub.ExecuteTool(request, timeout=LIMIT, metadata=TRACEPARENT)


def test_a_call_is_a_span_of_its_callers_trace(
    workers: Workers, collector: Collector, host: Host
) -> None:
    worker, connection = workers.start(
        TRACED,
        environment={
            "SNAKEPIT_OTEL_ENDPOINT": collector.url,
            "SNAKEPIT_SERVICE_NAME": "shop",
            "SNAKEPIT_INSTANCE_ID": "seven",
        },
    )
    host.expose("echo", lambda value: value)
    assert execute(connection, "traced.ask", value=1).success
    assert execute(connection, "traced.ask_in_thread", value=2).success
    assert execute(connection, "traced.inner").result.value == f'"{TRACE}"'.encode()
    assert not execute(connection, "traced.fail").success
    assert execute(connection, "worker.batch", calls=[{"tool": "traced.in_batch"}]).success
    chunks = connection.stub.ExecuteStreamingTool(
        connection.request("traced.count", {"n": 3}), timeout=LIMIT, metadata=TRACEPARENT
    )
    assert len(list(chunks)) == 4
    assert worker.stop() == 0  # which sends what has not been sent yet

    spans = collector.spans
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE}
    call = spans["call traced.ask"]
    assert call.kind == trace_pb2.Span.SPAN_KIND_SERVER
    assert call.parent_span_id.hex() == PARENT
    assert facts(call)["snakepit.tool"] == "traced.ask"
    assert facts(call)["snakepit.session_id"] == connection.session_id
    assert facts(call)["snakepit.correlation_id"]
    assert spans["stream traced.count"].status.code == trace_pb2.Status.STATUS_CODE_UNSET

    outgoing = spans["elixir echo"]
    assert outgoing.kind == trace_pb2.Span.SPAN_KIND_CLIENT
    assert outgoing.parent_span_id == spans["call traced.ask_in_thread"].span_id
    assert host.headers[-1]["traceparent"] == f"00-{TRACE}-{outgoing.span_id.hex()}-01"
    assert spans["inside"].parent_span_id == spans["call traced.inner"].span_id

    assert spans["call traced.in_batch"].parent_span_id == spans["call worker.batch"].span_id

    failed = spans["call traced.fail"]
    assert failed.status.code == trace_pb2.Status.STATUS_CODE_ERROR
    assert "abcdefghijklmnop" not in failed.status.message
    assert facts(failed)["error.type"] == "ValueError"

    assert set(collector.paths) == {"/v1/traces"}
    assert collector.resource["service.name"] == "shop"
    assert collector.resource["service.namespace"] == "snakepit"
    assert collector.resource["service.instance.id"] == "seven"


@pytest.mark.parametrize("tool", ["around", "around_in_thread"])
def test_a_call_inside_of_a_call_is_a_part_of_its_trace(
    workers: Workers, collector: Collector, tool: str
) -> None:
    worker, connection = workers.start(
        TRACED, environment={"SNAKEPIT_OTEL_ENDPOINT": collector.url}
    )
    assert connection.call(f"traced.{tool}")
    assert worker.stop() == 0
    outer = collector.spans[f"call traced.{tool}"]
    inner = collector.spans["call traced.inner"]
    assert inner.trace_id == outer.trace_id
    assert inner.parent_span_id == outer.span_id


def test_a_call_without_traceparent_begins_a_trace(workers: Workers, collector: Collector) -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}  # the standard's own variable
    worker, connection = workers.start(TRACED, environment=endpoint)
    assert connection.call("traced.inner")
    assert worker.stop() == 0
    span = collector.spans["call traced.inner"]
    assert span.parent_span_id == b""
    assert span.trace_id == collector.spans["inside"].trace_id


@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_spans_can_be_switched_off(
    off: dict[str, str], workers: Workers, collector: Collector
) -> None:
    endpoint = {"SNAKEPIT_OTEL_ENDPOINT": collector.url}
    worker, connection = workers.start(TRACED, environment={**endpoint, **off})
    assert connection.call("traced.inner") == "0" * 32
    assert worker.stop() == 0
    assert collector.paths == []


@pytest.mark.conforms("D46")
def test_without_a_tracer_nothing_is_written_or_imported(workers: Workers) -> None:
    imported = workers.folder / "looking.py"
    imported.write_text(
        "import sys\n"
        "from snakepit_worker import Adapter, tool\n"
        "class Looking(Adapter):\n"
        "    name = 'looking'\n"
        "    @tool\n"
        "    async def modules(self) -> list[str]:\n"
        "        'Those of OpenTelemetry.'\n"
        "        return [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    worker, connection = workers.start(
        "looking.Looking", environment={"SNAKEPIT_LOG_LEVEL": "error"}
    )
    assert connection.call("looking.modules") == []
    assert worker.stop() == 0
    assert worker.output() == ""


@pytest.mark.conforms("D46")
def test_the_console_is_stderr(workers: Workers) -> None:
    process = workers.popen(
        *("--adapter", TRACED, "--elixir-address", workers.host.address),
        environment={
            "SNAKEPIT_OTEL_CONSOLE": "true",
            "SNAKEPIT_LOG_LEVEL": "error",
            "SNAKEPIT_READY_FILE": str(workers.folder / "ready"),
        },
    )
    ready = workers.folder / "ready"
    wait_until(ready.exists, "the readiness file")
    connection = workers.connect(int(ready.read_text()))
    assert connection.call("traced.inner")
    process.terminate()
    stdout, stderr = process.communicate(timeout=LIMIT)
    assert stdout == b""
    assert b'"name": "call traced.inner"' in stderr


def test_a_collector_that_is_away_delays_nothing(workers: Workers) -> None:
    nobody = {"SNAKEPIT_OTEL_ENDPOINT": "http://127.0.0.1:9", "SNAKEPIT_LOG_LEVEL": "none"}
    worker, connection = workers.start(TRACED, environment=nobody)
    assert connection.call("traced.inner")
    assert worker.stop() == 0


def test_a_tracer_that_an_adapter_sets_up_is_used(workers: Workers, collector: Collector) -> None:
    module = workers.folder / "own_tracer.py"
    module.write_text(
        "from opentelemetry import trace\n"
        "from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import SimpleSpanProcessor\n"
        "from snakepit_worker import Adapter, tool\n"
        "provider = TracerProvider()\n"
        f"exporter = OTLPSpanExporter(endpoint='{collector.url}/own')\n"
        "provider.add_span_processor(SimpleSpanProcessor(exporter))\n"
        "trace.set_tracer_provider(provider)\n"
        "class Own(Adapter):\n"
        "    name = 'own'\n"
        "    @tool\n"
        "    def hello(self) -> str:\n"
        "        'Answer.'\n"
        "        return 'hello'\n"
    )
    _, connection = workers.start("own_tracer.Own")
    with pytest.raises(ToolFailure):
        connection.call("own.helo")
    assert connection.call("own.hello") == "hello"
    wait_until(lambda: "call own.hello" in collector.spans, "the span")
    assert set(collector.paths) == {"/own"}
