"""Results and stream items on their way out, encoded where they were made."""

from __future__ import annotations

import asyncio
from collections import abc
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from snakepit_worker.errors import FailedPrecondition
from snakepit_worker.wire.results import as_chunk
from snakepit_worker.wire.values import PLAIN_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.any_pb2 import Any as AnyMessage

    from snakepit_worker.wire.values import Values

__all__ = ["IS_A_STREAM", "EncodedChunk", "EncodedResult", "Encoder"]

T = TypeVar("T")

EncodedResult: TypeAlias = "tuple[AnyMessage | None, bytes]"
"""``result`` and ``binary_result`` of a reply."""
EncodedChunk: TypeAlias = "tuple[bytes, bool, abc.Mapping[str, object]]"
"""Data, whether it is the last, and metadata of a chunk."""

IS_A_STREAM: Final = (
    "the tool returns a stream; call it as a streaming tool, or as a job with `stream: true`"
)
_NOTHING: Final[abc.Mapping[str, object]] = {}


class Encoder:
    """Encoding of results and items.

    What is not JSON has methods of its own called, which may take their time.  So ``result`` and
    ``chunk`` are for threads; on the event loop there are ``result_on_loop`` and
    ``chunk_on_loop``, which go to a thread when they have to.

    Args:
        values: The codec.
    """

    def __init__(self, values: Values) -> None:
        self._values = values

    def result(self, value: object) -> EncodedResult:
        """A unary result.

        Args:
            value: What the tool returned.

        Raises:
            FailedPrecondition: When it is a stream.
            SerializationError: When it cannot be encoded.
        """
        if type(value) not in PLAIN_TYPES and isinstance(value, abc.Iterator | abc.AsyncIterator):
            close = getattr(value, "close", None)
            if close is not None:
                close()
            raise FailedPrecondition(IS_A_STREAM)
        return self._values.result(value)

    async def result_on_loop(self, value: object) -> EncodedResult:
        """The same, on the event loop.

        Args:
            value: What the tool returned.
        """
        encoded = self._values.plain_result(value)
        return encoded if encoded is not None else await _in_thread(self.result, value)

    def chunk(self, item: object) -> EncodedChunk:
        """An item of a stream.

        Args:
            item: Data, or something that says more than its data.

        Raises:
            SerializationError: When it cannot be encoded.
        """
        if type(item) in PLAIN_TYPES:  # most are
            return self._values.chunk(item), False, _NOTHING
        chunk = as_chunk(item)
        return self._values.chunk(chunk.data), chunk.is_final, chunk.metadata

    async def chunk_on_loop(self, item: object) -> EncodedChunk:
        """The same, on the event loop.

        Args:
            item: As for ``chunk``.
        """
        data = self._values.plain_chunk(item)
        if data is not None:
            return data, False, _NOTHING
        return await _in_thread(self.chunk, item)


async def _in_thread(encode: Callable[[object], T], value: object) -> T:
    def run() -> T:
        try:
            return encode(value)
        except StopIteration as error:  # which no future takes, so that the call would never end
            raise RuntimeError("a method of the value raised StopIteration") from error

    return await asyncio.to_thread(run)
