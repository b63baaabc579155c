"""What one run of an optimizer or an evaluation uses, beside the books of the session."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from snakepit_adapters.dspy.usage import SETTING, Account, Spent, attributed

if TYPE_CHECKING:
    from snakepit_worker.tools.context import CallContext

__all__ = ["RunAccount"]


class _Total:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.models: dict[str, Spent] = {}


@dataclass(frozen=True, slots=True)
class RunAccount(Account):
    """An account that keeps a sum of its own, for one run.

    Attributes:
        total: The sum.
    """

    total: _Total = field(default_factory=_Total)

    @classmethod
    def of(cls, call: CallContext, program: object) -> RunAccount:
        """The account of a run.

        Args:
            call: The call of the tool.
            program: The program that runs.
        """
        known = attributed(program).get(SETTING)
        return cls(call, known.program if isinstance(known, Account) else None)

    def settings(self) -> dict[str, object]:
        """Settings for ``dspy.context`` that make calls of language models count here."""
        return {SETTING: self}

    def add(self, model: str, spent: Spent) -> None:
        """Enter one call of a model, here and in the books of the session.

        Args:
            model: ``provider/model``.
            spent: What it took.
        """
        Account.add(self, model, spent)
        with self.total.lock:
            self.total.models.setdefault(model, Spent()).add(spent)

    def models(self) -> dict[str, object]:
        """The sums by model, as JSON values."""
        with self.total.lock:
            return {model: spent.describe() for model, spent in self.total.models.items()}

    @property
    def cost(self) -> float | None:
        """US dollars, as far as prices are known."""
        with self.total.lock:
            known = [spent.cost for spent in self.total.models.values() if spent.cost is not None]
        return sum(known) if known else None
