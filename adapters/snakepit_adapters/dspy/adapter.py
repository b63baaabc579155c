"""`DspyAdapter`: what Elixir sees of DSPy."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from snakepit_adapters.dspy.loading import loaded
from snakepit_adapters.dspy.tools.held import LM
from snakepit_adapters.dspy.tools.language_models import LanguageModelTools
from snakepit_adapters.dspy.tools.programs import PROGRAM_SIZE, ProgramTools
from snakepit_worker import Adapter, Rebuilt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from snakepit_worker.errors import Meaning, WorkerError
    from snakepit_worker.sessions import Recipe

__all__ = ["DspyAdapter"]


class DspyAdapter(LanguageModelTools, ProgramTools, Adapter):
    """DSPy's language models and programs, kept in the caller's session."""

    name: ClassVar[str] = "dspy"

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
        """A language model or a program, as another worker has described it.

        Args:
            kind: One of the two.
            recipe: Its description.
        """
        from snakepit_adapters.dspy.language_models import LanguageModel
        from snakepit_adapters.dspy.programs import Program

        if kind == LM:
            model = LanguageModel.rebuild(recipe)
            return Rebuilt(model, model.close, model.recipe)
        program = Program.rebuild(recipe)
        return Rebuilt(program, recipe=program.recipe, size=PROGRAM_SIZE)
