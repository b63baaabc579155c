"""Tools of agents as DSPy and providers see them."""

from __future__ import annotations

import copy
import json
from typing import Any

import dspy
import pytest

from snakepit_adapters.dspy.agent_tools import AgentTool, Observation
from snakepit_adapters.dspy.tool_specs import ToolDescription
from snakepit_worker.errors import FailedPrecondition

pytestmark = pytest.mark.usefixtures("framework")

PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "where"},
        "place": {"anyOf": [{"$ref": "#/$defs/Place"}, {"type": "null"}]},
        "days": {"type": "integer", "default": 1},
    },
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"Place": {"type": "object", "properties": {"lat": {"type": "number"}}}},
}


def tool(**changes: Any) -> AgentTool:
    parts = {"source": "elixir", "target": "weather.now", "name": "weather_now"}
    more = {"description": "The weather", "parameters": PARAMETERS}
    return AgentTool(ToolDescription(**{**parts, **more, **changes}))


def test_a_provider_is_told_the_schema() -> None:
    function = tool().format_as_litellm_function_call()["function"]
    assert (function["name"], function["description"]) == ("weather_now", "The weather")
    assert function["parameters"]["required"] == ["city"]
    properties = function["parameters"]["properties"]
    assert properties["city"] == {"type": "string", "description": "where"}
    assert properties["days"]["default"] == 1
    assert "$ref" not in json.dumps(properties)


def test_nothing_is_called_while_no_call_is_served() -> None:
    with pytest.raises(FailedPrecondition):
        tool()(city="Paris")


def test_an_agent_can_be_copied_with_its_tools() -> None:
    agent = dspy.ReAct("question -> answer", tools=[tool()])
    copied = copy.deepcopy(agent)
    assert copied.tools["weather_now"].described == tool().described
    assert agent.reset_copy().tools["weather_now"].name == "weather_now"


def test_a_schema_that_is_none_does_not_keep_the_tool_from_being_made() -> None:
    wrong = {"p": {"type": "string", "pattern": 7}}
    made = tool(parameters={**PARAMETERS, "properties": wrong, "required": ["p"]})
    assert list(made.args) == ["p"]


def test_an_observation_is_a_bounded_text() -> None:
    seen = Observation("x" * 20_001, failed=True)
    assert seen == "x" * 20_000 + "… (1 more characters)"
    assert seen.failed
    assert copy.deepcopy(seen) is seen
    assert json.loads(json.dumps({"seen": Observation("y")})) == {"seen": "y"}
