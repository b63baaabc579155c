"""``snakepit-python``: an interpreter for the host, one that starts this worker.

In its thread profile the host always runs Snakepit's own script, whatever the configuration says
(interop 1.1).  With this command as the host's interpreter (``:python_executable`` or
``SNAKEPIT_PYTHON``) the worker takes the place of that script::

    snakepit-python [OPTIONS] …/grpc_server.py ARGS
    snakepit-python [OPTIONS] …/grpc_server_threaded.py ARGS

both become::

    python [OPTIONS] -X snakepit=grpc_server.py -m snakepit_worker ARGS

and every other command line (``-c``, ``-m``, another script, nothing at all) goes to the
interpreter as it is.  The process is replaced: its id, pipes, folder and environment stay those
that the host gave it.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

__all__ = ["command", "main"]

_SCRIPTS: Final = ("grpc_server.py", "grpc_server_threaded.py")
# The marker is launch.MARKER, for both scripts: most of the host's scans know only that name.
# It is not imported from there, because every import here delays the start of every worker.
_WORKER: Final = ("-X", "snakepit=grpc_server.py", "-m", "snakepit_worker")
_PROGRAMS: Final = "cm"
"""Options that say what to run, so that no script follows."""
_VALUED: Final = "WX"
"""Options with a value, in the same argument or in the next."""
_VALUED_LONG: Final = "--check-hash-based-pycs"


def main() -> NoReturn:
    """Become the interpreter that runs this, with the arguments of this process."""
    os.execv(sys.executable, [sys.executable, *command(sys.argv[1:])])  # noqa: S606 - no shell is wanted


def command(arguments: Sequence[str]) -> list[str]:
    """What the interpreter gets in place of these arguments.

    Args:
        arguments: The interpreter's options, a script, and what the script gets.
    """
    options, rest = _split(arguments)
    if rest and rest[0].rpartition("/")[2] in _SCRIPTS:
        return [*options, *_WORKER, *rest[1:]]
    return list(arguments)


def _split(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The interpreter's options, and the script with its arguments (nothing where none is named).

    Options are read as the interpreter reads them: several letters may share a dash, and a value
    may stand in an argument of its own.
    """
    at = 0
    while at < len(arguments) and arguments[at].startswith("-") and arguments[at] != "-":
        option = arguments[at]
        if option == "--":
            return arguments[:at], arguments[at + 1 :]
        if option.startswith("--"):
            at += 2 if option == _VALUED_LONG else 1
            continue
        end = next((i for i, letter in enumerate(option) if letter in _PROGRAMS + _VALUED), None)
        if end is not None and option[end] in _PROGRAMS:
            return arguments, ()
        at += 2 if end == len(option) - 1 else 1
    return arguments[:at], arguments[at:]
