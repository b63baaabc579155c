"""A session goes on in another worker when its own was killed in the middle of a call."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import dspy
import pytest

from examples.demo.scripted_model import ChatRequest, Facts, ScriptedModelServer
from snakepit_worker.testing import ToolFailure
from tests.process.conftest import LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snakepit_worker.testing import Connection
    from tests.process.conftest import Workers

ANN = {"session_id": "ann"}
SIGNATURE = "question -> answer"
TRAINSET = [
    dspy.Example(question="The capital of Spain?", answer="Madrid").with_inputs("question"),
    dspy.Example(question="The capital of Italy?", answer="Rome").with_inputs("question"),
]
pytestmark = pytest.mark.timeout(180)  # four starts of DSPy on a busy machine


class Model:
    """Knows capitals; keeps everybody waiting who asks for Utopia's."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.release = threading.Event()
        self._facts = Facts({"Spain": "Madrid", "Italy": "Rome", "France": "Paris"})

    def __call__(self, request: ChatRequest) -> str:
        if "Utopia" in request.question:
            self.asked.set()
            self.release.wait(LIMIT)
        return self._facts(request)


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def server(model: Model) -> Iterator[ScriptedModelServer]:
    with ScriptedModelServer(model) as server:
        yield server
        model.release.set()


def compiled(server: ScriptedModelServer) -> dict[str, Any]:
    """What DSPy's optimizer teaches a program, here and not in a worker."""
    lm = dspy.LM(server.model, api_base=server.base_url, api_key="none", cache=False)
    with dspy.context(lm=lm):
        optimizer = dspy.BootstrapFewShot(
            metric=lambda example, prediction, trace=None: (  # noqa: ARG005 - DSPy's interface
                example.answer in prediction.answer
            ),
            max_bootstrapped_demos=2,
        )
        taught = optimizer.compile(dspy.Predict(SIGNATURE), trainset=TRAINSET)
    return {"self": {key: taught.dump_state()[key] for key in ("demos", "signature")}}


def ask(connection: Connection, question: str) -> Any:
    answer = connection.call(
        "dspy.call", {"handle": "qa", "inputs": {"question": question}, **ANN}, timeout=LIMIT
    )
    return answer["outputs"]["answer"]


def test_what_was_learned_survives_a_kill_in_the_middle_of_a_call(
    workers: Workers, model: Model, server: ScriptedModelServer, url: str
) -> None:
    archive = {"SNAKEPIT_WORKER_ARCHIVE": url}
    first, connection = workers.start("dspy", environment=archive)
    lm = {"model": server.model, "api_base": server.base_url, "num_retries": 0}
    connection.call("dspy.configure_lm", {**lm, **ANN}, timeout=LIMIT)
    connection.call("dspy.predict", {"signature": SIGNATURE, "name": "qa", **ANN})
    state = compiled(server)
    assert len(state["self"]["demos"]) == 2
    connection.call("dspy.load_state", {"handle": "qa", "state": state, **ANN})
    shown = connection.call("dspy.inspect", {"handle": "qa", **ANN})
    assert ask(connection, "The capital of France?") == "Paris"
    prompt = server.requests[-1].messages

    _, other = workers.start("dspy", environment=archive)
    with pytest.raises(ToolFailure, match="lives on worker") as caught:
        ask(other, "The capital of France?")
    assert caught.value.failure["details"]["worker_id"]

    inputs = {"question": "The capital of Utopia?"}
    workers.begin(connection, "dspy.call", handle="qa", inputs=inputs, **ANN)
    assert model.asked.wait(LIMIT)
    first.process.kill()
    first.process.wait()

    assert ask(other, "The capital of France?") == "Paris"
    assert server.requests[-1].messages == prompt, "another state asks in other words"
    again = other.call("dspy.inspect", {"handle": "qa", **ANN})
    assert again == shown
