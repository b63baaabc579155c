"""From paired samples to ratios, and from ratios to verdicts."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Comparison", "Spread", "Target"]


@dataclass(frozen=True, slots=True)
class Target:
    """What a ratio shall be.

    Attributes:
        limit: The bound.
        at_least: Whether more is better.
    """

    limit: float
    at_least: bool = False

    def met_by(self, ratio: float) -> bool:
        """Whether a ratio is on the right side, the bound included."""
        return ratio >= self.limit if self.at_least else ratio <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of some numbers, and how far they lie apart."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one number."""
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}-{self.high:.2f}]"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One quantity of three contestants, a sample each per round.

    The ratios are taken within a round: what disturbs the machine for longer than a round disturbs
    both sides of a ratio.

    Attributes:
        base: What the others are compared with.
        again: The same once more; its ratio should be 1, and shows what the machine adds.
        subject: What it is about.
    """

    base: Sequence[float]
    again: Sequence[float]
    subject: Sequence[float]

    @property
    def medians(self) -> tuple[float, float]:
        """Base and subject."""
        return statistics.median(self.base), statistics.median(self.subject)

    @property
    def ratio(self) -> Spread:
        """Subject over base."""
        return _ratios(self.subject, self.base)

    @property
    def noise(self) -> Spread:
        """Base over base."""
        return _ratios(self.again, self.base)


def _ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    return Spread.of([a / b for a, b in zip(above, below, strict=True)])
