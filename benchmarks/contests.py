"""What is compared with what, and how the rounds are played."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from benchmarks.load import Order
from benchmarks.ratios import Comparison, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.processes import Processes

    Sampler: TypeAlias = Callable[[], Mapping[str, float]]

__all__ = ["CONTESTS", "BootContest", "Contest", "LoadContest", "Result", "Row", "play"]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the report.

    Attributes:
        title: What is compared.
        metric: Key of the quantity in a sample.
        unit: What the quantity is counted in.
        target: What its ratio shall be; ``None`` where it is only shown.
    """

    title: str
    metric: str
    unit: str
    target: Target | None = None


@dataclass(frozen=True, slots=True)
class LoadContest:
    """The floor, the floor again and the worker under the same load."""

    name: str
    order: Order
    rows: Sequence[Row]

    def samplers(self, processes: Processes, *, quick: bool) -> Sequence[Sampler]:
        """What takes a sample of base, base again, subject."""
        order = self.order.quarter() if quick else self.order
        servers = (processes.floor, processes.floor_again, processes.worker)
        return [partial(processes.load, server, order) for server in servers]


@dataclass(frozen=True, slots=True)
class BootContest:
    """Fresh processes: of the floor and the worker, or of the worker without and with an adapter.

    Attributes:
        adapter: The adapter; the floor is the base where none is given.
    """

    name: str
    rows: Sequence[Row]
    adapter: str | None = None

    def samplers(self, processes: Processes, *, quick: bool) -> Sequence[Sampler]:
        """What takes a sample of base, base again, subject."""
        del quick  # a process cannot be started in part
        base, subject = processes.start_floor, processes.start_worker
        if self.adapter is not None:
            base, subject = subject, partial(subject, self.adapter)
        return [partial(processes.boot, start) for start in (base, base, subject)]


Contest: TypeAlias = LoadContest | BootContest


@dataclass(frozen=True, slots=True)
class Result:
    """A row with its numbers."""

    row: Row
    comparison: Comparison

    @property
    def missed(self) -> bool:
        """Whether there is a target and the median ratio is on its wrong side."""
        target = self.row.target
        return target is not None and not target.met_by(self.comparison.ratio.median)


def play(contest: Contest, processes: Processes, *, rounds: int, quick: bool) -> Sequence[Result]:
    """Play the rounds of a contest.

    Args:
        contest: Which.
        processes: What takes part.
        rounds: How many.
        quick: Whether a quarter of the calls is enough.

    Raises:
        ChildError: When a call goes wrong, or a floor does not get ready.
        StartError: When a worker does not get ready.
    """
    samplers = contest.samplers(processes, quick=quick)
    for sample in samplers:
        sample()  # a warm-up
    samples: list[list[Mapping[str, float]]] = [[] for _ in samplers]
    for number in range(rounds):
        # There and back, so that nobody always comes first.
        for index in (0, 1, 2) if number % 2 == 0 else (2, 1, 0):
            samples[index].append(samplers[index]())
    return [
        Result(row, Comparison(*([sample[row.metric] for sample in taken] for taken in samples)))
        for row in contest.rows
    ]


CONTESTS: Final[Sequence[Contest]] = (
    LoadContest(
        "async",
        Order("bench.echo_async", calls=1500, in_flight=16),
        [Row("async tool: server CPU per call", "cpu", "µs", Target(1.5))],
    ),
    LoadContest(
        "sync",
        Order("bench.echo_sync", calls=1500, in_flight=16),
        [Row("sync tool in a thread: server CPU per call", "cpu", "µs", Target(2.2))],
    ),
    LoadContest(
        "foreign",
        Order("foreign.echo", calls=1500, in_flight=16),
        [Row("class written for Snakepit: server CPU per call", "cpu", "µs", Target(2.5))],
    ),
    LoadContest(
        "latency",
        Order("bench.echo_async", calls=600),
        [Row("async tool, one call in flight: p50", "p50", "µs", Target(1.5))],
    ),
    LoadContest(
        "stream",
        Order("bench.count", calls=8),
        [
            Row("async stream: chunks per second", "rate", "/s", Target(0.6, at_least=True)),
            Row("async stream: server CPU per chunk", "cpu", "µs"),
        ],
    ),
    LoadContest(
        "stream-sync",
        Order("bench.count_sync", calls=8),
        [
            Row("sync stream: chunks per second", "rate", "/s", Target(0.6, at_least=True)),
            Row("sync stream: server CPU per chunk", "cpu", "µs"),
        ],
    ),
    LoadContest(
        "stream-foreign",
        Order("foreign.count", calls=8),
        [Row("stream of such a class: chunks per second", "rate", "/s")],
    ),
    LoadContest(
        "binary",
        Order("bench.size", calls=12),
        [Row("8 MiB binary parameter: calls per second", "rate", "/s", Target(0.8, at_least=True))],
    ),
    BootContest(
        "boot",
        [
            Row("boot until ready", "ready", "ms", Target(1.8)),
            Row("boot until ready: CPU", "cpu", "ms"),
            Row("idle memory", "memory", "MiB", Target(1.3)),
        ],
    ),
    BootContest(
        "dspy",
        [
            Row("boot until ready, with DSPy over without", "ready", "ms", Target(1.1)),
            Row("boot until ready, with DSPy over without: CPU", "cpu", "ms"),
        ],
        adapter="dspy",
    ),
)
