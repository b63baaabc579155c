"""What talks to a provider: DSPy itself, or LiteLLM, which knows more of them but loads slowly.

DSPy would choose at each call, and then import LiteLLM on the event loop; here it is chosen once.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal
from weakref import WeakSet

import dspy
from dspy import lm15
from dspy.clients._litellm import get_litellm
from dspy.clients.backend_selection import select_backend

from snakepit_adapters.dspy.refusing import invalid
from snakepit_worker.errors import Unimplemented

if TYPE_CHECKING:
    from collections.abc import Mapping

    from snakepit_adapters.dspy.arguments import LMSettings
    from snakepit_adapters.dspy.credentials import Credential

__all__ = ["PROVIDERS", "Backend", "choose", "joins", "leaves"]

PROVIDERS: Final = (
    "anthropic",
    "azure",
    "deepseek",
    "gemini",
    "groq",
    "hosted_vllm",
    "moonshot",
    "ollama",
    "ollama_chat",
    "openai",
    "openrouter",
    "xai",
)
"""Prefixes that DSPy serves itself.  For any other it needs LiteLLM."""

_REFERENCES: Final = ("os.environ/", "oidc/")
"""How LiteLLM's keys begin that stand for a variable or a file of the worker."""

_REFUSED: Final = ("chatgpt", "dotprompt", "github_copilot", "petals", "vllm")
"""Those of LiteLLM's that ask a person to log in, read files, or load models into the worker."""

_LOGGERS: Final = ("LiteLLM", "LiteLLM Proxy", "LiteLLM Router")


@dataclass(frozen=True, slots=True)
class Backend:
    """What talks to a provider.

    Attributes:
        name: DSPy's name for it.
        secrets: Keys that it takes from the worker's environment.
    """

    name: Literal["lm15", "litellm"]
    secrets: tuple[str, ...] = ()


def choose(
    settings: LMSettings, credential: Credential | None, options: Mapping[str, Any]
) -> Backend:
    """What talks to the provider of a model.  Nothing is sent.

    Args:
        settings: What the caller said.
        credential: What the operator declared for it.
        options: Arguments for DSPy's object.

    Raises:
        InvalidArgument: When nothing can, or not as it was described.
        Unimplemented: When LiteLLM would, and is not installed.
    """
    provider = settings.model.partition("/")[0]
    if settings.engine != "litellm" and provider in PROVIDERS and settings.model_type != "text":
        # An operator's gateway in the environment wants LiteLLM, unless an address is given.
        selection = dspy.LM(
            settings.model, engine="auto" if "api_base" not in options else "lm15", **options
        )
        try:
            selected = select_backend(selection)
        except lm15.LM15Error:
            selected = None
        if selected is not None and selected.native:
            return Backend("lm15", _of_environment(selected.resolution, options))
    if settings.engine == "native":
        known = ", ".join(PROVIDERS)
        text = f"DSPy itself does not serve {settings.model!r} as described; it knows {known}"
        raise invalid("engine", text)
    return _with_litellm(settings, credential)


_joined: Final[WeakSet[object]] = WeakSet()
"""What uses LiteLLM's connections, which are those of the process."""
_lock: Final = threading.Lock()


def joins(user: object) -> None:
    """Keep LiteLLM's connections open while this is in use.

    Args:
        user: Something that calls LiteLLM.
    """
    with _lock:
        _joined.add(user)


async def leaves(user: object) -> None:
    """Close LiteLLM's connections if this was the last one to use them.

    On the event loop that has opened them, since nobody else can close them.

    Args:
        user: What `joins` was told of.
    """
    with _lock:
        _joined.discard(user)
        last = not _joined
    if last:
        litellm = _loaded_litellm()
        await litellm.close_litellm_async_clients()
        litellm.in_memory_llm_clients_cache.flush_cache()


def _of_environment(resolution: Any, options: Mapping[str, Any]) -> tuple[str, ...]:  # noqa: ANN401
    if "api_key" in options:
        return ()
    from dspy._vendor.lm15.registry import lookup  # noqa: PLC0415 - private, and not always there

    definition = lookup(resolution.provider)
    names = () if definition is None else definition.access.env_keys
    return tuple(key for name in names if (key := os.environ.get(name)))


def _with_litellm(settings: LMSettings, credential: Credential | None) -> Backend:
    provider, _, name = settings.model.partition("/")
    # LiteLLM takes addresses in the names of some models, and sends the worker's own key there.
    if "://" in name:
        raise invalid("model", "expected the name of a model, got an address")
    if provider in _REFUSED:
        raise invalid("model", f"the provider {provider!r} is not served")
    # Some providers' own logins go along whatever key is given; OpenAI's does not.
    if settings.api_base is not None and credential is None and provider != "openai":
        text = f"an address for {provider} comes from a credential that the operator declared"
        raise invalid("api_base", text)
    if (settings.api_key or "").startswith(_REFERENCES):
        raise invalid("api_key", "expected a key, got a reference to one")
    if settings.model_type == "text" and provider != "openai":
        raise invalid("model_type", "expected chat or responses; only openai has text")
    litellm = _litellm(settings.model)
    try:
        _, found, key, _ = litellm.get_llm_provider(settings.model)
    except litellm.exceptions.BadRequestError:
        found, key = None, None
    if found != provider:
        known = ", ".join(PROVIDERS)
        text = (
            f"unknown provider {provider!r} in {settings.model!r}; DSPy knows {known}, and LiteLLM"
            " others"
        )
        raise invalid("model", text)
    own = settings.api_key is None and credential is None
    return Backend("litellm", (key,) if own and key else ())


def _litellm(model: str) -> Any:  # noqa: ANN401 - LiteLLM's module
    try:
        return _loaded_litellm()
    except ImportError as error:
        msg = f"{model!r} needs the package litellm, which cannot be imported: {error}"
        raise Unimplemented(msg, help="pip install litellm") from error


@functools.cache
def _loaded_litellm() -> Any:  # noqa: ANN401 - LiteLLM's module
    litellm = get_litellm(feature="language models of other providers")
    for name in _LOGGERS:  # its own handlers write to stderr, past the worker's log
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # The first call imports the rest, better here than on the event loop.
    greeting = [{"role": "user", "content": "?"}]
    litellm.completion("openai/warm-up", greeting, mock_response="!")
    return litellm
