"""Language models of the DSPy adapter over the bridge: keys, engines, checks and books."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
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
from snakepit_adapters.dspy.credentials import VARIABLE
from snakepit_worker.errors import StartError
from snakepit_worker.runtime import Worker
from snakepit_worker.settings import Settings
from snakepit_worker.testing import Connection, StandInHost, ToolFailure
from snakepit_worker.tools.loading import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PARIS: Final = "The capital of France is Paris."
QUESTION: Final = {"question": "What is the capital of France?"}
KEY: Final = "blaue-katze-4711"
OPERATORS_KEY: Final = "gruener-hund-4712"
LIMIT: Final = 30.0


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedModelServer]:
    script = Facts({"France": PARIS}, otherwise="OK")
    with ScriptedModelServer(script, model="openai/gpt-4o-mini") as server:
        yield server


@pytest.fixture(scope="module")
def worker(server: ScriptedModelServer) -> Iterator[Worker]:
    declared = {
        "shared": {"provider": "openai", "api_base": server.base_url, "api_key": OPERATORS_KEY},
        "beyond": {"provider": "mistral", "api_base": server.base_url, "api_key": OPERATORS_KEY},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, json.dumps(declared))
        adapter = DspyAdapter()
    with Worker(Settings(), [adapter]) as worker:
        yield worker


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptedModelServer]]:
    """Starts scripted models."""
    servers: list[ScriptedModelServer] = []

    def start(script: Any) -> ScriptedModelServer:
        servers.append(ScriptedModelServer(script, model="openai/gpt-4o-mini"))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def configure(session: Connection, server: ScriptedModelServer, **more: Any) -> Any:
    arguments = {"model": server.model, "api_base": server.base_url, "api_key": KEY}
    return session.call("dspy.configure_lm", {**arguments, "num_retries": 0, **more}, timeout=LIMIT)


def create(session: Connection, **more: Any) -> str:
    arguments = {"signature": "question -> answer", **more}
    return str(session.call("dspy.predict", arguments, timeout=LIMIT)["handle"])


def ask(session: Connection, handle: str, **more: Any) -> Any:
    return session.call("dspy.call", {"handle": handle, "inputs": QUESTION, **more}, timeout=LIMIT)


def failure(session: Connection, tool: str, **arguments: Any) -> dict[str, Any]:
    with pytest.raises(ToolFailure) as raised:
        session.call(tool, arguments, timeout=LIMIT)
    return dict(raised.value.failure)


def test_a_credential_is_used_and_not_shown(
    session: Connection, server: ScriptedModelServer, capfd: pytest.CaptureFixture[str]
) -> None:
    configured = session.call(
        "dspy.configure_lm", {"model": server.model, "credential": "shared"}, timeout=LIMIT
    )
    assert configured["credential"] == "shared"
    assert (configured["api_base"], configured["api_key_given"]) == (None, False)
    reply = ask(session, create(session))
    assert reply["outputs"] == {"answer": PARIS}
    assert server.requests[-1].authorization == f"Bearer {OPERATORS_KEY}"
    shown = [
        json.dumps([configured, reply]),
        json.dumps(session.call("dspy.list_lms")),
        json.dumps(session.call("dspy.usage", {"calls": 10})),
        json.dumps(session.call("session.list")),
        *capfd.readouterr(),
    ]
    assert not any(OPERATORS_KEY in text for text in shown)


def test_a_refused_credential_is_quoted_nowhere(serve: Callable[..., Any]) -> None:
    def refuse(request: ChatRequest) -> str:
        raise Refusal(401, f"Incorrect API key provided: {request.authorization}")

    server = serve(refuse)
    declared = {"own": {"provider": "openai", "api_base": server.base_url, "env": "THE_KEY"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, json.dumps(declared))
        patch.setenv("THE_KEY", OPERATORS_KEY)
        adapter = DspyAdapter()
    with Worker(Settings(), [adapter]) as worker, Connection(worker.address) as session:
        arguments = {"model": server.model, "credential": "own", "num_retries": 0}
        session.call("dspy.configure_lm", arguments, timeout=LIMIT)
        handle = create(session)
        for tool, more in (("dspy.check_lm", {}), ("dspy.call", {"handle": handle})):
            inputs = {"inputs": QUESTION} if more else {}
            failed = failure(session, tool, **more, **inputs)
            assert failed["code"] == "UNAUTHENTICATED"
            assert OPERATORS_KEY not in json.dumps(failed)
        with pytest.raises(grpc.RpcError) as raised:
            list(session.stream("dspy.stream", {"handle": handle, "inputs": QUESTION}))
        assert OPERATORS_KEY not in f"{raised.value}{raised.value.trailing_metadata()}"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"credential": "unheard"}, "credential"),
        ({"credential": "shared", "model": "groq/llama"}, "credential"),
        ({"credential": "shared", "api_base": "https://evil.example.org"}, "api_base"),
        ({"credential": "shared", "api_key": KEY}, "credential"),
        ({"credential": {"env": "HOME"}}, "credential"),
        ({"model": None}, "model"),
    ],
)
def test_a_credential_goes_nowhere_else(
    session: Connection, arguments: dict[str, Any], field: str
) -> None:
    failed = failure(session, "dspy.configure_lm", **{"model": "openai/gpt", **arguments})
    assert failed["code"] == "INVALID_ARGUMENT"
    assert failed["violations"][0]["field"] == field


def test_a_wrong_declaration_keeps_the_worker_from_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, json.dumps({"shared": {"provider": "openai", "env": "NOT_SET"}}))
    with pytest.raises(StartError, match=r"shared\.env: the variable NOT_SET is empty"):
        load("dspy")


def test_models_with_credentials_survive_their_worker(
    server: ScriptedModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = {
        "shared": {"provider": "openai", "api_base": server.base_url, "api_key": OPERATORS_KEY}
    }
    monkeypatch.setenv(VARIABLE, json.dumps(declared))
    archive = tmp_path / "archive.db"
    settings = Settings(archive=f"sqlite:///{archive}")
    with (
        Worker(settings, [DspyAdapter()]) as first,
        Connection(first.address, session_id="ann") as session,
    ):
        configure(session, server, name="mine")
        arguments = {"model": server.model, "credential": "shared"}
        session.call("dspy.configure_lm", arguments, timeout=LIMIT)
        create(session, name="qa")
    assert OPERATORS_KEY.encode() not in archive.read_bytes()
    with (
        Worker(settings, [DspyAdapter()]) as second,
        Connection(second.address, session_id="ann") as session,
    ):
        assert ask(session, "qa")["outputs"] == {"answer": PARIS}
        names = [lm["name"] for lm in session.call("dspy.list_lms")]
        assert names == ["default"]
        lost = failure(session, "dspy.check_lm", lm="mine")
        assert (lost["code"], "never stored" in lost["message"]) == ("NOT_FOUND", True)


def test_models_are_listed(session: Connection, server: ScriptedModelServer) -> None:
    assert session.call("dspy.list_lms") == []
    configure(session, server, temperature=0.5)
    configure(session, server, name="other", top_p=0.5)
    listed = session.call("dspy.list_lms")
    assert [(lm["name"], lm["kind"], lm["temperature"], lm["top_p"]) for lm in listed] == [
        ("default", "dspy.lm", 0.5, None),
        ("other", "dspy.lm", None, 0.5),
    ]


def test_a_model_is_checked_by_a_call(session: Connection, server: ScriptedModelServer) -> None:
    configured = configure(session, server, name="fast")
    checked = session.call("dspy.check_lm", {"lm": "fast"}, timeout=LIMIT)
    assert checked.pop("seconds") > 0
    assert checked == {
        "handle": configured["handle"],
        "kind": "dspy.lm",
        "name": "fast",
        "model": server.model,
        "answer": "OK",
    }
    usage = session.call("dspy.usage")
    assert usage["total"]["calls"] == 1
    assert usage["programs"] == {}


def test_a_check_fails_as_a_program_would(session: Connection, serve: Callable[..., Any]) -> None:
    asked = []

    def refuse(request: ChatRequest) -> str:
        asked.append(request)
        raise Refusal(500, "oops")

    configure(session, serve(refuse), num_retries=3)
    failed = failure(session, "dspy.check_lm")
    assert (failed["code"], failed["details"]["status"]) == ("UNAVAILABLE", 500)
    assert len(asked) == 1
    assert failure(session, "dspy.check_lm", lm="unheard")["code"] == "NOT_FOUND"


def test_the_books_show_models_programs_and_calls(
    session: Connection, server: ScriptedModelServer
) -> None:
    configure(session, server)
    create(session, name="qa")
    other = create(session)
    replies = [ask(session, "qa"), ask(session, "qa"), ask(session, other)]
    *_, last, _ = session.stream("dspy.stream", {"handle": "qa", "inputs": QUESTION}, timeout=LIMIT)
    reported = [*(reply["usage"] for reply in replies), last["usage"]]
    usage = session.call("dspy.usage", {"calls": 2})
    total = usage["total"]
    assert (total["calls"], total["failures"], total["unpriced"]) == (4, 0, 0)
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert total[name] == sum(tokens[server.model][name] for tokens in reported) > 0
    assert total["cost"] > 0
    assert usage["models"] == {server.model: total}
    assert {name: spent["calls"] for name, spent in usage["programs"].items()} == {
        "qa": 3,
        other: 1,
    }
    assert [(call["tool"], call["program"]) for call in usage["calls"]] == [
        ("dspy.stream", "qa"),
        ("dspy.call", other),
    ]
    assert session.call("dspy.usage", {"reset": True})["total"]["calls"] == 4
    assert session.call("dspy.usage")["total"]["calls"] == 0


def test_failed_and_cancelled_calls_are_in_the_books(
    session: Connection, serve: Callable[..., Any]
) -> None:
    begun, silence = threading.Event(), threading.Event()

    def script(request: ChatRequest) -> str:
        begun.set()
        silence.wait(LIMIT)
        return shape(PARIS, request)

    server = serve(script)
    configure(session, server)
    handle = create(session)
    call = {"tool": "dspy.call", "arguments": {"handle": handle, "inputs": QUESTION}}
    job = session.call("job.start", call)["handle"]
    assert begun.wait(LIMIT)
    session.call("job.cancel", {"handle": job})
    outcome = session.call("job.result", {"handle": job, "wait_ms": 20_000}, timeout=LIMIT)
    assert outcome["state"] == "cancelled"
    silence.set()
    configure(session, serve(lambda _: "neither field nor JSON"))
    assert failure(session, "dspy.call", handle=handle, inputs=QUESTION)["code"] == "INTERNAL"
    total = session.call("dspy.usage")["total"]
    # The cancelled one, and the two attempts at the answer without fields.
    assert (total["calls"], total["failures"]) == (3, 1)


def test_two_hundred_calls_of_twenty_sessions_stay_apart(
    worker: Worker, serve: Callable[..., Any]
) -> None:
    """Each with a model, a key, a layout and a program of its own, all at once."""
    together = threading.Barrier(20)
    server = serve(lambda asked: shape(f"{asked.model} {asked.authorization}", asked))
    layouts = ("text", "json", "json_schema")

    def use(number: int) -> None:
        with Connection(worker.address) as session, ThreadPoolExecutor(10) as pool:
            model, key = f"openai/model-{number}", f"key-of-session-{number:04}"
            layout = layouts[number % 3]
            configure(session, server, model=model, api_key=key, response_format=layout)
            create(session, name="qa")
            together.wait(LIMIT)
            replies = list(pool.map(lambda _: ask(session, "qa"), range(10)))
            for reply in replies:
                assert reply["outputs"] == {"answer": f"model-{number} Bearer {key}"}
                assert list(reply["usage"]) == [model]
            usage = session.call("dspy.usage")
            assert usage["total"]["calls"] == usage["programs"]["qa"]["calls"] == 10
            assert usage["total"]["total_tokens"] == sum(
                reply["usage"][model]["total_tokens"] for reply in replies
            )
            assert list(usage["models"]) == [model]
            session.call("session.close")

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(use, range(20)))


@pytest.mark.timeout(180)
def test_litellm_serves_other_providers(session: Connection, server: ScriptedModelServer) -> None:
    """The one test that imports it, which takes seconds."""
    arguments = {"model": "mistral/small", "credential": "beyond", "num_retries": 0}
    session.call("dspy.configure_lm", arguments, timeout=150)
    assert ask(session, create(session))["outputs"] == {"answer": PARIS}
    assert server.requests[-1].authorization == f"Bearer {OPERATORS_KEY}"
    total = session.call("dspy.usage")["total"]
    assert (total["calls"], total["total_tokens"] > 0) == (1, True)
    failed = failure(session, "dspy.configure_lm", model="unheard/of")
    assert failed["violations"][0]["field"] == "model"


# --- Language models on the Elixir side -----------------------------------------------------------


class Llm:
    """An Elixir tool that answers as a language model."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answer: Any = None
        self.most = 0
        self._inside = 0
        self._lock = threading.Lock()

    def __call__(self, messages: Any, model: str, options: Any) -> Any:
        with self._lock:
            self.asked.append({"messages": messages, "model": model, "options": options})
            self._inside += 1
            self.most = max(self.most, self._inside)
        try:
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer or f"[[ ## answer ## ]]\n{PARIS}\n\n[[ ## completed ## ]]"
        finally:
            with self._lock:
                self._inside -= 1


@pytest.fixture(scope="module")
def host() -> Iterator[tuple[Llm, Connection]]:
    llm = Llm()
    with StandInHost() as host:
        host.expose("my_llm", llm)
        with host.worker(adapters=["dspy"]) as (_, connection):
            yield llm, connection


@pytest.fixture
def llm(host: tuple[Llm, Connection]) -> Llm:
    llm = host[0]
    llm.asked.clear()
    llm.answer, llm.most = None, 0
    return llm


@pytest.fixture
def elixir(host: tuple[Llm, Connection]) -> Connection:
    connection = host[1]
    arguments = {"engine": "elixir", "tool": "my_llm", "temperature": 0.5, "stop": ["END"]}
    connection.call("dspy.configure_lm", arguments, timeout=LIMIT)
    connection.call("dspy.usage", {"reset": True})
    return connection


@pytest.mark.parametrize("answer", [None, {"text": f"[[ ## answer ## ]]\n{PARIS}"}])
def test_an_elixir_tool_can_be_the_model(llm: Llm, elixir: Connection, answer: Any) -> None:
    llm.answer = answer
    reply = ask(elixir, create(elixir), config={"max_tokens": 50})
    assert reply["outputs"] == {"answer": PARIS}
    (asked,) = llm.asked
    assert asked["model"] == "elixir/my_llm"
    assert asked["options"] == {"temperature": 0.5, "max_tokens": 50, "stop": ["END"]}
    assert [message["role"] for message in asked["messages"]] == ["system", "user"]
    assert QUESTION["question"] in asked["messages"][1]["content"]


def test_an_elixir_tool_can_say_what_it_used(llm: Llm, elixir: Connection) -> None:
    llm.answer = {
        "text": f"[[ ## answer ## ]]\n{PARIS}",
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }
    reply = ask(elixir, create(elixir))
    assert reply["usage"]["elixir/my_llm"]["total_tokens"] == 10
    total = elixir.call("dspy.usage")["total"]
    assert (total["calls"], total["total_tokens"], total["unpriced"]) == (1, 10, 1)


def test_an_elixir_tool_can_be_followed_and_checked(llm: Llm, elixir: Connection) -> None:
    arguments = {"handle": create(elixir), "inputs": QUESTION}
    *_, last, _ = elixir.stream("dspy.stream", arguments, timeout=LIMIT)
    assert last["outputs"] == {"answer": PARIS}
    llm.answer = "OK"
    assert elixir.call("dspy.check_lm", timeout=LIMIT)["answer"] == "OK"


def test_what_an_elixir_tool_raises_is_the_failure(llm: Llm, elixir: Connection) -> None:
    llm.answer = ValueError("the model is asleep")
    handle = create(elixir)
    failed = failure(elixir, "dspy.call", handle=handle, inputs=QUESTION)
    assert (failed["code"], failed["category"]) == ("ABORTED", "callback")
    assert "the model is asleep" in failed["message"]
    assert len(llm.asked) == 1


@pytest.mark.parametrize("answer", [7, {"answer": "Paris"}, {"text": 1}])
def test_an_answer_that_is_no_text_is_a_failure(llm: Llm, elixir: Connection, answer: Any) -> None:
    llm.answer = answer
    failed = failure(elixir, "dspy.call", handle=create(elixir), inputs=QUESTION)
    assert (failed["code"], failed["category"]) == ("INTERNAL", "provider")
    assert "expected a text or a map" in failed["message"]


def test_an_unknown_elixir_tool_is_a_failure(host: tuple[Llm, Connection]) -> None:
    connection = host[1]
    arguments = {"engine": "elixir", "tool": "unheard", "name": "unheard"}
    connection.call("dspy.configure_lm", arguments, timeout=LIMIT)
    assert failure(connection, "dspy.check_lm", lm="unheard")["code"] == "NOT_FOUND"


def test_no_more_calls_at_once_than_allowed(llm: Llm, elixir: Connection) -> None:
    arguments = {"engine": "elixir", "tool": "my_llm", "max_concurrency": 2}
    elixir.call("dspy.configure_lm", arguments, timeout=LIMIT)
    handle = create(elixir)
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: ask(elixir, handle), range(16)))
    assert all(reply["outputs"] == {"answer": PARIS} for reply in replies)
    assert (len(llm.asked), llm.most <= 2) == (16, True)


def test_a_worker_without_a_host_has_no_elixir_tools(session: Connection) -> None:
    arguments = {"engine": "elixir", "tool": "my_llm"}
    session.call("dspy.configure_lm", arguments, timeout=LIMIT)
    failed = failure(session, "dspy.check_lm")
    assert (failed["code"], failed["retryable"]) == ("UNAVAILABLE", False)
