"""Embeddings that come with a package: no provider, no network, no GPU.

Does not import the package before somebody needs it.
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from snakepit_worker.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PACKAGE", "local_embeddings", "needs"]

PACKAGE: Final = "wordllama"

_loading: Final = threading.Lock()


def needs(package: str, what: str, install: str) -> None:
    """Refuse what cannot be done without an optional package.

    Args:
        package: The package, as it is imported.
        what: What needs it.
        install: What to install.

    Raises:
        FailedPrecondition: When it is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise FailedPrecondition(
            f"{what} needs the package {package}, which is not installed",
            details={"package": package},
            help=f"pip install '{install}' on the worker's machine",
        )


def local_embeddings(texts: Sequence[str]) -> Any:  # noqa: ANN401 - a numpy array
    """A row of numbers for each text, of length 1 each but for texts without a known word.

    Blocks for about a second when it is called first.

    Args:
        texts: The texts.

    Raises:
        FailedPrecondition: When the package is not installed.
    """
    needs("numpy", "retrieval", "dspy[numpy]")
    needs(PACKAGE, "the local embedder", PACKAGE)
    with _loading:
        model = _model()
    return model.embed(list(texts), norm=True)


@cache
def _model() -> Any:  # noqa: ANN401 - of an optional package
    package = importlib.import_module(PACKAGE)
    # The weights are in the package; without this it would look for them on the network.
    folder = Path(package.__file__ or "").parent
    return package.WordLlama.load(cache_dir=folder, disable_download=True)
