from __future__ import annotations

import asyncio
import json
import sys
import threading
import types
from typing import TYPE_CHECKING, Any

import dspy
import pytest

from snakepit_adapters.dspy.arguments import Generation
from snakepit_adapters.dspy.module_options import OPTIONS
from snakepit_adapters.dspy.modules import CODE_VARIABLE, KINDS, described
from snakepit_adapters.dspy.programs import Program
from snakepit_adapters.dspy.registered import VARIABLE, registered
from snakepit_adapters.dspy.signatures import read_signature
from snakepit_adapters.dspy.streaming import stream
from snakepit_worker.errors import (
    FailedPrecondition,
    FrameworkError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    StartError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dspy import lm15

QA = "question -> answer"
GOOD = {"reward": {"type": "contains"}, "expected": {"answer": "right"}}


def program(kind: str, signature: str | None = QA, **more: Any) -> Program:
    return Program(kind, None if signature is None else read_signature(signature), **more)


def wrapping(kind: str, **options: Any) -> Program:
    inner = program("Predict")
    return program(kind, None, programs={"program": inner}, options={**GOOD, **options})


def ask(
    called: Program,
    lm: Any,
    inputs: Any = None,
    generation: Any = None,
    **more: Any,
) -> Any:
    request = called.request(inputs or {"question": "?"}, lm, generation, "json")
    return request.run(asyncio.to_thread, **more)


def scripted(engine: Any, *answers: Any) -> None:
    """Answers one after the other, the last one for ever; an exception is raised."""
    left = list(answers)
    lock = threading.Lock()

    def pieces() -> list[str]:
        with lock:
            answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return [json.dumps(answer)]

    engine._pieces = pieces


# --- The table ------------------------------------------------------------------------------------


def test_every_module_has_options_and_is_described() -> None:
    assert list(KINDS) == list(OPTIONS)
    table = {row["module"]: row for row in described()}
    assert list(table) == list(KINDS)
    assert table["BestOfN"]["awaitable"] is False
    assert table["ReAct"]["tools"] is True
    assert table["RLM"]["executes_code"] is True
    assert all(row["options"] and row["description"] for row in table.values())


@pytest.mark.parametrize(
    ("kind", "signature", "more", "field"),
    [
        ("Predict", None, {}, "signature"),
        ("BestOfN", QA, {"options": GOOD}, "signature"),
        ("BestOfN", None, {"options": GOOD}, "programs"),
        ("Refine", None, {"options": {**GOOD, "n": 0}}, "options"),
        ("Predict", QA, {"options": {"max_iters": 3}}, "options"),
        ("ReAct", "question -> trajectory", {}, "signature"),
        ("MultiChainComparison", "question -> rationale", {}, "signature"),
        ("Parallel", None, {}, "programs"),
    ],
)
def test_what_does_not_belong_to_a_module_is_refused(
    kind: str, signature: str | None, more: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidArgument) as raised:
        program(kind, signature, **more)
    assert raised.value.violations[0].field == field


def test_an_unknown_module_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="expected one of Predict"):
        program("Avatar")


# --- Agents ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ReAct", "ReActV2"])
def test_an_agent_without_tools_answers(model: Callable[..., Any], kind: str) -> None:
    async def main() -> Any:
        lm, engine = model("")
        finish = {"next_thought": "done", "next_tool_name": "finish", "next_tool_args": {}}
        calls = {"tool_calls": [{"name": "submit", "args": {"answer": "42"}}]}
        scripted(engine, {**finish, "tool_calls": calls, "reasoning": "r", "answer": "42"})
        return await ask(program(kind, options={"max_iters": 3}), lm)

    assert asyncio.run(main())["outputs"]["answer"] == "42"


# --- Attempts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["BestOfN", "Refine"])
def test_the_best_of_several_attempts_counts(model: Callable[..., Any], kind: str) -> None:
    async def main() -> tuple[Any, Any]:
        lm, engine = model("")
        advice = {"discussion": "d", "advice": {"self": "a"}}
        scripted(engine, {"answer": "wrong", **advice}, advice, {"answer": "right", **advice})
        if kind == "BestOfN":
            scripted(engine, {"answer": "wrong"}, {"answer": "right"})
        answer = await ask(wrapping(kind), lm, None, Generation(temperature=0.0), trace=True)
        return answer, engine

    answer, engine = asyncio.run(main())
    assert answer["outputs"] == {"answer": "right"}
    assert answer["usage"]["fake/model"]["total_tokens"] == 15 * len(engine.requests)
    assert "module" in [step["predictor"] for step in answer["trace"]]
    assert engine.requests[-1].config.temperature == 1.0


def test_the_model_that_advises_is_told_the_metric_and_no_source_of_ours(
    model: Callable[..., Any],
) -> None:
    async def main() -> Any:
        lm, engine = model("")
        advice = {"discussion": "d", "advice": {"self": "be right"}}
        scripted(engine, {"answer": "wrong"}, advice, {"answer": "right"})
        await ask(wrapping("Refine"), lm)
        return [str(request.messages) for request in engine.requests]

    asked = asyncio.run(main())
    assert '"type":"contains"' in asked[1].replace("\\", "")
    assert "snakepit" not in asked[1]
    assert "be right" in asked[2]


@pytest.mark.parametrize("kind", ["BestOfN", "Refine"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_when_no_attempt_succeeds_the_failure_is_told(
    model: Callable[..., Any], kind: str, n: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        lm, _ = model(dspy.lm15.RateLimitError("slow down"))
        called = wrapping(kind, n=n)
        for _ in range(3):  # DSPy's own class counts the failures of all calls together
            with pytest.raises(dspy.LMRateLimitError):
                await ask(called, lm)

    asyncio.run(main())
    assert capsys.readouterr().out == ""


def test_a_reward_that_fails_fails_the_attempts(model: Callable[..., Any]) -> None:
    async def main() -> None:
        lm, _ = model('{"answer": "x"}')
        called = wrapping("BestOfN", expected={"other": "right"})
        await ask(called, lm)

    with pytest.raises(ValueError, match=r"no expected value|no other"):
        asyncio.run(main())


def test_a_cancelled_call_makes_no_further_attempt(model: Callable[..., Any]) -> None:
    from snakepit_worker.errors import Cancelled
    from snakepit_worker.tools.context import current_call

    class Call:
        cancelled = False

        def checkpoint(self) -> None:
            if self.cancelled:
                raise Cancelled("nobody waits")

    async def main() -> int:
        lm, engine = model("")
        call = Call()

        def pieces() -> list[str]:
            call.cancelled = True
            return ['{"answer": "wrong"}']

        engine._pieces = pieces
        token = current_call.set(call)  # type: ignore[arg-type]  # the part that is looked at
        try:
            request = wrapping("BestOfN", n=9).request({"question": "?"}, lm, None, "json")
            with pytest.raises(Cancelled):
                await request.run(asyncio.to_thread)
        finally:
            current_call.reset(token)
        return len(engine.requests)

    assert asyncio.run(main()) == 1


# --- Comparisons and calls side by side -----------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*deprecated.*:DeprecationWarning")
def test_chains_are_compared(model: Callable[..., Any]) -> None:
    async def main() -> Any:
        lm, engine = model('{"rationale": "both", "answer": "42"}')
        called = program("MultiChainComparison", options={"m": 2})
        chains = [{"reasoning": "a", "answer": "41"}, {"reasoning": "b", "answer": "42"}]
        with pytest.raises(InvalidArgument, match=r"inputs\.completions"):
            await ask(called, lm, {"question": "?", "completions": chains[:1]})
        bare = [{"answer": "41"}, {"reasoning": "b"}]
        with pytest.raises(InvalidArgument, match="expected reasoning and answer") as raised:
            await ask(called, lm, {"question": "?", "completions": bare})
        assert len(raised.value.violations) == 2
        inputs = {"question": "?", "completions": chains}
        return await ask(called, lm, inputs), str(engine.requests[0].messages)

    answer, asked = asyncio.run(main())
    assert answer["outputs"] == {"rationale": "both", "answer": "42"}
    assert "my prediction is 41" in asked


def test_calls_side_by_side_fail_one_by_one(model: Callable[..., Any]) -> None:
    async def main() -> Any:
        lm, engine = model("")
        scripted(engine, {"answer": "1"}, dspy.lm15.RateLimitError("slow down"), {"word": "3"})
        programs = {"qa": program("Predict"), "say": program("Predict", "topic -> word")}
        called = program("Parallel", None, programs=programs, options={"concurrency": 1})
        calls = [
            {"program": "qa", "inputs": {"question": "?"}},
            {"program": "qa", "inputs": {"question": "?"}},
            {"program": "say", "inputs": {"topic": "!"}},
        ]
        answer = await ask(called, lm, {"calls": calls})
        with pytest.raises(InvalidArgument, match=r"inputs.calls\[0\].inputs.topics"):
            await ask(called, lm, {"calls": [{"program": "say", "inputs": {"topics": "!"}}]})
        with pytest.raises(InvalidArgument, match="programs are qa, say"):
            await ask(called, lm, {"calls": [{"program": "ask"}]})
        return answer["outputs"]["results"]

    first, second, third = asyncio.run(main())
    assert (first, third) == ({"outputs": {"answer": "1"}}, {"outputs": {"word": "3"}})
    assert second["error"]["code"] == "RESOURCE_EXHAUSTED"


def test_the_nearest_rows_are_found(
    model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    numpy = pytest.importorskip("numpy")

    def letters(texts: list[str]) -> Any:
        return numpy.array([[text.count("a"), text.count("b")] for text in texts])

    monkeypatch.setattr("snakepit_adapters.dspy.knn.local_embeddings", letters)

    async def main() -> Any:
        lm, engine = model("")
        rows = [{"w": "b", "n": 1}, {"w": "aa", "n": 2}, {"w": "a", "n": 3}]
        called = program("KNN", None, options={"rows": rows, "inputs": ["w"], "k": 2})
        assert Program.rebuild(json.loads(json.dumps(called.recipe()))).recipe() == called.recipe()
        answer = await ask(called, lm, {"w": "aaa"})
        assert engine.requests == []
        return answer["outputs"]

    assert asyncio.run(main()) == {"rows": [{"w": "aa", "n": 2}, {"w": "a", "n": 3}]}


def test_rows_without_their_inputs_are_refused() -> None:
    options = {"rows": [{"w": "b"}, {"n": 2}], "inputs": ["w"]}
    with pytest.raises(InvalidArgument, match=r"options\.rows\[1\]: expected a value of w"):
        program("KNN", None, options=options)


# --- Code -----------------------------------------------------------------------------------------

CODE = ("ProgramOfThought", "CodeAct", "RLM")


@pytest.mark.parametrize("kind", CODE)
def test_code_runs_only_where_the_operator_allows_it(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CODE_VARIABLE, raising=False)
    with pytest.raises(PermissionDenied, match=f"{kind} runs code"):
        program(kind)
    monkeypatch.setenv(CODE_VARIABLE, "true")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "deno", None)
    with pytest.raises(FailedPrecondition, match="Deno"):
        program(kind)


@pytest.mark.filterwarnings("ignore:.*deprecated.*:DeprecationWarning")
@pytest.mark.parametrize("kind", CODE)
def test_code_modules_are_made_where_there_is_an_interpreter(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CODE_VARIABLE, "true")
    deno = types.ModuleType("deno")
    vars(deno)["find_deno_bin"] = lambda: "/bin/false"
    monkeypatch.setitem(sys.modules, "deno", deno)
    made = program(kind, options={"max_iters": 2})
    assert made.module.max_iters == 2
    assert Program.rebuild(json.loads(json.dumps(made.recipe()))).recipe() == made.recipe()


@pytest.mark.filterwarnings("ignore:.*deprecated.*:DeprecationWarning")
@pytest.mark.parametrize("kind", CODE)
def test_code_of_the_model_is_run_in_a_thread(
    model: Callable[..., Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the interpreter that needs no Deno; on the event loop none may run."""
    threads = []

    class Interpreter(dspy.LocalInterpreter):  # type: ignore[misc]  # DSPy has no types
        def execute(self, *args: Any, **more: Any) -> Any:
            threads.append(threading.current_thread())
            return super().execute(*args, **more)

    async def main() -> Any:
        lm, engine = model("")
        code = "SUBMIT(answer=str(6 * 7))" if kind == "RLM" else "print(6 * 7)"
        step = {"generated_code": f"```python\n{code}\n```", "code": code, "finished": True}
        scripted(engine, {"reasoning": "r", "answer": "42", **step})
        with dspy.context(interpreter_factory=Interpreter):
            return await ask(program(kind), lm), str(engine.requests[-1].messages)

    monkeypatch.setenv(CODE_VARIABLE, "true")
    deno = types.ModuleType("deno")
    vars(deno)["find_deno_bin"] = lambda: "/bin/false"
    monkeypatch.setitem(sys.modules, "deno", deno)
    answer, asked = asyncio.run(main())
    assert answer["outputs"]["answer"] == "42"
    assert kind == "RLM" or "42" in asked
    assert threads
    assert threading.main_thread() not in threads


def test_a_broken_interpreter_is_no_fault_of_the_caller() -> None:
    from dspy.primitives import CodeInterpreterError

    from snakepit_adapters.dspy.swallowed import described as told

    assert told(CodeInterpreterError("no Deno"))["code"] == "FAILED_PRECONDITION"


# --- The operator's own modules -------------------------------------------------------------------


class Shout(dspy.Module):  # type: ignore[misc]  # DSPy has no types
    def __init__(self, mark: str = "!") -> None:
        super().__init__()
        if not isinstance(mark, str):
            raise TypeError("mark must be a text")
        self.mark = mark
        self.say = dspy.Predict(QA)

    def forward(self, question: str, times: int = 1) -> Any:
        answer = self.say(question=question).answer
        return dspy.Prediction(loud=answer.upper() + self.mark * (times or 1))


class Broken(dspy.Module):  # type: ignore[misc]  # DSPy has no types
    def forward(self, question: str) -> Any:
        return question


NOT_A_MODULE = dict


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = types.ModuleType("shop_modules")
    vars(module).update(Shout=Shout, Broken=Broken, NotOne=NOT_A_MODULE)
    monkeypatch.setitem(sys.modules, "shop_modules", module)
    with registered({VARIABLE: "shout=shop_modules:Shout, broken=shop_modules:Broken"}):
        yield


@pytest.mark.usefixtures("listed")
def test_a_module_of_the_operator_is_called_by_its_name(model: Callable[..., Any]) -> None:
    async def main() -> Any:
        lm, _ = model('{"answer": "hello"}')
        options = {"name": "shout", "arguments": {"mark": "?"}}
        made = program("Registered", None, options=options)
        assert [f.describe() for f in made.signature.inputs] == [
            {"name": "question", "type": "str"},
            {"name": "times", "type": "int | None"},
        ]
        made.set_demos([{"question": "a", "answer": "b"}])
        again = Program.rebuild(json.loads(json.dumps(made.recipe())))
        assert again.recipe() == made.recipe()
        with pytest.raises(InvalidArgument, match=r"inputs\.times: expected int"):
            again.request({"question": "?", "times": "two"}, lm)
        return await ask(again, lm, {"question": "?", "times": 2})

    assert asyncio.run(main())["outputs"] == {"loud": "HELLO??"}


@pytest.mark.usefixtures("listed")
def test_a_module_that_gives_no_prediction_is_a_failure(model: Callable[..., Any]) -> None:
    async def main() -> None:
        lm, _ = model("")
        await ask(program("Registered", None, options={"name": "broken"}), lm)

    with pytest.raises(FrameworkError, match="gave no prediction, but str"):
        asyncio.run(main())


@pytest.mark.usefixtures("listed")
def test_only_what_is_listed_and_fits_can_be_made() -> None:
    with pytest.raises(NotFound, match="registered: broken, shout"):
        program("Registered", None, options={"name": "os.system"})
    for arguments in ({"mark": 7}, {"marks": "!"}):
        options = {"name": "shout", "arguments": arguments}
        with pytest.raises(InvalidArgument, match=r"options\.arguments"):
            program("Registered", None, options=options)


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shout", "expected name=package.module:Class"),
        ("a=shop_modules:Missing", "a: .*Missing"),
        ("a=shop_nothing:Class", "a: No module named"),
        ("a=shop_modules:NotOne", "is no dspy.Module"),
    ],
)
def test_a_wrong_list_stops_the_start(text: str, message: str) -> None:
    with pytest.raises(StartError, match=message), registered({VARIABLE: text}):
        pass


# --- Streams --------------------------------------------------------------------------------------


def test_attempts_stream_the_best_answer_only(model: Callable[..., Any]) -> None:
    async def main() -> Any:
        lm, engine = model("")
        scripted(engine, {"answer": "wrong"}, {"answer": "right"})
        request = wrapping("BestOfN").request({"question": "?"}, lm, None, "json")
        return [event async for event in stream(request)]

    (event,) = asyncio.run(main())
    assert (event["type"], event["outputs"]) == ("prediction", {"answer": "right"})


def test_requests_are_those_of_the_engine(model: Callable[..., Any]) -> None:
    """What options of a program and of a call become, for modules that take none themselves."""

    async def main() -> lm15.Request:
        lm, engine = model('{"rationale": "r", "answer": "a"}')
        called = program("ReAct", config=Generation(temperature=0.5, max_tokens=7))
        finish = {"next_thought": "", "next_tool_name": "finish", "next_tool_args": {}}
        scripted(engine, {**finish, "reasoning": "", "answer": "a"})
        await ask(called, lm, None, Generation(temperature=0.25))
        request: lm15.Request = engine.requests[0]
        return request

    config = asyncio.run(main()).config
    assert (config.temperature, config.max_tokens) == (0.25, 7)
