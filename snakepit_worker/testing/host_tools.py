"""The host's tools: Elixir functions, and tools that workers have registered.

Each belongs to one session and stays when the session goes.  Names and metadata have to keep the
host's rules, and whoever breaks them reads the host's words (interop 4.8, 5.2).
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from snakepit_worker.testing import elixir_json
from snakepit_worker.testing.elixir_terms import Inspect, inspect, plain_text
from snakepit_worker.testing.host_values import encode_any
from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = [
    "ElixirFunction",
    "Raises",
    "RemoteTool",
    "Throws",
    "ToolFailed",
    "ToolRefused",
    "ToolTable",
]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NAME_BYTES: Final = 64
_METADATA_ENTRIES: Final = 32
_METADATA_BYTES: Final = 4096


class Raises(Exception):  # noqa: N818 - what an Elixir function does
    """For functions that stand for Elixir ones: ``raise``.  Any other exception does the same."""


class Throws(Exception):  # noqa: N818 - what an Elixir function does
    """For functions that stand for Elixir ones: ``throw`` or ``exit``, which end the RPC itself."""


class ToolFailed(Exception):  # noqa: N818 - an answer, not a defect
    """An Elixir function that raised; the text is what it said."""


class ToolRefused(ValueError):  # noqa: N818 - an answer, not a defect
    """Tools that are not registered; the text is the host's reason."""


@dataclass(frozen=True, slots=True)
class ElixirFunction:
    """A tool that runs on the host.

    Attributes:
        name: Its name.
        function: Called with the parameters by name.
        parameters: Each with ``name``, ``type``, ``description``, ``required``, ``default`` and
            ``validation``, as far as there is something to say.
        metadata: What was registered with it.
    """

    name: str
    function: Callable[..., Any]
    parameters: Sequence[Mapping[str, Any]]
    metadata: Mapping[str, Any]

    def run(self, parameters: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any term
        """Call the function.

        Args:
            parameters: By name.

        Returns:
            The result, see `host_values.encode_result`.

        Raises:
            ToolFailed: When the function raises.
            Throws: When it throws.
        """
        try:
            result = self.function(**parameters)
        except Throws:
            raise
        except Exception as error:
            raise ToolFailed(str(error)) from error
        if isinstance(result, Throws):
            raise result
        if isinstance(result, Exception):
            raise ToolFailed(str(result))
        return result

    def spec(self) -> pb.ToolSpec:
        """How the host describes it to workers."""
        texts = {key: plain_text(value) for key, value in self.metadata.items()}
        return pb.ToolSpec(
            name=self.name,
            description=texts.get("description", ""),
            parameters=[_parameter(parameter) for parameter in self.parameters],
            metadata=texts,
            supports_streaming=texts.get("supports_streaming") == "true",
        )


@dataclass(frozen=True, slots=True)
class RemoteTool:
    """A tool that a worker has registered.

    Attributes:
        name: Its name.
        worker_id: Who has it.
        streams: Whether it may be called as a stream.
    """

    name: str
    worker_id: str
    streams: bool


class ToolTable:
    """Tools by session and name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tools: dict[tuple[str | None, str], ElixirFunction | RemoteTool] = {}

    def expose(self, tool: ElixirFunction, session_id: str | None) -> None:
        """Register an Elixir function.

        Args:
            tool: The function.
            session_id: The session that gets it; None for every session, as an application does
                that registers its tools in each session it makes.

        Raises:
            ToolRefused: When its name or metadata is not allowed, or it is there already.
        """
        name = _check_name(tool.name)
        _check_metadata({key: plain_text(value) for key, value in tool.metadata.items()})
        self._insert({(session_id, name): replace(tool, name=name)})

    def register(
        self, session_id: str, registrations: Iterable[pb.ToolRegistration], worker_id: str
    ) -> list[str]:
        """Register the tools of a worker, all or none.

        Args:
            session_id: The session that gets them.
            registrations: The tools.
            worker_id: Who has them.

        Returns:
            Their names.

        Raises:
            ToolRefused: When one of them is not allowed, or is there already.
        """
        tools: dict[tuple[str | None, str], ElixirFunction | RemoteTool] = {}
        for registration in registrations:
            streams = registration.supports_streaming
            name = _check_name(registration.name)
            _check_metadata({**registration.metadata, "supports_streaming": inspect(streams)})
            if (session_id, name) in tools:
                raise ToolRefused(_duplicate(name))
            tools[session_id, name] = RemoteTool(name, worker_id, streams)
        self._insert(tools)
        return [tool.name for tool in tools.values()]

    def find(self, session_id: str, name: str) -> ElixirFunction | RemoteTool | None:
        """The tool of this name, if the session has one.

        Args:
            session_id: The session.
            name: The name.
        """
        with self._lock:
            return self._tools.get((session_id, name)) or self._tools.get((None, name))

    def exposed(self, session_id: str, *, known: bool) -> list[pb.ToolSpec]:
        """The Elixir functions of a session.

        Args:
            session_id: The session.
            known: Whether it exists; one that does not has only what was exposed to it by name.
        """
        sessions = (session_id, None) if known else (session_id,)
        with self._lock:
            return [
                tool.spec()
                for (owner, _), tool in self._tools.items()
                if owner in sessions and isinstance(tool, ElixirFunction)
            ]

    def _insert(self, tools: Mapping[tuple[str | None, str], ElixirFunction | RemoteTool]) -> None:
        with self._lock:
            for key in tools:
                if key in self._tools:
                    raise ToolRefused(_duplicate(key[1]))
            self._tools.update(tools)


def _parameter(parameter: Mapping[str, Any]) -> pb.ParameterSpec:
    default = parameter.get("default")
    return pb.ParameterSpec(
        name=parameter.get("name", ""),
        type=parameter.get("type", "any"),
        description=parameter.get("description", ""),
        required=parameter.get("required", False),
        default_value=None if default is None else encode_any(default),
        validation_json=elixir_json.encode(parameter.get("validation", {})),
    )


def _check_name(name: str) -> str:
    name = name.strip()
    if not name:
        raise ToolRefused(_reason("invalid_tool_name", ":empty"))
    if len(name.encode()) > _NAME_BYTES:
        raise ToolRefused(_reason("invalid_tool_name", ":too_long"))
    if not _NAME.fullmatch(name):
        raise ToolRefused(_reason("invalid_tool_name", ":invalid_format"))
    return name


def _check_metadata(metadata: Mapping[str, str]) -> None:
    if len(metadata) > _METADATA_ENTRIES:
        raise ToolRefused(_reason("invalid_metadata", ":too_many_entries"))
    # As an Erlang term: a version byte, and five bytes before the map and before each binary.
    size = 6 + sum(10 + len(key.encode()) + len(text.encode()) for key, text in metadata.items())
    if size > _METADATA_BYTES:
        raise ToolRefused(_reason("invalid_metadata", ":too_large"))


def _duplicate(name: str) -> str:
    return _reason("duplicate_tool", inspect(name))


def _reason(kind: str, detail: str) -> str:
    return inspect((Inspect(f":{kind}"), Inspect(detail)))
