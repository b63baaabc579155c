"""Programs of all modules as Elixir sees them: over the bridge, against a scripted model."""

from __future__ import annotations

import json
import sys
import threading
import types
from typing import TYPE_CHECKING, Any, Final

import dspy
import pytest

from examples.demo.scripted_model import ChatRequest, Refusal, ScriptedModelServer, shape
from snakepit_adapters.dspy import DspyAdapter
from snakepit_worker import launch
from snakepit_worker.runtime import Worker
from snakepit_worker.settings import Settings
from snakepit_worker.testing import Connection, StandInHost, ToolFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LIMIT: Final = 20.0
PNG: Final = b"\x89PNG\r\n\x1a\n and more"


class Twice(dspy.Module):  # type: ignore[misc]  # DSPy has no types
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: str) -> Any:
        first = self.ask(question=question).answer
        return dspy.Prediction(both=[first, self.ask(question=first).answer])


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    module = types.ModuleType("dspy_modules_of_ours")
    vars(module)["Twice"] = Twice
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "dspy_modules_of_ours", module)
        patch.setenv("SNAKEPIT_DSPY_MODULES", "twice=dspy_modules_of_ours:Twice")
        with Worker(Settings(), [DspyAdapter()]) as worker:
            yield worker


@pytest.fixture
def serve(session: Connection) -> Iterator[Callable[..., ScriptedModelServer]]:
    """Starts a scripted model that the session uses."""
    servers: list[ScriptedModelServer] = []

    def start(script: Any = None, **settings: Any) -> ScriptedModelServer:
        server = ScriptedModelServer(script or echo)
        servers.append(server)
        arguments = {"model": server.model, "api_base": server.base_url, "num_retries": 0}
        session.call("dspy.configure_lm", {**arguments, **settings}, timeout=LIMIT)
        return server

    yield start
    for server in servers:
        server.close()


def echo(request: ChatRequest) -> str:
    """Says what came last before the request for outputs."""
    lines = request.question.split("\n\nRespond with")[0].splitlines()
    return shape(f"<{lines[-1]}>", request)


def failure(session: Connection, tool: str, **arguments: Any) -> dict[str, Any]:
    with pytest.raises(ToolFailure) as raised:
        session.call(tool, arguments, timeout=LIMIT)
    return dict(raised.value.failure)


def test_the_modules_are_listed(session: Connection) -> None:
    listed = {row["module"]: row for row in session.call("dspy.modules")}
    assert {"Predict", "ReAct", "BestOfN", "Composed", "Registered"} <= listed.keys()
    assert not listed["RLM"]["available"]
    assert listed["Registered"]["names"] == ["twice"]
    options = listed["BestOfN"]["options"]
    assert "threshold" in json.dumps(options)


def test_attempts_at_a_program_of_the_session(
    session: Connection, serve: Callable[..., Any]
) -> None:
    answers = iter(["wrong", "right", "never asked for"])
    server = serve(lambda request: shape(next(answers), request))
    session.call("dspy.predict", {"signature": "question -> answer", "name": "qa"})
    created = session.call(
        "dspy.create",
        {
            "module": "BestOfN",
            "program": "qa",
            "options": {
                "n": 5,
                "reward": {"type": "exact_match"},
                "expected": {"answer": "right"},
            },
            "name": "best",
        },
    )
    assert created["signature"]["outputs"] == [{"name": "answer", "type": "str"}]
    arguments = {"handle": "best", "inputs": {"question": "?"}, "trace": True}
    reply = session.call("dspy.call", arguments, timeout=LIMIT)
    assert reply["outputs"] == {"answer": "right"}
    assert [step["outputs"] for step in reply["trace"]] == [{"answer": "right"}]
    assert len(server.requests) == 2
    shown = session.call("dspy.inspect", {"handle": "best"})
    assert shown["programs"]["program"]["module"] == "Predict"
    assert shown["options"]["n"] == 5
    assert (shown["sizes"]["predictors"], shown["sizes"]["demos"]) == (1, 0)


def test_a_model_of_its_own_judges_the_attempts(
    session: Connection, serve: Callable[..., Any]
) -> None:
    asked = serve(lambda request: shape("an answer", request))
    verdicts = iter([0.1, 0.9])

    def judge(_: ChatRequest) -> str:
        return f"[[ ## score ## ]]\n{next(verdicts)}\n\n[[ ## reason ## ]]\nso"

    judging = serve(judge, name="strict")
    create = {
        "module": "BestOfN",
        "program": {"signature": "question -> answer"},
        "options": {"reward": {"type": "judge", "lm": "strict"}, "n": 5, "threshold": 0.5},
        "name": "judged",
    }
    session.call("dspy.create", create)
    arguments = {"handle": "judged", "inputs": {"question": "?"}}
    assert session.call("dspy.call", arguments, timeout=LIMIT)["outputs"]["answer"]
    assert (len(asked.requests), len(judging.requests)) == (2, 2)


def test_an_elixir_tool_rewards_the_attempts() -> None:
    answers = iter(["short", "a longer answer", "never asked for"])

    def reward(example: dict[str, Any], prediction: dict[str, Any]) -> float:
        assert example == {"question": "?"}
        return float(len(prediction["answer"]) > 10)

    with (
        ScriptedModelServer(lambda request: shape(next(answers), request)) as server,
        StandInHost() as host,
        host.worker(adapters=["dspy"], environment={"SNAKEPIT_DSPY_MODULES": ""}) as (
            _,
            connection,
        ),
    ):
        host.expose("shop.reward", reward)
        lm = {"model": server.model, "api_base": server.base_url}
        connection.call("dspy.configure_lm", lm, timeout=LIMIT)
        create = {
            "module": "BestOfN",
            "program": {"signature": "question -> answer"},
            "options": {"reward": {"type": "elixir", "tool": "shop.reward"}, "n": 5},
            "name": "best",
        }
        connection.call("dspy.create", create)
        arguments = {"handle": "best", "inputs": {"question": "?"}}
        reply = connection.call("dspy.call", arguments, timeout=LIMIT)
    assert reply["outputs"] == {"answer": "a longer answer"}


def test_a_key_in_a_failed_attempt_is_printed_nowhere(
    session: Connection, serve: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    key = "blaue-katze-4711"

    def refuse(request: ChatRequest) -> str:
        raise Refusal(401, f"wrong key {request.authorization}")

    serve(refuse, api_key=key)
    program = {"signature": "question -> answer"}
    options = {"reward": {"type": "exact_match"}, "expected": {"answer": "right"}}
    create = {"module": "Refine", "program": program, "options": options, "name": "refined"}
    session.call("dspy.create", create)
    failed = failure(session, "dspy.call", handle="refined", inputs={"question": "?"})
    assert failed["code"] == "UNAUTHENTICATED"
    assert key not in "".join([json.dumps(failed), *capfd.readouterr()])


def test_a_composed_program(session: Connection, serve: Callable[..., Any]) -> None:
    serve()
    session.call("dspy.predict", {"signature": "text -> summary", "name": "summarize"})
    steps = [
        {"name": "short", "program": "summarize", "inputs": {"text": "inputs.text"}},
        {
            "name": "title",
            "program": {"module": "ChainOfThought", "signature": "summary -> title"},
            "inputs": {"summary": "short.summary"},
        },
    ]
    outputs = {"title": "title.title", "summary": "short.summary"}
    composed = session.call("dspy.compose", {"steps": steps, "outputs": outputs, "name": "paper"})
    assert composed["signature"]["inputs"] == [{"name": "text", "type": "str"}]
    arguments = {"handle": "paper", "inputs": {"text": "long"}}
    reply = session.call("dspy.call", arguments)
    assert reply["outputs"] == {"title": "<<long>>", "summary": "<long>"}
    *events, last, _ = session.stream("dspy.stream", arguments, timeout=LIMIT)
    assert last["outputs"] == reply["outputs"]
    assert [event["step"] for event in events if event["type"] == "status"] == [
        *("short", "short", "title", "title")
    ]
    pieces = [event["text"] for event in events if event.get("field") == "title"]
    assert "".join(pieces) == "<<long>>"
    failed = failure(session, "dspy.compose", steps=steps[1:], outputs=outputs)
    assert {v["field"] for v in failed["violations"]} == {
        "steps[0].inputs.summary",
        "outputs.summary",
    }


def test_steps_may_have_language_models_of_their_own(
    session: Connection, serve: Callable[..., Any]
) -> None:
    serve(lambda request: shape("small", request))
    large = serve(lambda request: shape("large", request), name="large")
    ask = {"signature": "question -> answer"}
    session.call("dspy.predict", {**ask, "name": "other", "lm": "large"})
    steps = [
        {"name": "a", "program": ask, "inputs": {"question": "inputs.question"}},
        {"name": "b", "program": "other", "inputs": {"question": "a.answer"}},
    ]
    outputs = {"a": "a.answer", "b": "b.answer"}
    session.call("dspy.compose", {"steps": steps, "outputs": outputs, "name": "both"})
    arguments = {"handle": "both", "inputs": {"question": "?"}, "config": {"temperature": 0.25}}
    reply = session.call("dspy.call", arguments)
    assert reply["outputs"] == {"a": "small", "b": "large"}
    assert len(large.requests) == 1
    session.call("session.release", {"handle": "large"})
    failed = failure(session, "dspy.call", **arguments)
    assert (failed["code"], failed["details"]) == ("FAILED_PRECONDITION", {"lm": "large"})


def test_a_module_of_the_operator(session: Connection, serve: Callable[..., Any]) -> None:
    serve()
    create = {"module": "Registered", "options": {"name": "twice"}, "name": "twice"}
    session.call("dspy.create", create)
    reply = session.call("dspy.call", {"handle": "twice", "inputs": {"question": "a"}})
    assert reply["outputs"] == {"both": ["<a>", "<<a>>"]}
    create["options"] = {"name": "subprocess:Popen"}
    assert failure(session, "dspy.create", **create)["code"] == "NOT_FOUND"


def test_code_is_not_run(session: Connection) -> None:
    failed = failure(session, "dspy.create", module="CodeAct", signature="question -> answer")
    assert failed["code"] == "PERMISSION_DENIED"
    assert "SNAKEPIT_DSPY_ALLOW_CODE" in failed["help"]


def test_images_come_as_binary_parameters(session: Connection, serve: Callable[..., Any]) -> None:
    server = serve(lambda request: shape("a cat", request))
    session.call(
        "dspy.predict",
        {"signature": "photo: Image, more: list[Image], question -> answer", "name": "see"},
    )
    arguments = {
        "handle": "see",
        "inputs": {"question": "?", "more": [{"url": "https://example.org/cat.png"}]},
    }
    places = {"inputs.photo": PNG, "inputs.more[1]": PNG}
    reply = session.call("dspy.call", arguments, binary=places)
    assert reply["outputs"] == {"answer": "a cat"}
    sent = json.dumps(server.requests[0].messages)
    assert sent.count("data:image/png;base64,") == 2
    assert sent.count("https://example.org/cat.png") == 1
    with pytest.raises(ToolFailure, match=r"inputs\.photo: expected the bytes of a PNG"):
        session.call("dspy.call", arguments, binary={"inputs.photo": b"text"})
    batch = {"handle": "see", "inputs": [{"question": "?", "more": []}]}
    many = session.call("dspy.batch", batch, binary={"inputs[0].photo": PNG})
    assert many["succeeded"] == 1


def test_a_batch_keeps_order_and_goes_on_after_failures(
    session: Connection, serve: Callable[..., Any]
) -> None:
    def sometimes(request: ChatRequest) -> str:
        if "\n3\n" in request.question:
            raise Refusal(500, "oops")
        return echo(request)

    serve(sometimes)
    session.call("dspy.predict", {"signature": "question -> answer", "name": "qa"})
    inputs: list[dict[str, Any]] = [{"question": str(number)} for number in range(6)]
    inputs.append({"questions": "?"})
    arguments = {"handle": "qa", "inputs": inputs, "concurrency": 3}
    reply = session.call("dspy.batch", arguments, timeout=LIMIT)
    assert (reply["succeeded"], reply["failed"]) == (5, 2)
    answers = [result.get("outputs", {}).get("answer") for result in reply["results"]]
    assert answers == ["<0>", "<1>", "<2>", None, "<4>", "<5>", None]
    errors = [result["error"]["code"] for result in reply["results"] if "error" in result]
    assert errors == ["UNAVAILABLE", "INVALID_ARGUMENT"]


def test_a_batch_as_a_job_gives_its_results_one_by_one(
    session: Connection, serve: Callable[..., Any]
) -> None:
    serve()
    session.call("dspy.predict", {"signature": "question -> answer", "name": "qa"})
    inputs = [{"question": str(number)} for number in range(3)]
    start = {"tool": "dspy.batch", "arguments": {"handle": "qa", "inputs": inputs}}
    job = session.call("job.start", start)
    parts: list[dict[str, Any]] = []
    poll = {"handle": job["handle"], "after": 0, "wait_ms": 1000}
    while not (polled := session.call("job.poll", poll, timeout=LIMIT))["done"]:
        parts += polled["events"]
        poll["after"] = polled["cursor"]
    parts = [event["value"] for event in (*parts, *polled["events"]) if event["kind"] == "partial"]
    assert {part["index"]: part["outputs"]["answer"] for part in parts} == {
        0: "<0>",
        1: "<1>",
        2: "<2>",
    }


def test_a_batch_as_a_job_is_cancelled_between_calls(
    session: Connection, serve: Callable[..., Any]
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait(request: ChatRequest) -> str:
        begun.set()
        go_on.wait(LIMIT)
        return shape("wrong", request)

    server = serve(wait)
    options = {"n": 9, "reward": {"type": "exact_match"}, "expected": {"answer": "right"}}
    program = {"signature": "question -> answer"}
    create = {"module": "BestOfN", "program": program, "options": options, "name": "best"}
    session.call("dspy.create", create)
    batch = {"handle": "best", "inputs": [{"question": "?"}] * 3, "concurrency": 1}
    job = session.call("job.start", {"tool": "dspy.batch", "arguments": batch})
    assert begun.wait(LIMIT)
    session.call("job.cancel", {"handle": job["handle"]})
    polled = session.call("job.poll", {"handle": job["handle"], "wait_ms": 1000}, timeout=LIMIT)
    while not polled["done"]:
        more = {"handle": job["handle"], "after": polled["cursor"], "wait_ms": 1000}
        polled = session.call("job.poll", more, timeout=LIMIT)
    go_on.set()
    session.call("dspy.predict", {"signature": "question -> answer", "name": "after"})
    session.call("dspy.call", {"handle": "after", "inputs": {"question": "?"}}, timeout=LIMIT)
    assert len(server.requests) == 2  # the one that was under way, and the one after it


def test_what_a_program_has_learned_is_changed_copied_and_forgotten(
    session: Connection, serve: Callable[..., Any]
) -> None:
    server = serve()
    demo = {"question": "the demo", "answer": "its answer"}
    create = {"module": "ChainOfThought", "signature": "question -> answer", "name": "qa"}
    session.call("dspy.create", create)
    session.call("dspy.set_demos", {"handle": "qa", "demos": [demo]})
    session.call("dspy.set_instructions", {"handle": "qa", "instructions": "Be brief."})
    session.call("dspy.copy", {"handle": "qa", "name": "twin"})
    session.call("dspy.reset", {"handle": "qa"})
    for name, learned in (("qa", False), ("twin", True)):
        session.call("dspy.call", {"handle": name, "inputs": {"question": "?"}})
        sent = json.dumps(server.requests[-1].messages)
        assert ("the demo" in sent, "Be brief." in sent) == (learned, learned)
    failed = failure(session, "dspy.set_demos", handle="qa", demos=[{"question": 1}])
    assert failed["violations"][0]["field"] == "demos[0].question"
    failed = failure(
        session, "dspy.set_instructions", handle="qa", instructions="!", predictor="other"
    )
    assert failed["code"] == "NOT_FOUND"


def test_schemas_of_programs_and_signatures(session: Connection) -> None:
    signature = {
        "inputs": [{"name": "who", "type": "Person"}],
        "outputs": [{"name": "score", "type": "int", "ge": 0, "le": 10}],
        "types": [{"kind": "object", "name": "Person", "fields": [{"name": "name"}]}],
    }
    session.call("dspy.predict", {"signature": signature, "name": "rate"})
    schemas = session.call("dspy.schema", {"handle": "rate"})
    assert schemas == session.call("dspy.schema", {"signature": signature})
    assert schemas["outputs"]["properties"]["score"] == {
        "type": "integer",
        "minimum": 0,
        "maximum": 10,
    }
    assert schemas["inputs"]["$defs"]["Person"]["required"] == ["name"]
    assert failure(session, "dspy.schema")["code"] == "INVALID_ARGUMENT"


def test_programs_live_on_in_another_worker(tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy")
    archive = {
        "SNAKEPIT_WORKER_ARCHIVE": f"sqlite:///{tmp_path}/archive.db",
        "SNAKEPIT_DSPY_MODULES": "",  # what the worker above has cannot be imported there
    }
    options = {"reward": {"type": "contains"}, "expected": {"answer": "<"}}
    program = {"signature": "question -> answer"}
    best = {"module": "BestOfN", "program": program, "options": options}
    steps = [{"name": "a", "program": best, "inputs": {"question": "inputs.question"}}]
    with ScriptedModelServer(echo) as server:

        def call(worker: launch.WorkerProcess, tool: str, **arguments: Any) -> Any:
            with Connection(worker.address) as connection:
                return connection.call(tool, {**arguments, "session_id": "ann"}, timeout=LIMIT)

        with launch.start(adapters=["dspy"], environment=archive) as worker:
            call(worker, "dspy.configure_lm", model=server.model, api_base=server.base_url)
            call(worker, "dspy.compose", steps=steps, outputs={"a": "a.answer"}, name="paper")
            call(worker, "dspy.set_instructions", handle="paper", instructions="Be brief.")
            learned = call(worker, "dspy.dump_state", handle="paper")
            worker.process.kill()
        with launch.start(adapters=["dspy"], environment=archive) as worker:
            reply = call(worker, "dspy.call", handle="paper", inputs={"question": "a"})
            assert call(worker, "dspy.dump_state", handle="paper") == learned
    assert reply["outputs"] == {"a": "<a>"}
    assert "Be brief." in json.dumps(server.requests[-1].messages)
