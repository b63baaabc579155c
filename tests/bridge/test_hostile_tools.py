"""Tools that misbehave: a clear failure each time, and a worker that serves the next call.

Each misbehaviour is tried in a plain function, a coroutine function, a generator and an
asynchronous generator; of an adapter for this worker, and of a class written for Snakepit's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from snakepit_worker import launch
from snakepit_worker.testing import Connection
from tests.bridge.adapters import hostile, oddities
from tests.bridge.conftest import LIMIT
from tests.conftest import strict_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bridge.conftest import Served

FOREIGN = f"{hostile.__name__}.Foreign"
NATIVE = f"{hostile.__name__}.Hostile"
UNARY = ("hostile.unary", "hostile.unary_async", "unary", "unary_async")
STREAMS = ("hostile.stream", "hostile.stream_async", "stream", "stream_async")
FORMS = (*UNARY, *STREAMS)
CODES = {"RuntimeError": "ABORTED"}
"""Of the failures that are not INTERNAL."""


@pytest.fixture
def connection(serve: Served) -> Iterator[Connection]:
    connection = serve(hostile.Hostile(), adapters=(FOREIGN,))
    yield connection
    for form in UNARY:
        assert connection.call(form, {"how": "nothing odd"}) is None
    while connection.call("worker.stats")["calls"]["in_flight"] > 1:
        pass
    stats = connection.call("worker.stats")
    assert stats["threads"] == {"size": 10, "busy": 0, "waiting": 0, "abandoned": 0}
    assert stats["coroutines"]["running"] == 0


def outcome(connection: Connection, form: str, how: str) -> Any:
    """The failure object, or the value; of a stream its only item."""
    request = connection.request(form, {"how": how})
    if form in UNARY:
        response = connection.stub.ExecuteTool(request, timeout=LIMIT)
        if not response.success:
            assert not response.HasField("result")
            return strict_json(response.error_message)
        return strict_json(response.result.value)
    call: Any = connection.stub.ExecuteStreamingTool(request, timeout=LIMIT)
    try:
        item, end = call
    except grpc.RpcError:
        return strict_json(call.details())
    assert (end.data, end.is_final) == (b"", True)
    return strict_json(item.data)


@pytest.mark.parametrize("how", oddities.RAISED)
def test_whatever_is_raised_is_a_failure(connection: Connection, serve: Served, how: str) -> None:
    if how == "SealedError":
        serve.expected_errors = ("an exception cannot be explained",)
    name = how.partition(",")[0]
    for form in FORMS:
        failure = outcome(connection, form, how)
        assert (failure["type"], failure["code"]) == (name, CODES.get(name, "INTERNAL")), form
        assert failure["message"], form
        assert len(str(failure)) < 4 * oddities.MEBIBYTE


@pytest.mark.parametrize("how", oddities.NOT_JSON)
def test_what_cannot_be_encoded_is_a_failure(connection: Connection, how: str) -> None:
    for form in FORMS:
        failure = outcome(connection, form, f"not JSON: {how}")
        assert (failure["type"], failure["category"]) == ("TypeError", "serialization"), form


@pytest.mark.parametrize("how", oddities.ABRUPT)
def test_whatever_encoding_raises_is_a_failure(connection: Connection, how: str) -> None:
    for form in FORMS:
        failure = outcome(connection, form, f"abrupt: {how}")
        assert (failure["type"], failure["code"]) == ("AbruptError", "INTERNAL"), form


@pytest.mark.parametrize("how", oddities.JSON)
def test_what_can_be_encoded_is(connection: Connection, how: str) -> None:
    _, expected = oddities.JSON[how]
    for form in FORMS:
        assert outcome(connection, form, f"JSON: {how}") == expected, form


@pytest.mark.parametrize("how", oddities.ITEMS)
def test_an_item_that_cannot_be_sent_ends_its_stream(connection: Connection, how: str) -> None:
    for form in STREAMS:
        assert outcome(connection, form, f"item: {how}")["code"] == "INTERNAL", form


@pytest.mark.parametrize("form", FORMS)
def test_a_result_of_more_than_100_mib_is_refused(connection: Connection, form: str) -> None:
    request = connection.request(form, {"how": "101 MiB"})
    call: Any
    if form in UNARY:
        call = connection.stub.ExecuteTool.future(request, timeout=LIMIT)
    else:
        call = connection.stub.ExecuteStreamingTool(request, timeout=LIMIT)
    assert call.exception().code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("form", ["stream", "stream_async"])
def test_a_generator_of_a_foreign_class_is_no_result(connection: Connection, form: str) -> None:
    request = connection.request(form, {"how": "nothing odd"})
    response = connection.stub.ExecuteTool(request, timeout=LIMIT)
    assert strict_json(response.error_message)["code"] == "FAILED_PRECONDITION"


@pytest.mark.parametrize("form", ["", "_async"], ids=["sync", "async"])
@pytest.mark.parametrize("adapter", ["hostile.", ""], ids=["native", "foreign"])
def test_an_item_after_the_final_one_is_sent_and_none_is_added(
    connection: Connection, adapter: str, form: str
) -> None:
    chunks = list(connection.stream(f"{adapter}after_the_end{form}", {"how": ""}))
    assert chunks == [{"data": 1, "is_final": True}, {"data": 2, "is_final": False}]


@pytest.mark.parametrize("form", ["", "_async"], ids=["sync", "async"])
@pytest.mark.parametrize("adapter", ["hostile.", ""], ids=["native", "foreign"])
def test_a_generator_that_goes_on_when_its_reader_has_left_harms_nobody(
    connection: Connection, serve: Served, adapter: str, form: str
) -> None:
    # Said when the worker stops, of a generator that nothing could close.
    serve.expected_errors = ("an error occurred during closing of asynchronous generator",)
    chunks = connection.stream(f"{adapter}defiant{form}", {"how": ""})
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]  # is a generator
    while connection.call("worker.stats")["threads"]["busy"]:
        pass


def test_megabytes_on_both_outputs_delay_nobody() -> None:
    with (
        launch.start(adapters=[NATIVE, FOREIGN]) as worker,
        Connection(worker.address) as connection,
    ):
        connection.greet()
        for form in UNARY:
            assert outcome(connection, form, "prints") is None
        for form in STREAMS:
            items = connection.stub.ExecuteStreamingTool(
                connection.request(form, {"how": "prints"}), timeout=LIMIT
            )
            assert [chunk.is_final for chunk in items] == [False, True]
        assert connection.call("worker.stats")["calls"]["failed"] == 0
        assert worker.stop() == 0
