"""Evaluation: a program and a metric over the rows of a data set."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import dspy

from snakepit_adapters.dspy.metering import Limits, Meter, Stopped
from snakepit_adapters.dspy.swallowed import Errors, described
from snakepit_adapters.dspy.values import plain

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence

    from snakepit_adapters.dspy.arguments import Generation, ResponseFormat
    from snakepit_adapters.dspy.language_models import LanguageModel
    from snakepit_adapters.dspy.metrics import Metric, Verdict
    from snakepit_adapters.dspy.programs import Program
    from snakepit_adapters.dspy.running import Request
    from snakepit_adapters.dspy.spending import RunAccount
    from snakepit_worker import CallContext

__all__ = ["Evaluation", "Exam"]

_HOPELESS: Final = 20
"""Failures in a row from the start after which the rest is not tried."""


@dataclass(frozen=True, slots=True)
class Exam:
    """What is evaluated, and how.

    Attributes:
        program: The program.
        model: The language model that answers.
        metric: What tells good answers from bad ones.
        rows: The rows.
        inputs: Fields that the program is given; its own if ``None``.
        config: Options of each call.
        layout: How answers are laid out; the language model's way if ``None``.
        concurrency: Rows at a time.
        failure_score: What a row counts that failed.
        limits: What the run may use.
    """

    program: Program
    model: LanguageModel
    metric: Metric
    rows: Sequence[Mapping[str, Any]]
    inputs: Sequence[str] | None
    config: Generation | None
    layout: ResponseFormat | None
    concurrency: int
    failure_score: float
    limits: Limits


class Evaluation:
    """One run.

    Args:
        exam: What to do.
        call: The call of the tool.
        account: Where calls of language models are counted.
    """

    def __init__(self, exam: Exam, call: CallContext, account: RunAccount) -> None:
        self._exam = exam
        self._call = call
        self._errors = Errors()
        self._meter = Meter(self._errors, exam.limits)
        self._account = account
        self._sum = 0.0
        self._done = 0
        self._failures = 0

    async def results(self) -> AsyncGenerator[dict[str, object], None]:
        """The result of each row, in the order in which they are ready.

        Yields:
            ``index`` and ``score``, and ``outputs`` and ``feedback``, or ``failure``.

        Raises:
            WorkerError: When all rows failed.
        """
        exam = self._exam
        waiting = iter(range(len(exam.rows)))
        ready: asyncio.Queue[dict[str, object] | None] = asyncio.Queue(exam.concurrency)

        async def work() -> None:
            for index in waiting:
                if self._meter.stopped is not None or self._is_hopeless():
                    break
                try:
                    await ready.put(await self._result(index))
                except Stopped:
                    break
            await ready.put(None)

        workers = [
            asyncio.create_task(work()) for _ in range(min(exam.concurrency, len(exam.rows)))
        ]
        running = len(workers)
        try:
            while running:
                result = await ready.get()
                if result is None:
                    running -= 1
                    continue
                self._count(result)
                yield result
        finally:
            if running:
                self._meter.stop("cancelled")  # for what goes on in threads
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        if self._done and self._failures == self._done:
            text = f"all {self._done} rows that were tried failed"
            raise self._errors.failure(text, self.summary())

    def summary(self) -> dict[str, object]:
        """The average score, and what the run did and used."""
        meter = self._meter
        return {
            "score": self._sum / self._done if self._done else None,
            "rows": len(self._exam.rows),
            "evaluated": self._done,
            "failures": self._failures,
            "metric": self._exam.metric.name,
            "calls": meter.calls,
            "failed_calls": meter.failed_calls,
            "usage": self._account.models(),
            "cost": self._account.cost,
            "seconds": round(meter.seconds, 3),
            "stopped": meter.stopped,
            "errors": self._errors.list(),
        }

    def _is_hopeless(self) -> bool:
        return self._failures == self._done >= _HOPELESS

    def _count(self, result: Mapping[str, object]) -> None:
        self._done += 1
        self._failures += "failure" in result
        self._sum += float(str(result["score"]))
        average = self._sum / self._done
        text = f"{self._done} of {len(self._exam.rows)}, score {average:.3f}"
        self._call.progress(self._done / len(self._exam.rows), text)

    async def _result(self, index: int) -> dict[str, object]:
        exam = self._exam
        row = exam.rows[index]
        names = exam.inputs or [field.name for field in exam.program.signature.inputs]
        given = {name: row[name] for name in names if name in row}
        try:
            request = exam.program.request(given, exam.model, exam.config, exam.layout)
            example = dspy.Example(row).with_inputs(*given)
            with self._settings(request):
                prediction = await self._run(request)
                verdict = await self._judge(example, prediction)
        except Exception as error:  # noqa: BLE001 - it fails this row, whatever it is
            if not isinstance(error, dspy.LMError):  # those are noted already
                self._errors.add(error, "program")
            return {"index": index, "score": exam.failure_score, "failure": described(error)}
        outputs = plain(dict(prediction.items()))
        result = {"index": index, "score": verdict.score, "outputs": outputs}
        return result if verdict.feedback is None else result | {"feedback": verdict.feedback}

    @contextmanager
    def _settings(self, request: Request) -> Iterator[None]:
        with request.settings([self._meter]), dspy.context(**self._account.settings()):
            yield

    async def _run(self, request: Request) -> Any:  # noqa: ANN401 - DSPy has no types
        module = request.program.module
        if request.program.asynchronous:
            return await module.acall(**request.arguments)
        return await self._call.run_sync(module, **request.arguments)

    async def _judge(self, example: Any, prediction: Any) -> Verdict:  # noqa: ANN401 - DSPy has no types
        metric = self._exam.metric
        if metric.blocking:
            return await self._call.run_sync(metric.judge, example, prediction)
        return metric.judge(example, prediction)
