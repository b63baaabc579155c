"""Tracebacks as lines of text: as many frames as the operator lets out, and no secrets.

They look like Python's own, but for the marks below source lines: those take most of the time that
formatting takes, and failures are part of ordinary work.  All is bounded, the number of causes and
of exceptions in a group too.
"""

from __future__ import annotations

import os
import site
import sysconfig
import textwrap
from functools import lru_cache
from itertools import islice
from pathlib import Path
from traceback import StackSummary, walk_tb
from typing import Final, Literal

from snakepit_worker.wire.exceptions import links, notes_of, text_of
from snakepit_worker.wire.redaction import redact

__all__ = ["LINE_LIMIT", "MOST_FRAMES", "MOST_LINES", "MOST_LINKS", "Frames", "traceback_lines"]

Frames = Literal["full", "own", "none"]
"""Which frames callers see: all, those of the adapter's and the application's own code, or none."""

MOST_LINKS: Final = 10
"""Exceptions of a chain of causes."""
MOST_FRAMES: Final = 50
"""Frames of one exception, the innermost."""
MOST_LINES: Final = 500
"""Lines of all together."""
LINE_LIMIT: Final = 4_096
"""Characters of a frame with its source line."""

_MOST_MEMBERS: Final = 10
_GROUP_DEPTH: Final = 3
_HEAD: Final = "Traceback (most recent call last):\n"
_CAUSED: Final = "\nThe above exception was the direct cause of the following exception:\n\n"
_DURING: Final = "\nDuring handling of the above exception, another exception occurred:\n\n"


def _installed() -> tuple[str, ...]:
    """Beginnings of the paths of code that is nobody's own: Python's, packages', this runtime's."""
    folders = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders.update(site.getsitepackages())
    folders.update((site.getusersitepackages(), str(Path(__file__).parents[1])))
    return (*(f"{folder}{os.sep}" for folder in sorted(folders)), "<frozen ")


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
        return tuple(_Traceback(package, own=frames == "own").chain(error)[-MOST_LINES:])
    except BaseException:  # noqa: BLE001 - source is read through loaders, which may do anything
        return (f"{type(error).__name__}: {text_of(error)}\n",)


class _Traceback:
    """One traceback; its parts share the lines that it may have.

    Args:
        package: Folder of the adapter.
        own: Whether only frames of own code are shown.
    """

    def __init__(self, package: str | None, *, own: bool) -> None:
        self._package = package
        self._own = own
        self._room = MOST_LINES

    def chain(self, error: BaseException, depth: int = 0) -> list[str]:
        """An exception behind its causes."""
        parts: list[list[str]] = []
        nearer: BaseException | None = None
        for link in islice(links(error), MOST_LINKS):
            if self._room <= 0:
                break
            if nearer is not None:
                parts.append([_CAUSED if link is nearer.__cause__ else _DURING])
            parts.append(self._one(link, depth))
            nearer = link
        return [line for part in reversed(parts) for line in part]

    def _one(self, error: BaseException, depth: int) -> list[str]:
        """An exception, with those that it groups."""
        stack = StackSummary.extract(
            walk_tb(error.__traceback__), limit=-MOST_FRAMES, lookup_lines=False
        )
        if self._own:
            stack[:] = [frame for frame in stack if self._is_own(frame.filename)]
        lines = [_HEAD] if stack else []
        lines += map(_frame, stack.format())
        lines.append(_last_line(error))
        lines += [f"{note}\n" for note in notes_of(error)]
        self._room -= len(lines)
        if isinstance(error, BaseExceptionGroup) and depth < _GROUP_DEPTH:
            lines += self._members(error.exceptions, depth + 1)
        return lines

    def _members(self, errors: tuple[BaseException, ...], depth: int) -> list[str]:
        lines: list[str] = []
        for number, member in enumerate(errors, 1):
            if number > _MOST_MEMBERS or self._room <= 0:
                lines.append(f"  +-- {len(errors) - number + 1} more\n")
                break
            lines.append(f"  +-- {number} of {len(errors)}\n")
            lines += [textwrap.indent(line, "  | ") for line in self.chain(member, depth)]
        return lines

    def _is_own(self, path: str) -> bool:
        if self._package is not None and path.startswith(self._package):
            return True
        return not path.startswith(_INSTALLED)


@lru_cache(maxsize=2_048)  # the same frames come again and again
def _frame(line: str) -> str:
    return f"{redact(line.rstrip(), LINE_LIMIT)}\n"


def _last_line(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in {"builtins", "__main__"}:
        name = f"{kind.__module__}.{name}"
    text = text_of(error)
    return f"{name}: {text}\n" if text else f"{name}\n"
