"""Threads for synchronous tools: idle ones first, lowest number first, bounded, then in order."""

from __future__ import annotations

import gc
import sys
import threading
import time
import weakref
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_worker.calls.threads import Job, MainThread, ThreadPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMIT = 20.0
"""Seconds after which a test gives up; none passes by time."""


def nothing() -> None: ...


class Jobs:
    """Jobs of a pool, each of which runs until it is let go."""

    def __init__(self, pool: ThreadPool) -> None:
        self.pool = pool
        self.ran: list[tuple[object, str]] = []
        self._changed = threading.Condition()
        self._free: set[object] = set()

    def submit(self, *labels: object) -> None:
        for label in labels:
            self.pool.submit(self._job(label))

    def _job(self, label: object) -> Job:
        def work() -> None:
            with self._changed:
                self.ran.append((label, threading.current_thread().name))
                self._changed.notify_all()
                assert self._changed.wait_for(lambda: label in self._free, LIMIT)

        return Job(work, nothing)

    def started(self, *labels: object) -> None:
        with self._changed:
            assert self._changed.wait_for(
                lambda: {label for label, _ in self.ran} >= set(labels), LIMIT
            )

    def finish(self, *labels: object) -> None:
        """Let jobs end, and wait until their threads have taken the next ones or are idle."""
        for label in labels:
            self.started(label)
            busy, waiting = self.pool.busy, self.pool.waiting
            with self._changed:
                self._free.add(label)
                self._changed.notify_all()
            after = (busy, waiting - 1) if waiting else (busy - 1, 0)
            wait_until(partial(self._is, *after))

    def _is(self, busy: int, waiting: int) -> bool:
        return (self.pool.busy, self.pool.waiting) == (busy, waiting)

    def thread_of(self, label: object) -> str:
        return next(name for ran, name in self.ran if ran == label)

    def release_all(self) -> None:
        with self._changed:
            self._free.update({label for label, _ in self.ran} | set(range(1000)))
            self._changed.notify_all()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.0005)


@pytest.fixture
def pool() -> Iterator[ThreadPool]:
    pool = ThreadPool(3, "t")
    yield pool
    pool.close()
    for thread in threading.enumerate():
        if thread.name.startswith("t-"):
            thread.join(LIMIT)
            assert not thread.is_alive()


@pytest.fixture
def jobs(pool: ThreadPool) -> Iterator[Jobs]:
    jobs = Jobs(pool)
    yield jobs
    jobs.release_all()


def test_threads_start_only_when_needed(pool: ThreadPool, jobs: Jobs) -> None:
    def threads() -> list[str]:
        return sorted(t.name for t in threading.enumerate() if t.name.startswith("t-"))

    assert (pool.busy, pool.waiting, threads()) == (0, 0, [])
    jobs.submit(0)
    jobs.started(0)
    assert (pool.busy, threads()) == (1, ["t-0"])
    jobs.finish(0)
    jobs.submit(1)
    jobs.started(1)
    assert threads() == ["t-0"]
    jobs.submit(2)
    jobs.started(2)
    assert (pool.busy, threads()) == (2, ["t-0", "t-1"])


def test_threads_do_not_keep_the_process_alive(jobs: Jobs) -> None:
    jobs.submit(0)
    jobs.started(0)
    (thread,) = [t for t in threading.enumerate() if t.name == "t-0"]
    assert thread.daemon


def test_the_idle_thread_with_the_lowest_number_comes_first(jobs: Jobs) -> None:
    jobs.submit(0, 1, 2)
    jobs.finish(2, 0, 1)
    jobs.submit(3, 4, 5)
    jobs.started(3, 4, 5)
    assert [jobs.thread_of(label) for label in (3, 4, 5)] == ["t-0", "t-1", "t-2"]
    jobs.finish(4)
    jobs.submit(6)
    jobs.started(6)
    assert jobs.thread_of(6) == "t-1"


def test_no_more_jobs_run_than_there_are_threads_and_the_rest_waits_in_order(
    pool: ThreadPool, jobs: Jobs
) -> None:
    jobs.submit(*range(8))
    jobs.started(0, 1, 2)
    assert (pool.busy, pool.waiting, len(jobs.ran)) == (3, 5, 3)
    for label in range(8):
        jobs.finish(label)
    assert (pool.busy, pool.waiting) == (0, 0)
    assert [label for label, _ in jobs.ran[3:]] == [3, 4, 5, 6, 7]


def test_a_waiting_job_runs_on_the_thread_that_becomes_free(jobs: Jobs) -> None:
    jobs.submit(0, 1, 2, 3)
    jobs.finish(1)
    jobs.started(3)
    assert jobs.thread_of(3) == "t-1"


def test_a_closed_pool_takes_no_jobs(pool: ThreadPool) -> None:
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(Job(nothing, nothing))


def test_close_ends_idle_threads_at_once_and_busy_ones_after_their_job(
    pool: ThreadPool, jobs: Jobs
) -> None:
    jobs.submit(0, 1, 2, 3)
    jobs.finish(0, 3)
    jobs.started(1, 2)
    threads = {t.name: t for t in threading.enumerate() if t.name.startswith("t-")}
    jobs.submit(4, 5)  # 4 runs on the idle thread, 5 waits
    jobs.started(4)
    pool.close()
    assert pool.waiting == 0
    jobs.release_all()
    for thread in threads.values():
        thread.join(LIMIT)
        assert not thread.is_alive()
    assert 5 not in [label for label, _ in jobs.ran]


def test_closing_twice_is_no_mistake(pool: ThreadPool) -> None:
    pool.submit(Job(nothing, nothing))
    pool.close()
    pool.close()


def test_an_idle_thread_holds_nothing_of_its_last_job(pool: ThreadPool) -> None:
    class Argument:
        pass

    argument = Argument()
    reference = weakref.ref(argument)
    done = threading.Event()

    def work(_: Argument = argument) -> None:
        done.set()

    pool.submit(Job(work, nothing))
    assert done.wait(LIMIT)
    wait_until(lambda: pool.busy == 0)
    del work, argument

    def gone() -> bool:
        gc.collect()
        return reference() is None

    wait_until(gone)


def test_who_is_told_of_the_end_finds_the_thread_free(pool: ThreadPool) -> None:
    """So calls that come one at a time stay on one thread."""
    told: list[tuple[str, int]] = []
    names: list[str] = []
    done = threading.Event()

    def submit_another() -> None:
        told.append((threading.current_thread().name, pool.busy))
        pool.submit(Job(lambda: names.append(threading.current_thread().name), done.set))

    pool.submit(Job(nothing, submit_another))
    assert done.wait(LIMIT)
    assert told == [("t-0", 0)]
    assert names == ["t-0"]


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 4))
def test_any_mix_of_jobs_runs_each_once_and_in_order(steps: list[bool], size: int) -> None:
    """Against a model of a pool: what runs, what waits, and on which thread."""
    pool = ThreadPool(size, "m")
    jobs = Jobs(pool)
    running: dict[int, int] = {}  # job by thread
    waiting: list[int] = []
    submitted = 0
    try:
        for submit in steps:
            if submit:
                free = [index for index in range(size) if index not in running]
                if free:
                    running[free[0]] = submitted
                else:
                    waiting.append(submitted)
                jobs.submit(submitted)
                submitted += 1
            elif running:
                index = min(running)
                jobs.finish(running.pop(index))
                if waiting:
                    running[index] = waiting.pop(0)
            jobs.started(*running.values())
            assert (pool.busy, pool.waiting) == (len(running), len(waiting))
            for index, label in running.items():
                assert jobs.thread_of(label) == f"m-{index}"
        assert len(jobs.ran) == submitted - len(waiting)
    finally:
        pool.close()
        jobs.release_all()


# --- The main thread ------------------------------------------------------------------------------


def test_jobs_for_the_main_thread_run_in_order_on_the_thread_that_lends_itself() -> None:
    main = MainThread()
    ran: list[tuple[int, int]] = []

    def work(number: int) -> None:
        ran.append((number, threading.get_ident()))

    for number in range(5):
        main.submit(Job(partial(work, number), nothing))
    main.close()
    main.run()
    assert ran == [(number, threading.get_ident()) for number in range(5)]


def test_it_is_busy_during_a_job_and_then_puts_back_what_was_changed() -> None:
    seen: list[object] = []
    main = MainThread(after_each=lambda: seen.append(("after", main.busy)))
    for _ in range(2):
        main.submit(
            Job(
                lambda: seen.append(("work", main.busy)),
                lambda: seen.append(("finished", main.busy)),
            )
        )
    main.close()
    assert not main.busy
    main.run()
    assert seen == [("work", True), ("after", False), ("finished", False)] * 2
    assert not main.busy


def test_it_puts_back_even_when_a_job_raises() -> None:
    seen: list[str] = []
    main = MainThread(after_each=lambda: seen.append("after"))

    def work() -> None:
        raise SystemExit

    main.submit(Job(work, nothing))
    with suppress(SystemExit):
        main.run()
    assert seen == ["after"]
    assert not main.busy


def test_jobs_submitted_after_the_close_are_left() -> None:
    main = MainThread()
    ran: list[int] = []
    main.submit(Job(lambda: ran.append(1), nothing))
    main.close()
    main.submit(Job(lambda: ran.append(2), nothing))
    main.run()
    assert ran == [1]


# --- Abandoned jobs ------------------------------------------------------------------------------


class Stuck:
    """Jobs that nobody waits for, each on a thread until it is let go."""

    def __init__(self, pool: ThreadPool) -> None:
        self.pool = pool
        self._release = threading.Event()
        self.jobs: list[Job] = []

    def occupy(self, count: int) -> None:
        for _ in range(count):
            started, ended = threading.Event(), threading.Event()

            def work(started: threading.Event = started) -> None:
                started.set()
                assert self._release.wait(LIMIT)

            job = Job(work, ended.set)
            self.pool.submit(job)
            assert started.wait(LIMIT)
            self.pool.abandon(job)
            self.jobs.append(job)

    def release(self) -> None:
        self._release.set()
        wait_until(lambda: self.pool.abandoned == 0)


@pytest.fixture
def stuck(pool: ThreadPool) -> Iterator[Stuck]:
    stuck = Stuck(pool)
    yield stuck
    stuck.release()


def test_an_abandoned_thread_is_replaced(pool: ThreadPool, jobs: Jobs, stuck: Stuck) -> None:
    stuck.occupy(3)
    jobs.submit(0, 1, 2, 3)
    jobs.started(0, 1, 2)
    assert (pool.abandoned, pool.busy, pool.waiting) == (3, 6, 1)


def test_who_waits_gets_the_replacement_at_once(pool: ThreadPool, jobs: Jobs) -> None:
    release = threading.Event()
    begun = [threading.Event() for _ in range(3)]

    def work(event: threading.Event) -> None:
        event.set()
        assert release.wait(LIMIT)

    held = [Job(partial(work, event), nothing) for event in begun]
    for job in held:
        pool.submit(job)
    for event in begun:
        assert event.wait(LIMIT)
    jobs.submit("last")
    assert pool.waiting == 1
    pool.abandon(held[0])
    jobs.started("last")
    release.set()


def test_abandoned_threads_are_replaced_no_more_often_than_there_are_threads(
    pool: ThreadPool, jobs: Jobs, stuck: Stuck
) -> None:
    told: list[int] = []
    pool.capacity_changed = told.append
    stuck.occupy(6)
    assert told == [3, 3, 3, 2, 1, 0]
    jobs.submit("late")
    assert (pool.abandoned, pool.busy, pool.waiting) == (6, 6, 1)
    stuck.release()
    jobs.started("late")
    assert sorted(told[6:]) == [1, 2, 3, 3, 3, 3]


def test_threads_that_are_too_many_end(pool: ThreadPool, jobs: Jobs, stuck: Stuck) -> None:
    stuck.occupy(3)
    jobs.submit(0, 1, 2)
    jobs.started(0, 1, 2)
    stuck.release()
    jobs.finish(0, 1, 2)
    wait_until(lambda: sum(t.name.startswith("t-") for t in threading.enumerate()) == 3)
    jobs.submit(3)
    jobs.started(3)
    assert pool.busy == 1


def test_what_has_ended_or_not_begun_does_not_count(pool: ThreadPool, jobs: Jobs) -> None:
    ended = threading.Event()
    job = Job(nothing, ended.set)
    pool.submit(job)
    assert ended.wait(LIMIT)
    pool.abandon(job)
    jobs.submit(0, 1, 2)
    jobs.started(0, 1, 2)
    waiting = Job(nothing, nothing)
    pool.submit(waiting)
    pool.abandon(waiting)
    pool.abandon(waiting)
    assert pool.abandoned == 0


def test_the_main_thread_says_that_it_is_stuck() -> None:
    main = MainThread()
    told: list[int] = []
    main.capacity_changed = told.append
    begun, release = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert release.wait(LIMIT)

    job = Job(work, nothing)
    main.submit(job)
    thread = threading.Thread(target=main.run)
    thread.start()
    assert begun.wait(LIMIT)
    main.abandon(Job(nothing, nothing))
    main.abandon(job)
    main.abandon(job)
    assert told == [0]
    release.set()
    main.close()
    thread.join(LIMIT)
    assert told == [0, 1]


# --- The interpreter's switch interval -----------------------------------------------------------


def test_the_switch_interval_is_short_while_several_jobs_run(jobs: Jobs) -> None:
    usual = sys.getswitchinterval()
    jobs.submit(0)
    jobs.started(0)
    assert sys.getswitchinterval() == usual
    jobs.submit(1)
    jobs.started(1)
    assert sys.getswitchinterval() == pytest.approx(0.0005)
    jobs.finish(0)
    wait_until(lambda: sys.getswitchinterval() == usual)
    jobs.finish(1)
    assert sys.getswitchinterval() == usual
