"""Refusing an argument of a caller.

Does not import DSPy, so that the tools can use it as well.
"""

from __future__ import annotations

from snakepit_worker.errors import InvalidArgument, Violation

__all__ = ["invalid"]


def invalid(argument: str, description: str) -> InvalidArgument:
    """The failure of a call with one wrong argument, to be raised.

    Args:
        argument: Path of the argument.
        description: What was expected, and what came.
    """
    violation = Violation(argument, description)
    return InvalidArgument(f"{argument}: {description}", violations=[violation])
