"""The books of a session: nothing is lost, and nothing is counted twice."""

from __future__ import annotations

import asyncio
import copy
import gc
import threading
import weakref
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import dspy
import pytest
from dspy import lm15

from snakepit_adapters.dspy.arguments import LMSettings
from snakepit_adapters.dspy.language_models import LanguageModel
from snakepit_adapters.dspy.metered import MeteredLM
from snakepit_adapters.dspy.programs import Program
from snakepit_adapters.dspy.signatures import read_signature
from snakepit_adapters.dspy.streaming import stream
from snakepit_adapters.dspy.usage import Spent, attributed, known_as, ledger_of
from snakepit_worker.sessions import Session
from snakepit_worker.tools.context import CallContext, current_call
from tests.dspy_adapter.conftest import AsyncEngine, Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ANSWER = "[[ ## answer ## ]]\nParis.\n\n[[ ## completed ## ]]"
QUESTION = {"question": "What is the capital of France?"}
KEY = "key-of-the-session-4711"

pytestmark = pytest.mark.usefixtures("framework")


@dataclass(eq=False)
class Call:
    """As much of a call as the books look at."""

    session: Session
    tool: str = "dspy.call"
    correlation_id: str = "one"


@pytest.fixture
def session() -> Session:
    return Session("ann")


@contextmanager
def served(session: Session, **more: str) -> Iterator[None]:
    token = current_call.set(cast("CallContext", Call(session, **more)))
    try:
        yield
    finally:
        current_call.reset(token)


def a_model(script: str | Sequence[str] | Exception = ANSWER) -> MeteredLM:
    engine = Engine(script)
    return MeteredLM(
        "fake/model", engine=engine, async_engine=AsyncEngine(engine), cache=False, num_retries=0
    )


def a_program() -> Program:
    return Program("Predict", read_signature("question -> answer"))


def run(program: Program, lm: MeteredLM, *, streamed: bool = False) -> None:
    request = program.request(QUESTION, LanguageModel(LMSettings(model="fake/model"), lm))

    async def main() -> None:
        if not streamed:
            await request.run(asyncio.to_thread)
            return
        async for _ in stream(request):
            pass

    asyncio.run(main())


def books(session: Session, **options: Any) -> Any:
    return ledger_of(session).describe(**options)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_call_counts_for_the_session_the_model_and_the_program(
    session: Session, *, streamed: bool
) -> None:
    program = a_program()
    known_as(program, "qa")
    with served(session):
        run(program, a_model(), streamed=streamed)
    shown = books(session, calls=10)
    total = shown["total"]
    assert total.pop("seconds") > 0
    assert total == {
        "calls": 1,
        "failures": 0,
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "cost": None,
        "unpriced": 1,
    }
    assert list(shown["models"]) == ["fake/model"]
    assert shown["programs"]["qa"]["calls"] == 1
    (call,) = shown["calls"]
    assert (call["correlation_id"], call["tool"], call["program"]) == ("one", "dspy.call", "qa")
    assert call["models"]["fake/model"]["total_tokens"] == 15


def test_dspys_own_count_goes_on(session: Session) -> None:
    program = a_program()
    request = program.request(QUESTION, LanguageModel(LMSettings(model="fake/model"), a_model()))
    with served(session):
        reply = asyncio.run(request.run(asyncio.to_thread))
    assert cast("Mapping[str, Any]", reply["usage"])["fake/model"]["total_tokens"] == 15


def test_a_failed_call_counts_as_a_failure(session: Session) -> None:
    with served(session), pytest.raises(dspy.LMServerError):
        run(a_program(), a_model(lm15.ServerError("oops")))
    total = books(session)["total"]
    assert (total["calls"], total["failures"], total["unpriced"]) == (1, 1, 0)


def test_each_request_of_a_call_counts(session: Session) -> None:
    """An answer without fields makes DSPy ask once more, in another layout."""
    with served(session), pytest.raises(dspy.AdapterParseError):
        run(a_program(), a_model("I would rather not."))
    total = books(session)["total"]
    assert (total["calls"], total["failures"], total["total_tokens"]) == (2, 0, 30)


def test_a_cancelled_call_counts_as_a_failure(session: Session) -> None:
    class Silent(AsyncEngine):
        async def complete(self, request: lm15.Request) -> lm15.Response:
            await asyncio.Event().wait()
            return await super().complete(request)

    engine = Engine(ANSWER)
    lm = MeteredLM("fake/model", engine=engine, async_engine=Silent(engine), cache=False)

    async def main() -> None:
        with dspy.context(**attributed()):
            async with asyncio.timeout(0):
                await lm.acall("?")

    with served(session), pytest.raises(TimeoutError):
        asyncio.run(main())
    total = books(session)["total"]
    assert (total["calls"], total["failures"]) == (1, 1)


def test_a_call_that_a_callback_stops_does_not_count(session: Session) -> None:
    class Stop(BaseException):
        pass

    class Guard(dspy.utils.BaseCallback):  # type: ignore[misc]  # DSPy has no types
        def on_lm_start(self, **_: Any) -> None:
            raise Stop

    with served(session), dspy.context(callbacks=[Guard()]), pytest.raises(Stop):
        a_model()("?")
    assert books(session)["total"]["calls"] == 0


def test_threads_of_dspy_count_for_the_call_that_began_them(session: Session) -> None:
    program = a_program()
    known_as(program, "qa")
    lm = a_model()
    examples = [dspy.Example(**QUESTION).with_inputs("question") for _ in range(40)]
    with served(session):
        settings = attributed(program)
    with dspy.context(lm=lm, disable_history=True, trace=None, **settings):
        program.module.batch(examples, num_threads=8, disable_progress_bar=True)
    shown = books(session)
    assert shown["programs"]["qa"]["calls"] == 40
    assert shown["total"]["total_tokens"] == 600


def test_copies_of_a_model_count_too(session: Session) -> None:
    lm = a_model()
    with served(session):
        for model in (lm.copy(temperature=1.0), copy.deepcopy(lm)):
            model("?")
    assert books(session)["total"]["calls"] == 2


def test_concurrent_calls_of_many_sessions_stay_apart() -> None:
    sessions = [Session(str(number)) for number in range(8)]
    lm = a_model()

    def use(session: Session, times: int) -> None:
        with served(session):
            for _ in range(times):
                lm("?")

    threads = [
        threading.Thread(target=use, args=(session, 5 + number))
        for number, session in enumerate(sessions)
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, session in enumerate(sessions):
        total = books(session)["total"]
        assert (total["calls"], total["total_tokens"]) == (2 * (5 + number), 30 * (5 + number))


def test_a_known_price_is_added_up(session: Session) -> None:
    ledger = ledger_of(session)
    with served(session):
        account = cast("Any", attributed()["snakepit_account"])
    for cost in (0.25, None, 0.5):
        ledger.add(account, "a/b", Spent(calls=1, cost=cost, unpriced=int(cost is None)))
    total = books(session)["total"]
    assert (total["cost"], total["unpriced"]) == (0.75, 1)


def test_new_books_begin_where_the_old_ones_end(session: Session) -> None:
    with served(session):
        a_model()("?")
    assert books(session, calls=5, reset=True)["total"]["calls"] == 1
    empty = books(session, calls=5)
    assert empty["total"]["calls"] == 0
    assert (empty["models"], empty["programs"], empty["calls"]) == ({}, {}, [])


def test_the_books_stay_small(session: Session) -> None:
    ledger = ledger_of(session)
    for number in range(1500):
        with served(session, correlation_id=str(number)):
            account = cast("Any", attributed()["snakepit_account"])
        ledger.add(account, f"a/{number}", Spent(calls=1))
    shown = books(session, calls=100)
    assert len(shown["models"]) == 1001
    assert shown["models"]["(others)"]["calls"] == 500
    assert shown["total"]["calls"] == 1500
    assert [call["correlation_id"] for call in shown["calls"]] == [
        str(number) for number in range(1499, 1399, -1)
    ]


def test_nothing_of_a_call_is_kept(session: Session) -> None:
    lm = a_model()
    with served(session), dspy.context(disable_history=False):
        lm("a secret prompt")
    assert lm.history == []
    assert dspy.clients.base_lm.GLOBAL_HISTORY == []


def test_the_books_go_with_their_session() -> None:
    session = Session("gone")
    with served(session):
        a_model()("?")
    watched = weakref.ref(session)
    del session
    gc.collect()
    assert watched() is None


@pytest.mark.parametrize("call", ["__call__", "acall"])
def test_no_exception_quotes_a_secret(call: str) -> None:
    lm = a_model(lm15.AuthError(f"incorrect key {KEY}"))
    lm.secrets = (KEY,)
    run_it: Callable[[], Any] = (
        (lambda: lm("?")) if call == "__call__" else (lambda: asyncio.run(lm.acall("?")))
    )
    with pytest.raises(dspy.LMAuthError) as raised:
        run_it()
    assert KEY not in str(raised.value)
    assert raised.value.__cause__ is None or KEY not in str(raised.value.__cause__)
