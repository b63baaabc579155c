"""The older adapter's tool names: what they did, for one session, with real failures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from examples.demo.scripted_model import Facts, ScriptedModelServer
from snakepit_adapters.dspy import DspyAdapter
from snakepit_worker import launch
from snakepit_worker.runtime import Worker
from snakepit_worker.settings import Settings
from snakepit_worker.testing import Connection, StandInHost, ToolFailure
from snakepit_worker.tools.registry import Registry
from tests.bridge.test_dspy_agents import Steps

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMIT: Final = 30.0
PARIS: Final = "It is Paris."
NAMES: Final = (
    *("ping", "check_dspy", "configure_lm", "create_signature", "create_program"),
    *("execute_program", "list_programs", "delete_program", "store_object", "retrieve_object"),
    *("list_stored_objects", "get_settings", "get_stats", "reset_state", "register_elixir_tool"),
    *("enhanced_predict", "enhanced_chain_of_thought", "call_dspy", "discover_dspy_schema"),
)
QUESTION: Final = {"question": "What is the capital of France?"}


@pytest.fixture(scope="module")
def host() -> Iterator[StandInHost]:
    with StandInHost() as host:
        yield host


@pytest.fixture(scope="module")
def worker(host: StandInHost) -> Iterator[Worker]:
    with Worker(Settings(elixir_address=host.address), [DspyAdapter()]) as worker:
        yield worker


@pytest.fixture
def session(worker: Worker) -> Iterator[Connection]:
    with Connection(worker.address) as connection:
        connection.greet()
        yield connection
        connection.call("session.close")


@pytest.fixture
def model(session: Connection) -> Iterator[ScriptedModelServer]:
    """The session's language model."""
    with ScriptedModelServer(Facts({"France": PARIS})) as server:
        configure(session, server)
        yield server


def configure(session: Connection, server: ScriptedModelServer) -> Any:
    name = server.model.removeprefix("openai/")
    older = {"model_type": "openai", "model": name, "api_base": server.base_url, "api_key": "none"}
    return call(session, "configure_lm", **older)


def call(session: Connection, tool: str, **arguments: Any) -> Any:
    return session.call(f"dspy.{tool}", arguments, timeout=LIMIT)


def failure(session: Connection, tool: str, **arguments: Any) -> dict[str, Any]:
    with pytest.raises(ToolFailure) as raised:
        call(session, tool, **arguments)
    return dict(raised.value.failure)


def expose(host: StandInHost, session: Connection, **tools: Any) -> None:
    for name, function in tools.items():
        host.expose(name, function, session=session.session_id)


def test_all_of_them_are_there() -> None:
    described = {tool["name"]: tool for tool in Registry([DspyAdapter()]).describe()}
    assert len(NAMES) == 19
    for name in NAMES:
        assert described[f"dspy.{name}"]["description"]


def test_a_language_model_is_described_in_the_older_form_too(
    session: Connection, model: ScriptedModelServer
) -> None:
    configured = configure(session, model)
    assert (configured["success"], configured["model_type"]) == (True, "openai")
    assert configured["model"] == "openai/scripted"
    settings = call(session, "get_settings")
    assert settings["lm"]["model_type"] == "chat"
    assert (settings["lms"], settings["rm"]) == (["default"], [])


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "openai/gpt-3.5-turbo"),
        ("anthropic", "anthropic/claude-3-sonnet-20240229"),
        ("gemini", "gemini/gemini-pro"),
    ],
)
def test_each_provider_has_a_model(session: Connection, provider: str, model: str) -> None:
    configured = call(session, "configure_lm", model_type=provider, api_key="not-a-secret")
    assert configured["model"] == model


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("kind", ["predict", "chain_of_thought"])
@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("argument", ["signature", "signature_name"])
def test_a_program_is_made_from_a_signature_and_executed(
    session: Connection,
    kind: str,
    as_text: bool,  # noqa: FBT001
    argument: str,
) -> None:
    made = call(
        session,
        "create_signature",
        name="qa",
        inputs=[{"name": "question", "type": "string", "description": "of any kind"}],
        outputs=[{"name": "answer"}],
        docstring="Answer in one sentence.",
    )
    assert made == {
        "success": True,
        "name": "qa",
        "signature_string": "question: str -> answer: str",
    }
    created = call(session, "create_program", name="qa", program_type=kind, **{argument: "qa"})
    assert created == {"success": True, "name": "qa", "type": kind}
    shown = call(session, "inspect", handle="qa")
    assert shown["signature"]["instructions"] == "Answer in one sentence."
    assert shown["signature"]["inputs"][0]["description"] == "of any kind"
    inputs = json.dumps(QUESTION) if as_text else QUESTION
    done = call(session, "execute_program", name="qa", inputs=inputs)
    assert (done["success"], done["result"]["answer"]) == (True, PARIS)
    assert ("reasoning" in done["result"]) == (kind == "chain_of_thought")
    assert call(session, "list_programs") == {"programs": ["qa"]}
    assert call(session, "delete_program", name="qa") == {"success": True, "name": "qa"}
    assert call(session, "list_programs") == {"programs": []}


def test_what_has_a_name_already_is_replaced(session: Connection) -> None:
    for signature in ("a -> b", "c -> d"):
        arguments = {"name": "p", "program_type": "predict", "signature": signature}
        call(session, "create_program", **arguments)
        call(session, "store_object", name="p", object_type="text", data=signature)
    assert call(session, "list_programs") == {"programs": ["p"]}
    shown = call(session, "inspect", handle="p")
    assert shown["signature"]["inputs"][0]["name"] == "c"
    assert call(session, "retrieve_object", name="p")["data"] == "c -> d"


@pytest.mark.usefixtures("model")
def test_a_program_does_not_replace_something_else(session: Connection) -> None:
    arguments = {"name": "default", "program_type": "predict", "signature": "a -> b"}
    failed = failure(session, "create_program", **arguments)
    assert (failed["code"], failed["details"]["kind"]) == ("ABORTED", "dspy.lm")


@pytest.mark.parametrize(
    ("tool", "arguments", "code"),
    [
        ("execute_program", {"name": "absent", "inputs": {}}, "NOT_FOUND"),
        ("execute_program", {"name": "p", "inputs": {"a": "x"}}, "FAILED_PRECONDITION"),
        ("execute_program", {"name": "p", "inputs": "no JSON"}, "INVALID_ARGUMENT"),
        ("execute_program", {"name": "p", "inputs": "[]"}, "INVALID_ARGUMENT"),
        ("delete_program", {"name": "absent"}, "NOT_FOUND"),
        ("retrieve_object", {"name": "absent"}, "NOT_FOUND"),
        ("create_program", {"name": "q", "program_type": "predict"}, "INVALID_ARGUMENT"),
        (
            "create_program",
            {"name": "q", "program_type": "guess", "signature": "a -> b"},
            "INVALID_ARGUMENT",
        ),
        (
            "create_program",
            {"name": "q", "program_type": "program_of_thought", "signature": "a -> b"},
            "PERMISSION_DENIED",
        ),
        ("create_signature", {"name": "s", "inputs": [], "outputs": []}, "INVALID_ARGUMENT"),
        ("enhanced_predict", {"signature": "a -> b", "a": "x"}, "FAILED_PRECONDITION"),
        ("register_elixir_tool", {"name": "absent"}, "INVALID_ARGUMENT"),
        ("register_elixir_tool", {"name": "no name"}, "INVALID_ARGUMENT"),
        ("discover_dspy_schema", {"module_path": "os"}, "INVALID_ARGUMENT"),
        ("discover_dspy_schema", {"module_path": "dspy._vendor"}, "INVALID_ARGUMENT"),
        ("discover_dspy_schema", {"module_path": "antigravity"}, "INVALID_ARGUMENT"),
    ],
    ids=str,
)
def test_what_fails_is_a_failure(
    session: Connection, tool: str, arguments: dict[str, Any], code: str
) -> None:
    call(session, "create_program", name="p", program_type="predict", signature="a -> b")
    assert failure(session, tool, **arguments)["code"] == code


def test_objects_keep_their_types(session: Connection) -> None:
    data = {"n": 2**60, "list": [1.5, None, True], "text": "é"}
    stored = call(session, "store_object", name="o", object_type="facts", data=data)
    assert stored == {"success": True, "name": "o", "type": "facts"}
    found = call(session, "retrieve_object", name="o")
    assert found == {"success": True, "name": "o", "type": "facts", "data": data}
    listed = call(session, "list_stored_objects")
    assert listed == {"success": True, "objects": [{"name": "o", "type": "facts"}]}


@pytest.mark.usefixtures("model")
def test_state_is_counted_and_reset_for_one_session(worker: Worker, session: Connection) -> None:
    with Connection(worker.address) as other:
        other.greet()
        for connection in (session, other):
            arguments = {"name": "p", "program_type": "predict", "signature": "a -> b"}
            call(connection, "create_program", **arguments)
            call(connection, "store_object", name="o", object_type="text", data="x")
            inputs = [{"name": "a"}]
            call(connection, "create_signature", name="s", inputs=inputs, outputs=[{"name": "b"}])
        counts = {"programs_count": 1, "signatures_count": 1, "stored_objects_count": 1}
        ping = call(session, "ping")
        assert ping == {"status": "ok", "dspy_available": True, **counts}
        stats = call(session, "get_stats")["stats"]
        assert {name: stats[name] for name in counts} == counts
        assert (stats["programs"], stats["has_lm"], stats["has_configured_lm"]) == (
            ["p"],
            True,
            True,
        )
        assert call(session, "reset_state") == {"status": "reset", "released": 3}
        assert call(session, "ping")["programs_count"] == 0
        assert call(session, "get_stats")["stats"]["has_lm"]
        assert call(other, "ping") == ping
        assert call(other, "get_stats")["stats"]["has_lm"] is False
        other.call("session.close")


def test_dspy_is_there(session: Connection) -> None:
    checked = call(session, "check_dspy")
    assert checked["available"]
    assert checked["version"].startswith("3.")
    assert {"Predict", "ReAct"} <= set(checked["modules"])


def test_a_registered_tool_is_for_agents(session: Connection, host: StandInHost) -> None:
    parameters = [{"name": "city", "type": "string", "required": True}]
    host.expose(
        "weather", lambda city: f"sun in {city}", parameters=parameters, session=session.session_id
    )
    registered = call(
        session,
        "register_elixir_tool",
        name="sky",
        function="weather",
        description="Looks up.",
        parameters=parameters,
    )
    assert registered == {"success": True, "tool_name": "sky", "registered": True}
    wrong = {"name": "sky", "function": "weather", "parameters": [{"name": "town"}]}
    assert failure(session, "register_elixir_tool", **wrong)["code"] == "INVALID_ARGUMENT"
    unseen = {"name": "sky", "function": "weather", "exposed_to_python": False}
    assert failure(session, "register_elixir_tool", **unseen)["code"] == "INVALID_ARGUMENT"
    with ScriptedModelServer(Steps(("Look.", "sky", {"city": "Rome"}))) as server:
        configure(session, server)
        arguments = {"name": "a", "program_type": "react", "signature": "question -> answer"}
        call(session, "create_program", **arguments)
        result = call(session, "execute_program", name="a", inputs=QUESTION)["result"]
    assert result["trajectory"]["observation_0"] == "sun in Rome"


@pytest.mark.usefixtures("model")
def test_enhanced_calls_do_without_elixir(session: Connection) -> None:
    signature = "question -> answer"
    predicted = call(session, "enhanced_predict", signature=signature, **QUESTION)
    assert predicted["result"] == {"answer": PARIS}
    thought = call(session, "enhanced_chain_of_thought", signature=signature, **QUESTION)
    assert thought["result"]["answer"] == PARIS
    assert thought["elixir_validation"] is None
    assert thought["formatted_output"] is None
    assert thought["type"] == "enhanced_chain_of_thought"


@pytest.mark.usefixtures("model")
def test_enhanced_calls_ask_elixir(session: Connection, host: StandInHost) -> None:
    asked: dict[str, Any] = {}

    def validate_signature(**given: Any) -> Any:
        asked["signature"] = given
        return {"valid": given["signature"] != "question -> secret", "error": "not that"}

    def transform_result(result: Any) -> Any:
        return result["answer"].upper()

    def validate_reasoning(**given: Any) -> Any:
        asked["reasoning"] = given
        return {"steps": 1}

    def process_template(template: str, data: Any) -> str:
        return f"{template}: {data['answer']}"

    expose(
        host,
        session,
        validate_signature=validate_signature,
        validate_reasoning=validate_reasoning,
        process_template=process_template,
    )
    host.expose(
        "transform_result",
        transform_result,
        parameters=[{"name": "result", "type": "map", "required": True}],
        session=session.session_id,
    )
    signature = "question -> answer"
    predicted = call(session, "enhanced_predict", signature=signature, **QUESTION)
    assert predicted["result"] == PARIS.upper()
    assert asked["signature"] == {"signature": signature, "inputs": QUESTION}
    thought = call(session, "enhanced_chain_of_thought", signature=signature, **QUESTION)
    assert thought["elixir_validation"] == {"steps": 1}
    assert thought["formatted_output"] == f"chain_of_thought: {PARIS}"
    assert asked["reasoning"]["context"] == QUESTION
    failed = failure(session, "enhanced_predict", signature="question -> secret", **QUESTION)
    assert failed["code"] == "INVALID_ARGUMENT"
    assert "not that" in failed["message"]


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ([], {"signature": "question -> answer"}),
        (["question -> answer"], {"temperature": 0.5}),
        ([], '{"signature": "question -> answer"}'),
    ],
    ids=str,
)
def test_modules_are_made_and_called_by_path(
    session: Connection, args: list[Any], kwargs: Any
) -> None:
    made = call(
        session,
        "call_dspy",
        module_path="dspy.ChainOfThought",
        function_name="__init__",
        args=args,
        kwargs=kwargs,
    )
    assert (made["success"], made["type"]) == (True, "constructor")
    assert made["class_name"] == "ChainOfThought"
    stored = {"module_path": f"stored.{made['instance_id']}"}
    done = call(session, "call_dspy", **stored, function_name="__call__", kwargs=QUESTION)
    assert (done["type"], done["result"]["answer"]) == ("method", PARIS)
    state = call(session, "call_dspy", **stored, function_name="dump_state")["result"]
    loading = {"function_name": "load_state", "kwargs": {"state": state}}
    assert call(session, "call_dspy", **stored, **loading)["result"] is None


@pytest.mark.parametrize(
    ("path", "function", "kwargs", "code"),
    [
        ("os", "system", {"command": "true"}, "PERMISSION_DENIED"),
        ("dspy.settings", "configure", {"lm": "x"}, "PERMISSION_DENIED"),
        ("dspy.Predict", "load", {"path": "/etc/passwd"}, "PERMISSION_DENIED"),
        ("dspy.LM", "__init__", {"model": "openai/x"}, "PERMISSION_DENIED"),
        ("dspy.primitives.PythonInterpreter", "__init__", {}, "PERMISSION_DENIED"),
        ("dspy.ProgramOfThought", "__init__", {"signature": "a -> b"}, "PERMISSION_DENIED"),
        ("dspy.Predict", "__init__", {"signature": "a -> b: os.x"}, "INVALID_ARGUMENT"),
        ("dspy.Predict", "__init__", {"signature": "a -> b", "lm": 1}, "INVALID_ARGUMENT"),
        ("dspy.Predict", "__init__", {}, "INVALID_ARGUMENT"),
        ("dspy.ReAct", "__init__", {"signature": "a -> b", "steps": 1}, "INVALID_ARGUMENT"),
        ("stored.p", "__reduce__", {}, "PERMISSION_DENIED"),
        ("stored.p", "save", {"path": "/x"}, "PERMISSION_DENIED"),
        ("stored.p", "load_state", {"path": "/x"}, "INVALID_ARGUMENT"),
        ("stored.absent", "__call__", {}, "NOT_FOUND"),
        ("stored.p", "__call__", {"a": 1}, "FAILED_PRECONDITION"),
    ],
)
def test_nothing_else_can_be_reached(
    session: Connection, path: str, function: str, kwargs: dict[str, Any], code: str
) -> None:
    call(session, "create_program", name="p", program_type="predict", signature="a -> b")
    arguments = {"module_path": path, "function_name": function, "kwargs": kwargs}
    assert failure(session, "call_dspy", **arguments)["code"] == code


def test_dspys_classes_are_described(session: Connection) -> None:
    found = call(session, "discover_dspy_schema")
    assert found["discovered_count"] == len(found["schema"]) > 50
    predict = found["schema"]["Predict"]
    assert predict["type"] == "class"
    assert predict["module"] == "dspy.predict.predict"
    names = [parameter["name"] for parameter in predict["methods"]["__init__"]["parameters"]]
    assert names[:2] == ["signature", "callbacks"]
    assert found["schema"]["streamify"]["type"] == "function"
    package = call(session, "discover_dspy_schema", module_path="dspy.teleprompt")
    assert "MIPROv2" in package["schema"]


def test_it_all_outlives_the_worker(tmp_path: Path) -> None:
    archive = {"SNAKEPIT_WORKER_ARCHIVE": f"sqlite:///{tmp_path}/archive.db"}
    ann = {"session_id": "ann"}
    with launch.start(adapters=["dspy"], environment=archive) as worker:
        with Connection(worker.address) as connection:
            inputs, outputs = [{"name": "a"}], [{"name": "b"}]
            call(connection, "create_signature", name="s", inputs=inputs, outputs=outputs, **ann)
            call(connection, "store_object", name="o", object_type="t", data=[1], **ann)
        worker.process.kill()
    with (
        launch.start(adapters=["dspy"], environment=archive) as worker,
        Connection(worker.address) as connection,
    ):
        assert call(connection, "retrieve_object", name="o", **ann)["data"] == [1]
        arguments = {"name": "p", "program_type": "predict", "signature": "s"}
        call(connection, "create_program", **arguments, **ann)
        shown = call(connection, "inspect", handle="p", **ann)
        assert shown["signature"]["inputs"][0]["name"] == "a"
