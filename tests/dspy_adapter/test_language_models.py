from __future__ import annotations

import asyncio
import gc
import json
import sys
import weakref
from typing import Any

import dspy
import pytest
from dspy import lm15
from dspy.clients.engines.lm15_engine import LM15Engine

from examples.demo.scripted_model import Facts, ScriptedModelServer
from snakepit_adapters.dspy.arguments import LMSettings
from snakepit_adapters.dspy.language_models import PROVIDERS, LanguageModel
from snakepit_adapters.dspy.programs import Program
from snakepit_adapters.dspy.signatures import read_signature
from snakepit_worker.errors import FailedPrecondition, InvalidArgument

KEY = "key-of-the-session-4711"
ADDRESS = "http://127.0.0.1:1/v1"


def configured(**settings: Any) -> LanguageModel:
    async def configure() -> LanguageModel:
        return LanguageModel.configure(LMSettings(**settings))

    return asyncio.run(configure())


def test_the_key_shows_nowhere() -> None:
    model = configured(model="openai/gpt-4o-mini", api_base=ADDRESS, api_key=KEY)
    assert model.describe()["api_key_given"] is True
    shown = json.dumps(model.describe()) + repr(model) + repr(model.settings) + repr(model.lm)
    assert KEY not in shown


def test_answers_are_never_cached() -> None:
    assert configured(model="openai/gpt-4o-mini").lm.cache is False


def test_the_providers_are_those_that_dspy_serves_itself() -> None:
    engine = LM15Engine(lm15.RouterConfig(env={}))
    for provider in PROVIDERS:
        engine.resolve(f"{provider}/some-model")
    with pytest.raises(lm15.UnknownModelError) as raised:
        engine.resolve("unheard-of/some-model")
    assert f"known: {', '.join(PROVIDERS)}" in str(raised.value)


@pytest.mark.parametrize(
    "model", ["", "gpt-4o-mini", "openai/", "/gpt", "openai/a b", "openai/a\nb", "openai:gpt-4o"]
)
def test_a_model_is_a_provider_and_a_name(model: str) -> None:
    with pytest.raises(InvalidArgument, match="expected 'provider/model'") as raised:
        configured(model=model)
    assert raised.value.violations[0].field == "model"


def test_an_unknown_provider_is_refused_without_importing_litellm() -> None:
    with pytest.raises(InvalidArgument, match="unknown provider 'bedrock'"):
        configured(model="bedrock/claude")
    assert "litellm" not in sys.modules


@pytest.mark.parametrize(
    "address",
    [
        "",
        "127.0.0.1:8000",
        "ftp://example.org",
        "file:///etc/passwd",
        "http://",
        "http://example.org:99999",
        f"http://user:{KEY}@example.org",
        f"https://example.org/v1?key={KEY}",
        f"https://example.org/v1#{KEY}",
    ],
)
def test_an_address_is_a_web_address_without_secrets(address: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        configured(model="openai/gpt-4o-mini", api_base=address)
    assert raised.value.violations[0].field == "api_base"
    assert KEY not in str(raised.value)


def test_settings_that_a_model_refuses_are_wrong_arguments() -> None:
    with pytest.raises(InvalidArgument, match="temperature"):
        configured(model="openai/o3-mini", temperature=0.5)


def ask(model: LanguageModel) -> Any:
    program = Program("Predict", read_signature("question -> answer"))
    request = program.request({"question": "What is the capital of France?"}, model)
    return request.run(asyncio.to_thread)


def test_the_key_of_the_worker_stays_here(
    monkeypatch: pytest.MonkeyPatch,
    framework: None,  # noqa: ARG001 - loads DSPy
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    async def main() -> None:
        settings = LMSettings(model=server.model, api_base=server.base_url, num_retries=0)
        model = LanguageModel.configure(settings)
        await ask(model)
        await model.lm.aclose()

    with ScriptedModelServer(Facts({"France": "Paris"})) as server:
        asyncio.run(main())
        assert [request.authorization for request in server.requests] == ["Bearer none"]


def test_closing_lets_go_of_connections_and_key(framework: None) -> None:  # noqa: ARG001 - loads DSPy
    async def main() -> None:
        settings = LMSettings(model=server.model, api_base=server.base_url, api_key=KEY)
        model = LanguageModel.configure(settings)
        await ask(model)
        lm = weakref.ref(model.lm)
        await model.close()
        del model
        gc.collect()
        assert lm() is None

    with ScriptedModelServer(Facts({"France": "Paris"})) as server:
        asyncio.run(main())


def test_a_language_model_holds_dspys() -> None:
    assert isinstance(configured(model="openai/gpt-4o-mini").lm, dspy.LM)


def test_a_recipe_configures_the_same_model_again() -> None:
    first = configured(
        model="openai/gpt-4o-mini", api_base=ADDRESS, temperature=0.5, response_format="json"
    )
    again = LanguageModel.rebuild(json.loads(json.dumps(first.recipe())))
    assert again.describe() == first.describe()


def test_a_key_that_a_call_has_brought_is_not_in_the_recipe() -> None:
    recipe = configured(model="openai/gpt-4o-mini", api_key=KEY).recipe()
    assert KEY not in json.dumps(recipe)
    with pytest.raises(FailedPrecondition, match="never stored") as raised:
        LanguageModel.rebuild(recipe)
    assert raised.value.help == "call dspy.configure_lm again"
