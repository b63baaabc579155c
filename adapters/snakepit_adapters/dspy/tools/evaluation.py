"""Tools that evaluate programs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from snakepit_adapters.dspy.arguments import Generation, ResponseFormat
from snakepit_adapters.dspy.metric_specs import MetricSpec
from snakepit_adapters.dspy.tools.held import leased
from snakepit_adapters.dspy.tools.rows import (
    Calls,
    Concurrency,
    Rows,
    Seconds,
    judge_of,
    lm_of,
    rows_of,
)
from snakepit_worker import CallContext, tool

if TYPE_CHECKING:
    from snakepit_adapters.dspy.evaluation import Evaluation

__all__ = ["EvaluationTools"]

Results = Annotated[int, msgspec.Meta(ge=0, le=10_000)]

_RESULT_BYTES: Final = 1024 * 1024
"""Bytes, as JSON, of the results that an answer has room for."""


class EvaluationTools:
    """Scoring programs."""

    @tool
    async def evaluate(  # noqa: PLR0913 - what there is to say of a run
        self,
        handle: str,
        dataset: Rows,
        metric: MetricSpec,
        ctx: CallContext,
        *,
        lm: str | None = None,
        config: Generation | None = None,
        response_format: ResponseFormat | None = None,
        concurrency: Concurrency = 8,
        failure_score: float = 0.0,
        max_calls: Calls | None = None,
        max_seconds: Seconds | None = None,
        results: Results = 100,
    ) -> dict[str, Any]:
        """Score a program on the rows of a data set; for many rows start it with `job.start`.

        Args:
            handle: Handle or name of the program.
            dataset: A data set, or a part of one.
            metric: What tells good answers from bad ones.
            ctx: The call.
            lm: Another language model than the program's.
            config: Options of the calls, such as temperature.
            response_format: Layout of answers, where it differs from the language model's.
            concurrency: Rows at a time.
            failure_score: What a row counts that failed.
            max_calls: Requests to language models at most; rows beyond that are left out.
            max_seconds: Time at most; rows beyond that are left out.
            results: Results of rows to give, from the first row.

        Returns:
            The average score, what the run used, and the results of rows, each with its score and
            its outputs or its failure.
        """
        async with AsyncExitStack() as leases:
            evaluation = await _prepared(
                leases,
                ctx,
                handle,
                dataset,
                metric,
                lm,
                (max_calls, max_seconds),
                config=config,
                layout=response_format,
                concurrency=concurrency,
                failure_score=failure_score,
            )
            return await _collected(evaluation, results)

    @tool
    async def evaluate_stream(  # noqa: PLR0913 - as evaluate
        self,
        handle: str,
        dataset: Rows,
        metric: MetricSpec,
        ctx: CallContext,
        *,
        lm: str | None = None,
        config: Generation | None = None,
        response_format: ResponseFormat | None = None,
        concurrency: Concurrency = 8,
        failure_score: float = 0.0,
        max_calls: Calls | None = None,
        max_seconds: Seconds | None = None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Score a program on the rows of a data set, and follow the results.

        Args:
            handle: Handle or name of the program.
            dataset: A data set, or a part of one.
            metric: What tells good answers from bad ones.
            ctx: The call.
            lm: Another language model than the program's.
            config: Options of the calls, such as temperature.
            response_format: Layout of answers, where it differs from the language model's.
            concurrency: Rows at a time.
            failure_score: What a row counts that failed.
            max_calls: Requests to language models at most; rows beyond that are left out.
            max_seconds: Time at most; rows beyond that are left out.

        Yields:
            {"type": "result", "index", "score", "outputs" or "failure"} for each row as it is
            ready, and last {"type": "summary"} with the average score and what the run used.
        """
        async with AsyncExitStack() as leases:
            evaluation = await _prepared(
                leases,
                ctx,
                handle,
                dataset,
                metric,
                lm,
                (max_calls, max_seconds),
                config=config,
                layout=response_format,
                concurrency=concurrency,
                failure_score=failure_score,
            )
            async with aclosing(evaluation.results()) as results:
                async for result in results:
                    yield {"type": "result", **result}
            yield {"type": "summary", **evaluation.summary()}


async def _prepared(  # noqa: PLR0913, PLR0917 - what there is to say of a run
    leases: AsyncExitStack,
    ctx: CallContext,
    handle: str,
    dataset: Rows,
    metric: MetricSpec,
    lm: str | None,
    limits: tuple[int | None, float | None],
    **options: Any,  # noqa: ANN401 - attributes of an exam
) -> Evaluation:
    from snakepit_adapters.dspy.evaluation import Evaluation, Exam
    from snakepit_adapters.dspy.metering import Limits
    from snakepit_adapters.dspy.metrics import metric as measure
    from snakepit_adapters.dspy.spending import RunAccount

    # A copy, so that nobody who would change the program has to wait for the end.
    async with leased(ctx.session, handle, lm) as (found, _):
        account = RunAccount.of(ctx, found)
        program = await ctx.run_sync(found.copy)
        model = await lm_of(leases, ctx.session, lm or program.lm)
    rows, inputs = await rows_of(ctx.session, dataset)
    judge = await judge_of(leases, ctx.session, metric)
    exam = Exam(
        program=program,
        model=model,
        metric=measure(metric, judge_lm=judge),
        rows=rows,
        inputs=inputs,
        limits=Limits(*limits),
        **options,
    )
    return Evaluation(exam, ctx, account)


async def _collected(evaluation: Evaluation, wanted: int) -> dict[str, Any]:
    kept: list[dict[str, object]] = []
    size = 0
    async with aclosing(evaluation.results()) as results:
        async for result in results:
            if int(str(result["index"])) >= wanted:
                continue
            size += len(msgspec.json.encode(result))
            if size <= _RESULT_BYTES:
                kept.append(result)
    kept.sort(key=lambda result: int(str(result["index"])))
    summary = evaluation.summary()
    omitted = int(str(summary["evaluated"])) - len(kept)
    return summary | {"results": kept, "omitted_results": omitted}
