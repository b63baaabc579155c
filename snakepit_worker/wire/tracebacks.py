"""Tracebacks as lines of text: as many frames as the operator lets out, and no secrets."""

from __future__ import annotations

import site
import sysconfig
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from snakepit_worker.wire.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Frames", "traceback_lines"]

Frames = Literal["full", "own", "none"]
"""Which frames callers see: all, those of the adapter's and the application's own code, or none."""

_MOST_FRAMES: Final = 50
_MOST_LINES: Final = 500
_LINE_LIMIT: Final = 4_096
_RUNTIME: Final = Path(__file__).parents[1]


def _installed() -> tuple[str, ...]:
    """Folders of code that is nobody's own: the standard library, packages, this runtime."""
    folders = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders.update(site.getsitepackages())
    return (*sorted(folders), str(_RUNTIME), "<frozen")


_INSTALLED: Final = _installed()


def traceback_lines(
    error: BaseException, frames: Frames = "full", package: str | None = None
) -> tuple[str, ...]:
    """The formatted traceback, with those of its causes.  Never raises.

    Values of variables are never part of it.

    Args:
        error: The exception.
        frames: Which frames to show.
        package: Folder of the adapter, whose frames are its own wherever it is installed.
    """
    if frames == "none":
        return ()
    try:
        formatted = traceback.TracebackException.from_exception(error, limit=-_MOST_FRAMES)
        if frames == "own":
            for link in _links(formatted):
                _keep_own(link.stack, package)
        lines = list(formatted.format())
    except BaseException:  # noqa: BLE001 - formatting calls str() and repr() of foreign objects
        lines = traceback.format_tb(error.__traceback__, limit=-_MOST_FRAMES)
        lines.append(f"{type(error).__name__}: <its text cannot be read>\n")
    return tuple(redact(line[:_LINE_LIMIT]) for line in lines[-_MOST_LINES:])


def _links(
    formatted: traceback.TracebackException, seen: frozenset[int] = frozenset()
) -> Iterator[traceback.TracebackException]:
    """An exception, its causes, and those that it groups."""
    if id(formatted) in seen:
        return
    yield formatted
    seen |= {id(formatted)}
    following = (formatted.__cause__, formatted.__context__, *(formatted.exceptions or ()))
    for link in following:
        if link is not None:
            yield from _links(link, seen)


def _keep_own(stack: traceback.StackSummary, package: str | None) -> None:
    stack[:] = [
        frame
        for frame in stack
        if (package is not None and frame.filename.startswith(package))
        or not frame.filename.startswith(_INSTALLED)
    ]
