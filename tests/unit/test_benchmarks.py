import pytest

from benchmarks.adapter import Bench
from benchmarks.contests import CONTESTS, LoadContest, Result, Row
from benchmarks.ratios import Comparison, Spread, Target
from benchmarks.report import table
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


def test_every_load_calls_a_tool_that_the_adapter_has() -> None:
    streams = {tool["name"]: tool["streams"] for tool in Registry([Bench()]).describe()}
    for contest in CONTESTS:
        if isinstance(contest, LoadContest) and not contest.order.tool.startswith("foreign."):
            assert streams[contest.order.tool] is contest.order.streams
