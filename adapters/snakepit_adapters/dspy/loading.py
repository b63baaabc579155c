"""Getting DSPy into the process: its environment, its import, and what it would import later."""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence

    from snakepit_adapters.dspy.arguments import SignatureSpec
    from snakepit_adapters.dspy.language_models import LanguageModel
    from snakepit_adapters.dspy.programs import Program, Request
    from snakepit_adapters.dspy.signatures import Signature
    from snakepit_worker.errors import Meaning, WorkerError

__all__ = ["Framework", "loaded"]

_CACHED_ANSWERS: Final = 1000
"""Entries of DSPy's cache in memory, for programs that turn it on."""


@dataclass(frozen=True, slots=True)
class Framework:
    """What the tools need of the modules that import DSPy.

    Attributes:
        read_signature: Makes a signature of what a caller sent.
        language_model: A configured language model.
        program: A program.
        stream: The events of a request.
        meanings: What DSPy's exceptions mean.
        explain: Adds the facts that one of them carries.
    """

    read_signature: Callable[[str | SignatureSpec, str | None], Signature]
    language_model: type[LanguageModel]
    program: type[Program]
    stream: Callable[[Request], AsyncGenerator[dict[str, object], None]]
    meanings: Sequence[Meaning]
    explain: Callable[[BaseException, WorkerError], WorkerError]


@contextmanager
def loaded() -> Iterator[Framework]:
    """DSPy, imported and warm.

    Raises:
        ImportError: When DSPy is not installed.
    """
    private = {
        # Prices of models come from the package instead of from the network.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        # By default all processes of a user share one folder, in which values are pickled.  This
        # one is only named: the cache on disk is off, and a killed worker could not remove it.
        "DSPY_CACHEDIR": str(Path(tempfile.gettempdir()) / f"snakepit-dspy-{os.getpid()}"),
    }
    with _environment(private):
        yield _load()


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


def _load() -> Framework:
    # Here, and nowhere else, the framework is imported: it takes more than a second.
    import dspy  # noqa: PLC0415

    from snakepit_adapters.dspy.failures import MEANINGS, explain  # noqa: PLC0415
    from snakepit_adapters.dspy.language_models import LanguageModel  # noqa: PLC0415
    from snakepit_adapters.dspy.programs import Program  # noqa: PLC0415
    from snakepit_adapters.dspy.signatures import read_signature  # noqa: PLC0415
    from snakepit_adapters.dspy.streaming import stream  # noqa: PLC0415
    from snakepit_adapters.dspy.warming import warm_up  # noqa: PLC0415

    dspy.configure_cache(enable_disk_cache=False, memory_max_entries=_CACHED_ANSWERS)
    # DSPy's own handler writes to stderr, past the worker's log.
    logger = logging.getLogger("dspy")
    logger.handlers.clear()
    logger.propagate = True
    warm_up()
    return Framework(read_signature, LanguageModel, Program, stream, MEANINGS, explain)
