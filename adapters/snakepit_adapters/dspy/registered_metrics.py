"""Python functions as metrics: the operator's list, and nothing else."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

from snakepit_adapters.dspy.operator_lists import listed
from snakepit_worker.errors import NotFound, StartError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["VARIABLE", "load", "registered"]

VARIABLE: Final = "SNAKEPIT_DSPY_METRICS"
"""Environment variable: ``name=package.module:function``, several with commas between them."""

_functions: dict[str, Callable[[Any, Any], Any]] = {}


def load(environment: Mapping[str, str]) -> None:
    """Import the functions that the operator has named.

    Args:
        environment: Where the variable is looked up.

    Raises:
        StartError: When the list cannot be read, or a function is not there.
    """
    _functions.clear()
    for name, _, found in listed(VARIABLE, "function", environment):
        _functions[name] = _with_two_arguments(name, found)


def registered(name: str) -> Callable[[Any, Any], Any]:
    """The function of a name, called with an example and a prediction of DSPy.

    Args:
        name: What the operator calls it.

    Raises:
        NotFound: When there is none.
    """
    if name not in _functions:
        known = ", ".join(sorted(_functions)) or "none"
        raise NotFound(
            f"no Python metric {name!r} is registered; registered: {known}",
            help=f"the operator of the worker registers functions in {VARIABLE}",
        )
    return _functions[name]


def _with_two_arguments(name: str, function: Any) -> Callable[[Any, Any], Any]:  # noqa: ANN401 - the operator's
    """DSPy's own metrics take a third one, the trace, and often insist on it."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise StartError(f"{VARIABLE}: {name} is no function: {error}") from error
    for given in ((None, None), (None, None, None)):
        try:
            signature.bind(*given)
        except TypeError:
            continue
        return function if len(given) == 2 else lambda e, p: function(e, p, None)  # noqa: PLR2004
    raise StartError(f"{VARIABLE}: {name} takes no example and prediction")
