"""The DSPy adapter as Elixir sees it: over the bridge, against a scripted language model."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, Final

import grpc
import pytest

from examples.demo.scripted_model import (
    ChatRequest,
    Facts,
    Refusal,
    ScriptedModelServer,
    shape,
)
from snakepit_adapters.dspy import DspyAdapter
from snakepit_worker.runtime import Worker
from snakepit_worker.settings import Settings
from snakepit_worker.testing import Connection, ToolFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PARIS: Final = "The capital of France is Paris."
QUESTION: Final = {"question": "What is the capital of France?"}
KEY: Final = "blaue-katze-4711"
"""Looks like no key, so that no pattern can find it."""
LIMIT: Final = 20.0


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker(Settings(), [DspyAdapter()]) as worker:
        yield worker


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptedModelServer]]:
    """Starts scripted models."""
    servers: list[ScriptedModelServer] = []

    def start(script: Any = None, **more: Any) -> ScriptedModelServer:
        servers.append(ScriptedModelServer(script or Facts({"France": PARIS}), **more))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def configure(session: Connection, server: ScriptedModelServer, **more: Any) -> dict[str, Any]:
    arguments = {
        "model": server.model,
        "api_base": server.base_url,
        "api_key": KEY,
        "num_retries": 0,
        **more,
    }
    configured: dict[str, Any] = session.call("dspy.configure_lm", arguments, timeout=LIMIT)
    return configured


def create(session: Connection, signature: Any = "question -> answer", **more: Any) -> str:
    created = session.call("dspy.predict", {"signature": signature, **more}, timeout=LIMIT)
    return str(created["handle"])


def failure(session: Connection, tool: str, **arguments: Any) -> dict[str, Any]:
    with pytest.raises(ToolFailure) as raised:
        session.call(tool, arguments, timeout=LIMIT)
    return dict(raised.value.failure)


def test_a_question_is_answered(session: Connection, serve: Callable[..., Any]) -> None:
    server = serve()
    configured = configure(session, server, max_tokens=50)
    assert (configured["name"], configured["model"]) == ("default", "openai/scripted")
    assert (configured["api_key_given"], configured["max_tokens"]) == (True, 50)
    created = session.call("dspy.predict", {"signature": "question -> answer: str"})
    assert created["kind"] == "dspy.module"
    assert created["signature"] == {
        "inputs": [{"name": "question", "type": "str"}],
        "outputs": [{"name": "answer", "type": "str"}],
        "instructions": None,
    }
    reply = session.call("dspy.call", {"handle": created["handle"], "inputs": QUESTION})
    assert reply["outputs"] == {"answer": PARIS}
    assert reply["usage"]["openai/scripted"]["completion_tokens"] > 0
    assert [request.authorization for request in server.requests] == [f"Bearer {KEY}"]


def test_a_chain_of_thought_reasons_first(session: Connection, serve: Callable[..., Any]) -> None:
    configure(session, serve())
    arguments = {"signature": "question -> answer", "name": "thinker"}
    created = session.call("dspy.chain_of_thought", arguments)
    assert [field["name"] for field in created["signature"]["outputs"]] == ["reasoning", "answer"]
    reply = session.call("dspy.call", {"handle": "thinker", "inputs": QUESTION})
    assert list(reply["outputs"]) == ["reasoning", "answer"]


def test_types_are_kept_on_both_ways(session: Connection, serve: Callable[..., Any]) -> None:
    server = serve()
    configure(session, server, response_format="json_schema")
    signature = {
        "inputs": [{"name": "question"}, {"name": "weights", "type": "dict[str, float]"}],
        "outputs": [
            {"name": "answers", "type": "list[str]", "description": "the best first"},
            {"name": "count", "type": "int"},
            {"name": "sure", "type": "bool | None"},
        ],
    }
    handle = create(session, signature, instructions="Weigh your words.")
    inputs = {**QUESTION, "weights": {"a": 1, "b": 0.5}}
    reply = session.call("dspy.call", {"handle": handle, "inputs": inputs})
    assert reply["outputs"] == {"answers": [PARIS], "count": 1, "sure": True}
    asked = server.requests[0]
    assert asked.schema["required"] == ["answers", "count", "sure"]
    assert "Weigh your words." in asked.messages[0]["content"]
    assert "the best first" in asked.messages[0]["content"]


@pytest.mark.parametrize("layout", ["text", "json", "json_schema"])
def test_an_answer_can_be_followed(
    session: Connection, serve: Callable[..., Any], layout: str
) -> None:
    configure(session, serve())
    handle = create(session)
    arguments = {"handle": handle, "inputs": QUESTION, "response_format": layout}
    *tokens, last, end = session.stream("dspy.stream", arguments, timeout=LIMIT)
    assert "".join(token["text"] for token in tokens) == PARIS
    assert len(tokens) > 3
    assert {(token["type"], token["field"]) for token in tokens} == {("token", "answer")}
    assert last["type"] == "prediction"
    assert last["outputs"] == {"answer": PARIS}
    assert end == {"is_final": True}


def test_a_caller_that_leaves_ends_the_models_answer(
    session: Connection, serve: Callable[..., Any]
) -> None:
    left = threading.Event()

    def endless(_: ChatRequest) -> Iterator[str]:
        yield "[[ ## answer ## ]]\n"
        try:
            while True:
                yield "word " * 50
        finally:
            left.set()

    configure(session, serve(endless))
    arguments = {"handle": create(session), "inputs": QUESTION}
    stream = session.stream("dspy.stream", arguments, timeout=LIMIT)
    assert next(stream)["type"] == "token"
    stream.close()  # type: ignore[attr-defined]  # it is a generator
    assert left.wait(LIMIT)


def test_wrong_inputs_do_not_reach_the_model(
    session: Connection, serve: Callable[..., Any]
) -> None:
    server = serve()
    configure(session, server)
    handle = create(session, "question, limit: int -> answer")
    failed = failure(session, "dspy.call", handle=handle, inputs={"question": 1, "limits": 2})
    assert failed["code"] == "INVALID_ARGUMENT"
    assert {violation["field"] for violation in failed["violations"]} == {
        "inputs.question",
        "inputs.limit",
        "inputs.limits",
    }
    assert server.requests == []


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"signature": "question"}, "signature"),
        ({"signature": "question -> answer: os.path"}, "signature"),
        ({"signature": {"inputs": [{"name": "a"}], "outputs": []}}, "signature.outputs"),
        ({"signature": "a -> b", "demos": [{"a": "x"}]}, "demos[0]"),
        ({"signature": "a -> b", "temperature": 1}, "temperature"),
    ],
)
def test_a_wrong_program_is_refused(
    session: Connection, arguments: dict[str, Any], field: str
) -> None:
    failed = failure(session, "dspy.predict", **arguments)
    assert failed["code"] == "INVALID_ARGUMENT"
    assert failed["violations"][0]["field"] == field


def test_without_a_language_model_nothing_can_be_called(session: Connection) -> None:
    handle = create(session, lm="fast")
    failed = failure(session, "dspy.call", handle=handle, inputs=QUESTION)
    assert failed["code"] == "FAILED_PRECONDITION"
    assert failed["details"] == {"lm": "fast"}
    assert failed["help"] == "call dspy.configure_lm first"


def test_a_refused_key_is_quoted_nowhere(
    session: Connection, serve: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(request: ChatRequest) -> str:
        raise Refusal(401, f"Incorrect API key provided: {request.authorization}")

    configured = configure(session, serve(refuse))
    handle = create(session)
    failed = failure(session, "dspy.call", handle=handle, inputs=QUESTION)
    assert (failed["type"], failed["code"]) == ("LMAuthError", "UNAUTHENTICATED")
    assert failed["category"] == "provider"
    assert not failed["retryable"]
    assert failed["details"]["status"] == 401
    with pytest.raises(grpc.RpcError) as raised:
        list(session.stream("dspy.stream", {"handle": handle, "inputs": QUESTION}))
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
    shown = [
        json.dumps([configured, failed]),
        str(raised.value.details()),
        str(raised.value.trailing_metadata()),
        json.dumps(session.call("dspy.inspect", {"handle": handle})),
        json.dumps(session.call("session.list")),
        *capfd.readouterr(),
    ]
    assert not any(KEY in text for text in shown)


@pytest.mark.parametrize(
    ("refusal", "code", "retryable"),
    [
        (Refusal(403, "not yours"), "PERMISSION_DENIED", False),
        (Refusal(404, "no such model", code="model_not_found"), "NOT_FOUND", False),
        (Refusal(429, "slow down", headers={"Retry-After": "2"}), "RESOURCE_EXHAUSTED", True),
        (Refusal(429, "pay first", code="insufficient_quota"), "RESOURCE_EXHAUSTED", False),
        (Refusal(500, "oops"), "UNAVAILABLE", True),
    ],
    ids=str,
)
def test_what_a_provider_refuses_has_a_code(
    session: Connection,
    serve: Callable[..., Any],
    refusal: Refusal,
    code: str,
    retryable: bool,  # noqa: FBT001
) -> None:
    def refuse(_: ChatRequest) -> str:
        raise refusal

    configure(session, serve(refuse))
    failed = failure(session, "dspy.call", handle=create(session), inputs=QUESTION)
    assert (failed["code"], failed["retryable"]) == (code, retryable)
    assert failed.get("retry_after_ms") == (2000 if refusal.headers else None)


def test_an_answer_that_does_not_fit_is_a_failure(
    session: Connection, serve: Callable[..., Any]
) -> None:
    configure(session, serve(lambda _: "I would rather talk about the weather."))
    failed = failure(session, "dspy.call", handle=create(session), inputs=QUESTION)
    assert (failed["type"], failed["code"]) == ("AdapterParseError", "INTERNAL")
    assert failed["details"]["expected_fields"] == ["answer"]


def test_a_silent_provider_is_given_up(session: Connection, serve: Callable[..., Any]) -> None:
    silence = threading.Event()

    def say_nothing(request: ChatRequest) -> str:
        silence.wait(LIMIT)
        return shape(PARIS, request)

    configure(session, serve(say_nothing), timeout=0.1)
    failed = failure(session, "dspy.call", handle=create(session), inputs=QUESTION)
    silence.set()
    assert (failed["code"], failed["retryable"]) == ("DEADLINE_EXCEEDED", True)


def test_a_released_program_is_gone(session: Connection, serve: Callable[..., Any]) -> None:
    configure(session, serve())
    handle = create(session)
    session.call("session.release", {"handle": handle})
    failed = failure(session, "dspy.call", handle=handle, inputs=QUESTION)
    assert failed["code"] == "NOT_FOUND"
    assert "was released" in failed["message"]


def test_a_language_model_is_no_program(session: Connection, serve: Callable[..., Any]) -> None:
    configured = configure(session, serve())
    failed = failure(session, "dspy.call", handle=configured["handle"], inputs=QUESTION)
    assert failed["code"] == "INVALID_ARGUMENT"


def test_a_program_is_called_with_the_model_that_is_configured_last(
    session: Connection, serve: Callable[..., Any]
) -> None:
    first = configure(session, serve(Facts({}, otherwise="the first")))
    handle = create(session)
    configure(session, serve(Facts({}, otherwise="the second")))
    configure(session, serve(Facts({}, otherwise="another")), name="other")
    arguments = {"handle": handle, "inputs": QUESTION}
    assert session.call("dspy.call", arguments)["outputs"] == {"answer": "the second"}
    named = session.call("dspy.call", {**arguments, "lm": "other"})
    assert named["outputs"] == {"answer": "another"}
    assert failure(session, "session.release", handle=first["handle"])["code"] == "NOT_FOUND"


def test_sessions_share_nothing(
    worker: Worker, session: Connection, serve: Callable[..., Any]
) -> None:
    ours = serve(Facts({}, otherwise="ours"), api_keys=[KEY])
    theirs = serve(Facts({}, otherwise="theirs"), api_keys=["their-own-key-12"])
    with Connection(worker.address) as other:
        configure(session, ours)
        configure(other, theirs, api_key="their-own-key-12")
        for connection, answer in ((session, "ours"), (other, "theirs"), (session, "ours")):
            handle = create(connection)
            reply = connection.call("dspy.call", {"handle": handle, "inputs": QUESTION})
            assert reply["outputs"] == {"answer": answer}
        stranger = failure(other, "dspy.call", handle=handle, inputs=QUESTION)
        assert stranger["code"] == "NOT_FOUND"
        other.call("session.close")
    assert len(ours.requests) == 2
    assert len(theirs.requests) == 1


def test_a_program_can_be_looked_at(session: Connection, serve: Callable[..., Any]) -> None:
    demos = [{"question": "What is the capital of Spain?", "answer": "Madrid."}]
    handle = create(session, demos=demos, name="geographer", instructions="Be brief.")
    before = session.call("dspy.inspect", {"handle": "geographer"})
    assert (before["handle"], before["module"], before["lm"]) == (handle, "Predict", None)
    assert before["predictors"] == {"self": {"instructions": "Be brief.", "demos": demos}}
    assert before["signature"]["instructions"] == "Be brief."
    configure(session, serve())
    after = session.call("dspy.inspect", {"handle": handle})
    assert after["lm"]["model"] == "openai/scripted"


def test_what_a_program_has_learned_can_be_taken_over(
    session: Connection, serve: Callable[..., Any]
) -> None:
    server = serve()
    configure(session, server)
    create(session, name="taught", demos=[{"question": "The first?", "answer": "The first."}])
    create(session, name="blank")
    state = session.call("dspy.dump_state", {"handle": "taught"})
    loaded = session.call("dspy.load_state", {"handle": "blank", "state": state})
    assert loaded["name"] == "blank"
    session.call("dspy.call", {"handle": "blank", "inputs": {"question": "?"}})
    assert "The first?" in json.dumps(server.requests[-1].messages)
    with pytest.raises(ToolFailure, match="expected the predictors self, got predict"):
        session.call("dspy.load_state", {"handle": "blank", "state": {"predict": {}}})
