"""Several real workers on one archive."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pytest

from snakepit_worker.archive.model import Change
from snakepit_worker.errors import Conflict, Unavailable
from tests.archive.conftest import LIMIT, new_session, resource, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from snakepit_worker.archive.database import Archive

T = TypeVar("T")

HOLDER: Final = Path(__file__).with_name("holder.py")


@contextmanager
def worker(url: str, worker_id: str, action: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has opened the archive; see ``holder.py``."""
    with subprocess.Popen(
        [sys.executable, str(HOLDER), url, worker_id, action],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def say(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(text + "\n")
    process.stdin.flush()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def again(action: Callable[..., T], *arguments: Any) -> T:
    """Do something until the database is not busy, which on a slow machine it may be for long."""
    while True:
        with suppress(Unavailable):
            return action(*arguments)


def test_a_session_outlives_a_worker_that_is_killed(
    open_archive: Callable[..., Archive], url: str
) -> None:
    archive = open_archive("b")
    with worker(url, "a", "hold") as process:
        for number in range(20):
            assert line(process) == str(number)
        with pytest.raises(Conflict, match="lives on worker 'a'"):
            archive.claim("s")
        process.kill()
        assert process.stdout is not None
        told = [int(text) for text in process.stdout.read().split()]
        process.wait(LIMIT)
    session = archive.claim("s")
    assert session is not None, "at once, though the lease would last for half a minute"
    assert session.taken_from is not None
    assert session.taken_from.pid == process.pid
    handles = [r.handle for r in session.resources]
    saved = max([19, *told])
    whole = [f"{half}-{n}" for n in range(len(handles) // 2) for half in ("left", "right")]
    assert handles == whole, "each change is there as a whole or not at all"
    assert len(handles) // 2 in {saved + 1, saved + 2}, "what was answered is there"


def test_of_several_processes_one_wins(open_archive: Callable[..., Archive], url: str) -> None:
    archive = open_archive("start")
    ids = [f"s{i}" for i in range(20)]
    write(archive, *(new_session(session_id, end="release") for session_id in ids))
    with (
        worker(url, "a", "race") as a,
        worker(url, "b", "race") as b,
        worker(url, "c", "race") as c,
    ):
        racers = (a, b, c)
        assert [line(process) for process in racers] == ["here"] * 3
        for session_id in ids:
            for process in racers:
                say(process, session_id)
            assert sorted(line(process) for process in racers) == ["lost", "lost", "won"]


def test_of_several_threads_one_wins_and_writes(open_archive: Callable[..., Archive]) -> None:
    """Each claims, writes, and gives up; late writes of whoever held it before are refused."""
    workers, rounds = 4, 20
    archives = [open_archive(str(i)) for i in range(workers)]
    write(archives[0], new_session("s", end="release"))
    wins: list[str] = []
    unexpected: list[object] = []

    def run(number: int) -> None:
        archive, fence = archives[number], "none"
        while len(wins) < rounds and not unexpected:
            stale = Change(session_id="s", fence=fence, put=(resource(f"stale-{number}"),))
            unexpected.extend(o for o in again(write, archive, stale) if isinstance(o, int))
            try:
                session = again(archive.claim, "s")
            except Conflict:
                continue
            assert session is not None
            if [r.handle for r in session.resources] != wins:
                unexpected.append(session)
            fence = session.fence
            wins.append(f"r-{number}-{session.version}")
            change = Change(session_id="s", fence=fence, put=(resource(wins[-1]),), end="release")
            written = [session.version + 1]
            unexpected.extend([] if (got := again(write, archive, change)) == written else [got])

    with ThreadPoolExecutor(workers) as pool:
        for future in [pool.submit(run, number) for number in range(workers)]:
            future.result(LIMIT)
    assert unexpected == []
    assert len(wins) >= rounds
    last = archives[0].claim("s")
    assert last is not None
    assert [r.handle for r in last.resources] == wins, "in the order in which they were held"


def test_groups_of_several_writers_do_not_wait_in_circles(
    open_archive: Callable[..., Archive],
) -> None:
    """Everybody begins and writes all sessions, in an order of its own; one owner each."""
    workers = 4
    archives = [open_archive(str(i)) for i in range(workers)]
    ids = [f"s{i}" for i in range(12)]
    outcomes: list[list[int | str]] = [[] for _ in archives]
    together = threading.Barrier(workers, timeout=LIMIT)

    def run(number: int) -> None:
        turned = ids[number * 3 :] + ids[: number * 3]
        together.wait()
        for half in (turned[:6], turned[6:]):
            outcomes[number] += write(
                archives[number], *(new_session(s, fence=f"f{number}") for s in half)
            )

    threads = [threading.Thread(target=run, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert [len(row) for row in outcomes] == [len(ids)] * workers
    assert sum(isinstance(o, int) for row in outcomes for o in row) == len(ids)
