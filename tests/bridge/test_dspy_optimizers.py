"""Data sets, evaluation and optimizers as Elixir sees them, against a scripted language model."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest

from examples.demo.scripted_model import ChatRequest, Facts, Refusal, ScriptedModelServer, shape
from snakepit_adapters.dspy import DspyAdapter
from snakepit_worker.runtime import Worker
from snakepit_worker.settings import Settings
from snakepit_worker.testing import Connection, StandInHost, ToolFailure
from tests.bridge.conftest import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY: Final = "blaue-katze-4711"
LIMIT: Final = 60.0
KNOWN: Final = {"France": "Paris", "Spain": "Madrid"}
CAPITALS: Final = {**KNOWN, "Italy": "Rome", "Peru": "Lima"}
ROWS: Final = [
    {"question": f"What is the capital of {country}?", "answer": capital}
    for country, capital in CAPITALS.items()
]
"""The model knows the first half of them."""
ADVICE: Final = "Name the city."

OPTIMIZERS: Final[dict[str, dict[str, Any]]] = {
    "LabeledFewShot": {"k": 2},
    "BootstrapFewShot": {"max_bootstrapped_demos": 2},
    "BootstrapFewShotWithRandomSearch": {"num_candidate_programs": 1},
    "BootstrapFewShotWithOptuna": {"num_candidate_programs": 2},
    "KNNFewShot": {"k": 2},
    "COPRO": {"breadth": 2, "depth": 1},
    "MIPROv2": {"auto": None, "num_candidates": 2, "num_trials": 2, "minibatch": False},
    "SIMBA": {"bsize": 2, "num_candidates": 2, "max_steps": 1},
    "GEPA": {"max_metric_calls": 12},
    "InferRules": {"num_candidates": 1},
    "BetterTogether": {
        "steps": [{"name": "BootstrapFewShot"}, {"name": "COPRO", "breadth": 2, "depth": 1}],
        "valset_ratio": 0.25,
    },
}


CALLING: Final = [name for name in OPTIMIZERS if name not in ("LabeledFewShot", "KNNFewShot")]
"""Those that call models before they are done."""


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker(Settings(), [DspyAdapter()]) as worker:
        yield worker


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptedModelServer]]:
    """Starts scripted models."""
    servers: list[ScriptedModelServer] = []

    def start(script: Any = None) -> ScriptedModelServer:
        servers.append(ScriptedModelServer(script or Facts(KNOWN, otherwise=ADVICE)))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def prepared(session: Connection, serve: Callable[..., Any]) -> ScriptedModelServer:
    """A session with a model, a program ``qa`` and a data set ``capitals``."""
    server: ScriptedModelServer = serve()
    prepare(session, server)
    return server


def prepare(session: Connection, server: ScriptedModelServer, **more: Any) -> None:
    configure(session, server, **more)
    call(session, "dspy.predict", signature="question -> answer", name="qa")
    call(session, "dspy.dataset", rows=ROWS, name="capitals")


def configure(session: Connection, server: ScriptedModelServer, **more: Any) -> None:
    settings = {"api_base": server.base_url, "api_key": KEY, "num_retries": 0, **more}
    call(session, "dspy.configure_lm", model=server.model, **settings)


def call(session: Connection, called: str, /, **arguments: Any) -> Any:
    return session.call(called, arguments, timeout=LIMIT)


def failure(session: Connection, called: str, /, **arguments: Any) -> dict[str, Any]:
    with pytest.raises(ToolFailure) as raised:
        call(session, called, **arguments)
    return dict(raised.value.failure)


def learn(session: Connection, optimizer: Any, **more: Any) -> Any:
    arguments = {"metric": "exact_match", "trainset": "capitals", **more}
    return call(session, "dspy.compile", handle="qa", optimizer=optimizer, **arguments)


def start(session: Connection, optimizer: Any, **more: Any) -> str:
    arguments = {"handle": "qa", "metric": "exact_match", "trainset": "capitals", **more}
    arguments["optimizer"] = optimizer
    return str(call(session, "job.start", tool="dspy.compile", arguments=arguments)["handle"])


def ended(session: Connection, job: str) -> dict[str, Any]:
    while "success" not in (found := call(session, "job.result", handle=job, wait_ms=1000)):
        pass
    return dict(found)


def events(session: Connection, job: str, kind: str) -> list[dict[str, Any]]:
    found = session.call("job.poll", {"handle": job, "limit": 1000}, timeout=LIMIT)["events"]
    return [event for event in found if event["kind"] == kind]


class Slow:
    """A model that answers so many requests, and holds the others until it is let go."""

    def __init__(self, quick: int) -> None:
        self._quick = quick
        self._facts = Facts(KNOWN, otherwise=ADVICE)
        self._lock = threading.Lock()
        self._seen = 0
        self.held = threading.Semaphore(0)
        self.release = threading.Event()

    def __call__(self, request: ChatRequest) -> str:
        with self._lock:
            self._seen += 1
            quick = self._seen <= self._quick
        if not quick:
            self.held.release()
            assert self.release.wait(LIMIT)
        return self._facts(request)


# --- Data sets ------------------------------------------------------------------------------------


def test_jsonl_and_csv_are_binary_parameters(session: Connection) -> None:
    jsonl = b'{"text": "good", "stars": 5}\n\n{"text": "bad", "stars": 1}\n'
    told = session.call("dspy.dataset", {"inputs": ["text"]}, binary={"jsonl": jsonl})
    assert (told["rows"], told["fields"]) == (2, {"text": ["str"], "stars": ["int"]})
    csv = b'text,stars,tags\n"good, really",5,"[""a""]"\nbad,,[]\n'
    types = {"stars": "int | None", "tags": "list[str]"}
    told = session.call("dspy.dataset", {"types": types, "name": "t"}, binary={"csv": csv})
    assert told["first"] == [
        {"text": "good, really", "stars": 5, "tags": ["a"]},
        {"text": "bad", "stars": None, "tags": []},
    ]
    assert call(session, "dspy.dataset_info", handle="t")["first"] == told["first"]


def test_a_data_set_outlives_its_session_as_a_document(session: Connection, worker: Worker) -> None:
    split = {"train": 0.5, "test": 0.5}
    call(session, "dspy.dataset", rows=ROWS, split=split, seed=3, name="capitals")
    document = call(session, "session.export")
    with Connection(worker.address) as other:
        other.call("session.import", {"document": document})
        found, copied = (call(s, "dspy.dataset_info", handle="capitals") for s in (session, other))
        assert copied == {**found, "handle": copied["handle"]}
        assert copied["splits"] == {"train": 2, "test": 2}
        other.call("session.close")


# --- Evaluation -----------------------------------------------------------------------------------


def test_a_program_is_scored(session: Connection, prepared: ScriptedModelServer) -> None:
    found = call(
        session, "dspy.evaluate", handle="qa", dataset="capitals", metric="exact_match", results=3
    )
    assert (found["score"], found["evaluated"], found["failures"]) == (0.5, 4, 0)
    assert [result["score"] for result in found["results"]] == [1, 1, 0]
    assert found["results"][0]["outputs"] == {"answer": "Paris"}
    assert (found["omitted_results"], found["stopped"]) == (1, None)
    assert found["calls"] == len(prepared.requests) == 4
    assert found["usage"][prepared.model]["calls"] == 4


@pytest.mark.usefixtures("prepared")
def test_results_are_a_stream(session: Connection) -> None:
    arguments = {"handle": "qa", "dataset": {"dataset": "capitals", "limit": 3}, "metric": "f1"}
    *results, summary, _ = session.stream("dspy.evaluate_stream", arguments, timeout=LIMIT)
    assert sorted(result["index"] for result in results) == [0, 1, 2]
    assert summary["type"] == "summary"
    assert summary["score"] == pytest.approx(sum(r["score"] for r in results) / 3)


def test_a_row_that_fails_is_a_result(session: Connection, serve: Callable[..., Any]) -> None:
    def script(request: ChatRequest) -> str:
        if "Spain" in request.question:
            raise Refusal(400, f"no Spain for {KEY}")
        return shape("Paris", request)

    prepare(session, serve(script))
    found = call(
        session,
        "dspy.evaluate",
        handle="qa",
        dataset="capitals",
        metric="exact_match",
        failure_score=-1,
    )
    assert found["score"] == 0
    assert found["failures"] == found["failed_calls"] == 1
    failed = found["results"][1]["failure"]
    assert (failed["type"], failed["code"]) == ("LMInvalidRequestError", "INVALID_ARGUMENT")
    assert found["errors"][0]["count"] == 1
    assert KEY not in str(found)


@pytest.mark.usefixtures("prepared")
def test_a_row_without_an_input_fails_alone(session: Connection) -> None:
    call(session, "dspy.dataset", rows=[ROWS[0], {"answer": "Rome"}], name="odd")
    found = call(session, "dspy.evaluate", handle="qa", dataset="odd", metric="exact_match")
    assert found["results"][1]["failure"]["code"] == "INVALID_ARGUMENT"
    assert found["score"] == 0.5


def test_an_evaluation_in_which_all_fails_is_a_failure(
    session: Connection, serve: Callable[..., Any]
) -> None:
    def script(_: ChatRequest) -> str:
        raise Refusal(401, "who are you?")

    server = serve(script)
    prepare(session, server)
    call(session, "dspy.dataset", rows=ROWS * 100, name="many")
    found = failure(session, "dspy.evaluate", handle="qa", dataset="many", metric="exact_match")
    assert found["code"] == "UNAUTHENTICATED"
    assert "rows that were tried failed" in found["message"]
    assert found["details"]["failed_calls"] == len(server.requests) < 40


def test_an_evaluation_keeps_within_its_calls(
    session: Connection, prepared: ScriptedModelServer
) -> None:
    found = call(
        session,
        "dspy.evaluate",
        handle="qa",
        dataset="capitals",
        metric="exact_match",
        max_calls=3,
        concurrency=2,
    )
    assert (found["evaluated"], found["stopped"], found["calls"]) == (3, "max_calls", 3)
    assert len(prepared.requests) == 3


@pytest.mark.parametrize("tool", ["dspy.evaluate", "dspy.evaluate_stream"])
def test_a_cancelled_evaluation_calls_no_model_any_more(
    session: Connection, serve: Callable[..., Any], tool: str
) -> None:
    model = Slow(quick=1)
    server = serve(model)
    prepare(session, server, timeout=LIMIT)
    arguments = {"handle": "qa", "dataset": "capitals", "metric": "f1", "concurrency": 2}
    job = call(session, "job.start", tool=tool, arguments=arguments)["handle"]
    for _ in range(2):
        assert model.held.acquire(timeout=LIMIT)
    call(session, "job.cancel", handle=job)
    assert ended(session, job)["state"] == "cancelled"
    model.release.set()
    assert call(session, "dspy.call", handle="qa", inputs={"question": "Spain?"})["outputs"]
    assert len(server.requests) == 3 + 1


# --- Metrics --------------------------------------------------------------------------------------


def test_a_judge_is_a_language_model_of_its_own(
    session: Connection, serve: Callable[..., Any]
) -> None:
    def judge(request: ChatRequest) -> str:
        score = "0.75" if "Paris" in request.question else "0"
        fields = {"score": score, "reason": "so it is"}
        return "".join(f"[[ ## {name} ## ]]\n{text}\n\n" for name, text in fields.items())

    prepare(session, serve())
    strict = serve(judge)
    configure(session, strict, name="strict")
    metric = {"type": "judge", "criteria": "Be kind.", "lm": "strict"}
    found = call(session, "dspy.evaluate", handle="qa", dataset="capitals", metric=metric)
    assert found["score"] == 0.75 / 4
    assert found["results"][0]["feedback"] == "so it is"
    assert found["calls"] == 8
    assert "Be kind." in strict.requests[0].question


def test_registered_functions_are_metrics(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = "same=dspy.evaluate.metrics:answer_exact_match"
    monkeypatch.setenv("SNAKEPIT_DSPY_METRICS", listed)
    with Worker(Settings(), [DspyAdapter()]) as worker, Connection(worker.address) as session:
        prepare(session, serve())
        known = {"type": "python", "name": "same"}
        found = call(session, "dspy.evaluate", handle="qa", dataset="capitals", metric=known)
        assert (found["score"], found["metric"]) == (0.5, "python:same")
        unknown = {"type": "python", "name": "os.system"}
        found = failure(session, "dspy.evaluate", handle="qa", dataset="capitals", metric=unknown)
        assert found["code"] == "NOT_FOUND"
        assert "registered: same" in found["message"]


def test_elixir_tools_are_metrics(serve: Callable[..., Any]) -> None:
    lock, running, most = threading.Lock(), 0, 0
    both = threading.Barrier(2, timeout=LIMIT)

    def grade(example: Any, prediction: Any) -> Any:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if not both.broken:
            both.wait()
        with lock:
            running -= 1
        if "Peru" in example["question"]:
            raise ValueError("no opinion")
        return {"score": example["answer"] == prediction["answer"], "feedback": "seen"}

    with StandInHost() as host, host.worker(adapters=["dspy"]) as (_, session):
        host.expose("grade", grade)
        prepare(session, serve())
        metric = {"type": "elixir", "tool": "grade", "concurrency": 2}
        found = call(session, "dspy.evaluate", handle="qa", dataset="capitals", metric=metric)
        assert (found["score"], found["failures"]) == (0.5, 1)
        assert found["results"][0]["feedback"] == "seen"
        assert "no opinion" in found["results"][3]["failure"]["message"]
        assert most == 2
        both.abort()
        optimizer = {
            "name": "BootstrapFewShotWithRandomSearch",
            "num_candidate_programs": 1,
            "max_bootstrapped_demos": 1,
            "max_labeled_demos": 1,
        }
        # In DSPy's own threads, too.
        learned = learn(session, optimizer, metric=metric, threads=2, max_errors=100)
        assert learned["failed_metric_calls"] == learned["metric_calls"] // 4 > 0
        assert learned["errors"][0]["origin"] == "metric"
        assert learned["score"] == 0.5
        assert most <= 2


# --- Optimizers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.usefixtures("prepared")
def test_a_program_that_has_learned_is_a_new_one(
    session: Connection, worker: Worker, name: str
) -> None:
    before = call(session, "dspy.dump_state", handle="qa")
    optimizer = {"name": name, **OPTIMIZERS[name]}
    learned = learn(session, optimizer, name="wiser")
    assert (learned["kind"], learned["name"], learned["optimizer"]) == (
        "dspy.module",
        "wiser",
        name,
    )
    assert (learned["errors"], learned["failed_calls"], learned["stopped"]) == ([], 0, None)
    assert call(session, "dspy.dump_state", handle="qa") == before
    state = call(session, "dspy.dump_state", handle="wiser")
    assert learned["changed"] is (state != before)
    question = {"question": "What is the capital of France?"}
    assert (
        call(session, "dspy.call", handle="wiser", inputs=question)["outputs"]["answer"] == "Paris"
    )
    (listed,) = [r for r in call(session, "session.list") if r["name"] == "wiser"]
    assert listed["can_be_rebuilt"] is True
    if name == "KNNFewShot":
        document = call(session, "session.export")
        with Connection(worker.address) as other:
            other.call("session.import", {"document": document}, timeout=LIMIT)
            assert call(other, "dspy.inspect", handle="wiser")["module"] == name
            other.call("session.close")
    elif name in ("LabeledFewShot", "BootstrapFewShot"):
        assert learned["score"] is None
        assert state["self"]["demos"]
    else:
        assert learned["trials"] > 0
        assert learned["score"] >= 0


@pytest.mark.usefixtures("prepared")
def test_an_ensemble_votes(session: Connection) -> None:
    members = {name: {"module": "Predict", "signature": "question -> answer"} for name in "abc"}
    call(session, "dspy.create", module="Ensemble", programs=members, name="council")
    question = {"question": "What is the capital of France?"}
    answer = call(session, "dspy.call", handle="council", inputs=question)
    assert answer["outputs"] == {"answer": "Paris"}
    assert answer["usage"]["openai/scripted"]["total_tokens"] > 0
    found = failure(
        session, "dspy.create", module="Ensemble", programs=members, options={"field": "verdict"}
    )
    assert [v["field"] for v in found["violations"]] == [f"programs.{name}" for name in "abc"]


@pytest.mark.usefixtures("prepared")
def test_programs_with_several_predictors_learn(session: Connection) -> None:
    call(session, "dspy.chain_of_thought", signature="question -> answer", name="thinker")
    arguments = {"handle": "thinker", "trainset": "capitals", "metric": "exact_match"}
    learned = call(session, "dspy.compile", optimizer="BootstrapFewShot", **arguments)
    state = call(session, "dspy.dump_state", handle=learned["handle"])
    assert [demo["answer"] for demo in state["predict"]["demos"]][:2] == ["Paris", "Madrid"]
    assert "reasoning" in state["predict"]["demos"][0]


def test_a_json_schema_goes_with_every_request(
    session: Connection, prepared: ScriptedModelServer
) -> None:
    learned = learn(session, "BootstrapFewShot", response_format="json_schema")
    assert learned["calls"] == len(prepared.requests)
    assert all(request.schema is not None for request in prepared.requests)


@pytest.mark.usefixtures("prepared")
def test_pollers_see_how_far_it_is(session: Connection) -> None:
    job = start(session, {"name": "BootstrapFewShotWithRandomSearch", "num_candidate_programs": 1})
    result = ended(session, job)
    assert result["state"] == "succeeded"
    trials = [event["value"] for event in events(session, job, "partial")]
    assert [trial["trial"] for trial in trials] == [1, 2, 3, 4]
    assert trials[-1]["best_score"] == result["result"]["score"]
    last = events(session, job, "progress")[-1]
    assert last["text"].startswith("trial 4, best score 0.5")
    assert 0 < last["fraction"] < 1


@pytest.mark.parametrize("name", CALLING)
def test_a_cancelled_job_calls_no_model_any_more(
    session: Connection, serve: Callable[..., Any], name: str
) -> None:
    model = Slow(quick=6 if name != "BootstrapFewShot" else 1)
    server = serve(model)
    prepare(session, server, num_retries=3, timeout=LIMIT)
    options = OPTIMIZERS[name]
    if name == "InferRules":
        options = {"num_candidates": 20}
    job = start(session, {"name": name, **options}, threads=2)
    assert model.held.acquire(timeout=LIMIT)
    begun = time.monotonic()
    call(session, "job.cancel", handle=job)
    assert ended(session, job)["state"] == "cancelled"
    assert time.monotonic() - begun < 4, "it was given up, after five seconds, and not ended"
    seen = len(server.requests)
    assert seen <= 6 + 2
    model.release.set()
    while call(session, "worker.stats")["threads"]["abandoned"]:
        pass
    assert len(server.requests) <= seen + 1, "a request that was on its way may still arrive"


def test_the_best_program_so_far_survives_a_cancelled_job(
    session: Connection, serve: Callable[..., Any]
) -> None:
    model = Slow(quick=len(ROWS))  # one evaluation
    prepare(session, serve(model))
    optimizer = {"name": "BootstrapFewShotWithRandomSearch", "num_candidate_programs": 1}
    job = start(session, optimizer, name="best")
    assert model.held.acquire(timeout=LIMIT)
    call(session, "job.cancel", handle=job)
    assert ended(session, job)["state"] == "cancelled"
    kept = events(session, job, "partial")[-1]["value"]
    assert (kept["best_so_far"]["name"], kept["score"], kept["stopped"]) == (
        "best",
        0.5,
        "cancelled",
    )
    model.release.set()
    assert call(session, "dspy.inspect", handle="best")["module"] == "Predict"


def test_demos_so_far_survive_a_cancelled_job(
    session: Connection, serve: Callable[..., Any]
) -> None:
    model = Slow(quick=1)
    prepare(session, serve(model))
    job = start(session, "BootstrapFewShot", name="best")
    assert model.held.acquire(timeout=LIMIT)
    call(session, "job.cancel", handle=job)
    assert ended(session, job)["state"] == "cancelled"
    model.release.set()
    (demo,) = call(session, "dspy.dump_state", handle="best")["self"]["demos"]
    assert demo["answer"] == "Paris"


def test_a_budget_ends_a_run_with_the_best_so_far(
    session: Connection, prepared: ScriptedModelServer
) -> None:
    learned = learn(session, "BootstrapFewShotWithRandomSearch", max_calls=6)
    assert (learned["stopped"], learned["score"], learned["trials"]) == ("max_calls", 0.5, 1)
    assert len(prepared.requests) == 6
    found = failure(
        session,
        "dspy.compile",
        handle="qa",
        optimizer="COPRO",
        trainset="capitals",
        metric="exact_match",
        max_seconds=1e-6,
    )
    assert (found["code"], found["details"]["limit"]) == ("RESOURCE_EXHAUSTED", "max_seconds")


@pytest.mark.parametrize("name", CALLING)
def test_an_optimizer_that_learned_nothing_fails(
    session: Connection, serve: Callable[..., Any], name: str
) -> None:
    def script(_: ChatRequest) -> str:
        raise Refusal(401, f"wrong key {KEY}")

    prepare(session, serve(script))
    arguments = {"handle": "qa", "trainset": "capitals", "metric": "exact_match"}
    optimizer = {"name": name, **OPTIMIZERS[name]}
    found = failure(session, "dspy.compile", optimizer=optimizer, **arguments)
    assert (found["code"], found["retryable"]) == ("UNAUTHENTICATED", False)
    assert name in found["message"]
    assert found["details"]["failed_calls"] == found["details"]["calls"] > 0
    assert found["details"]["errors"][0]["type"] == "LMAuthError"
    assert KEY not in str(found)


def test_a_hopeless_run_ends_soon(session: Connection, serve: Callable[..., Any]) -> None:
    def script(_: ChatRequest) -> str:
        raise Refusal(401, "who are you?")

    server = serve(script)
    prepare(session, server)
    arguments = {"handle": "qa", "trainset": "capitals", "metric": "exact_match", "threads": 2}
    optimizer = {"name": "GEPA", "max_metric_calls": 1000}
    found = failure(session, "dspy.compile", optimizer=optimizer, **arguments)
    assert (found["code"], found["details"]["stopped"]) == ("UNAUTHENTICATED", "all_calls_failed")
    assert 20 <= len(server.requests) <= 22


def test_a_program_can_be_changed_while_it_is_compiled(
    session: Connection, serve: Callable[..., Any]
) -> None:
    model = Slow(quick=0)
    prepare(session, serve(model))
    job = start(session, "BootstrapFewShot")
    assert model.held.acquire(timeout=LIMIT)
    state = call(session, "dspy.dump_state", handle="qa")
    assert call(session, "dspy.load_state", handle="qa", state=state)["name"] == "qa"
    model.release.set()
    assert ended(session, job)["state"] == "succeeded"


def test_answers_that_cannot_be_read_teach_nothing(
    session: Connection, serve: Callable[..., Any]
) -> None:
    prepare(session, serve(lambda _: "I'd rather not."))
    optimizer = {"name": "BootstrapFewShot"}
    arguments = {"handle": "qa", "trainset": "capitals", "metric": "exact_match"}
    found = failure(session, "dspy.compile", optimizer=optimizer, **arguments)
    assert "no run of the program came to an answer" in found["message"]
    assert found["details"]["errors"][0]["type"] == "AdapterParseError"


@pytest.mark.usefixtures("prepared")
def test_a_metric_that_always_fails_teaches_nothing(session: Connection) -> None:
    arguments = {"handle": "qa", "optimizer": "BootstrapFewShot", "trainset": "capitals"}
    metric = {"type": "exact_match", "fields": ["verdict"]}
    found = failure(session, "dspy.compile", metric=metric, **arguments)
    assert "the metric failed in all of its 4 calls" in found["message"]


@pytest.mark.parametrize(
    ("optimizer", "more", "code", "message"),
    [
        ("Bootstrap", {}, "NOT_FOUND", "unknown optimizer 'Bootstrap'"),
        ("BootstrapFinetune", {}, "UNIMPLEMENTED", "a provider that can"),
        ("LabeledFewShot", {"valset": "capitals"}, "INVALID_ARGUMENT", "LabeledFewShot uses none"),
        ("COPRO", {"metric": None}, "INVALID_ARGUMENT", "COPRO needs one"),
        ({"name": "SIMBA"}, {}, "INVALID_ARGUMENT", "at least 32 rows, got 4"),
        ({"name": "COPRO", "breadth": 1}, {}, "INVALID_ARGUMENT", "optimizer.breadth"),
        ({"name": "COPRO", "width": 1}, {}, "INVALID_ARGUMENT", "optimizer.width"),
        ({"name": "MIPROv2", "num_trials": 3}, {}, "INVALID_ARGUMENT", "optimizer.auto"),
        ("MIPROv2", {"prompt_lm": "clever"}, "FAILED_PRECONDITION", "'clever' is configured"),
        ("COPRO", {"name": "capitals"}, "ABORTED", "a resource 'capitals' already"),
        ("COPRO", {"trainset": {"dataset": "capitals", "split": "x"}}, "NOT_FOUND", "split 'x'"),
    ],
)
@pytest.mark.usefixtures("prepared")
def test_what_cannot_be_done_is_said_at_once(
    session: Connection, optimizer: Any, more: dict[str, Any], code: str, message: str
) -> None:
    given = {"trainset": "capitals", "metric": "exact_match", **more}
    arguments = {name: value for name, value in given.items() if value is not None}
    found = failure(session, "dspy.compile", handle="qa", optimizer=optimizer, **arguments)
    assert found["code"] == code
    assert message in found["message"]


@pytest.mark.usefixtures("prepared")
def test_rows_that_do_not_fit_the_program_are_named(session: Connection) -> None:
    call(session, "dspy.dataset", rows=[*ROWS, {"question": 7}], name="odd")
    arguments = {"handle": "qa", "optimizer": "LabeledFewShot", "trainset": "odd"}
    found = failure(session, "dspy.compile", **arguments)
    assert found["violations"] == [
        {"field": "trainset[4].inputs.question", "description": "expected str, got int"}
    ]


def test_other_models_write_instructions_and_work_out_demos(
    session: Connection, serve: Callable[..., Any]
) -> None:
    student, writer, teacher = serve(), serve(), serve(Facts(CAPITALS))
    prepare(session, student)
    configure(session, writer, name="writer")
    configure(session, teacher, name="teacher")
    optimizer = {"name": "MIPROv2", **OPTIMIZERS["MIPROv2"], "num_candidates": 4}
    learned = learn(session, optimizer, prompt_lm="writer", teacher_lm="teacher")
    assert learned["calls"] == sum(len(s.requests) for s in (student, writer, teacher))
    assert all(server.requests for server in (student, writer, teacher))


def test_an_elixir_tool_as_model_answers_in_all_threads() -> None:
    def answer(messages: Any, **_: Any) -> Any:
        question = messages[-1]["content"]
        known = next((KNOWN[name] for name in KNOWN if name in question), ADVICE)
        return f"[[ ## answer ## ]]\n{known}\n\n[[ ## completed ## ]]"

    with StandInHost() as host, host.worker(adapters=["dspy"]) as (_, worker):
        host.expose("my_llm", answer)
        call(worker, "dspy.configure_lm", model="elixir/mine", engine="elixir", tool="my_llm")
        call(worker, "dspy.predict", signature="question -> answer", name="qa")
        call(worker, "dspy.dataset", rows=ROWS, name="capitals")
        optimizer = {"name": "BootstrapFewShotWithRandomSearch", "num_candidate_programs": 1}
        learned = learn(worker, optimizer, threads=4)
        assert (learned["score"], learned["failed_calls"]) == (0.5, 0)


def test_sessions_that_compile_at_once_do_not_meet(
    worker: Worker, serve: Callable[..., Any]
) -> None:
    def run(index: int) -> tuple[dict[str, Any], ScriptedModelServer]:
        server: ScriptedModelServer = serve()
        with Connection(worker.address) as session:
            prepare(session, server, api_key=f"{KEY}-{index}")
            name = list(CALLING)[index]
            learned = learn(session, {"name": name, **OPTIMIZERS[name]}, threads=3)
            session.call("session.close")
        return learned, server

    running = [in_thread(partial(run, index)) for index in range(4)]
    for index, result in enumerate(running):
        learned, server = result()
        keys = {request.authorization for request in server.requests}
        assert keys == {f"Bearer {KEY}-{index}"}
        spent = learned["usage"][server.model]
        assert spent["calls"] == learned["calls"] <= len(server.requests)


@pytest.mark.usefixtures("prepared")
def test_composed_programs_learn_in_all_their_parts(session: Connection) -> None:
    steps = [
        {
            "name": "first",
            "program": {"module": "Predict", "signature": "question -> draft"},
            "inputs": {"question": "inputs.question"},
        },
        {
            "name": "second",
            "program": {"module": "Predict", "signature": "question, draft -> answer"},
            "inputs": {"question": "inputs.question", "draft": "first.draft"},
        },
    ]
    call(session, "dspy.compose", steps=steps, outputs={"answer": "second.answer"}, name="two")
    arguments = {"handle": "two", "trainset": "capitals", "metric": "exact_match"}
    learned = call(session, "dspy.compile", optimizer="BootstrapFewShot", name="wise", **arguments)
    assert learned["changed"] is True
    state = call(session, "dspy.dump_state", handle="wise")
    drafts = [[demo.get("draft") for demo in part["demos"][:2]] for part in state.values()]
    assert drafts == [["Paris", "Madrid"]] * 2


def test_their_options_are_in_the_schema_of_the_tool(session: Connection) -> None:
    (described,) = [t for t in call(session, "worker.tools") if t["name"] == "dspy.compile"]
    text = str(described)
    for name in OPTIMIZERS:
        assert name in text
    assert "minibatch_full_eval_steps" in text
    assert "semantic_similarity" in text


def test_the_optimizers_are_listed(session: Connection) -> None:
    listed = {entry["name"]: entry for entry in call(session, "dspy.optimizers")}
    assert sorted(listed) == sorted(OPTIMIZERS)
    options = listed["COPRO"]["options"]
    assert "breadth" in str(options)
    assert listed["COPRO"]["description"].startswith("Has instructions rewritten")
