"""``python -m benchmarks``: compare this worker with the floor, and print the ratios."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Final

from benchmarks.children import ChildError
from benchmarks.contests import CONTESTS, play
from benchmarks.processes import Processes
from benchmarks.report import machine, plots, table
from snakepit_worker.errors import StartError

if TYPE_CHECKING:
    from benchmarks.contests import Result

_ROUNDS: Final = 13
_QUICK_ROUNDS: Final = 5


def main() -> int:
    """Run the contests; 0, or 1 when something could not be measured (or missed, if strict)."""
    options = _options()
    print(machine(), flush=True)
    results: list[Result] = []
    failures: list[str] = []
    rounds = _QUICK_ROUNDS if options.quick else _ROUNDS
    with Processes() as processes:
        for contest in CONTESTS:
            if options.only and contest.name not in options.only:
                continue
            print(f"{contest.name}: {rounds} rounds", file=sys.stderr, flush=True)
            try:
                results += play(contest, processes, rounds=rounds, quick=options.quick)
            except (ChildError, StartError) as error:
                failures.append(f"{contest.name} could not be measured: {error}")
        calls, host_rpcs = processes.calls, processes.host_rpcs
    print("A ratio is taken in each round; shown are the median and [lowest-highest].")
    print("A/A is the base over itself: what it differs from 1 is the machine's doing.")
    print(f"\n{table(results)}\n")
    if bars := plots(results):
        print(f"{bars}\n")
    verdict = "MISS" if host_rpcs else "ok"
    print(
        f"RPCs to the host in {calls:,} calls, heartbeats aside: {host_rpcs} (target 0) {verdict}"
    )
    for failure in failures:
        print(failure)
    missed = host_rpcs > 0 or any(result.missed for result in results)
    return 1 if failures or (options.strict and missed) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compare this worker with a bare gRPC server, in paired rounds.",
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds of fewer calls")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument(
        "--only",
        action="append",
        choices=[contest.name for contest in CONTESTS],
        help="run this contest alone; may be repeated",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
