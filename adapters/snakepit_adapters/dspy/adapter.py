"""`DspyAdapter`: what Elixir sees of DSPy."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from snakepit_adapters.dspy.credentials import Credentials
from snakepit_adapters.dspy.loading import loaded
from snakepit_adapters.dspy.tools.agents import AgentTools
from snakepit_adapters.dspy.tools.calls import CallTools
from snakepit_adapters.dspy.tools.datasets import DATASET, DatasetTools
from snakepit_adapters.dspy.tools.evaluation import EvaluationTools
from snakepit_adapters.dspy.tools.held import CORPUS, EMBEDDER, LM
from snakepit_adapters.dspy.tools.language_models import LanguageModelTools
from snakepit_adapters.dspy.tools.learned import LearnedTools
from snakepit_adapters.dspy.tools.older_held import KINDS, Stored
from snakepit_adapters.dspy.tools.older_names import OlderNameTools
from snakepit_adapters.dspy.tools.optimizers import OptimizerTools
from snakepit_adapters.dspy.tools.programs import ProgramTools
from snakepit_adapters.dspy.tools.retrieval import RetrievalTools
from snakepit_worker import Adapter, Rebuilt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from snakepit_worker.errors import Meaning, WorkerError
    from snakepit_worker.sessions import Recipe

__all__ = ["DspyAdapter"]


class DspyAdapter(
    LanguageModelTools,
    ProgramTools,
    CallTools,
    LearnedTools,
    AgentTools,
    RetrievalTools,
    DatasetTools,
    EvaluationTools,
    OptimizerTools,
    OlderNameTools,
    Adapter,
):
    """Language models, programs, data sets and the rest of DSPy, in the caller's session."""

    name: ClassVar[str] = "dspy"

    def __init__(self) -> None:
        self.credentials = Credentials.from_environment()

    @contextmanager
    def lifespan(self) -> Iterator[None]:
        """Import DSPy, and make the first calls before a caller waits for them."""
        with loaded():
            yield

    def meanings(self) -> Sequence[Meaning]:
        """What DSPy's exceptions mean."""
        from snakepit_adapters.dspy.failures import MEANINGS

        return MEANINGS

    def explain(self, error: BaseException, failure: WorkerError) -> WorkerError:
        """The facts that one of them carries."""
        from snakepit_adapters.dspy.failures import explain

        return explain(error, failure)

    def rebuild(self, kind: str, recipe: Recipe) -> Rebuilt:
        """What a session holds of DSPy, as another worker has described it.

        Args:
            kind: Of the resource.
            recipe: Its description.
        """
        from snakepit_adapters.dspy.embedders import ProviderEmbedder
        from snakepit_adapters.dspy.language_models import LanguageModel
        from snakepit_adapters.dspy.programs import Program
        from snakepit_adapters.dspy.retrieval import Corpus

        if kind in KINDS:
            stored = Stored(recipe)
            return Rebuilt(stored, recipe=stored.recipe)
        if kind == EMBEDDER:
            embedder = ProviderEmbedder.rebuild(recipe, self.credentials)
            return Rebuilt(embedder, recipe=embedder.recipe)
        if kind == CORPUS:
            corpus = Corpus.rebuild(recipe)
            return Rebuilt(corpus, recipe=corpus.recipe, size=corpus.size)
        if kind == DATASET:
            from snakepit_adapters.dspy.datasets import Dataset

            dataset = Dataset.rebuild(recipe)
            return Rebuilt(dataset, recipe=dataset.recipe, size=dataset.size)
        if kind == LM:
            model = LanguageModel.rebuild(recipe, self.credentials)
            return Rebuilt(model, model.close, model.recipe)
        program = Program.rebuild(recipe)
        return Rebuilt(program, recipe=program.recipe, size=program.size)
