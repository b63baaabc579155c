"""Agents as Elixir sees them: their tools are Elixir's, other adapters', and searches."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import pytest

from examples.demo.scripted_model import ChatRequest, ScriptedModelServer
from snakepit_adapters.dspy import DspyAdapter
from snakepit_worker import Adapter, CallContext, launch, tool
from snakepit_worker.runtime import Worker
from snakepit_worker.settings import Settings
from snakepit_worker.testing import Connection, StandInHost, ToolFailure
from tests.bridge.conftest import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LIMIT: Final = 30.0
ANSWER: Final = "It is 21 degrees."
DONE: Final[tuple[str, str, dict[str, Any]]] = ("I know enough.", "finish", {})
CITY: Final = {"name": "city", "type": "string", "description": "where", "required": True}
QUESTION: Final = {"question": "How warm is it in Paris?"}


class Shop(Adapter):
    """Tools of another adapter."""

    name = "shop"

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.arrived = threading.Semaphore(0)
        self.left = threading.Event()

    @tool
    def price(
        self,
        ctx: CallContext,
        article: str,
        count: Annotated[int, msgspec.Meta(ge=1)] = 1,
        photo: bytes | None = None,
    ) -> dict[str, Any]:
        """What so many of an article cost.

        Args:
            ctx: The call.
            article: What to buy.
            count: How many.
            photo: Of the article.
        """
        del photo
        self.seen.append((ctx.session.id, ctx.correlation_id))
        return {"article": article, "total": 3 * count}

    @tool
    def sold_out(self) -> None:
        """Always fails."""
        raise LookupError("no tea is left")

    @tool
    def long(self) -> str:
        return "x" * 50_000

    @tool
    async def wait(self) -> None:
        """Waits until nobody wants it to."""
        self.arrived.release()
        try:
            await asyncio.sleep(LIMIT)
        finally:
            self.left.set()

    @tool
    def scan(self, photo: bytes) -> int:
        return len(photo)

    @tool
    def many(self) -> Iterator[int]:
        yield 1


class Steps:
    """A model that goes the steps it was told to, one call after the other."""

    def __init__(self, *steps: tuple[str, str, dict[str, Any]], answer: str = ANSWER) -> None:
        self.steps = [*steps, DONE]
        self.answer = answer
        self.prompts: list[str] = []

    def __call__(self, request: ChatRequest) -> str:
        prompt = str(request.messages[-1]["content"])
        self.prompts.append(prompt)
        if "next_tool_name" not in prompt:
            return _marked(reasoning="So be it.", answer=self.answer)
        done = prompt.count("[[ ## thought_")
        thought, name, arguments = self.steps[done]
        return _marked(
            next_thought=thought, next_tool_name=name, next_tool_args=json.dumps(arguments)
        )


def _marked(**fields: str) -> str:
    parts = [f"[[ ## {name} ## ]]\n{text}\n\n" for name, text in fields.items()]
    return "".join([*parts, "[[ ## completed ## ]]"])


@pytest.fixture(scope="module")
def host() -> Iterator[StandInHost]:
    with StandInHost() as host:

        def fail(city: str) -> None:
            raise ValueError(f"nobody knows {city}")

        about = {"description": "The weather of a city", "parameters": [CITY]}
        host.expose("weather.now", lambda city: {"city": city, "degrees": 21}, **about)  # type: ignore[arg-type]
        host.expose("broken", fail, parameters=[CITY])
        yield host


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop()


@pytest.fixture(scope="module")
def worker(host: StandInHost, shop: Shop) -> Iterator[Worker]:
    settings = Settings(elixir_address=host.address)
    with Worker(settings, [DspyAdapter(), shop]) as worker:
        yield worker


@pytest.fixture
def session(worker: Worker) -> Iterator[Connection]:
    with Connection(worker.address) as connection:
        connection.greet()
        yield connection
        connection.call("session.close")


@pytest.fixture
def play(session: Connection) -> Iterator[Callable[..., Steps]]:
    """Lets the session's model go some steps."""
    servers: list[ScriptedModelServer] = []

    def start(*steps: tuple[str, str, dict[str, Any]], **more: Any) -> Steps:
        script = Steps(*steps, **more)
        server = ScriptedModelServer(script)
        servers.append(server)
        arguments = {"model": server.model, "api_base": server.base_url, "api_key": "none"}
        session.call("dspy.configure_lm", arguments, timeout=LIMIT)
        return script

    yield start
    for server in servers:
        server.close()


def create(session: Connection, *tools: Any, **more: Any) -> dict[str, Any]:
    arguments = {"signature": "question -> answer", "tools": list(tools), "name": "agent", **more}
    created: dict[str, Any] = session.call("dspy.react", arguments, timeout=LIMIT)
    return created


def ask(session: Connection) -> dict[str, Any]:
    arguments = {"handle": "agent", "inputs": QUESTION}
    reply: dict[str, Any] = session.call("dspy.call", arguments, timeout=LIMIT)
    return dict(reply["outputs"])


def test_an_agent_uses_tools_of_all_kinds(
    session: Connection, play: Callable[..., Steps], shop: Shop
) -> None:
    passages = ["Paris is in France.", "Tea comes from China."]
    session.call("dspy.corpus", {"passages": passages, "name": "atlas"}, timeout=LIMIT)
    play(
        ("The weather first.", "weather_now", {"city": "Paris"}),
        ("Then the price.", "shop_price", {"article": "tea", "count": 2}),
        ("Where is it?", "search_atlas", {"query": "the city of Paris", "k": 1}),
    )
    created = create(session, "elixir:weather.now", "worker:shop.price", "corpus:atlas")
    assert (created["kind"], created["module"]) == ("dspy.module", "ReAct")
    shop.seen.clear()
    outputs = ask(session)
    assert outputs["answer"] == ANSWER
    trajectory = outputs["trajectory"]
    assert json.loads(trajectory["observation_0"]) == {"city": "Paris", "degrees": 21}
    assert json.loads(trajectory["observation_1"]) == {"article": "tea", "total": 6}
    assert trajectory["observation_2"] == "[0] Paris is in France."
    assert [session_id for session_id, _ in shop.seen] == [session.session_id]


def test_a_model_is_told_what_tools_do_and_take(
    session: Connection, play: Callable[..., Steps]
) -> None:
    told: list[str] = []
    script = play()
    create(session, "elixir:weather.now", "worker:shop.price")
    original = Steps.__call__

    def listen(self: Steps, request: ChatRequest) -> str:
        told.append(str(request.messages[0]["content"]))
        return original(self, request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Steps, "__call__", listen)
        ask(session)
    assert script.prompts
    for text in (
        "The weather of a city",
        "'description': 'where'",
        "What so many of an article cost.",
        "'minimum': 1",
        "'default': 1",
    ):
        assert text in told[0]
    assert "photo" not in told[0]


def test_an_agent_tells_what_it_thinks_and_does(
    session: Connection, play: Callable[..., Steps]
) -> None:
    play(("The weather first.", "weather_now", {"city": "Paris"}))
    create(session, "elixir:*")
    arguments = {"handle": "agent", "inputs": QUESTION}
    events = list(session.stream("dspy.stream", arguments, timeout=LIMIT))
    said: dict[str, str] = {}
    told = []
    for event in events:
        if event.get("type") == "token":
            said[event["field"]] = said.get(event["field"], "") + event["text"]
        else:
            told.append(event)
    observation = {"city": "Paris", "degrees": 21}
    assert [event.get("type") for event in told] == [
        "thought",
        "action",
        "observation",
        "thought",
        "answer",
        "prediction",
        None,
    ]
    assert told[0]["text"] == "The weather first."
    assert (told[1]["tool"], told[1]["arguments"]) == ("weather_now", {"city": "Paris"})
    assert json.loads(told[2]["text"]) == observation
    assert (told[2]["tool"], told[2]["failed"]) == ("weather_now", False)
    assert told[4]["outputs"] == {"answer": ANSWER}
    assert told[5]["outputs"]["answer"] == ANSWER
    assert said["next_thought"] == "The weather first.I know enough."
    assert said["answer"] == ANSWER
    # The tokens of a thought come before it, those of the answer after all observations.
    kinds = [event.get("field") or event.get("type") for event in events]
    assert kinds.index("next_thought") < kinds.index("thought") < kinds.index("action")
    assert kinds.index("answer") > kinds.index("observation")


@pytest.mark.parametrize(
    ("name", "arguments", "observation"),
    [
        ("broken", {"city": "Paris"}, "Error: Elixir tool broken: Tool execution failed: nobody"),
        ("shop_sold_out", {}, "Error: LookupError: no tea is left"),
        ("shop_price", {}, "Error: wrong arguments: 'article' is a required property"),
        ("shop_price", {"article": 7}, "Error: wrong arguments: article: 7 is not of type"),
        ("shop_price", {"article": "tea", "count": 0}, "Error: wrong arguments: count: 0 is less"),
        ("shop_price", {"article": "tea", "session_id": "x"}, "Error: wrong arguments: Additional"),
        ("weather_now", {"city": "Paris", "instance": 1, "self": 2}, "Error: wrong arguments"),
    ],
)
def test_a_tool_that_fails_is_an_observation(
    session: Connection,
    play: Callable[..., Steps],
    name: str,
    arguments: dict[str, Any],
    observation: str,
) -> None:
    play(("Let me see.", name, arguments))
    create(session, "elixir:*", "worker:shop.sold_out", "worker:shop.price")
    stream = session.stream("dspy.stream", {"handle": "agent", "inputs": QUESTION}, timeout=LIMIT)
    [event] = [event for event in stream if event.get("type") == "observation"]
    assert event["failed"]
    assert event["text"].startswith(observation)
    assert "Traceback" not in event["text"]


def test_an_observation_is_bounded(session: Connection, play: Callable[..., Steps]) -> None:
    play(("Let me see.", "shop_long", {}))
    create(session, "worker:shop.long")
    observation = ask(session)["trajectory"]["observation_0"]
    assert len(observation) < 20_100
    assert observation.endswith("… (30000 more characters)")


def test_a_tool_can_go_by_another_name(session: Connection, play: Callable[..., Steps]) -> None:
    play(("Let me see.", "thermometer", {"city": "Paris"}))
    spec = {"tool": "elixir:weather.now", "name": "thermometer", "description": "Measures."}
    create(session, spec)
    assert "21" in ask(session)["trajectory"]["observation_0"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("weather.now", "expected elixir:NAME"),
        ("http://127.0.0.1/", "expected elixir:NAME"),
        ("elixir:wether.now", "did you mean weather.now?"),
        ("worker:shop.prize", "did you mean shop.price?"),
        ("worker:absent.tool", "no adapter 'absent'"),
        ("worker:session.close", "not for agents"),
        ("worker:dspy.call", "not for agents"),
        ("worker:shop.scan", "needs bytes"),
        ("worker:shop.many", "streams"),
        ("corpus:absent", "absent"),
        ({"tool": "elixir:weather.now", "name": "finish"}, "a tool that DSPy adds"),
        ({"tool": "elixir:*", "name": "all"}, "cannot share"),
        ({"tool": "elixir:broken", "name": "not a name"}, ""),
    ],
    ids=str,
)
def test_what_is_no_tool_for_an_agent_is_refused(
    session: Connection, spec: Any, words: str
) -> None:
    with pytest.raises(ToolFailure) as raised:
        create(session, spec)
    failed = raised.value.failure
    assert failed["code"] == "INVALID_ARGUMENT"
    assert words in failed["message"]


def test_two_tools_of_one_name_are_refused(session: Connection) -> None:
    with pytest.raises(ToolFailure) as raised:
        create(session, "worker:shop.price", {"tool": "elixir:broken", "name": "shop_price"})
    assert "give it a name" in raised.value.failure["message"]


def test_an_agent_that_nobody_wants_any_more_stops_its_tool(
    session: Connection, play: Callable[..., Steps], shop: Shop
) -> None:
    play(("Let me wait.", "shop_wait", {}))
    create(session, "worker:shop.wait")
    request = session.request("dspy.call", {"handle": "agent", "inputs": QUESTION})
    call = session.stub.ExecuteTool.future(request, timeout=LIMIT)
    assert shop.arrived.acquire(timeout=LIMIT)
    call.cancel()
    assert shop.left.wait(LIMIT)


def test_a_model_calls_several_tools_by_its_own_means(session: Connection) -> None:
    turns = iter(
        [
            [
                {"name": "weather_now", "args": {"city": "Paris"}},
                {"name": "shop_sold_out", "args": {}},
            ],
            [{"name": "submit", "args": {"answer": ANSWER}}],
        ]
    )

    def script(_: ChatRequest) -> str:
        calls = json.dumps({"tool_calls": next(turns)})
        return _marked(next_thought="Both at once.", tool_calls=calls)

    with ScriptedModelServer(script) as server:
        lm = {"model": server.model, "api_base": server.base_url, "api_key": "none"}
        session.call("dspy.configure_lm", lm, timeout=LIMIT)
        created = create(session, "elixir:weather.now", "worker:shop.sold_out", native=True)
        assert created["module"] == "ReActV2"
        arguments = {"handle": "agent", "inputs": QUESTION}
        events = list(session.stream("dspy.stream", arguments, timeout=LIMIT))
    told = [event for event in events if event.get("type") not in ("token", None)]
    assert [(event["type"], event.get("tool"), event.get("failed")) for event in told] == [
        ("thought", None, None),
        ("action", "weather_now", None),
        ("action", "shop_sold_out", None),
        ("observation", "weather_now", False),
        ("observation", "shop_sold_out", True),
        ("thought", None, None),
        ("answer", None, None),
        ("prediction", None, None),
    ]
    assert told[-1]["outputs"]["answer"] == ANSWER


@pytest.mark.parametrize("tool", ["elixir:weather.now", "worker:shop.price", "corpus:atlas"])
def test_an_agent_in_a_thread_uses_tools_as_well(
    session: Connection, play: Callable[..., Steps], tool: str
) -> None:
    session.call("dspy.corpus", {"passages": ["Tea."], "name": "atlas"}, timeout=LIMIT)
    arguments = {
        "elixir:weather.now": ("weather_now", {"city": "Paris"}),
        "worker:shop.price": ("shop_price", {"article": "tea"}),
        "corpus:atlas": ("search_atlas", {"query": "tea"}),
    }[tool]
    play(("Let me see.", *arguments))
    create(session, tool)
    attempts = {
        "module": "BestOfN",
        "program": "agent",
        "options": {"n": 1, "reward": {"type": "exact_match"}, "expected": {"answer": ANSWER}},
        "name": "best",
    }
    session.call("dspy.create", attempts, timeout=LIMIT)
    reply = session.call("dspy.call", {"handle": "best", "inputs": QUESTION}, timeout=LIMIT)
    observation = reply["outputs"]["trajectory"]["observation_0"]
    assert "Error" not in observation
    assert ("Paris" in observation) or ("tea" in observation.casefold())


def test_many_agents_of_two_sessions_do_not_mix(
    worker: Worker, session: Connection, host: StandInHost
) -> None:
    with Connection(worker.address) as other, contextlib.ExitStack() as servers:
        other.greet()
        for number, connection in enumerate((session, other)):
            owner = f"owner {number}"
            host.expose("who", lambda owner=owner: owner, session=connection.session_id)
            script = Steps(("Who?", "who", {}), answer=owner)
            server = servers.enter_context(ScriptedModelServer(script))
            lm = {"model": server.model, "api_base": server.base_url, "api_key": "none"}
            connection.call("dspy.configure_lm", lm, timeout=LIMIT)
            create(connection, "elixir:who")
        asking = [
            (number, in_thread(lambda connection=connection: ask(connection)))  # type: ignore[misc]
            for number, connection in enumerate((session, other))
            for _ in range(10)
        ]
        for number, asked in asking:
            outputs = asked()
            assert outputs["answer"] == f"owner {number}"
            assert outputs["trajectory"]["observation_0"] == f"owner {number}"
        other.call("session.close")


def test_an_agent_with_no_more_steps_answers(
    session: Connection, play: Callable[..., Steps]
) -> None:
    step = ("Again.", "weather_now", {"city": "Paris"})
    play(step, step, step)
    create(session, "elixir:weather.now", max_iters=2)
    outputs = ask(session)
    assert outputs["answer"] == ANSWER
    assert "observation_1" in outputs["trajectory"]
    assert "observation_2" not in outputs["trajectory"]


def test_agents_do_not_share_tools_with_other_sessions(
    worker: Worker, session: Connection, host: StandInHost
) -> None:
    host.expose("mine", lambda: 1, session=session.session_id)
    create(session, "elixir:mine")
    with Connection(worker.address) as other:
        other.greet()
        with pytest.raises(ToolFailure):
            create(other, "elixir:mine")


def test_an_agent_outlives_its_worker(host: StandInHost, tmp_path: Path) -> None:
    archive = {"SNAKEPIT_WORKER_ARCHIVE": f"sqlite:///{tmp_path}/archive.db"}
    script = Steps(("The weather first.", "weather_now", {"city": "Paris"}))
    with ScriptedModelServer(script) as server:
        with host.worker(adapters=["dspy"], environment=archive) as (process, connection):
            ann = {"session_id": "ann"}
            lm = {"model": server.model, "api_base": server.base_url}
            connection.call("dspy.configure_lm", {**lm, **ann}, timeout=LIMIT)
            create(connection, "elixir:weather.now", **ann)
            process.process.kill()
        with host.worker(adapters=["dspy"], environment=archive) as (_, connection):
            arguments = {"handle": "agent", "inputs": QUESTION, **ann}
            outputs = connection.call("dspy.call", arguments, timeout=LIMIT)["outputs"]
    assert json.loads(outputs["trajectory"]["observation_0"])["degrees"] == 21


def test_without_a_host_there_are_no_elixir_tools() -> None:
    with (
        launch.start(adapters=["dspy"]) as worker,
        Connection(worker.address) as connection,
        pytest.raises(ToolFailure) as raised,
    ):
        create(connection, "elixir:*")
    assert raised.value.failure["code"] == "UNAVAILABLE"
