"""Getting DSPy into the process: its environment, its import, and what it would import later."""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["loaded"]

_CACHED_ANSWERS: Final = 1000
"""Entries of DSPy's cache in memory, for programs that turn it on."""


@contextmanager
def loaded() -> Iterator[None]:
    """DSPy, imported and warm, with every module of this package that needs it.

    Raises:
        ImportError: When DSPy is not installed.
    """
    private = {
        # Prices of models come from the package instead of from the network.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        # Otherwise LiteLLM reads a file .env, which nobody asked for.
        "LITELLM_MODE": "PRODUCTION",
        # Optimizers draw progress bars; most of these would begin after so many seconds.
        "TQDM_DELAY": "1e9",
        # By default all processes of a user share one folder, in which values are pickled.  This
        # one is only named: the cache on disk is off, and a killed worker could not remove it.
        "DSPY_CACHEDIR": str(Path(tempfile.gettempdir()) / f"snakepit-dspy-{os.getpid()}"),
    }
    with _environment(private):
        _load()
        from snakepit_adapters.dspy.registered import registered  # noqa: PLC0415 - as in _load

        with registered(os.environ):
            yield


@contextmanager
def _environment(defaults: Mapping[str, str]) -> Iterator[None]:
    """Variables that are set where nobody set them, and unset afterwards."""
    added = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _load() -> None:
    # Here, and nowhere else, the framework is imported: it takes more than a second.
    import dspy  # noqa: PLC0415

    from snakepit_adapters.dspy import (  # noqa: F401, PLC0415 - for the tools to find
        agent_tools,
        agents,
        compiling,
        datasets,
        embedders,
        evaluation,
        failures,
        language_models,
        optimizer_checks,
        plans,
        programs,
        registered_metrics,
        retrieval,
        signatures,
        streaming,
        warming,
    )

    registered_metrics.load(os.environ)
    dspy.configure_cache(enable_disk_cache=False, memory_max_entries=_CACHED_ANSWERS)
    # DSPy's own handler writes to stderr, past the worker's log.
    logger = logging.getLogger("dspy")
    logger.handlers.clear()
    logger.propagate = True
    # These quote whole examples where something fails, which callers are told anyway (`swallowed`).
    for name in ("dspy.utils.parallelizer", "dspy.teleprompt.bootstrap"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warming.warm_up()
