"""Embedders: what turns texts into numbers that are near each other where the meanings are."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import dspy
from dspy.clients.engines.litellm_errors import litellm_errors
from dspy.clients.errors import error_boundary

from snakepit_adapters.dspy.arguments import LMSettings
from snakepit_adapters.dspy.credentials import Credentials, archived, restored
from snakepit_adapters.dspy.failures import without
from snakepit_adapters.dspy.language_models import LanguageModel
from snakepit_adapters.dspy.local_embedder import PACKAGE, local_embeddings, needs
from snakepit_adapters.dspy.metered import present_account
from snakepit_adapters.dspy.usage import Spent
from snakepit_worker.errors import FailedPrecondition, FrameworkError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from snakepit_worker.sessions import Recipe

__all__ = ["LOCAL", "Embedder", "EmbedderSettings", "LocalEmbedder", "ProviderEmbedder"]

LOCAL: Final = "local"
"""Name of the embedder that every session has."""

_UNDECLARED: Final = Credentials()
_NOT_FOR_EMBEDDERS: Final = ("temperature", "max_tokens", "max_completion_tokens", "num_retries")


class Embedder(Protocol):
    """Turns texts into rows of numbers.

    Attributes:
        model: What makes them; those of different models cannot be compared.
        batch_size: Texts to embed at once.
    """

    @property
    def model(self) -> str: ...  # noqa: D102 - see above

    @property
    def batch_size(self) -> int: ...  # noqa: D102 - see above

    def embed(self, texts: Sequence[str]) -> Any:  # noqa: ANN401 - a numpy array
        """A row for each text.  Blocks."""


class LocalEmbedder:
    """The embedder of a package, the same one for all sessions: it keeps nothing of theirs."""

    model = f"{LOCAL}/{PACKAGE}"
    batch_size = 500

    def embed(self, texts: Sequence[str]) -> Any:  # noqa: ANN401 - see Embedder
        """A row for each text."""
        return local_embeddings(texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderSettings:
    """An embedder of a provider as the caller describes it.

    Attributes:
        model: ``provider/model``.
        api_base: Address of the provider; the provider's own when ``None``.
        api_key: Key for the provider.
        credential: Name of a key that the operator has declared.
        dimensions: Numbers for each text, where the model leaves a choice.
        batch_size: Texts in a request at most.
        timeout: Seconds to wait for the provider.
        num_retries: Attempts after a first one that failed for a passing reason.
    """

    model: str
    api_base: str | None = None
    api_key: str | None = field(default=None, repr=False)
    credential: str | None = None
    dimensions: int | None = None
    batch_size: int = 100
    timeout: float = 60.0
    num_retries: int = 3


class ProviderEmbedder:
    """An embedder of a provider, as DSPy calls it.

    Args:
        settings: What the caller said.
        embed: DSPy's object.
        secrets: What no exception may quote.

    Attributes:
        settings: What the caller said.
    """

    def __init__(
        self, settings: EmbedderSettings, embed: Callable[..., Any], secrets: Sequence[str]
    ) -> None:
        self.settings = settings
        self._embed = embed
        self._secrets = tuple(secrets)

    @classmethod
    def configure(
        cls, settings: EmbedderSettings, credentials: Credentials = _UNDECLARED
    ) -> ProviderEmbedder:
        """The embedder.  Nothing is sent yet; blocks for seconds while LiteLLM is imported.

        Args:
            settings: What the caller said.
            credentials: What the operator declared.

        Raises:
            InvalidArgument: When the settings name no provider that is served, no web address, no
                declared credential or one for something else.
            Unimplemented: When LiteLLM is not installed, through which DSPy reaches embedders.
            FailedPrecondition: When numpy is not installed.
        """
        needs("numpy", "retrieval", "dspy[numpy]")
        # Who may be reached with which key is decided in one place, for all kinds of models.
        reached = LanguageModel.configure(
            LMSettings(
                model=settings.model,
                engine="litellm",
                api_base=settings.api_base,
                api_key=settings.api_key,
                credential=settings.credential,
                timeout=settings.timeout,
            ),
            credentials,
        ).lm
        options = {
            name: value
            for name, value in reached.kwargs.items()
            if name not in _NOT_FOR_EMBEDDERS and value is not None
        }
        if settings.dimensions is not None:
            options["dimensions"] = settings.dimensions
            # LiteLLM refuses it for names that it does not know.
            options["allowed_openai_params"] = ["dimensions"]
        embed = dspy.Embedder(
            settings.model,
            batch_size=settings.batch_size,
            # DSPy's cache looks at neither key nor address, as that of language models.
            caching=False,
            num_retries=settings.num_retries,
            **options,
        )
        return cls(settings, embed, reached.secrets)

    @classmethod
    def rebuild(cls, recipe: Recipe, credentials: Credentials = _UNDECLARED) -> ProviderEmbedder:
        """The embedder that a recipe describes.

        Args:
            recipe: What ``recipe`` gave.
            credentials: What the operator of this worker declared.

        Raises:
            FailedPrecondition: When it had a key of its own.
        """
        settings = restored(recipe)
        if settings.pop("api_key_given"):
            msg = "its API key was given in the call, and such keys are never stored"
            raise FailedPrecondition(msg, help="call dspy.embedder again")
        return cls.configure(EmbedderSettings(**settings), credentials)

    @property
    def model(self) -> str:
        """``provider/model``, with the dimensions where the caller chose them."""
        chosen = self.settings.dimensions
        return self.settings.model + ("" if chosen is None else f" ({chosen} dimensions)")

    @property
    def batch_size(self) -> int:
        """Texts to embed at once."""
        return self.settings.batch_size

    def recipe(self) -> Recipe:
        """What it takes to configure it again, without its key."""
        return archived(self.describe())

    def describe(self) -> dict[str, object]:
        """The embedder as JSON values, without its key."""
        described = dataclasses.asdict(self.settings)
        described["api_key_given"] = described.pop("api_key") is not None
        return described

    def embed(self, texts: Sequence[str]) -> Any:  # noqa: ANN401 - see Embedder
        """A row for each text, from the provider.

        Args:
            texts: The texts.

        Raises:
            dspy.LMError: When the provider refuses or does not answer.
            FrameworkError: When it answers something else than a row for each text.
        """
        model = self.settings.model
        provider = model.partition("/")[0]
        spent = Spent(calls=1, unpriced=1)
        begun = time.monotonic()
        try:
            with (
                without(*self._secrets),
                error_boundary(model, provider=provider, unexpected=True),
                litellm_errors(model=model, provider=provider),
            ):
                rows = self._embed(list(texts))
        except BaseException:
            spent.failures, spent.unpriced = 1, 0
            raise
        finally:
            spent.seconds = time.monotonic() - begun
            account = present_account()
            if account is not None:
                account.add(model, spent)
        if rows.ndim != _ROWS or len(rows) != len(texts):
            msg = f"{model} answered {len(texts)} texts with an array of shape {rows.shape}"
            raise FrameworkError(msg)
        return rows


_ROWS: Final = 2
"""Dimensions of an array of rows."""
