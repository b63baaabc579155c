"""Tools as the host registers them."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from google.protobuf.message import Message

    from snakepit_worker.tools.foreign import ForeignAdapter

__all__ = ["foreign_registrations", "native_registrations"]


def native_registrations(described: Iterable[Mapping[str, Any]]) -> list[pb.ToolRegistration]:
    """Registrations of native tools.

    Args:
        described: Tools as `snakepit_worker.tools.describing.describe` gives them.
    """
    return [
        pb.ToolRegistration(
            name=tool["name"],
            description=tool["description"],
            supports_streaming=tool["streams"],
            parameters=[
                _parameter(name, schema, required=name in tool["parameters"].get("required", ()))
                for name, schema in tool["parameters"]["properties"].items()
            ],
            metadata={"adapter": tool["name"].partition(".")[0]},
        )
        for tool in described
    ]


def foreign_registrations(
    adapter: ForeignAdapter, context: object, session_id: str
) -> list[pb.ToolRegistration]:
    """What an adapter written for Snakepit's own worker would register, if it does.

    Such a class registers by itself, through a stub; this one only takes note, so that the names
    can be checked and the right worker id added.

    Args:
        adapter: The adapter.
        context: Session context for the instance that is asked.
        session_id: Session to register for.
    """
    if not hasattr(adapter.kind, "register_with_session"):
        return []
    instance = adapter.build(context)
    stub = _CapturingStub()
    instance.register_with_session(session_id, stub)
    return stub.tools


class _CapturingStub:
    """A stub whose one RPC takes note and reports success."""

    def __init__(self) -> None:
        self.tools: list[pb.ToolRegistration] = []

    def RegisterTools(self, request: Message, *_: object, **__: object) -> SimpleNamespace:  # noqa: N802
        # Through bytes: the request may be of a class of another descriptor pool.
        known = pb.RegisterToolsRequest.FromString(request.SerializeToString())
        self.tools += known.tools
        ids = {tool.name: f"{known.session_id}:{tool.name}" for tool in known.tools}
        return SimpleNamespace(success=True, tool_ids=ids, error_message="")


def _parameter(name: str, schema: Mapping[str, Any], *, required: bool) -> pb.ParameterSpec:
    validation = {"default": schema["default"]} if "default" in schema else {}
    return pb.ParameterSpec(
        name=name,
        type=_type(schema),
        description=schema.get("description", ""),
        required=required,
        validation_json=json.dumps(validation) if validation else "",
    )


def _type(schema: Mapping[str, Any]) -> str:
    """The JSON type, of alternatives the first that is not null."""
    kind = schema.get("type")
    if isinstance(kind, str):
        return kind
    for alternative in schema.get("anyOf", ()):
        kind = alternative.get("type")
        if isinstance(kind, str) and kind != "null":
            return kind
    return "any"
