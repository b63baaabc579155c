"""Tools over the embedders and corpora of a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from snakepit_adapters.dspy.passages import PassageSpec, read_passages
from snakepit_adapters.dspy.tools.held import CORPUS, EMBEDDER, identity
from snakepit_worker import CallContext, tool
from snakepit_worker.errors import InvalidArgument, Violation

if TYPE_CHECKING:
    from snakepit_adapters.dspy.credentials import Credentials

__all__ = ["RetrievalTools"]

_Dimensions = Annotated[int, msgspec.Meta(ge=1, le=65_536)]
_Batch = Annotated[int, msgspec.Meta(ge=1, le=2048)]
_Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]
_Retries = Annotated[int, msgspec.Meta(ge=0, le=10)]
_Number = Annotated[int, msgspec.Meta(ge=1, le=1000)]


class RetrievalTools:
    """Configuring embedders; making corpora, and searching them."""

    credentials: Credentials

    @tool
    def embedder(  # noqa: PLR0913 - the settings of an embedder
        self,
        model: str,
        ctx: CallContext,
        *,
        api_base: str | None = None,
        api_key: str | None = None,
        credential: str | None = None,
        dimensions: _Dimensions | None = None,
        batch_size: _Batch = 100,
        timeout: _Seconds = 60.0,
        num_retries: _Retries = 3,
        name: str = "default",
    ) -> dict[str, Any]:
        """Configure an embedder of a provider for this session; nothing is sent to it yet.

        The one named "local" is always there and comes with a package.  The first embedder of a
        worker takes seconds, since LiteLLM is imported.

        Args:
            model: "provider/model", such as "openai/text-embedding-3-small".
            ctx: The call.
            api_base: Address of an OpenAI-compatible server.
            api_key: Key for the provider.  Without key and address the worker's environment counts.
            credential: Name of a key that the worker's operator has declared.
            dimensions: Numbers for each text, where the model leaves a choice.
            batch_size: Texts in a request at most.
            timeout: Seconds to wait for the provider.
            num_retries: Attempts after a first one that failed for a passing reason.
            name: What corpora call it.

        Returns:
            The handle and the settings, without the key.
        """
        from snakepit_adapters.dspy.embedders import LOCAL, EmbedderSettings, ProviderEmbedder

        if name == LOCAL:
            text = f"{LOCAL!r} is the embedder of the package; expected another name"
            raise InvalidArgument(f"name: {text}", violations=[Violation("name", text)])
        settings = EmbedderSettings(
            model=model,
            api_base=api_base,
            api_key=api_key,
            credential=credential,
            dimensions=dimensions,
            batch_size=batch_size,
            timeout=timeout,
            num_retries=num_retries,
        )
        configured = ProviderEmbedder.configure(settings, self.credentials)
        described = configured.describe()
        resource = ctx.session.put(
            EMBEDDER,
            configured,
            name=name,
            metadata=described,
            recipe=configured.recipe,
            replace=True,
        )
        return identity(resource) | described

    @tool
    def corpus(  # noqa: PLR0913, PLR0917 - the parts of a corpus
        self,
        ctx: CallContext,
        passages: list[str | PassageSpec] | None = None,
        jsonl: bytes | None = None,
        embedder: str = "local",
        name: str | None = None,
        replace: bool = False,  # noqa: FBT001, FBT002 - arguments come by name
    ) -> dict[str, Any]:
        """Embed passages and keep them for searches, at most 20,000.

        Args:
            ctx: The call.
            passages: Texts, or objects with "text" and "metadata".
            jsonl: The same as lines of JSON, as a binary parameter.
            embedder: Name of the embedder; "local" is the one of a package.
            name: A name of your own, to use in place of the handle.
            replace: Whether a corpus of that name is replaced.

        Returns:
            The handle, the number of passages and the embedder.
        """
        from snakepit_adapters.dspy.retrieval import Corpus

        made = Corpus.embed(ctx, read_passages(passages, jsonl), embedder)
        described = made.describe()
        resource = ctx.session.put(
            CORPUS,
            made,
            name=name,
            metadata=described,
            recipe=made.recipe,
            size=made.size,
            replace=replace,
        )
        return identity(resource) | described

    @tool
    def search(self, corpus: str, query: str, ctx: CallContext, k: _Number = 5) -> dict[str, Any]:
        """Find the passages of a corpus that are nearest in meaning to a query.

        Args:
            corpus: Handle or name of the corpus.
            query: What to look for.
            ctx: The call.
            k: Passages at most.

        Returns:
            The passages with index, text, score and metadata, the nearest first.
        """
        with ctx.session.lease(corpus, CORPUS) as found:
            passages = found.search(ctx.session, query, k)
        return {"passages": [passage.describe() for passage in passages]}
