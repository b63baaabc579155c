"""What evaluating and learning have in common: rows, metrics, and their limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from snakepit_adapters.dspy.metric_specs import Judge
from snakepit_adapters.dspy.tools.datasets import DATASET
from snakepit_adapters.dspy.tools.held import LM
from snakepit_worker.errors import FailedPrecondition, NotFound

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from snakepit_adapters.dspy.language_models import LanguageModel
    from snakepit_adapters.dspy.metric_specs import MetricSpec
    from snakepit_worker.sessions import Session

__all__ = [
    "Calls",
    "Concurrency",
    "DatasetPart",
    "Rows",
    "Seconds",
    "judge_of",
    "lm_of",
    "rows_of",
]

Concurrency = Annotated[int, msgspec.Meta(ge=1, le=64)]
Calls = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class DatasetPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a data set.

    Attributes:
        dataset: Its handle or name.
        split: One of its splits; all rows if null.
        limit: Rows at most, from the first one.
    """

    dataset: str
    split: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None


Rows = str | DatasetPart
"""The handle or name of a data set, or a part of one."""


async def rows_of(
    session: Session, part: Rows
) -> tuple[list[dict[str, Any]], tuple[str, ...] | None]:
    """Rows of a data set, and the input fields that it names.

    Args:
        session: The session.
        part: Which rows.

    Raises:
        NotFound: When there is no such data set or no such split.
    """
    if isinstance(part, str):
        part = DatasetPart(part)
    async with session.lease(part.dataset, DATASET) as dataset:
        return dataset.part(part.split)[: part.limit], dataset.source.inputs


async def lm_of(leases: AsyncExitStack, session: Session, name: str) -> LanguageModel:
    """A language model by name, which does not close before the leases end.

    Args:
        leases: Where it is held.
        session: The session.
        name: Its name.

    Raises:
        FailedPrecondition: When there is none of that name.
    """
    try:
        model: LanguageModel = await leases.enter_async_context(session.lease(name, LM))
    except NotFound:
        text = f"no language model {name!r} is configured in this session"
        raise FailedPrecondition(text, help="call dspy.configure_lm first") from None
    return model


async def judge_of(leases: AsyncExitStack, session: Session, metric: MetricSpec | None) -> Any:  # noqa: ANN401 - DSPy has no types
    """DSPy's language model for a metric that names one.

    Args:
        leases: Where it is held.
        session: The session.
        metric: The metric.
    """
    if not isinstance(metric, Judge) or metric.lm is None:
        return None
    return (await lm_of(leases, session, metric.lm)).lm
