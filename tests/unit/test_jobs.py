"""What a job remembers, how it ends, and how often progress is passed on."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import warnings
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_worker.calls.reports import Throttle
from snakepit_worker.telemetry import listening
from snakepit_worker.telemetry import logging as telemetry
from snakepit_worker.tools.job_history import History, item_fields
from snakepit_worker.tools.jobs import Job, JobState
from snakepit_worker.wire.failures import CallSite
from snakepit_worker.wire.generated.snakepit_bridge_pb2 import ExecuteToolResponse
from snakepit_worker.wire.redaction import REDACTED
from tests.conftest import Clock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from snakepit_worker.telemetry.writer import StderrWriter

LIMIT = 10.0
ENDS = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.LOST)
DONE = ExecuteToolResponse(success=True)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(LIMIT):
            await test()

    asyncio.run(main())


def plain(value: Any) -> Any:
    """What a caller gets to see."""
    return orjson.loads(orjson.dumps(value))


# --- History --------------------------------------------------------------------------------------


def cursors(history: History, after: int = 0, limit: int = 1_000) -> list[int]:
    return [event["cursor"] for event in history.after(after, limit)[0]]


def test_events_have_growing_numbers_and_a_time() -> None:
    clock = Clock(100.0)
    history = History(clock=clock)
    history.add("log", {"text": "one"}, 3)
    clock.now = 101.0
    history.add("log", {"text": "two"}, 3)
    assert history.after(0, 10) == (
        [
            {"cursor": 1, "at": 100.0, "kind": "log", "text": "one"},
            {"cursor": 2, "at": 101.0, "kind": "log", "text": "two"},
        ],
        0,
    )
    assert history.last == 2


@given(
    st.integers(1, 8),
    st.lists(st.integers(0, 60), max_size=30),
    st.integers(0, 35),
    st.integers(1, 10),
)
def test_the_newest_are_kept_and_the_reader_knows_what_is_gone(
    most: int, sizes: list[int], after: int, limit: int
) -> None:
    history = History(max_events=most, max_bytes=1_000)
    for size in sizes:
        history.add("log", {}, size)
    kept = range(len(sizes) - min(most, len(sizes)) + 1, len(sizes) + 1)
    events, missed = history.after(after, limit)
    assert [event["cursor"] for event in events] == [n for n in kept if n > after][:limit]
    assert missed == len([n for n in range(1, len(sizes) + 1) if n > after and n not in kept])


def test_they_are_bounded_in_bytes() -> None:
    history = History(max_bytes=10_000)
    for _ in range(200):
        history.add("partial", {}, 400)
        assert history.size <= 10_000
    assert len(cursors(history)) == 20


def test_one_that_is_too_large_says_how_large_it_was() -> None:
    history = History(max_bytes=4_000)
    history.add("log", {"text": "before"}, 6)
    history.add("partial", {"value": "x" * 1_001}, 1_001)
    before, large = history.after(0, 10)[0]
    assert before["text"] == "before"
    assert (large["kind"], large["omitted_bytes"]) == ("partial", 1_001)
    assert "value" not in large


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"", {"value": None}),
        (b'{"a":[1,null]}', {"value": {"a": [1, None]}}),
        (b"\xff\x00", {"binary": "/wA="}),
        (b"plain", {"binary": "cGxhaW4="}),
    ],
)
def test_items_are_json_or_base64(data: bytes, shown: dict[str, Any]) -> None:
    assert plain(item_fields(data)) == shown


def test_integers_of_items_stay_exact() -> None:
    assert orjson.dumps(item_fields(str(2**70).encode())) == b'{"value":%d}' % 2**70


# --- Life -----------------------------------------------------------------------------------------


class Stops:
    """Takes note of the jobs that were to be stopped."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def __call__(self, job: Job) -> None:
        self.jobs.append(job)


@pytest.fixture
def stops() -> Stops:
    return Stops()


@pytest.fixture
def job(stops: Stops) -> Job:
    return Job(CallSite("t.work", "s", "c-1"), "mine", stops)


def states(job: Job) -> list[str]:
    return [event["state"] for event in job.read(0, 1_000)["events"] if event["kind"] == "state"]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("after", ENDS)
def test_it_ends_once(job: Job, stops: Stops, end: JobState, after: JobState) -> None:
    job.end(end, DONE)
    result = plain(job.result())
    job.end(after, ExecuteToolResponse(success=False, error_message='"late"'))
    job.cancel()
    job.progress(1.0, "late")
    job.log("info", "late", "late")
    job.partial(b"1", {})
    assert states(job) == [end.value]
    assert job.read(0, 10)["cursor"] == 1
    assert plain(job.result()) == result
    assert stops.jobs == []


def test_it_is_stopped_once(job: Job, stops: Stops) -> None:
    job.cancel()
    job.cancel()
    assert stops.jobs == [job]
    assert (job.goes_on, job.describe()["state"]) == (True, "cancelling")
    job.end(JobState.CANCELLED)
    assert states(job) == ["cancelling", "cancelled"]


def test_what_it_is() -> None:
    clock = Clock(5.0)
    job = Job(CallSite("t.work", "s"), "mine", lambda _: None, clock=clock)
    job.handle = "job-1"
    assert job.describe() == {
        "handle": "job-1",
        "name": "mine",
        "tool": "t.work",
        "state": "running",
        "created_at": 5.0,
        "ended_at": None,
        "progress": None,
        "cursor": 0,
    }
    assert job.result() == {"handle": "job-1", "state": "running"}
    job.progress(0.5, "half")
    clock.now = 6.0
    job.end(JobState.SUCCEEDED, DONE)
    described = job.describe()
    assert (described["ended_at"], described["state"]) == (6.0, "succeeded")
    assert described["progress"] == {"fraction": 0.5, "text": "half"}


@pytest.mark.parametrize("cut_off", [False, True])
def test_a_cancelled_one_without_a_reply_has_a_failure(job: Job, *, cut_off: bool) -> None:
    job.cancel()
    job.cut_off = cut_off
    job.end(JobState.CANCELLED, milliseconds=7)
    result = plain(job.result())
    error = result["error"]
    assert result["execution_time_ms"] == 7
    assert (error["type"], error["code"]) == ("CancelledError", "CANCELLED")
    assert error["context"]["tool_name"] == "t.work"
    assert error["correlation_id"] == "c-1"
    assert error.get("details") == ({"stopped": False} if cut_off else None)


def again(job: Job) -> Job:
    return Job.rebuild(json.loads(json.dumps(job.recipe())))


def test_one_that_had_not_ended_with_its_worker_is_lost(job: Job) -> None:
    job.handle = "job-7"
    job.progress(0.5, "half")
    lost = again(job)
    described = lost.describe()
    assert described["handle"] == "job-7"
    assert described["created_at"] == job.describe()["created_at"]
    assert described["progress"] == {"fraction": 0.5, "text": "half"}
    assert (described["state"], lost.goes_on) == ("lost", False)
    error = plain(lost.result())["error"]
    assert (error["code"], error["retryable"]) == ("UNAVAILABLE", False)
    assert lost.read(0, 10)["done"]
    assert again(lost).describe()["state"] == "lost"


def test_one_that_had_ended_keeps_what_became_of_it(job: Job) -> None:
    response = ExecuteToolResponse(success=True, binary_result=b"\x00")
    response.result.value = b'{"a":[1,null]}'
    job.end(JobState.SUCCEEDED, response)
    assert plain(again(job).result()) == plain(job.result())
    assert again(job).describe()["ended_at"] == job.describe()["ended_at"]


def test_a_large_result_is_lost_with_its_worker(job: Job) -> None:
    response = ExecuteToolResponse(success=True, binary_result=bytes(2 << 20))
    job.end(JobState.SUCCEEDED, response)
    assert again(job).result()["state"] == "lost"


def test_lines_are_cut_and_have_no_secrets(job: Job) -> None:
    job.log("warning", "some.framework", "api_key='sk-12345678901234567890' " + "x" * 10_000)
    (line,) = job.read(0, 10)["events"]
    assert (line["level"], line["logger"]) == ("warning", "some.framework")
    assert REDACTED in line["text"]
    assert "sk-1234" not in line["text"]
    assert len(line["text"]) <= 2_000


def test_parts_have_their_metadata_as_text(job: Job) -> None:
    job.partial(b"7", {"number": 1})
    (part,) = plain(job.read(0, 10)["events"])
    assert (part["value"], part["metadata"]) == (7, {"number": "1"})


def test_reading_goes_on_where_it_ended(job: Job) -> None:
    for number in range(5):
        job.partial(b"%d" % number, {})
    first = job.read(0, 3)
    assert (first["cursor"], first["done"], len(first["events"])) == (3, False, 3)
    job.end(JobState.SUCCEEDED, DONE)
    assert not job.read(first["cursor"], 2)["done"]
    rest = job.read(first["cursor"], 3)
    assert (rest["cursor"], rest["done"]) == (6, True)
    assert job.read(6, 3)["events"] == []
    assert job.read(6, 3)["done"]


# --- Waiting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("happens", ["progress", "log", "partial", "cancel", "end"])
def test_an_event_wakes_all_readers(job: Job, happens: str) -> None:
    what: dict[str, Callable[[], None]] = {
        "progress": lambda: job.progress(None, ""),
        "log": lambda: job.log("info", "a", "b"),
        "partial": lambda: job.partial(b"1", {}),
        "cancel": job.cancel,
        "end": lambda: job.end(JobState.SUCCEEDED, DONE),
    }

    async def test() -> None:
        readers = [asyncio.ensure_future(job.changed(0, None)) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(reader.done() for reader in readers)
        if happens in {"cancel", "end"}:  # the event loop's own
            what[happens]()
        else:
            await asyncio.to_thread(what[happens])
        await asyncio.gather(*readers)
        await job.changed(0, None)  # what has happened is not waited for

    run(test)


def test_a_reader_waits_no_longer_than_it_says_and_leaves_nothing(job: Job) -> None:
    async def test() -> None:
        await job.changed(0, 0.0)
        await job.ended(0.0)
        for waiting in (job.changed(0, None), job.ended(None)):
            task = asyncio.ensure_future(waiting)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert not job._readers
        assert not job._waiters

    run(test)


def test_its_end_is_waited_for_past_other_events(job: Job) -> None:
    async def test() -> None:
        waiter = asyncio.ensure_future(job.ended(None))
        await asyncio.sleep(0)
        job.progress(0.5, "")
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiter.done()
        job.end(JobState.SUCCEEDED, DONE)
        await waiter
        await job.ended(None)

    run(test)


# --- How often ------------------------------------------------------------------------------------


class Later:
    """Functions that are to be called later, and the clock that says when."""

    def __init__(self) -> None:
        self.clock = Clock(10.0)
        self.due: list[tuple[float, Callable[[], None]]] = []
        self.told: list[tuple[float | None, str]] = []
        self.throttle = Throttle(0.5, self._tell, self._later, self.clock)

    def give(self, *texts: str) -> None:
        for text in texts:
            self.throttle.give(None, text)

    def texts(self) -> list[str]:
        return [text for _, text in self.told]

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        due, self.due = self.due, []
        for at, function in due:
            if at <= self.clock.now:
                function()
            else:
                self.due.append((at, function))

    def _tell(self, fraction: float | None, text: str) -> None:
        self.told.append((fraction, text))

    def _later(self, seconds: float, function: Callable[[], None]) -> None:
        self.due.append((self.clock.now + seconds, function))


def test_the_first_is_told_at_once_and_then_the_newest() -> None:
    later = Later()
    later.give("a", "b", "c")
    assert later.texts() == ["a"]
    assert len(later.due) == 1
    later.pass_time(0.25)
    later.give("d")
    assert later.texts() == ["a"]
    later.pass_time(0.25)
    assert later.texts() == ["a", "d"]
    assert later.due == []
    later.pass_time(0.5)
    later.give("e")
    assert later.texts() == ["a", "d", "e"]


def test_one_that_comes_before_a_late_timer_is_told_once() -> None:
    later = Later()
    later.give("a", "b")
    later.clock.now += 0.6
    later.give("c")
    assert later.texts() == ["a", "c"]
    later.pass_time(0.0)
    assert later.texts() == ["a", "c"]


def test_the_end_tells_what_waits_and_takes_nothing_more() -> None:
    later = Later()
    later.give("a", "b")
    later.throttle.close()
    later.give("c")
    later.throttle.close()
    later.pass_time(1.0)
    assert later.texts() == ["a", "b"]


@given(st.lists(st.one_of(st.floats(0.0, 1.0), st.none()), max_size=40))
def test_it_is_never_told_too_often_and_the_last_word_always(steps: list[float | None]) -> None:
    """A number passes that many seconds, anything else reports."""
    later = Later()
    times: list[float] = []
    given = []
    for number, step in enumerate(steps):
        if step is None:
            given.append(str(number))
            later.give(str(number))
        else:
            later.pass_time(step)
        times += [later.clock.now] * (len(later.told) - len(times))
    later.throttle.close()
    assert all(second - first >= 0.5 for first, second in pairwise(times))
    assert later.texts()[-1:] == given[-1:]
    assert later.texts() == sorted(later.texts(), key=int)


# --- Log lines ------------------------------------------------------------------------------------


class Log:
    """Takes what would go to stderr."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text


class Quiet(logging.Handler):
    """A handler with a level of its own, as the worker's has."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def root_with(*handlers: logging.Handler) -> Iterator[list[tuple[str, str, str]]]:
    """What is heard while the root logger has these handlers, and not those of pytest."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    root.handlers[:] = handlers
    root.setLevel(logging.WARNING)
    heard: list[tuple[str, str, str]] = []
    token = listening.listener.set(lambda *line: heard.append(line))
    try:
        yield heard
    finally:
        listening.listener.reset(token)
        root.handlers[:] = before
        root.setLevel(level)


@contextmanager
def listening_at(*handlers: logging.Handler) -> Iterator[list[tuple[str, str, str]]]:
    """The same while somebody listens, who leaves everything as it was."""
    root = logging.getLogger()
    with root_with(*handlers) as heard:
        listening.begin_listening()
        yield heard
        listening.end_listening()
        assert (root.handlers, root.level) == (list(handlers), logging.WARNING)


FRAMEWORK = logging.getLogger("some.framework")


def test_who_listens_hears_lines_from_info_up() -> None:
    handler = Quiet(logging.WARNING)
    with listening_at(handler) as heard:
        listening.begin_listening()
        listening.end_listening()
        for name in ("debug", "info", "warning"):
            getattr(FRAMEWORK, name)("about %s", name)
        FRAMEWORK.info("%d", "no number")
    assert heard == [
        ("info", "some.framework", "about info"),
        ("warning", "some.framework", "about warning"),
        ("info", "some.framework", "%d"),
    ]
    assert handler.lines == ["about warning"]


def test_nobody_else_is_told_more_than_before() -> None:
    """A handler without a level relies on that of the logger."""
    handler = Quiet(logging.NOTSET)
    with listening_at(handler) as heard:
        FRAMEWORK.info("quiet")
        FRAMEWORK.warning("loud")
    assert handler.lines == ["loud"]
    assert [text for *_, text in heard] == ["loud"]


def test_the_workers_log_level_is_another_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's is `error` unless it is told otherwise."""
    monkeypatch.setattr(telemetry, "_current", None)
    monkeypatch.setattr(telemetry, "_build", telemetry._build)
    log = Log()
    with warnings.catch_warnings(), root_with() as heard:
        telemetry.configure("error", cast("StderrWriter", log), terminal=False)
        listening.begin_listening()
        FRAMEWORK.info("step 1")
        FRAMEWORK.error("step 2")
        telemetry.logger().warning("ours")
        telemetry.logger().error("ours too")
        listening.end_listening()
        logging.captureWarnings(capture=False)
        assert logging.getLogger().level == logging.ERROR
    assert heard == [
        ("info", "some.framework", "step 1"),
        ("error", "some.framework", "step 2"),
        ("error", "snakepit_worker", "ours too"),
    ]
    assert [json.loads(line)["event"] for line in log.text.splitlines()] == ["step 2", "ours too"]


def test_pythons_handler_of_last_resort_stays_in_charge(monkeypatch: pytest.MonkeyPatch) -> None:
    last_resort = Quiet(logging.WARNING)
    monkeypatch.setattr(logging, "lastResort", last_resort)
    with listening_at() as heard:
        FRAMEWORK.info("quiet")
        FRAMEWORK.warning("loud")
        other = Quiet(logging.NOTSET)
        FRAMEWORK.addHandler(other)
        FRAMEWORK.warning("in good hands")
        FRAMEWORK.removeHandler(other)
    assert last_resort.lines == ["loud"]
    assert other.lines == ["in good hands"]
    assert [text for *_, text in heard] == ["quiet", "loud", "in good hands"]


def test_lines_of_other_contexts_are_not_heard() -> None:
    handler = Quiet(logging.WARNING)
    with listening_at(handler) as heard:
        thread = threading.Thread(target=FRAMEWORK.warning, args=("elsewhere",))
        thread.start()
        thread.join()
    assert handler.lines == ["elsewhere"]
    assert heard == []
