"""DSPy's language model, with an eye on what it is asked for."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dspy

from snakepit_adapters.dspy.failures import without
from snakepit_adapters.dspy.usage import SETTING, Account, Spent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["MeteredLM", "present_account"]


def present_account() -> Account | None:
    """On whose behalf the running code calls a language model, also in DSPy's own threads."""
    return dspy.settings.get(SETTING) or Account.present()


class MeteredLM(dspy.LM):  # type: ignore[misc]  # DSPy has no types
    """A language model that enters its calls into the session's books and keeps its keys secret.

    DSPy copies language models, and calls the copies in threads of its own; this goes along.

    Attributes:
        secrets: What no exception may quote.
    """

    secrets: tuple[str, ...] = ()

    def __call__(
        self,
        prompt: Any = None,  # noqa: ANN401 - as the base class
        *,
        messages: Any = None,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Call the model and wait."""
        with without(*self.secrets), self._metered():
            return super().__call__(prompt, messages=messages, **kwargs)

    async def acall(
        self,
        prompt: Any = None,  # noqa: ANN401 - as the base class
        *,
        messages: Any = None,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Call the model and await the answer."""
        with without(*self.secrets), self._metered():
            return await super().acall(prompt, messages=messages, **kwargs)

    def update_history(self, entry: Mapping[str, Any]) -> None:
        """Take the price from what DSPy would keep, and keep nothing.

        Args:
            entry: The call, prompt and answer included.
        """
        reading = dspy.settings.usage_tracker
        if isinstance(reading, _Reading):
            reading.spent.cost = entry["cost"]

    @contextmanager
    def _metered(self) -> Iterator[None]:
        account = present_account()
        if account is None:
            yield
            return
        reading = _Reading(dspy.settings.usage_tracker)
        begun = time.monotonic()
        failed = 1
        try:
            # DSPy tells the price to nobody but the history; an engine of our own has none.
            priced = {"disable_history": False} if isinstance(self.engine, str) else {}
            with dspy.context(usage_tracker=reading, **priced):
                yield
            failed = 0
        except (Exception, asyncio.CancelledError):
            raise
        except BaseException:  # a callback has stopped the call before it began
            account = None
            raise
        finally:
            if account is not None:
                spent = reading.spent
                spent.calls, spent.failures = 1, failed
                spent.seconds = time.monotonic() - begun
                spent.unpriced = int(spent.cost is None and not failed)
                account.add(self.model, spent)


class _Reading:
    """What one call uses, told to DSPy's own counter, too.

    Args:
        outer: That one, if there is one.
    """

    def __init__(self, outer: Any) -> None:  # noqa: ANN401 - DSPy has no types
        self.spent = Spent()
        self._outer = outer

    def add_usage(self, model: str, tokens: Mapping[str, Any]) -> None:
        """DSPy reports an answer, or what is known of a failed call.

        Args:
            model: ``provider/model``.
            tokens: Counts by name.
        """
        self.spent.add_tokens(tokens)
        if self._outer is not None:
            self._outer.add_usage(model, tokens)
