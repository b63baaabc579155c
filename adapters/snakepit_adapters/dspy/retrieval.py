"""Corpora: passages that are found by their meaning.

DSPy's `Embeddings` does the same with a thread for each corpus, which waits a tenth of a second for
more queries, and with one number of passages for all of them.
"""

from __future__ import annotations

import base64
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import dspy
import msgspec

from snakepit_adapters.dspy.embedders import LOCAL, LocalEmbedder
from snakepit_adapters.dspy.local_embedder import needs
from snakepit_adapters.dspy.metered import present_account
from snakepit_adapters.dspy.passages import PassageSpec
from snakepit_adapters.dspy.tools.held import CORPUS, EMBEDDER
from snakepit_worker.errors import FailedPrecondition, FrameworkError, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from snakepit_adapters.dspy.embedders import Embedder
    from snakepit_worker.sessions import Recipe, Session
    from snakepit_worker.tools.context import CallContext

__all__ = ["Corpus", "Found", "Retrieve", "embedder_of"]

_PASSAGE_SIZE: Final = 200
"""Bytes that a passage takes beside its text and its numbers."""
_SMALLEST: Final = 1e-10


@dataclass(frozen=True, slots=True)
class Found:
    """A passage that was found.

    Attributes:
        index: Its number in the corpus, from 0.
        text: The passage.
        score: Nearness to the query: 1 for the same direction, 0 for none in common.
        metadata: What else the caller said of it.
    """

    index: int
    text: str
    score: float
    metadata: dict[str, Any] | None

    def describe(self) -> dict[str, Any]:
        """The passage as JSON values."""
        described = {"index": self.index, "text": self.text, "score": round(self.score, 6)}
        return described if self.metadata is None else {**described, "metadata": self.metadata}


class Corpus:
    """Passages with their embeddings.

    Args:
        passages: The passages.
        vectors: A row of numbers for each, of length 1.
        embedder: Name of the session's embedder that made them, and that embeds the queries.
        model: The model of that one.

    Attributes:
        passages: The passages.
        embedder: Name of the embedder.
        model: Its model.
    """

    def __init__(
        self,
        passages: Sequence[PassageSpec],
        vectors: Any,  # noqa: ANN401 - a numpy array
        embedder: str,
        model: str,
    ) -> None:
        self.passages = tuple(passages)
        self.embedder = embedder
        self.model = model
        self._vectors = vectors

    @classmethod
    def embed(cls, ctx: CallContext, passages: Sequence[PassageSpec], name: str) -> Corpus:
        """Embed passages, batch by batch.  Blocks.

        Args:
            ctx: The call; told of the progress, and asked between batches whether to go on.
            passages: The passages.
            name: Name of the embedder.

        Raises:
            FailedPrecondition: When the session has no such embedder.
            Cancelled: When nobody waits any more.
        """
        needs("numpy", "retrieval", "dspy[numpy]")
        import numpy as np  # noqa: PLC0415 - optional

        rows = []
        with embedder_of(ctx.session, name) as embedder:
            size = embedder.batch_size
            for start in range(0, len(passages), size):
                ctx.checkpoint()
                ctx.progress(start / len(passages), f"{start} of {len(passages)} passages")
                batch = passages[start : start + size]
                rows.append(embedder.embed([passage.text for passage in batch]))
            model = embedder.model
        widths = {row.shape[1] for row in rows}
        if len(widths) != 1:
            raise FrameworkError(f"{model} answered with rows of different lengths")
        return cls(passages, _normalized(np.concatenate(rows)), name, model)

    @classmethod
    def rebuild(cls, recipe: Recipe) -> Corpus:
        """The corpus that a recipe describes; its embedder is not asked again.

        Args:
            recipe: What ``recipe`` gave.
        """
        needs("numpy", "retrieval", "dspy[numpy]")
        import numpy as np  # noqa: PLC0415 - optional

        passages = msgspec.convert(recipe["passages"], list[PassageSpec])
        numbers = np.frombuffer(base64.b64decode(recipe["vectors"]), dtype="<f4")
        vectors = numbers.reshape(len(passages), -1)
        return cls(passages, vectors, recipe["embedder"], recipe["model"])

    def recipe(self) -> Recipe:
        """The passages and their embeddings."""
        return {
            "passages": msgspec.to_builtins(self.passages),
            "vectors": base64.b64encode(self._vectors.astype("<f4").tobytes()).decode(),
            "embedder": self.embedder,
            "model": self.model,
        }

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        texts = sum(len(passage.text) + _PASSAGE_SIZE for passage in self.passages)
        return texts + int(self._vectors.nbytes)

    def describe(self) -> dict[str, Any]:
        """The corpus as JSON values, without its passages."""
        return {
            "passages": len(self.passages),
            "dimensions": int(self._vectors.shape[1]),
            "embedder": self.embedder,
            "model": self.model,
        }

    def search(self, session: Session, query: str, k: int) -> list[Found]:
        """The passages nearest to a query, the nearest first.  Blocks.

        Args:
            session: Has the embedder.
            query: What to look for.
            k: How many at most.

        Raises:
            FailedPrecondition: When the session has no embedder of that name any more, or another.
        """
        import numpy as np  # noqa: PLC0415 - optional

        with embedder_of(session, self.embedder) as embedder:
            if embedder.model != self.model:
                raise FailedPrecondition(
                    f"the corpus was embedded by {self.model}, and the embedder {self.embedder!r}"
                    f" is now {embedder.model}",
                    help="call dspy.corpus again, or dspy.embedder with the former model",
                )
            row = _normalized(embedder.embed([query]))[0]
        if len(row) != self._vectors.shape[1]:
            raise FrameworkError(
                f"{self.model} answered a query with {len(row)} numbers, and the passages with"
                f" {self._vectors.shape[1]}"
            )
        scores = self._vectors @ row
        nearest = np.argsort(-scores, kind="stable")[:k]
        return [self._found(int(index), float(scores[index])) for index in nearest]

    def _found(self, index: int, score: float) -> Found:
        passage = self.passages[index]
        return Found(index, passage.text, score, passage.metadata)


class Retrieve(dspy.Module):  # type: ignore[misc]  # DSPy has no types
    """A step of a program: the passages of a corpus of the caller's session.

    Args:
        corpus: Handle or name of the corpus.
        k: Passages at most.
    """

    def __init__(self, corpus: str, k: int) -> None:
        super().__init__()
        self.corpus = corpus
        self.k = k

    def forward(self, query: str) -> Any:  # noqa: ANN401 - DSPy has no types
        """The texts of the passages, the nearest first."""
        account = present_account()
        if account is None:
            raise FailedPrecondition("a corpus can only be searched while a call is served")
        session = account.call.session
        with session.lease(self.corpus, CORPUS) as corpus:
            found: list[Found] = corpus.search(session, query, self.k)
        return dspy.Prediction(passages=[passage.text for passage in found])

    async def aforward(self, query: str) -> Any:  # noqa: ANN401 - as above
        """The same for awaiting callers."""
        account = present_account()
        if account is None:
            return self.forward(query)  # which says so
        return await account.call.run_sync(self.forward, query)


@contextmanager
def embedder_of(session: Session, name: str) -> Iterator[Embedder]:
    """An embedder, which does not close before the block ends.

    Args:
        session: The session.
        name: Its name; "local" is the one of the package.

    Raises:
        FailedPrecondition: When the session has none of this name.
    """
    if name == LOCAL:
        yield LocalEmbedder()
        return
    with ExitStack() as leases:
        try:
            embedder: Embedder = leases.enter_context(session.lease(name, EMBEDDER))
        except NotFound:
            raise FailedPrecondition(
                f"no embedder {name!r} is configured in this session",
                details={"embedder": name},
                help="call dspy.embedder first, or leave it out for the local one",
            ) from None
        yield embedder


def _normalized(rows: Any) -> Any:  # noqa: ANN401 - numpy arrays
    import numpy as np  # noqa: PLC0415 - optional

    rows = np.asarray(rows, dtype=np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(lengths, _SMALLEST)
