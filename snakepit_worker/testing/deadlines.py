"""Time limits as the host sends them (interop 2.5)."""

from __future__ import annotations

from typing import Final, overload

__all__ = ["truncated"]

_UNITS: Final = ((1, 1_000), (1_000, 60_000), (60_000, 3_600_000))
"""Milliseconds of a unit, and those from which on the next one is used."""
_HOUR: Final = 3_600_000


@overload
def truncated(seconds: float) -> float: ...
@overload
def truncated(seconds: None) -> None: ...
@overload
def truncated(seconds: float | None) -> float | None: ...
def truncated(seconds: float | None) -> float | None:
    """A limit in whole numbers of one unit, which is all that the host's header holds.

    Args:
        seconds: The limit; 1.5 leaves the host as 1 s, 298.8 as 4 minutes, None as none.
    """
    if seconds is None:
        return None
    milliseconds = round(seconds * 1000)
    unit = next((unit for unit, end in _UNITS if milliseconds < end), _HOUR)
    return milliseconds // unit * unit / 1000
