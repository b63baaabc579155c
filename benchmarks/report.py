"""The report, in plain text."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.contests import Result

__all__ = ["machine", "table"]

_HEADINGS = ("", "ratio [spread]", "A/A", "target", "", "base", "subject")
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
