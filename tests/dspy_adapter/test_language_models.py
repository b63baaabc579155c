from __future__ import annotations

import asyncio
import gc
import json
import weakref
from typing import Any

import dspy
import pytest
from dspy import lm15
from dspy.clients.engines.lm15_engine import LM15Engine

from examples.demo.scripted_model import Facts, ScriptedModelServer
from snakepit_adapters.dspy import backends
from snakepit_adapters.dspy.arguments import LMSettings
from snakepit_adapters.dspy.credentials import Credential, Credentials
from snakepit_adapters.dspy.language_models import PROVIDERS, LanguageModel
from snakepit_adapters.dspy.programs import Program
from snakepit_adapters.dspy.signatures import read_signature
from snakepit_worker.errors import FailedPrecondition, InvalidArgument, Unimplemented

KEY = "key-of-the-session-4711"
ADDRESS = "http://127.0.0.1:1/v1"


def configured(*declared: Credential, **settings: Any) -> LanguageModel:
    async def configure() -> LanguageModel:
        return LanguageModel.configure(LMSettings(**settings), Credentials(*declared))

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


def test_a_provider_that_dspy_does_not_serve_itself_can_be_refused() -> None:
    with pytest.raises(InvalidArgument, match="does not serve 'bedrock/claude'") as raised:
        configured(model="bedrock/claude", engine="native")
    assert raised.value.violations[0].field == "engine"


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


OPERATORS_KEY = "operators-key-4711"
SHARED = Credential("shared", "openai", ADDRESS, OPERATORS_KEY)


def test_all_parameters_reach_dspy() -> None:
    given: dict[str, Any] = {
        "temperature": 0.5,
        "max_tokens": 100,
        "top_p": 0.9,
        "top_k": 20,
        "seed": 7,
        "stop": ["END"],
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "reasoning_effort": "low",
        "timeout": 5.0,
    }
    model = configured(model="openai/gpt-4o-mini", num_retries=1, **given)
    assert {name: model.lm.kwargs[name] for name in given} == given
    assert model.lm.num_retries == 1
    assert configured(model="openai/gpt-4o-mini", model_type="responses").lm.model_type == (
        "responses"
    )


def test_a_provider_of_dspys_own_never_needs_litellm() -> None:
    """DSPy would turn to it in the middle of a call, and import it on the event loop."""
    assert configured(model="openai/gpt-4o-mini").lm.engine == "lm15"


def test_a_credential_brings_key_and_address() -> None:
    model = configured(SHARED, model="openai/gpt-4o-mini", credential="shared")
    assert model.lm.kwargs["api_key"] == OPERATORS_KEY
    assert model.lm.kwargs["api_base"] == ADDRESS
    assert model.lm.secrets == (OPERATORS_KEY,)
    shown = json.dumps(model.describe()) + repr(model.settings)
    assert OPERATORS_KEY not in shown
    assert ADDRESS not in shown


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"credential": "unheard"}, "credential"),
        ({"credential": "shared", "model": "groq/llama"}, "credential"),
        ({"credential": "shared", "api_base": "https://evil.example.org"}, "api_base"),
        ({"credential": "shared", "api_key": KEY}, "credential"),
    ],
)
def test_a_credential_goes_nowhere_else(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        configured(SHARED, **{"model": "openai/gpt-4o-mini", **settings})
    assert [violation.field for violation in raised.value.violations] == [field]


def test_a_credential_is_stored_by_its_name() -> None:
    recipe = configured(SHARED, model="openai/gpt-4o-mini", credential="shared").recipe()
    assert OPERATORS_KEY not in json.dumps(recipe)
    again = LanguageModel.rebuild(recipe, Credentials(SHARED))
    assert again.lm.kwargs["api_key"] == OPERATORS_KEY
    with pytest.raises(InvalidArgument, match="no credential 'shared'"):
        LanguageModel.rebuild(recipe)


def test_a_recipe_without_the_newer_settings_still_counts() -> None:
    recipe = {"model": "openai/gpt-4o-mini", "api_key_given": False, "temperature": 0.5}
    assert LanguageModel.rebuild(recipe).settings.temperature == 0.5


def test_the_workers_own_key_is_quoted_nowhere_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROQ_API_KEY", KEY)
    assert configured(model="groq/llama").lm.secrets == (KEY,)
    assert configured(model="groq/llama", api_base=ADDRESS).lm.secrets == ()


class LiteLLM:
    """As much of the package as is asked before a model is used."""

    class exceptions:  # noqa: N801 - its name there
        class BadRequestError(Exception):
            pass

    def get_llm_provider(self, model: str) -> tuple[str, str, str | None, str | None]:
        provider, _, name = model.partition("/")
        if provider == "unheard":
            raise self.exceptions.BadRequestError
        return name, provider, "key-of-the-environment", None


@pytest.fixture
def litellm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_loaded_litellm", LiteLLM)


@pytest.mark.usefixtures("litellm")
def test_other_providers_are_served_by_litellm() -> None:
    model = configured(model="mistral/small")
    assert model.lm.engine == "litellm"
    assert model.lm.secrets == ("key-of-the-environment",)
    assert configured(model="openai/gpt-4o-mini", engine="litellm").lm.engine == "litellm"
    assert configured(model="openai/gpt-4o-mini", model_type="text").lm.engine == "litellm"


@pytest.mark.usefixtures("litellm")
@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"model": "unheard/small"}, "model"),
        ({"model": "github_copilot/gpt"}, "model"),
        ({"model": "vllm/small"}, "model"),
        ({"model": "huggingface/https://evil.example.org"}, "model"),
        ({"api_base": "https://evil.example.org"}, "api_base"),
        ({"api_base": "https://evil.example.org", "api_key": KEY}, "api_base"),
        ({"api_key": "os.environ/AWS_SECRET_ACCESS_KEY"}, "api_key"),
        ({"api_key": "oidc/file//etc/passwd"}, "api_key"),
        ({"model_type": "text"}, "model_type"),
    ],
)
def test_litellm_gets_nothing_of_the_workers_to_send_elsewhere(
    settings: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidArgument) as raised:
        configured(**{"model": "mistral/small", **settings})
    assert [violation.field for violation in raised.value.violations] == [field]


@pytest.mark.usefixtures("litellm")
def test_the_operator_may_give_other_providers_an_address_and_options() -> None:
    options = {"api_version": "2024-06-01"}
    azure = Credential("cloud", "azure", "https://a.example.org", "operators-key", options)
    model = configured(azure, model="azure/a-deployment", credential="cloud")
    assert model.lm.engine == "litellm"
    assert model.lm.kwargs["api_version"] == "2024-06-01"
    assert model.lm.kwargs["api_base"] == "https://a.example.org"


def test_a_worker_without_litellm_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError("No module named 'litellm'")

    monkeypatch.setattr(backends, "_loaded_litellm", missing)
    with pytest.raises(Unimplemented, match="needs the package litellm") as raised:
        configured(model="mistral/small")
    assert raised.value.help == "pip install litellm"


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({}, "tool"),
        ({"tool": "llm", "api_key": KEY}, "api_key"),
        ({"tool": "llm", "api_base": ADDRESS}, "api_base"),
        ({"tool": "llm", "credential": "shared"}, "credential"),
        ({"tool": "llm", "model_type": "text"}, "model_type"),
        ({"tool": "llm", "engine": "native"}, "tool"),
    ],
)
def test_an_elixir_tool_has_settings_of_its_own(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        configured(**{"model": "openai/gpt-4o-mini", "engine": "elixir", **settings})
    assert [violation.field for violation in raised.value.violations] == [field]


def test_an_elixir_tool_answers_only_within_a_call() -> None:
    model = configured(model="elixir/llm", engine="elixir", tool="llm")
    with pytest.raises(dspy.LMUnexpectedError, match="only within a call"):
        model.lm("?")
