"""The report, in plain text."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.contests import Result

__all__ = ["machine", "plots", "table"]

_HEADINGS = ("", "ratio [spread]", "A/A", "target", "", "base", "subject")
_BAR = 50
_PACKAGES = ("grpcio", "protobuf", "uvloop", "orjson")


def machine() -> str:
    """Where the numbers come from."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores (load {load:.2f}), {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, {versions}"
    )


def table(results: Sequence[Result]) -> str:
    """The results, a line each: ratios first, then the medians that they come from."""
    lines = [_HEADINGS, *map(_cells, results)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def plots(results: Sequence[Result]) -> str:
    """Bars for each result that has a curve, as long as its medians."""
    return "\n\n".join(_plot(result) for result in results if result.curve)


def _plot(result: Result) -> str:
    longest = max(value for _, value in result.curve)
    return "\n".join(
        [f"{result.row.title} in {result.row.unit}"]
        + [
            f"{place:>8,.0f}  {'█' * round(value / longest * _BAR):{_BAR}}  {value:,.1f}"
            for place, value in result.curve
        ]
    )


def _cells(result: Result) -> tuple[str, ...]:
    row, comparison = result.row, result.comparison
    verdict = "" if row.target is None else "MISS" if result.missed else "ok"
    return (
        row.title,
        str(comparison.ratio),
        str(comparison.noise),
        "" if row.target is None else str(row.target),
        verdict,
        *(f"{value:,.0f} {row.unit}" for value in comparison.medians),
    )
