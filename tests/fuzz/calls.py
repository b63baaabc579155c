"""Calls that come near to what a tool takes, and then some."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.any_pb2 import Any as AnyMessage
from hypothesis import strategies as st

from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb
from tests.fuzz.messages import json_values, messages

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KNOWN", "requests"]

_RECORD: Final = {"name": "a", "tags": ["b"], "inner": {"name": "c"}}
_SHAPES: Final = {
    "record": _RECORD,
    "records": [_RECORD, _RECORD],
    "choice": 1,
    "colour": "blue",
    "when": "2026-11-25T12:00:00.5+01:00",
    "day": "2026-11-25",
    "time": "P1DT2H",
    "key": "00000000-0000-0000-0000-000000000007",
    "amount": "1.50",
    "point": {"x": 1, "y": 2.5},
    "pair": [1, "a"],
    "either": [1, 2],
    "names": ["a", "b"],
    "short": "abc",
    "api_key": "sk-0123456789abcdef",
}
_PLAIN: Final = {
    "text": "a",
    "number": 7,
    "share": 0.5,
    "flag": True,
    "data": None,
    "items": [1, "a"],
    "table": {"a": 1},
    "anything": {"a": [None, 1.5]},
}
_BATCH: Final = {
    "calls": [
        {"tool": "echo.anything", "arguments": {"anything": 1}, "timeout_ms": 1_000},
        {"tool": "echo.plain", "binary": {"data": "AP8="}},
        {"tool": "missing"},
    ],
    "concurrency": 2,
}
_TOOLS: Final[Mapping[str, Mapping[str, Any]]] = {
    "echo.plain": _PLAIN,
    "echo.shapes": _SHAPES,
    "echo.anything": {"anything": 2**70},
    "echo.elixir": {},
    "echo.items": {"anything": [1], "count": 3},
    "echo.items_async": {"anything": {"data": 1, "is_final": True}, "count": 3},
    "worker.info": {},
    "worker.stats": {},
    "worker.tools": {"adapter": "echo"},
    "worker.batch": _BATCH,
    "session.info": {},
    "session.list": {"kind": "any"},
    "session.release": {"handle": "any"},
    "session.close": {},
}
"""Tools, with a fitting value for each of their parameters."""

KNOWN: Final = {
    "tool_name": st.sampled_from(sorted(_TOOLS)),
    "parameters": st.sampled_from([
        *sorted({name for parameters in _TOOLS.values() for name in parameters}),
        "session_id", "idempotent", "library", "python_module", "function", "call_type",
    ]),
    "binary_parameters": st.sampled_from(["data", "anything", "session_id", "text", "calls"]),
    "metadata": st.sampled_from([
        "correlation_id", "thread_sensitive", "binary_format:data", "traceparent",
    ]),
    "session_id": st.sampled_from(["one", "two"]),
}  # fmt: skip
"""Texts that mean something to a worker."""

_any: Final = messages(AnyMessage, {})


def _as_any(value: object) -> AnyMessage:
    return AnyMessage(value=json.dumps(value).encode())


def _near(tool: str) -> st.SearchStrategy[pb.ExecuteToolRequest]:
    """Calls of a tool with some of its parameters, most of them right."""
    parameters = {
        name: st.one_of(*[st.just(value).map(_as_any)] * 3, json_values.map(_as_any), _any)
        for name, value in _TOOLS[tool].items()
    }
    return st.builds(
        pb.ExecuteToolRequest,
        tool_name=st.just(tool),
        session_id=st.sampled_from(["", "one", "two"]),
        parameters=st.fixed_dictionaries({}, optional=parameters),
        binary_parameters=st.fixed_dictionaries(
            {}, optional={name: st.binary() for name in ("data", "anything") if name in parameters}
        ),
        metadata=st.dictionaries(KNOWN["metadata"], st.sampled_from(["1", "pickle", "\n é"])),
    )


requests: Final[st.SearchStrategy[pb.ExecuteToolRequest]] = st.one_of(
    st.sampled_from(sorted(_TOOLS)).flatmap(_near), messages(pb.ExecuteToolRequest, KNOWN)
)
