"""What a session has used of its language models: calls, tokens, time and money.

DSPy's own count covers one call of one module, and loses what its own threads use; this one is
kept by the session and fed by every call of a language model (`metered`).

Does not import DSPy, since the tools use it at once.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from snakepit_worker.tools.context import current_call

if TYPE_CHECKING:
    from collections.abc import Mapping

    from snakepit_worker.sessions import Session
    from snakepit_worker.tools.context import CallContext

__all__ = ["SETTING", "Account", "Ledger", "Spent", "attributed", "known_as", "ledger_of"]

SETTING: Final = "snakepit_account"
"""Name of the `Account` among DSPy's settings, which DSPy hands on to all threads that it starts.

Context variables of others get lost there."""

_TOKENS: Final = ("prompt_tokens", "completion_tokens", "total_tokens")
_LONGEST: Final = 1000
"""Names of models or programs that are kept apart."""
_REMEMBERED: Final = 100
"""Calls that are kept apart, the latest ones."""
_OTHERS: Final = "(others)"


@dataclass(slots=True)
class Spent:
    """A sum over calls of language models.

    Attributes:
        calls: How many.
        failures: How many of them gave no answer, those that were cancelled included.
        prompt_tokens: Tokens that were sent, as far as the provider says.
        completion_tokens: Tokens that came back, as far as the provider says.
        total_tokens: All of them, as the provider counts.
        seconds: Time that the calls took, one after the other.
        cost: US dollars for the calls whose price is known, ``None`` if there is none.
        unpriced: Answered calls whose price is not known.
    """

    calls: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    seconds: float = 0.0
    cost: float | None = None
    unpriced: int = 0

    def add(self, other: Spent) -> None:
        """Add another sum to this one."""
        self.calls += other.calls
        self.failures += other.failures
        for name in _TOKENS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.seconds += other.seconds
        self.unpriced += other.unpriced
        if other.cost is not None:
            self.cost = (self.cost or 0.0) + other.cost

    def add_tokens(self, tokens: Mapping[str, Any]) -> None:
        """Add what a provider reports under DSPy's names; it may leave out some.

        Args:
            tokens: Counts by name.
        """
        for name in _TOKENS:
            count = tokens.get(name)
            if isinstance(count, int):
                setattr(self, name, getattr(self, name) + count)

    def describe(self) -> dict[str, object]:
        """The sum as JSON values."""
        return {
            "calls": self.calls,
            "failures": self.failures,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.total_tokens,
            "seconds": round(self.seconds, 6),
            "cost": self.cost,
            "unpriced": self.unpriced,
        }


class _Sums:
    """Sums by name, the rarest used of too many thrown together."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._sums: OrderedDict[str, Spent] = OrderedDict()

    def add(self, name: str, spent: Spent) -> None:
        self._sums.setdefault(name, Spent()).add(spent)
        self._sums.move_to_end(name)
        if len(self._sums) > self._longest:
            oldest = next(name for name in self._sums if name != _OTHERS)
            self._sums.setdefault(_OTHERS, Spent()).add(self._sums.pop(oldest))

    def describe(self) -> dict[str, object]:
        return {name: spent.describe() for name, spent in self._sums.items()}


@dataclass(slots=True)
class _Call:
    """One call of a tool, which may call several models."""

    tool: str
    program: str | None
    models: _Sums = field(default_factory=lambda: _Sums(_LONGEST))

    def describe(self, correlation_id: str) -> dict[str, object]:
        return {
            "correlation_id": correlation_id,
            "tool": self.tool,
            "program": self.program,
            "models": self.models.describe(),
        }


class Ledger:
    """The books of one session.  Any thread may write."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begin()

    def add(self, account: Account, model: str, spent: Spent) -> None:
        """Enter one call of a model.

        Args:
            account: On whose behalf it was.
            model: ``provider/model``.
            spent: What it took.
        """
        key = (account.correlation_id, account.tool, account.program)
        with self._lock:
            self._total.add(spent)
            self._models.add(model, spent)
            if account.program is not None:
                self._programs.add(account.program, spent)
            call = self._calls.get(key)
            if call is None:
                call = self._calls[key] = _Call(account.tool, account.program)
                if len(self._calls) > _REMEMBERED:
                    self._calls.popitem(last=False)
            call.models.add(model, spent)

    def describe(self, *, calls: int = 0, reset: bool = False) -> dict[str, object]:
        """The books as JSON values.

        Args:
            calls: How many of the latest calls to show one by one.
            reset: Whether to begin new ones; no call is lost between the old and the new.
        """
        with self._lock:
            latest = list(self._calls.items())[-calls:] if calls else []
            shown = {
                "since": self._since,
                "total": self._total.describe(),
                "models": self._models.describe(),
                "programs": self._programs.describe(),
                "calls": [call.describe(key[0]) for key, call in reversed(latest)],
            }
            if reset:
                self._begin()
        return shown

    def _begin(self) -> None:
        self._since = time.time()
        self._total = Spent()
        self._models = _Sums(_LONGEST)
        self._programs = _Sums(_LONGEST)
        self._calls: OrderedDict[tuple[str, str, str | None], _Call] = OrderedDict()


@dataclass(frozen=True, slots=True)
class Account:
    """On whose behalf language models are called.

    Attributes:
        call: The call of a tool.
        program: Handle or name of the program, where there is one.
    """

    call: CallContext
    program: str | None = None

    @classmethod
    def present(cls) -> Account | None:
        """The account of the call that the running code serves, if there is one."""
        call = current_call.get()
        return None if call is None else cls(call)

    @property
    def tool(self) -> str:
        """Name of the tool that is called."""
        return self.call.tool

    @property
    def correlation_id(self) -> str:
        """What joins the call with the log lines of both sides."""
        return self.call.correlation_id

    def add(self, model: str, spent: Spent) -> None:
        """Enter one call of a model into the books of the session.

        Args:
            model: ``provider/model``.
            spent: What it took.
        """
        ledger_of(self.call.session).add(self, model, spent)


_ledgers: Final[WeakKeyDictionary[Session, Ledger]] = WeakKeyDictionary()
_names: Final[WeakKeyDictionary[object, str]] = WeakKeyDictionary()
_lock: Final = threading.Lock()
"""Guards both tables, which threads and the event loop share."""


def ledger_of(session: Session) -> Ledger:
    """The books of a session, new ones if it has none yet.

    Args:
        session: The session.
    """
    with _lock:
        ledger = _ledgers.get(session)
        if ledger is None:
            ledger = _ledgers[session] = Ledger()
        return ledger


def known_as(program: object, name: str) -> None:
    """Remember how a session calls a program, for its books.

    Args:
        program: The program.
        name: Its name or handle.
    """
    with _lock:
        _names[program] = name


def attributed(program: object = None) -> dict[str, object]:
    """Settings for ``dspy.context`` that make calls of language models count for a program.

    Whatever runs within that context, in whatever thread, counts for the tool call that is served
    now; without them only what runs on the call's own thread or task does.

    Args:
        program: What `known_as` was told of, or ``None``.
    """
    call = current_call.get()
    if call is None:
        return {}
    with _lock:
        name = None if program is None else _names.get(program)
    return {SETTING: Account(call, name)}
