from functools import partial
from typing import Any, NoReturn

import pytest

from benchmarks.adapter import Bench
from benchmarks.contests import CONTESTS, LoadContest, Result, Row, SessionsContest, play
from benchmarks.load import Order
from benchmarks.processes import Processes
from benchmarks.ratios import Comparison, Spread, Target
from benchmarks.report import plots, table
from benchmarks.sessions import measure
from snakepit_worker.sessions import Limits, SessionStore
from snakepit_worker.tools.builtin.session import SessionTools
from snakepit_worker.tools.registry import Registry


def result(subject: float, target: Target | None) -> Result:
    row = Row("the row", "cpu", "µs", target)
    return Result(row, Comparison(base=[100.0], again=[100.0], subject=[subject]))


def test_ratios_are_taken_within_a_round() -> None:
    # The machine gets ten times slower; everybody does, so no ratio changes.
    comparison = Comparison(base=[1, 10, 100], again=[2, 10, 50], subject=[3, 30, 300])
    assert comparison.ratio == Spread(median=3, low=3, high=3)
    assert comparison.noise == Spread(median=1, low=0.5, high=2)
    assert comparison.medians == (10, 30)


@pytest.mark.parametrize(
    ("target", "good", "bad"),
    [(Target(1.5), (0.1, 1.5), (1.51, 9.0)), (Target(0.6, at_least=True), (0.6, 9.0), (0.1, 0.59))],
    ids=str,
)
def test_a_target_is_met_on_its_side_and_at_its_bound(
    target: Target, good: tuple[float, ...], bad: tuple[float, ...]
) -> None:
    assert all(target.met_by(ratio) for ratio in good)
    assert not any(target.met_by(ratio) for ratio in bad)


def test_a_line_of_the_report_says_what_was_missed_and_by_how_much() -> None:
    met, missed, shown = (
        table([result(subject, target)]).splitlines()[1].split()
        for subject, target in ((150, Target(1.5)), (151, Target(1.5)), (900, None))
    )
    ratio = ["the", "row", "1.50", "[1.50-1.50]", "1.00", "[1.00-1.00]"]
    assert met == [*ratio, "≤", "1.5", "ok", "100", "µs", "150", "µs"]
    assert missed[8] == "MISS"
    assert "ok" not in shown
    assert "MISS" not in shown


class Scripted(SessionsContest):
    """Few, few and many sessions, and some between: each costs as many µs as there are."""

    def samplers(self, processes: Processes, *, quick: bool) -> list[partial[dict[str, float]]]:
        del processes, quick
        return [
            partial(dict[str, float], sessions=count, cost=count, start=4.0)
            for count in (2, 2, 8, 4)
        ]


def test_a_row_may_have_another_base_and_a_plot() -> None:
    rows = [Row("memory", "cost", "MiB", base="start"), Row("touch", "cost", "µs", over="sessions")]
    memory, touch = play(Scripted("scripted", rows), Processes(), rounds=3, quick=True)
    assert memory.comparison == Comparison([4.0] * 3, [2] * 3, [8] * 3)
    assert memory.curve == ()
    assert touch.comparison == Comparison([2] * 3, [2] * 3, [8] * 3)
    assert touch.curve == [(2, 2), (4, 4), (8, 8)]


def test_a_plot_has_bars_as_long_as_the_numbers() -> None:
    shown = Result(Row("touch", "touch", "µs"), Comparison([1], [1], [2]), [(100, 1), (10_000, 2)])
    title, *lines = plots([shown, result(1, None)]).splitlines()
    assert title == "touch in µs"
    assert [line.split() for line in lines] == [
        ["100", "█" * 25, "1.0"],
        ["10,000", "█" * 50, "2.0"],
    ]


def test_sessions_are_measured_in_all_that_the_report_shows() -> None:
    sample = measure(3, at_least=6)
    assert sample["sessions"] == 3
    assert all(value > 0 for value in sample.values())
    rows = [
        row for contest in CONTESTS if isinstance(contest, SessionsContest) for row in contest.rows
    ]
    assert rows
    assert {row.metric for row in rows} <= sample.keys()


def test_a_quarter_of_a_load_is_as_many_at_a_time() -> None:
    quarter = Order("session.put", calls=400, in_flight=32, sessions=8).quarter()
    assert quarter == Order("session.put", calls=100, in_flight=32, sessions=8)


def test_every_load_calls_a_tool_that_the_worker_has() -> None:
    def never(*_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError  # the tools are only described

    registry = Registry([Bench(), SessionTools(SessionStore(Limits()), never, never)])
    streams = {tool["name"]: tool["streams"] for tool in registry.describe()}
    for contest in CONTESTS:
        if isinstance(contest, LoadContest) and not contest.order.tool.startswith("foreign."):
            assert streams[contest.order.tool] is contest.order.streams
