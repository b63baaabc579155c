"""What adapter authors import: `Adapter` and the `tool` decorator."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, overload

from snakepit_worker.errors import Unimplemented

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from snakepit_worker.errors import Meaning, WorkerError
    from snakepit_worker.sessions import Recipe

__all__ = ["INTERFACE_VERSION", "RESERVED_NAMES", "Adapter", "Rebuilt", "ToolMark", "tool"]

INTERFACE_VERSION: Final = 1
"""Version of the interface between the runtime and adapters."""

RESERVED_NAMES: Final = frozenset(("session", "job", "worker"))
"""Names of the worker's own tools, whatever an adapter answers to."""

MARK_ATTRIBUTE: Final = "__snakepit_tool__"

F = TypeVar("F", bound="Callable[..., Any]")


class Adapter:
    """Base of all adapters: a framework's tools under one name.

    One instance lives as long as the process and serves all sessions, from several threads at
    once.  What belongs to a caller lives in the caller's session.

    Attributes:
        name: First part of the tools' names (``echo`` in ``echo.say``); lower-case letters,
            digits and underscores.
        interface: Version of this interface that the adapter was written for.
    """

    name: ClassVar[str]
    interface: ClassVar[int] = INTERFACE_VERSION

    @contextmanager
    def lifespan(self) -> Iterator[None]:
        """Set up what the process needs once, and tear it down.

        Runs on the main thread after the worker is ready, which is the place to import a slow
        framework; calls wait for it.  What it raises on the way in becomes a failure of each call.
        """
        yield

    def meanings(self) -> Sequence[Meaning]:
        """What the framework's exceptions mean: a table, the most specific class first.

        Asked once, after ``lifespan`` has been entered, so that it can name classes of a framework
        which is imported there.  Exceptions that no row fits stay what they are.
        """
        return ()

    def explain(self, error: BaseException, failure: WorkerError) -> WorkerError:
        """Add to what the table says of one exception.

        Args:
            error: What one of this adapter's tools raised.
            failure: What the table makes of it, without a text of its own.

        Returns:
            A failure with code, retry hint and details.  It is never raised: the caller sees its
            facts under the exception's own class name, and its text, or the exception's own where
            that is empty.
        """
        del error
        return failure

    def rebuild(self, kind: str, recipe: Recipe) -> Rebuilt | Awaitable[Rebuilt]:
        """Build a resource again, in a session that this worker has taken over from another.

        Called for resources that were put with a ``recipe`` and whose kind begins with this
        adapter's name, oldest first; a plain function in a worker thread, a coroutine function on
        the event loop.  What it raises becomes the reason why the resource is listed as lost.

        Args:
            kind: Kind of the resource.
            recipe: What ``recipe()`` gave, after a way through JSON.

        Raises:
            Unimplemented: Unless the adapter overrides this.
        """
        del recipe
        raise Unimplemented(f"adapter {self.name} cannot rebuild {kind}: it has no `rebuild`")


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A resource that was built again from its recipe; the rest is as it was.

    Attributes:
        value: The object.
        close: As for ``Session.put``.
        recipe: As for ``Session.put``.
        size: As for ``Session.put``.
    """

    value: object
    close: Callable[[], object] | None = None
    recipe: Callable[[], Recipe] | None = None
    size: int | None = None


class ToolMark:
    """What the decorator leaves on a method.

    Attributes:
        name: Second part of the tool's name; the method's name when omitted.
        main_thread: Whether the tool has to run on the process's main thread.
    """

    __slots__ = ("main_thread", "name")

    def __init__(self, *, name: str | None, main_thread: bool) -> None:
        self.name = name
        self.main_thread = main_thread


@overload
def tool(function: F, /) -> F: ...


@overload
def tool(*, name: str | None = None, main_thread: bool = False) -> Callable[[F], F]: ...


def tool(
    function: F | None = None, /, *, name: str | None = None, main_thread: bool = False
) -> F | Callable[[F], F]:
    """Make a method of an adapter callable from Elixir.

    The parameters' type hints validate the arguments and become a JSON Schema; the docstring
    becomes the description.  A plain function runs in a worker thread, a coroutine function on the
    event loop; a generator of either kind streams.

    Args:
        function: The method, when the decorator is used without parentheses.
        name: Another name than the method's.
        main_thread: Run a plain function on the process's main thread, one at a time, for
            libraries that insist on it.
    """
    mark = ToolMark(name=name, main_thread=main_thread)

    def decorate(decorated: F) -> F:
        setattr(decorated, MARK_ATTRIBUTE, mark)
        return decorated

    return decorate if function is None else decorate(function)
