"""Parts of a program that another language model answers than the rest of it."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

import dspy

from snakepit_adapters.dspy.metered import present_account
from snakepit_adapters.dspy.tools.held import LM
from snakepit_worker.errors import FailedPrecondition, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CONFIG", "answering"]

CONFIG: Final = "snakepit_config"
"""Name of the options of a call among DSPy's settings, which DSPy hands on to its threads."""


@contextmanager
def answering(name: str | None) -> Iterator[None]:
    """Let another language model of the session answer within the block.

    Args:
        name: Its name; ``None`` for the one that answers anyway.

    Raises:
        FailedPrecondition: When the session has none of this name.
    """
    account = present_account() if name is not None else None
    if name is None or account is None:
        yield
        return
    with ExitStack() as leases:
        try:
            model = leases.enter_context(account.call.session.lease(name, LM))
        except NotFound:
            raise FailedPrecondition(
                f"no language model {name!r} is configured in this session",
                details={"lm": name},
                help="call dspy.configure_lm first",
            ) from None
        config = dspy.settings.get(CONFIG) or {}
        with dspy.context(lm=model.lm.copy(**config) if config else model.lm):
            yield
