"""Requests that no client would send: each ends, with strict JSON or a status."""

from __future__ import annotations

import contextlib
import threading
import uuid
from typing import TYPE_CHECKING, Any, Final

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from tests.conftest import strict_json
from tests.fuzz.calls import KNOWN, requests
from tests.fuzz.conftest import LIMIT, fuzz
from tests.fuzz.messages import REQUESTS, damaged, damages, messages

if TYPE_CHECKING:
    from tests.fuzz.conftest import Target
    from tests.fuzz.messages import Damage

# Of an example that failed.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

SERVICE: Final = "/snakepit.bridge.BridgeService/"
UNARY_TOOLS: Final = ("ExecuteTool",)
STREAMS: Final = ("ExecuteStreamingTool",)
OTHERS: Final = tuple(
    name for name in REQUESTS if name not in {*UNARY_TOOLS, *STREAMS, "StreamTelemetry"}
)
REFUSALS: Final = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
}
OF_THE_HOST: Final = ("invalid_id", "Stream removed (received metadata size")
"""Its word for an odd session id, and what becomes of a status in which it repeats a long one."""


def check_failure(text: str) -> None:
    """A failure whose tool is well-behaved is the caller's doing, and says so."""
    failure = strict_json(text)
    assert failure["code"] != "INTERNAL", text
    assert isinstance(failure["message"], str)
    assert isinstance(failure["type"], str)


def check_reply(reply: pb.ExecuteToolResponse) -> None:
    if not reply.success:
        check_failure(reply.error_message)
    elif reply.HasField("result"):
        strict_json(reply.result.value)


def check_call(target: Target, call: Any) -> None:
    """A call of another RPC that ends, well or with a refusal."""
    error = call.exception(LIMIT)
    if error is None or (target.hosted and error.details().startswith(OF_THE_HOST)):
        return
    assert error.code() in REFUSALS, error


@fuzz
@given(request=requests)
def test_unary_calls(target: Target, request: pb.ExecuteToolRequest) -> None:
    check_reply(target.stub.ExecuteTool(request, timeout=LIMIT))
    target.is_well()


@fuzz
@given(request=requests)
def test_streams(target: Target, request: pb.ExecuteToolRequest) -> None:
    call: Any = target.stub.ExecuteStreamingTool(request, timeout=LIMIT)
    try:
        chunks = list(call)
    except grpc.RpcError:
        check_failure(call.details())
    else:
        assert sum(chunk.is_final for chunk in chunks) == 1
    target.is_well()


@pytest.mark.parametrize("name", OTHERS)
@fuzz
@given(data=st.data())
def test_other_requests(target: Target, name: str, data: st.DataObject) -> None:
    request = data.draw(messages(REQUESTS[name], KNOWN))
    check_call(target, getattr(target.stub, name).future(request, timeout=LIMIT))
    target.is_well()


@fuzz
@given(controls=st.lists(messages(pb.TelemetryControl, {}), max_size=6))
def test_wishes_about_events(target: Target, controls: list[pb.TelemetryControl]) -> None:
    """Whatever came before, who asks for all events gets them."""
    everything = [
        pb.TelemetryControl(sampling=pb.TelemetrySamplingUpdate(sampling_rate=1.0)),
        pb.TelemetryControl(filter=pb.TelemetryEventFilter()),
        pb.TelemetryControl(toggle=pb.TelemetryToggle(enabled=True)),
    ]
    stream: Any = target.stub.StreamTelemetry(iter([*controls, *everything]), timeout=LIMIT)
    mark = uuid.uuid4().hex
    arrived = threading.Event()

    def read() -> None:
        with contextlib.suppress(grpc.RpcError):
            for event in stream:
                if event.correlation_id == mark:
                    arrived.set()

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(10_000):  # the first calls may come before the wishes are heard
        target.connection.call("echo.anything", {"anything": 1}, metadata={"correlation_id": mark})
        if arrived.is_set():
            break
    stream.cancel()
    reader.join()
    assert arrived.is_set()
    target.is_well()


@pytest.mark.parametrize("name", [*UNARY_TOOLS, *OTHERS])
@fuzz
@given(data=st.data(), damage=damages)
def test_bytes_that_are_hardly_a_message(
    target: Target, name: str, data: st.DataObject, damage: list[Damage]
) -> None:
    request = data.draw(messages(REQUESTS[name], KNOWN))
    send: Any = target.connection.channel.unary_unary(SERVICE + name)
    call = send.future(
        damaged(request.SerializeToString(deterministic=True), damage), timeout=LIMIT
    )
    error = call.exception(LIMIT)
    if error is not None:
        assert error.code() in REFUSALS | {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}
    elif name in UNARY_TOOLS:
        check_reply(pb.ExecuteToolResponse.FromString(call.result()))
    target.is_well("Unexpected [DecodeError]")  # grpc itself says so
