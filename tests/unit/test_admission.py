"""Places, queues and turns."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from snakepit_worker.calls import admission
from snakepit_worker.calls.admission import Lane, WaitingRules
from snakepit_worker.errors import ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LIMIT = 10.0


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(LIMIT):
            await test()

    asyncio.run(main())


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


class Calls:
    """Calls that run until they are ended, in the order in which they got their places."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.order: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._ends: list[tuple[str, asyncio.Event]] = []

    async def begin(self, *session_ids: str) -> None:
        for session_id in session_ids:
            self.tasks.append(asyncio.ensure_future(self._call(session_id)))
        await settle()

    async def end(self, count: int = 1) -> None:
        """End those that run for longest."""
        for _ in range(count):
            self._ends.pop(0)[1].set()
            await settle()

    async def _call(self, session_id: str) -> None:
        await self.lane.enter(session_id)
        self.order.append(session_id)
        end = asyncio.Event()
        self._ends.append((session_id, end))
        try:
            await end.wait()
        finally:
            self.lane.leave(session_id, 0.5)


def is_empty(lane: Lane) -> bool:
    return (lane.running, lane.waiting, lane._sessions, list(lane._turns)) == (0, 0, {}, [])


def test_as_many_run_as_there_are_places() -> None:
    async def test() -> None:
        calls = Calls(Lane("threads", 2, WaitingRules()))
        await calls.begin("a", "a", "a", "b")
        assert calls.order == ["a", "a"]
        assert (calls.lane.running, calls.lane.waiting) == (2, 2)
        await calls.end(4)
        assert sorted(calls.order) == ["a", "a", "a", "b"]
        assert is_empty(calls.lane)

    run(test)


def test_sessions_take_turns() -> None:
    async def test() -> None:
        calls = Calls(Lane("threads", 1, WaitingRules()))
        await calls.begin("a", *["a"] * 5, "b", "b", "c")
        await calls.end(9)
        assert calls.order == ["a", "a", "b", "c", "a", "b", "a", "a", "a"]
        assert is_empty(calls.lane)

    run(test)


def test_a_session_runs_no_more_than_its_share() -> None:
    async def test() -> None:
        calls = Calls(Lane("threads", 4, WaitingRules(session_running=2)))
        await calls.begin("a", "a", "a", "b")
        assert calls.order == ["a", "a", "b"]
        assert calls.lane.waiting == 1
        await calls.end()
        assert calls.order == ["a", "a", "b", "a"]
        await calls.end(3)
        assert is_empty(calls.lane)

    run(test)


@pytest.mark.parametrize(
    ("rules", "limit"),
    [
        (WaitingRules(waiting=2), "max_waiting"),
        (WaitingRules(session_waiting=2), "max_session_waiting"),
    ],
)
def test_beyond_the_limit_a_call_is_refused_at_once(rules: WaitingRules, limit: str) -> None:
    async def test() -> None:
        calls = Calls(Lane("threads", 1, rules))
        await calls.begin("a", "a", "a")
        with pytest.raises(ResourceExhausted) as caught:
            await calls.lane.enter("a")
        error = caught.value
        assert f"the limit (--{limit.replace('_', '-')})" in str(error)
        assert error.details == {
            "lane": "threads",
            "limit": limit,
            "value": 2,
            "running": 1,
            "waiting": 2,
        }
        assert error.retryable
        assert error.retry_after is not None
        assert 0.1 <= error.retry_after <= 60
        await calls.end(3)
        assert is_empty(calls.lane)

    run(test)


def test_another_session_may_wait_where_one_may_not() -> None:
    async def test() -> None:
        calls = Calls(Lane("threads", 1, WaitingRules(session_waiting=1)))
        await calls.begin("a", "a", "b")
        assert calls.lane.waiting == 2
        await calls.end(3)
        assert calls.order == ["a", "a", "b"]

    run(test)


def test_the_delay_follows_what_calls_took() -> None:
    async def test() -> None:
        lane = Lane("threads", 1, WaitingRules(waiting=0))
        for seconds in [20.0] * 50:
            await lane.enter("a")
            lane.leave("a", seconds)
        await lane.enter("a")
        with pytest.raises(ResourceExhausted) as caught:
            await lane.enter("b")
        assert caught.value.retry_after == pytest.approx(20, rel=0.01)
        lane.leave("a", 0)
        assert is_empty(lane)

    run(test)


def test_who_is_cancelled_while_waiting_takes_no_place() -> None:
    async def test() -> None:
        calls = Calls(Lane("threads", 1, WaitingRules()))
        await calls.begin("a", "b", "c")
        calls.tasks[1].cancel()
        await calls.end()
        assert calls.order == ["a", "c"]
        await calls.end()
        assert is_empty(calls.lane)

    run(test)


def test_who_is_cancelled_when_the_place_comes_gives_it_on() -> None:
    async def test() -> None:
        lane = Lane("threads", 1, WaitingRules())
        await lane.enter("a")
        second = asyncio.ensure_future(lane.enter("b"))
        third = asyncio.ensure_future(lane.enter("c"))
        await settle()
        lane.leave("a", 0)  # the place is the second one's now, who does not know it yet
        second.cancel()
        await settle()
        assert second.cancelled()
        assert third.done()
        lane.leave("c", 0)
        assert is_empty(lane)

    run(test)


def test_a_place_that_comes_after_the_cancellation_goes_to_the_next() -> None:
    async def test() -> None:
        lane = Lane("threads", 1, WaitingRules())
        await lane.enter("a")
        second = asyncio.ensure_future(lane.enter("b"))
        third = asyncio.ensure_future(lane.enter("c"))
        await settle()
        second.cancel()  # its task has not seen it yet
        lane.leave("a", 0)
        await settle()
        assert second.cancelled()
        assert third.done()
        lane.leave("c", 0)
        assert is_empty(lane)

    run(test)


def test_more_places_are_for_those_who_wait() -> None:
    async def test() -> None:
        calls = Calls(Lane("threads", 1, WaitingRules()))
        await calls.begin("a", "b", "c")
        calls.lane.resize(2)
        await settle()
        assert calls.order == ["a", "b"]
        await calls.end(3)
        assert is_empty(calls.lane)

    run(test)


def test_who_waits_for_a_place_that_does_not_come_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "_PATIENCE", 0.0)

    async def test() -> None:
        lane = Lane("main thread", 3, WaitingRules(), flag="--more", stuck=lambda: 6)
        await lane.enter("a")
        lane.resize(1)
        second = asyncio.ensure_future(lane.enter("b"))
        await settle()
        lane.resize(0)
        with pytest.raises(ResourceExhausted, match="main thread: every place is held") as caught:
            await second
        facts = {"lane": "main thread", "limit": "places", "value": 3, "running": 6, "waiting": 1}
        assert caught.value.details == facts
        assert "worker.stats" in (caught.value.help or "")
        assert "--more" in (caught.value.help or "")
        assert caught.value.retry_after == 10
        lane.leave("a", 0)
        with pytest.raises(ResourceExhausted):  # at once, from now on
            await lane.enter("c")
        lane.resize(1)
        await lane.enter("c")
        lane.leave("c", 0)
        assert is_empty(lane)

    run(test)


def test_a_place_that_comes_back_soon_is_waited_for() -> None:
    async def test() -> None:
        lane = Lane("main thread", 1, WaitingRules())
        lane.resize(0)
        waiting = asyncio.ensure_future(lane.enter("a"))
        await settle()
        assert not waiting.done()
        lane.resize(1)
        await waiting
        lane.leave("a", 0)
        assert is_empty(lane)

    run(test)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_every_place_comes_back(seed: int) -> None:
    chance = random.Random(seed)

    async def test() -> None:
        lane = Lane("threads", 3, WaitingRules(8, session_running=2, session_waiting=4))
        running: set[asyncio.Task[None]] = set()
        most = 0

        async def call(session_id: str) -> None:
            nonlocal most
            await lane.enter(session_id)
            most = max(most, lane.running)
            try:
                for _ in range(chance.randrange(5)):
                    await asyncio.sleep(0)
            finally:
                lane.leave(session_id, 0.1)

        for _ in range(400):
            action = chance.random()
            if action < 0.6:
                running.add(asyncio.ensure_future(call(chance.choice("abcd"))))
            elif action < 0.8 and running:
                chance.choice(sorted(running, key=id)).cancel()
            else:
                await asyncio.sleep(0)
        await asyncio.gather(*running, return_exceptions=True)
        assert most <= 3
        assert is_empty(lane)

    run(test)
