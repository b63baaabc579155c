"""Embedders and corpora as Elixir sees them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import dspy
import pytest

from examples.demo.scripted_model import ChatRequest, ScriptedModelServer, shape
from snakepit_adapters.dspy import DspyAdapter, local_embedder
from snakepit_worker import launch
from snakepit_worker.runtime import Worker
from snakepit_worker.settings import Settings
from snakepit_worker.testing import Connection, ToolFailure
from tests.data.embedding_server import EmbeddingServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEY: Final = "blaue-katze-4711"
LIMIT: Final = 60.0
"""LiteLLM takes seconds to import, and many on a machine that is busy."""
PASSAGES: Final = [
    "The doctor prescribed antibiotics for the infection.",
    "Our rocket reached orbit after nine minutes.",
    "Bake the bread for forty minutes until the crust is brown.",
    "The central bank raised interest rates again.",
]


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker(Settings(), [DspyAdapter()]) as worker:
        yield worker


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as server:
        yield server


def configure(session: Connection, server: EmbeddingServer, **more: Any) -> Any:
    arguments = {
        "model": "openai/scripted",
        "api_base": server.base_url,
        "api_key": KEY,
        "num_retries": 0,
        **more,
    }
    return session.call("dspy.embedder", arguments, timeout=LIMIT)


def call(session: Connection, tool: str, **arguments: Any) -> Any:
    return session.call(f"dspy.{tool}", arguments, timeout=LIMIT)


def failure(session: Connection, tool: str, **arguments: Any) -> dict[str, Any]:
    with pytest.raises(ToolFailure) as raised:
        call(session, tool, **arguments)
    return dict(raised.value.failure)


@pytest.mark.parametrize(
    ("query", "nearest"),
    [
        ("medicine for an ill person", 0),
        ("space flight", 1),
        ("how to make a loaf in the oven", 2),
        ("money and the economy", 3),
    ],
)
def test_passages_are_found_by_their_meaning(session: Connection, query: str, nearest: int) -> None:
    made = call(session, "corpus", passages=PASSAGES, name="news")
    assert (made["kind"], made["name"], made["passages"]) == ("dspy.corpus", "news", 4)
    assert (made["embedder"], made["model"]) == ("local", "local/wordllama")
    found = call(session, "search", corpus="news", query=query, k=2)["passages"]
    assert len(found) == 2
    assert (found[0]["index"], found[0]["text"]) == (nearest, PASSAGES[nearest])
    assert found[0]["score"] > found[1]["score"]


def test_a_provider_embeds_passages_in_batches_and_queries(
    session: Connection, server: EmbeddingServer
) -> None:
    described = configure(session, server, batch_size=2)
    assert (described["name"], described["api_key_given"]) == ("default", True)
    assert KEY not in json.dumps(described)
    passages = ["aab", "xyz", "mmm", {"text": "abb", "metadata": {"page": 7}}, "q"]
    made = call(session, "corpus", passages=passages, embedder="default")
    assert (made["dimensions"], made["model"]) == (26, "openai/scripted")
    assert [request["input"] for request in server.requests] == [
        ["aab", "xyz"],
        ["mmm", "abb"],
        ["q"],
    ]
    assert {request["authorization"] for request in server.requests} == {f"Bearer {KEY}"}
    assert {request["path"] for request in server.requests} == {"/v1/embeddings"}
    first, second = call(session, "search", corpus=made["handle"], query="ab", k=2)["passages"]
    assert [first["index"], second["index"]] == [0, 3]
    assert first["score"] == second["score"] == pytest.approx(3 / 10**0.5, abs=1e-5)
    assert second["metadata"] == {"page": 7}
    assert "metadata" not in first
    assert len(server.requests) == 4


def test_the_passages_are_those_that_dspy_finds(session: Connection) -> None:
    embeddings = dspy.retrievers.EmbeddingsWithScores(
        PASSAGES, local_embedder.local_embeddings, k=4
    )
    query = "what the patient has to swallow"
    expected = embeddings(query)
    embeddings.search_fn.close()
    call(session, "corpus", passages=PASSAGES, name="news")
    found = call(session, "search", corpus="news", query=query, k=4)["passages"]
    assert [passage["text"] for passage in found] == expected.passages
    assert [passage["score"] for passage in found] == pytest.approx(expected.scores, abs=1e-5)


def test_a_step_of_a_program_is_a_search(session: Connection) -> None:
    def answer(request: ChatRequest) -> str:
        return shape(str("rocket" in request.question), request)

    call(session, "corpus", passages=PASSAGES, name="news")
    with ScriptedModelServer(answer) as model:
        lm = {"model": model.model, "api_base": model.base_url, "api_key": "none"}
        call(session, "configure_lm", **lm)
        steps = [
            {
                "name": "find",
                "program": {"module": "Retrieve", "options": {"corpus": "news", "k": 1}},
                "inputs": {"query": "inputs.question"},
            },
            {
                "name": "read",
                "program": {"signature": "context: list[str], question -> answer"},
                "inputs": {"context": "find.passages", "question": "inputs.question"},
            },
        ]
        call(session, "compose", steps=steps, outputs={"answer": "read.answer"}, name="reader")
        arguments = {"handle": "reader", "inputs": {"question": "space flight"}}
        assert call(session, "call", **arguments)["outputs"] == {"answer": "True"}
        events = session.stream("dspy.stream", arguments, timeout=LIMIT)
        [last] = [event for event in events if event.get("type") == "prediction"]
        assert last["outputs"] == {"answer": "True"}


def test_dimensions_are_asked_for(session: Connection, server: EmbeddingServer) -> None:
    configure(session, server, dimensions=3)
    made = call(session, "corpus", passages=["a"], embedder="default")
    assert made["model"] == "openai/scripted (3 dimensions)"
    assert server.requests[0]["dimensions"] == 3


def test_sessions_do_not_share_answers(worker: Worker, session: Connection) -> None:
    """DSPy's cache would give one the numbers that another's key has paid for."""
    with EmbeddingServer() as one, EmbeddingServer(lambda _: [1.0]) as two:
        configure(session, one)
        call(session, "corpus", passages=["same"], embedder="default")
        with Connection(worker.address) as other:
            configure(other, two, api_key="another-key-99")
            made = call(other, "corpus", passages=["same"], embedder="default")
            other.call("session.close")
        assert made["dimensions"] == 1
        assert [len(server.requests) for server in (one, two)] == [1, 1]
        assert two.requests[0]["authorization"] == "Bearer another-key-99"


def test_lines_of_json_are_passages(session: Connection) -> None:
    lines = b'"one"\n\n{"text": "two", "metadata": {"n": 2}}\n'
    made = session.call("dspy.corpus", {"name": "l"}, binary={"jsonl": lines}, timeout=LIMIT)
    assert made["passages"] == 2
    [found] = call(session, "search", corpus="l", query="two", k=1)["passages"]
    assert (found["index"], found["metadata"]) == (1, {"n": 2})


@pytest.mark.parametrize(
    ("arguments", "binary", "field"),
    [
        ({}, {}, "passages"),
        ({"passages": []}, {}, "passages"),
        ({"passages": ["a"]}, {"jsonl": b'"b"'}, "passages"),
        ({"passages": ["a", " "]}, {}, "passages[1]"),
        ({"passages": ["a"] * 20_001}, {}, "passages"),
        ({"passages": [{"txt": "a"}]}, {}, "passages[0].text"),
        ({}, {"jsonl": b'"a"\n{"text": 1}\n'}, "jsonl:2"),
        ({}, {"jsonl": b"\xff\n"}, "jsonl:1"),
    ],
    ids=str,
)
def test_what_is_no_corpus_is_refused(
    session: Connection, arguments: dict[str, Any], binary: dict[str, bytes], field: str
) -> None:
    with pytest.raises(ToolFailure) as raised:
        session.call("dspy.corpus", arguments, binary=binary, timeout=LIMIT)
    failed = raised.value.failure
    assert failed["code"] == "INVALID_ARGUMENT"
    assert field in [violation["field"] for violation in failed["violations"]]


def test_an_embedder_has_to_be_there(session: Connection) -> None:
    failed = failure(session, "corpus", passages=["a"], embedder="default")
    assert failed["code"] == "FAILED_PRECONDITION"
    assert "dspy.embedder" in failed["help"]


def test_another_model_cannot_search(session: Connection, server: EmbeddingServer) -> None:
    configure(session, server)
    call(session, "corpus", passages=["a"], embedder="default", name="c")
    configure(session, server, model="openai/another")
    failed = failure(session, "search", corpus="c", query="a")
    assert failed["code"] == "FAILED_PRECONDITION"
    assert "openai/scripted" in failed["message"]
    assert "openai/another" in failed["message"]


def test_the_name_of_the_local_embedder_is_taken(
    session: Connection, server: EmbeddingServer
) -> None:
    with pytest.raises(ToolFailure) as raised:
        configure(session, server, name="local")
    assert raised.value.failure["violations"][0]["field"] == "name"


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "UNAUTHENTICATED"), (429, "RESOURCE_EXHAUSTED"), (500, "UNAVAILABLE")],
)
def test_what_a_provider_refuses_has_a_code_and_quotes_no_key(
    session: Connection,
    capfd: pytest.CaptureFixture[str],
    status: int,
    code: str,
) -> None:
    with EmbeddingServer(refusal=(status, "no, not with KEY")) as server:
        configure(session, server)
        failed = failure(session, "corpus", passages=["a"], embedder="default")
    assert (failed["code"], failed["category"]) == (code, "provider")
    assert not any(KEY in text for text in (json.dumps(failed), *capfd.readouterr()))


def test_numbers_that_are_missing_are_a_failure(session: Connection) -> None:
    with EmbeddingServer(embed=lambda text: [1.0] * len(text)) as server:
        configure(session, server, batch_size=1)
        failed = failure(session, "corpus", passages=["a", "bb"], embedder="default")
        assert "different lengths" in failed["message"]
        call(session, "corpus", passages=["aa"], embedder="default", name="c")
        failed = failure(session, "search", corpus="c", query="aaa")
        assert "with 3 numbers, and the passages with 2" in failed["message"]


def test_without_the_package_there_is_no_local_embedder(
    session: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_embedder, "PACKAGE", "not_installed_anywhere")
    failed = failure(session, "corpus", passages=["a"])
    assert failed["code"] == "FAILED_PRECONDITION"
    assert failed["details"] == {"package": "not_installed_anywhere"}
    assert failed["help"].startswith("pip install")


def test_calls_of_an_embedder_are_counted(session: Connection, server: EmbeddingServer) -> None:
    configure(session, server)
    call(session, "corpus", passages=["a"], embedder="default", name="c")
    call(session, "search", corpus="c", query="a")
    usage = call(session, "usage")
    assert usage["models"]["openai/scripted"]["calls"] == 2


def test_a_corpus_outlives_its_worker(tmp_path: Path) -> None:
    archive = {"SNAKEPIT_WORKER_ARCHIVE": f"sqlite:///{tmp_path}/archive.db"}
    ask = {"session_id": "ann", "corpus": "news", "query": "space flight", "k": 1}
    with launch.start(adapters=["dspy"], environment=archive) as worker:
        with Connection(worker.address) as connection:
            arguments = {"session_id": "ann", "passages": PASSAGES, "name": "news"}
            connection.call("dspy.corpus", arguments, timeout=LIMIT)
            before = connection.call("dspy.search", ask, timeout=LIMIT)
        worker.process.kill()
    with (
        launch.start(adapters=["dspy"], environment=archive) as worker,
        Connection(worker.address) as connection,
    ):
        assert connection.call("dspy.search", ask, timeout=LIMIT) == before


def test_a_corpus_that_is_not_wanted_any_more_is_not_finished(
    session: Connection, server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(session, server, batch_size=1)
    monkeypatch.setattr(server, "embed", _cancelling(session, server.embed))
    arguments = {"passages": ["a"] * 50, "embedder": "default"}
    started = session.call(
        "job.start", {"tool": "dspy.corpus", "arguments": arguments, "name": "embedding"}
    )
    ended = session.call("job.result", {"handle": started["handle"], "wait_ms": 20_000})
    assert ended["state"] == "cancelled"
    assert len(server.requests) < 50


def _cancelling(
    session: Connection, embed: Callable[[str], list[float]]
) -> Callable[[str], list[float]]:
    def cancel(text: str) -> list[float]:
        session.call("job.cancel", {"handle": "embedding"})
        return embed(text)

    return cancel
