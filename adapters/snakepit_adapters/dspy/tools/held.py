"""What a session holds of DSPy: kinds, and leases of what belongs together."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from snakepit_adapters.dspy.usage import known_as
from snakepit_worker.errors import FailedPrecondition, NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from snakepit_adapters.dspy.language_models import LanguageModel
    from snakepit_adapters.dspy.programs import Program
    from snakepit_worker import CallContext
    from snakepit_worker.sessions import Resource, Session

__all__ = [
    "CORPUS",
    "DEFAULT_LM",
    "EMBEDDER",
    "LM",
    "MODULE",
    "identity",
    "keep",
    "leased",
    "leased_lm",
]

CORPUS: Final = "dspy.corpus"
EMBEDDER: Final = "dspy.embedder"
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
        lease = session.lease(handle, MODULE)
        program: Program = await leases.enter_async_context(lease)
        known_as(program, lease.resource.name or lease.resource.handle)
        yield program, await leases.enter_async_context(leased_lm(session, lm or program.lm))


@asynccontextmanager
async def leased_lm(session: Session, name: str) -> AsyncIterator[LanguageModel]:
    """A language model, which does not close before the block ends.

    Raises:
        FailedPrecondition: When the session has none of this name.
    """
    async with AsyncExitStack() as leases:
        try:
            model: LanguageModel = await leases.enter_async_context(session.lease(name, LM))
        except NotFound:
            raise FailedPrecondition(
                f"no language model {name!r} is configured in this session",
                details={"lm": name},
                help="call dspy.configure_lm first",
            ) from None
        yield model


def keep(
    ctx: CallContext, program: Program, name: str | None, *, replace: bool = False
) -> dict[str, Any]:
    """Put a program into the session.

    Args:
        ctx: The call.
        program: The program.
        name: What the caller calls it.
        replace: Whether something else of that name is replaced.

    Returns:
        What the caller is told of it.
    """
    facts = {"module": program.kind, "lm": program.lm}
    resource = ctx.session.put(
        MODULE,
        program,
        name=name,
        metadata=facts,
        recipe=program.recipe,
        size=program.size,
        replace=replace,
    )
    return identity(resource) | facts | {"signature": program.signature.describe()}


def identity(resource: Resource) -> dict[str, Any]:
    """What callers are told of a resource first.

    Args:
        resource: The resource.
    """
    return {"handle": resource.handle, "kind": resource.kind, "name": resource.name}
