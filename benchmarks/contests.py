"""What is compared with what, and how the rounds are played."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Final, TypeAlias

from benchmarks.load import Order
from benchmarks.ratios import Comparison, Target
from benchmarks.sessions import SIZES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.processes import Processes

    Sample: TypeAlias = Mapping[str, float]
    Sampler: TypeAlias = Callable[[], Sample]

__all__ = [
    "CONTESTS",
    "BootContest",
    "Contest",
    "LoadContest",
    "Result",
    "Row",
    "SessionsContest",
    "play",
]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the report.

    Attributes:
        title: What is compared.
        metric: Key of the quantity in a sample.
        unit: What the quantity is counted in.
        target: What its ratio shall be; ``None`` where it is only shown.
        base: Key of the base's quantity, where it is another.
        over: Key of the quantity over which this one is plotted; ``None`` for no plot.
    """

    title: str
    metric: str
    unit: str
    target: Target | None = None
    base: str | None = None
    over: str | None = None


@dataclass(frozen=True, slots=True)
class LoadContest:
    """Servers under the same load: floor and worker, or the worker without and with an archive.

    Attributes:
        archive: Whether it is the latter.
    """

    name: str
    order: Order
    rows: Sequence[Row]
    archive: bool = False

    def samplers(self, processes: Processes, *, quick: bool) -> Sequence[Sampler]:
        """What takes a sample of base, base again, subject."""
        order = self.order.quarter() if quick else self.order
        if self.archive:
            servers = (processes.worker, processes.worker_again, processes.archiving_worker)
        else:
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


@dataclass(frozen=True, slots=True)
class SessionsContest:
    """A store with few sessions and with many, and with numbers between that are only plotted."""

    name: str
    rows: Sequence[Row]

    def samplers(self, processes: Processes, *, quick: bool) -> Sequence[Sampler]:
        """What takes a sample of base, base again, subject, and the numbers between."""
        del quick  # the many are what it is about
        few, *between, many = SIZES
        return [partial(processes.live, sessions) for sessions in (few, few, many, *between)]


Contest: TypeAlias = LoadContest | BootContest | SessionsContest


@dataclass(frozen=True, slots=True)
class Result:
    """A row with its numbers.

    Attributes:
        row: Which.
        comparison: Its numbers.
        curve: Points of its plot, if it has one, from left to right.
    """

    row: Row
    comparison: Comparison
    curve: Sequence[tuple[float, float]] = ()

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
    samples: list[list[Sample]] = [[] for _ in samplers]
    there = range(len(samplers))
    for number in range(rounds):
        # There and back, so that nobody always comes first.
        for index in there if number % 2 == 0 else reversed(there):
            samples[index].append(samplers[index]())
    return [_result(row, samples) for row in contest.rows]


def _result(row: Row, samples: Sequence[Sequence[Sample]]) -> Result:
    keys = (row.base or row.metric, row.metric, row.metric)
    compared = zip(keys, samples, strict=False)  # those that are only plotted come last
    comparison = Comparison(*([sample[key] for sample in taken] for key, taken in compared))
    if row.over is None:
        return Result(row, comparison)
    points = defaultdict[float, list[float]](list)
    for sample in chain.from_iterable(samples):
        points[sample[row.over]].append(sample[row.metric])
    curve = [(place, statistics.median(values)) for place, values in sorted(points.items())]
    return Result(row, comparison, curve)


_FLAT: Final = Target(1.5)
"""For 100 times as many sessions, which no longer fit the processor's caches.

What grows with their logarithm, as sorting or a tree would, has 2.
"""

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
    LoadContest(
        "archive",
        Order("bench.echo_async", calls=1500, in_flight=16),
        [Row("archive over none, nothing changes: CPU per call", "cpu", "µs", Target(1.05))],
        archive=True,
    ),
    LoadContest(
        "archive-put",
        Order("session.put", calls=400, in_flight=32, sessions=8),
        [
            Row("archive over none, session.put: calls per second", "rate", "/s"),
            Row("archive over none, session.put: CPU per call", "cpu", "µs"),
        ],
        archive=True,
    ),
    SessionsContest(
        "sessions",
        [
            *(
                Row(f"10,000 sessions over 100, {what}: CPU", metric, "µs", target, over="sessions")
                for what, metric, target in (
                    ("create", "create", _FLAT),
                    ("touch", "touch", _FLAT),
                    ("expire", "expire", _FLAT),
                    ("create with garbage collection", "create_hard", None),
                    ("touch in mixed order", "touch_hard", None),
                    ("expire in mixed order", "expire_hard", None),
                )
            ),
            Row("memory after 10,000 over before", "trimmed", "MiB", Target(1.1), base="start"),
            Row("the same with what allocators keep", "left", "MiB", base="start"),
            Row("memory with 10,000 over before", "alive", "MiB", base="start"),
        ],
    ),
)
