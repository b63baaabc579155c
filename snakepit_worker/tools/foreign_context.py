"""The session context that adapters written for Snakepit's own worker are given (interop 5.1)."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from snakepit_worker.errors import ElixirToolNotFound, WorkerError
from snakepit_worker.telemetry.logging import logger

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from snakepit_worker.host.blocking_stub import BlockingStub
    from snakepit_worker.host.elixir_tools import ElixirTools

__all__ = ["ForeignContext"]


class ForeignContext:
    """A call, under the names that such adapters know.

    Attributes:
        session_id: Session of the request, the one that the host knows.
        stub: Synchronous stub for the host's service.
        request_metadata: What came beside the arguments.
    """

    def __init__(
        self,
        session_id: str,
        request_metadata: Mapping[str, str],
        elixir: ElixirTools,
        stub: BlockingStub,
    ) -> None:
        self.session_id = session_id
        self.stub = stub
        self.request_metadata = dict(request_metadata)
        self._elixir = elixir

    @cached_property
    def elixir_tools(self) -> Mapping[str, Mapping[str, Any]]:
        """The exposed Elixir tools by name; empty when the host cannot be asked."""
        try:
            tools = self._elixir.list_blocking()
        except WorkerError as error:
            logger().warning("the host's tools cannot be listed", reason=str(error))
            return {}
        return {
            tool.name: {
                "name": tool.name,
                "description": tool.description,
                "parameters": {
                    parameter["name"]: parameter["type"] for parameter in tool.parameters
                },
            }
            for tool in tools.values()
        }

    def call_elixir_tool(self, tool_name: str, **arguments: Any) -> Any:  # noqa: ANN401
        """Call an Elixir tool.

        Args:
            tool_name: Its name.
            **arguments: JSON values.

        Raises:
            ValueError: When the host has no such tool.
            RuntimeError: When the call fails in any other way; the cause says how.
        """
        try:
            return self._elixir.call_blocking(tool_name, arguments)
        except ElixirToolNotFound as error:
            raise ValueError(str(error)) from error
        except WorkerError as error:
            raise RuntimeError(str(error)) from error

    def cleanup(self) -> None:
        """Do nothing.

        Snakepit's own context deletes the worker's session on the host here, upon which the host
        stops the worker.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cleanup()
