"""Snakepit's telemetry helper knows the correlation id of a call, and only during the call."""

from __future__ import annotations

import json
import sys
import threading
from contextvars import ContextVar
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from snakepit_worker.calls.threads import Job
from snakepit_worker.wire.convention import CORRELATION_HEADER
from tests.bridge.adapters.foreign_correlated import here
from tests.bridge.conftest import LIMIT

if TYPE_CHECKING:
    from tests.bridge.conftest import Served

ADAPTER = "tests.bridge.adapters.foreign_correlated.Correlated"


@pytest.fixture(autouse=True)
def helper(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the worker needs of the helper."""
    current: ContextVar[str | None] = ContextVar("current", default=None)
    module = ModuleType("snakepit_bridge.telemetry")
    vars(module).update(
        set_backend=lambda _: None,
        set_correlation_id=current.set,
        get_correlation_id=current.get,
    )
    monkeypatch.setitem(sys.modules, "snakepit_bridge", ModuleType("snakepit_bridge"))
    monkeypatch.setitem(sys.modules, "snakepit_bridge.telemetry", module)


@pytest.mark.conforms(32)
@pytest.mark.parametrize(
    ("tool", "thread"), [("plain", "tool-0"), ("coroutine", "adapter"), ("generator", "tool-0")]
)
def test_the_helper_knows_the_call_wherever_the_tool_runs_and_not_afterwards(
    serve: Served, tool: str, thread: str
) -> None:
    connection = serve(adapters=(ADAPTER,))
    headers = ((CORRELATION_HEADER, "sp-here"),)
    request = connection.request(tool)
    if tool == "generator":
        chunk, _ = connection.stub.ExecuteStreamingTool(request, timeout=LIMIT, metadata=headers)
        assert json.loads(chunk.data) == ["sp-here", thread]
    else:
        response = connection.stub.ExecuteTool(request, timeout=LIMIT, metadata=headers)
        assert json.loads(response.result.value) == ["sp-here", thread]

    seen: list[list[str | None]] = []
    done = threading.Event()
    serve.worker._threads.submit(Job(lambda: seen.append(here()), done.set))
    assert done.wait(LIMIT)

    async def on_a_loop() -> None:
        seen.append(here())

    serve.worker._loop.run(on_a_loop())
    assert serve.worker._foreign is not None
    serve.worker._foreign._loop.run(on_a_loop())
    assert seen == [[None, "tool-0"], [None, "bridge"], [None, "adapter"]]
