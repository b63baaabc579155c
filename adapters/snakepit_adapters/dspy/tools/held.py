"""What a session holds of DSPy: kinds, and leases of what belongs together."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from snakepit_worker.errors import FailedPrecondition, NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from snakepit_adapters.dspy.language_models import LanguageModel
    from snakepit_adapters.dspy.programs import Program
    from snakepit_worker.sessions import Resource, Session

__all__ = ["DEFAULT_LM", "LM", "MODULE", "identity", "leased"]

LM: Final = "dspy.lm"
MODULE: Final = "dspy.module"
DEFAULT_LM: Final = "default"
"""Name of the language model that programs use unless they name another."""


@asynccontextmanager
async def leased(
    session: Session, handle: str, lm: str | None
) -> AsyncIterator[tuple[Program, LanguageModel]]:
    """A program and the language model that answers, neither of which closes before the block ends.

    Raises:
        NotFound: When the session has no such program.
        FailedPrecondition: When it has no such language model.
    """
    async with AsyncExitStack() as leases:
        program: Program = await leases.enter_async_context(session.lease(handle, MODULE))
        name = lm or program.lm
        try:
            model = await leases.enter_async_context(session.lease(name, LM))
        except NotFound:
            raise FailedPrecondition(
                f"no language model {name!r} is configured in this session",
                details={"lm": name},
                help="call dspy.configure_lm first",
            ) from None
        yield program, model


def identity(resource: Resource) -> dict[str, Any]:
    """What callers are told of a resource first.

    Args:
        resource: The resource.
    """
    return {"handle": resource.handle, "kind": resource.kind, "name": resource.name}
