"""Classes over Snakepit's own Python package, unmodified, in real workers."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

import pytest

from snakepit_worker.testing import StandInHost, ToolFailure
from snakepit_worker.wire.convention import CORRELATION_HEADER
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from tests.process.conftest import LIMIT, ROOT, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from snakepit_worker.testing import Connection
    from tests.process.conftest import Workers

STOCK: Final = ROOT / "tests" / "stock"
GENERATED: Final = ROOT / "snakepit_worker" / "wire" / "generated"
ADAPTERS: Final = "tests.process.adapters.stock"
SHOWCASE: Final = "snakepit_bridge.adapters.showcase.ShowcaseAdapter"
THREADED: Final = "snakepit_bridge.adapters.threaded_showcase.ThreadedShowcaseAdapter"
TEMPLATE: Final = "snakepit_bridge.adapters.template.TemplateAdapter"


@pytest.fixture
def stock(workers: Workers) -> Path:
    """A folder with the package and its generated modules, on the PYTHONPATH of all workers."""
    folder = workers.folder / "priv-python"
    shutil.copytree(STOCK, folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(GENERATED / "snakepit_bridge_pb2.py", folder)
    calls = (GENERATED / "snakepit_bridge_pb2_grpc.py").read_text()
    (folder / "snakepit_bridge_pb2_grpc.py").write_text(calls.replace("from . import", "import"))
    workers.environment["PYTHONPATH"] += f":{folder}"
    return folder


@pytest.fixture
def start(workers: Workers, stock: Path) -> Callable[..., Connection]:
    del stock

    def start(adapter: str, **options: Any) -> Connection:
        return workers.start(adapter, **options)[1]

    return start


def failure_of(connection: Connection, tool: str, arguments: dict[str, Any]) -> Mapping[str, Any]:
    with pytest.raises(ToolFailure) as caught:
        connection.call(tool, arguments)
    return caught.value.failure


# --- The package's own adapters ------------------------------------------------------------------


@pytest.mark.conforms(50, 93)
def test_the_showcase(start: Callable[..., Connection]) -> None:
    connection = start(SHOWCASE)
    assert connection.call("ping") == "pong"
    arguments = {"session_id": "mine", "value": [1, None]}
    assert connection.call("echo", arguments) == {
        "echoed": arguments,  # the session id is left in
        "session": connection.session_id,
    }
    chunks = list(connection.stream("stream_progress", {"steps": 2}))
    assert [chunk["is_final"] for chunk in chunks] == [False, True]
    assert failure_of(connection, "absent", {})["type"] == "AttributeError"


@pytest.mark.conforms(93)
def test_the_threaded_showcase(start: Callable[..., Connection]) -> None:
    connection = start(THREADED, environment={"SNAKEPIT_WORKER_MAX_WORKERS": "4"})
    assert [connection.call("count") for _ in range(3)] == [1, 2, 3]
    assert connection.call("thread") == "tool-0"


@pytest.mark.conforms(71)
def test_a_class_that_is_not_thread_safe_is_refused_where_that_is_asked(
    workers: Workers, stock: Path
) -> None:
    del stock
    done = workers.run(
        *("--adapter", SHOWCASE, "--max-workers", "4"),
        *("--elixir-address", workers.host.address),
    )
    assert done.returncode == 1
    assert "__thread_safe__" in done.stderr


@pytest.mark.conforms(75, 93, "D42")
def test_a_class_with_only_decorated_methods(start: Callable[..., Connection]) -> None:
    connection = start(TEMPLATE)
    assert connection.call("add", {"a": 2}) == 3
    assert connection.call("add", {"a": 2, "b": 5}) == 7
    assert failure_of(connection, "fail", {})["type"] == "LookupError"
    assert failure_of(connection, "session_id", {})["code"] == "NOT_FOUND"


@pytest.mark.conforms(75, "D42")
def test_a_class_that_the_generator_made(workers: Workers, stock: Path) -> None:
    del stock
    (workers.folder / "generated_adapter.py").write_text(
        "from snakepit_bridge.adapters.base import BaseAdapter, tool\n"
        "class Generated(BaseAdapter):\n"
        "    @tool('Greets')\n"
        "    def hello(self, name): return f'hello {name}'\n"
    )
    _, connection = workers.start("generated_adapter.Generated")
    assert connection.call("hello", {"name": "you"}) == "hello you"


def test_without_the_package_the_error_says_what_to_set(workers: Workers) -> None:
    done = workers.run("--adapter", SHOWCASE, "--elixir-address", workers.host.address)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "No module named 'snakepit_bridge'" in last
    assert "PYTHONPATH" in last


@pytest.mark.conforms(30)
@pytest.mark.parametrize("order", ["ours first", "theirs first"])
def test_both_packages_live_in_one_process(order: str, workers: Workers, stock: Path) -> None:
    ours = "from snakepit_worker.wire.generated import snakepit_bridge_pb2 as ours"
    theirs = "import snakepit_bridge_pb2 as theirs, snakepit_bridge_pb2_grpc, snakepit_bridge"
    lines = [ours, theirs] if order == "ours first" else [theirs, ours]
    code = "; ".join(
        [*lines, "assert ours.PingRequest.DESCRIPTOR is theirs.PingRequest.DESCRIPTOR"]
    )
    process = workers.adopt(
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": f"{stock}:{ROOT}"},
        )
    )
    assert process.wait(LIMIT) == 0


# --- Registration --------------------------------------------------------------------------------


@pytest.mark.conforms(72, "D5")
def test_what_the_base_class_registers_reaches_the_host_under_the_workers_id(
    workers: Workers, stock: Path, ready_file: Path
) -> None:
    del stock
    workers.popen(
        *("--adapter", SHOWCASE, "--elixir-address", workers.host.address),
        environment={"SNAKEPIT_READY_FILE": str(ready_file)},
    )
    wait_until(ready_file.exists, "readiness")
    connection = workers.connect(int(ready_file.read_text()))
    connection.greet()
    assert connection.call("ping") == "pong"
    workers.host.wait_for("RegisterTools")
    request = pb.ExecuteToolRequest(session_id=connection.session_id, tool_name="ping")
    workers.host.attach("default_worker_1", connection)
    with workers.connect(int(workers.host.address.rpartition(":")[2])) as elixir:
        wait_until(lambda: elixir.stub.ExecuteTool(request, timeout=LIMIT).success, "the tool")


@pytest.mark.conforms(96, "D43")
def test_a_registration_that_fails_breaks_no_call(start: Callable[..., Connection]) -> None:
    connection = start(f"{ADAPTERS}.NotJson")
    assert connection.call("odd") == "object"


# --- Helpers -------------------------------------------------------------------------------------


@pytest.mark.conforms(32)
@pytest.mark.parametrize("tool", ["correlation", "correlation_async"])
def test_the_helper_knows_the_correlation_id(tool: str, start: Callable[..., Connection]) -> None:
    connection = start(f"{ADAPTERS}.Helped")
    headers = ((CORRELATION_HEADER, "sp-17"),)
    request = connection.request(tool)
    response = connection.stub.ExecuteTool(request, timeout=LIMIT, metadata=headers)
    assert response.result.value in (b'["sp-17","sp-17"]', b'"sp-17"')
    response = connection.stub.ExecuteTool(
        connection.request("correlation_afterwards"), timeout=LIMIT, metadata=headers
    )
    assert response.result.value == b"null"


@pytest.mark.conforms(92, 95, "D44")
def test_what_adapters_emit_reaches_the_hosts_stream(start: Callable[..., Connection]) -> None:
    connection = start(f"{ADAPTERS}.Helped")
    connection.call("events", {"label": "mine"})
    failure_of(connection, "broken_span", {"label": "mine"})
    events = {}
    for event in connection.stub.StreamTelemetry(iter([]), timeout=LIMIT):
        if event.metadata["tool"] == "mine":
            events[".".join(event.event_parts)] = event
        if "tool.execution.exception" in events:
            break
    assert set(events) == {
        "tool.result_size",
        "tool.execution.start",
        "tool.execution.stop",
        "tool.execution.exception",
    }
    assert events["tool.result_size"].measurements["message_size"].int_value == 7
    assert events["tool.execution.stop"].measurements["duration"].int_value > 0
    assert events["tool.execution.stop"].correlation_id
    assert events["tool.execution.exception"].metadata["error_type"] == "ValueError"


@pytest.mark.conforms(77, 81, "D28", "D31")
def test_the_context(start: Callable[..., Connection], host: StandInHost) -> None:
    host.expose("echo", lambda value: value, description="Gives back")
    connection = start(f"{ADAPTERS}.Helped")
    members = connection.call("context_members", {})
    assert members["same"] is True
    assert members["session_id"] == members["helper"] == connection.session_id
    assert members["tools"] == {"echo": "Gives back"}
    assert connection.session_id in host.sessions
    for value in ("text", "", 7, True, None, 1.5, [1, ["x"]], {"a": None}):
        assert connection.call("ask", {"name": "echo", "value": value}) == value
    assert failure_of(connection, "ask", {"name": "absent", "value": 1})["type"] == "ValueError"


@pytest.mark.conforms(68, 69)
@pytest.mark.parametrize(
    ("arguments", "metadata"),
    [
        ({}, {"thread_sensitive": "true"}),
        ({"module_path": "lib"}, {}),
        ({"library": "other", "function": "only"}, {}),
    ],
    ids=["metadata", "module", "function"],
)
def test_thread_sensitive_calls_run_on_the_main_thread(
    arguments: dict[str, str], metadata: dict[str, str], start: Callable[..., Connection]
) -> None:
    sensitive = {"SNAKEPIT_THREAD_SENSITIVE": "lib,other.only"}
    connection = start(f"{ADAPTERS}.Helped", environment=sensitive)
    request = connection.request("on_main_thread", arguments)
    request.metadata.update(metadata)
    assert connection.stub.ExecuteTool(request, timeout=LIMIT).result.value == b"true"
    assert connection.call("on_main_thread", {"library": "other"}) is False


@pytest.mark.conforms(68, "D24")
def test_heartbeats_are_answered_while_the_main_thread_is_held(
    start: Callable[..., Connection], host: StandInHost
) -> None:
    release = threading.Event()
    asked = threading.Event()

    def held() -> bool:
        asked.set()
        return release.wait(LIMIT)

    host.expose("held", held)
    connection = start(f"{ADAPTERS}.Helped")
    request = connection.request("hold_main_thread")
    request.metadata["thread_sensitive"] = "true"
    call = connection.stub.ExecuteTool.future(request, timeout=LIMIT)
    assert asked.wait(LIMIT)
    beat = pb.HeartbeatRequest(session_id=connection.session_id)
    assert connection.stub.Heartbeat(beat, timeout=LIMIT).session_valid
    assert not call.done()
    release.set()
    assert call.result().result.value == b"true"


# --- What SnakeBridge needs ----------------------------------------------------------------------


@pytest.fixture
def bridge(start: Callable[..., Connection], host: StandInHost) -> Connection:
    connection = start(f"{ADAPTERS}.Bridge")
    host.expose("snakebridge.callback", lambda value: {"got": value})
    return connection


def own(connection: Connection, **arguments: Any) -> dict[str, Any]:
    """SnakeBridge puts its session id into the arguments."""
    return {"session_id": connection.session_id, **arguments}


@pytest.mark.conforms(93)
def test_references_outlive_the_instance(bridge: Connection) -> None:
    ref = bridge.call("snakebridge.call", own(bridge, value=[1, 2**70]))["id"]
    assert bridge.call("snakebridge.release_ref", own(bridge, ref=ref)) == [1, 2**70]


@pytest.mark.conforms(93)
@pytest.mark.parametrize("tool", ["callback", "callback_from_a_thread"])
def test_callbacks_while_the_call_runs(tool: str, bridge: Connection) -> None:
    arguments = own(bridge, value={"x": [None, 1]})
    assert bridge.call(f"snakebridge.{tool}", arguments) == {"got": {"x": [None, 1]}}


@pytest.mark.conforms(93)
def test_a_stream_that_calls_back_for_every_item(bridge: Connection) -> None:
    request = bridge.request("snakebridge.stream", own(bridge, n=3))
    with contextlib.closing(bridge.chunks(request, LIMIT)) as chunks:
        data = [chunk.data for chunk in chunks]
    assert data == [b'{"got":0}', b'{"got":1}', b'{"got":2}', b""]


def test_calls_that_come_one_at_a_time_find_the_same_thread(bridge: Connection) -> None:
    for _ in range(20):
        assert bridge.call("snakebridge.configure", own(bridge)) is True
        list(bridge.stream("snakebridge.stream", own(bridge, n=1)))


@pytest.mark.conforms(54, 57)
def test_an_error_keeps_what_the_caller_matches_on(bridge: Connection) -> None:
    failure = failure_of(
        bridge, "snakebridge.release_ref", own(bridge, ref="gone", library="math", call_type="x")
    )
    assert (failure["type"], failure["message"]) == ("KeyError", "'gone'")
    context = failure["context"]
    assert (context["library"], context["call_type"]) == ("math", "x")
    assert context["tool_name"] == "snakebridge.release_ref"
