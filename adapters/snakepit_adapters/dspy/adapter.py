"""The tools: what Elixir sees of DSPy."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

import msgspec

from snakepit_adapters.dspy.arguments import (
    Generation,
    LMSettings,
    MaxTokens,
    ResponseFormat,
    SignatureSpec,
    Temperature,
)
from snakepit_adapters.dspy.loading import Framework, loaded
from snakepit_worker import Adapter, CallContext, Rebuilt, tool
from snakepit_worker.errors import FailedPrecondition, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from snakepit_adapters.dspy.language_models import LanguageModel
    from snakepit_adapters.dspy.programs import Program
    from snakepit_worker.errors import Meaning, WorkerError
    from snakepit_worker.sessions import Recipe, Resource, Session

__all__ = ["DspyAdapter"]

_LM: Final = "dspy.lm"
_MODULE: Final = "dspy.module"
_DEFAULT: Final = "default"
_PROGRAM_SIZE: Final = 15_000
"""Bytes that a small program takes: DSPy's module, its signature class and its type adapters."""

Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]
Retries = Annotated[int, msgspec.Meta(ge=0, le=10)]


class DspyAdapter(Adapter):
    """DSPy's language models and programs, kept in the caller's session."""

    name: ClassVar[str] = "dspy"

    def __init__(self) -> None:
        self._framework: Framework | None = None

    @contextmanager
    def lifespan(self) -> Iterator[None]:
        """Import DSPy, and make the first calls before a caller waits for them."""
        with loaded() as framework:
            self._framework = framework
            yield
        self._framework = None

    def meanings(self) -> Sequence[Meaning]:
        """What DSPy's exceptions mean."""
        return self._framework.meanings if self._framework is not None else ()

    def explain(self, error: BaseException, failure: WorkerError) -> WorkerError:
        """The facts that one of them carries."""
        return self._framework.explain(error, failure) if self._framework is not None else failure

    def rebuild(self, kind: str, recipe: Recipe) -> Rebuilt:
        """A language model or a program, as another worker has described it.

        Args:
            kind: One of the two.
            recipe: Its description.
        """
        if kind == _LM:
            model = self._dspy.language_model.rebuild(recipe)
            return Rebuilt(model, model.close, model.recipe)
        program = self._dspy.program.rebuild(recipe)
        return Rebuilt(program, recipe=program.recipe, size=_PROGRAM_SIZE)

    @tool
    async def configure_lm(  # noqa: PLR0913 - the settings of a language model
        self,
        model: str,
        ctx: CallContext,
        *,
        api_base: str | None = None,
        api_key: str | None = None,
        temperature: Temperature | None = None,
        max_tokens: MaxTokens | None = None,
        timeout: Seconds = 120.0,  # noqa: ASYNC109 - of the provider, not of this call
        num_retries: Retries = 3,
        response_format: ResponseFormat = "text",
        name: str = _DEFAULT,
    ) -> dict[str, Any]:
        """Configure a language model for this session; nothing is sent to it yet.

        Programs use the one named "default" unless they name another.  A second model of the same
        name replaces the first.

        Args:
            model: "provider/model", such as "openai/gpt-4o-mini".
            ctx: The call.
            api_base: Address of an OpenAI-compatible server, or of a proxy.
            api_key: Key for the provider.  Without key and address the worker's environment counts.
            temperature: 0 for the likeliest answer, higher for more variety.
            max_tokens: Tokens of an answer at most.
            timeout: Seconds to wait for the provider's next sign of life.
            num_retries: Attempts after a first one that failed for a passing reason.
            response_format: Layout of answers: "text", "json", or "json_schema", which small models
                need.
            name: What programs call it.

        Returns:
            The handle and the settings, without the key.
        """
        settings = LMSettings(
            model=model,
            api_base=api_base,
            api_key=api_key,
            temperature=temperature,
            max_tokens=max_tokens,
            timeout=timeout,
            num_retries=num_retries,
            response_format=response_format,
        )
        configured = self._dspy.language_model.configure(settings)
        description = configured.describe()
        resource = ctx.session.put(
            _LM,
            configured,
            name=name,
            metadata=description,
            close=configured.close,
            recipe=configured.recipe,
            replace=True,
        )
        return _identity(resource) | description

    @tool
    def predict(  # noqa: PLR0913 - the parts of a program
        self,
        signature: str | SignatureSpec,
        ctx: CallContext,
        *,
        instructions: str | None = None,
        demos: list[dict[str, Any]] | None = None,
        name: str | None = None,
        lm: str = _DEFAULT,
    ) -> dict[str, Any]:
        """Create a program that answers in one step.

        Args:
            signature: "question, limit: int -> answer: list[str]", or inputs and outputs as lists
                of fields.
            ctx: The call.
            instructions: The task in words.
            demos: Worked examples to show to the model: values of inputs and outputs by name.
            name: A name of your own, to use in place of the handle.
            lm: Name of the language model that answers; it may be configured later.

        Returns:
            The handle and the signature.
        """
        declared = self._dspy.read_signature(signature, instructions)
        program = self._dspy.program("Predict", declared, demos=demos or (), lm=lm)
        return _keep(ctx.session, program, name)

    @tool
    def chain_of_thought(  # noqa: PLR0913 - the parts of a program
        self,
        signature: str | SignatureSpec,
        ctx: CallContext,
        *,
        instructions: str | None = None,
        demos: list[dict[str, Any]] | None = None,
        name: str | None = None,
        lm: str = _DEFAULT,
    ) -> dict[str, Any]:
        """Create a program that reasons before it answers, in an output named "reasoning".

        Args:
            signature: "question, limit: int -> answer: list[str]", or inputs and outputs as lists
                of fields.
            ctx: The call.
            instructions: The task in words.
            demos: Worked examples to show to the model: values of inputs and outputs by name.
            name: A name of your own, to use in place of the handle.
            lm: Name of the language model that answers; it may be configured later.

        Returns:
            The handle and the signature.
        """
        declared = self._dspy.read_signature(signature, instructions)
        program = self._dspy.program("ChainOfThought", declared, demos=demos or (), lm=lm)
        return _keep(ctx.session, program, name)

    @tool
    async def call(  # noqa: PLR0913 - inputs, and what may differ from call to call
        self,
        handle: str,
        inputs: dict[str, Any],
        ctx: CallContext,
        *,
        config: Generation | None = None,
        response_format: ResponseFormat | None = None,
        lm: str | None = None,
    ) -> dict[str, Any]:
        """Call a program and wait for its outputs.

        Args:
            handle: Handle or name of the program.
            inputs: Values by input field; one whose type allows null may be left out.
            ctx: The call.
            config: Options of this call, such as temperature.
            response_format: Layout of the answer, where it differs from the language model's.
            lm: Another language model than the program's.

        Returns:
            The outputs, and the tokens used by model.
        """
        async with _leased(ctx.session, handle, lm) as (program, model):
            request = program.request(inputs, model, config, response_format)
            return await request.run(ctx.run_sync)

    @tool
    async def stream(  # noqa: PLR0913 - as call
        self,
        handle: str,
        inputs: dict[str, Any],
        ctx: CallContext,
        *,
        config: Generation | None = None,
        response_format: ResponseFormat | None = None,
        lm: str | None = None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Call a program and follow its outputs as the model writes them.

        Args:
            handle: Handle or name of the program.
            inputs: Values by input field; one whose type allows null may be left out.
            ctx: The call.
            config: Options of this call, such as temperature.
            response_format: Layout of the answer, where it differs from the language model's.
            lm: Another language model than the program's.

        Yields:
            {"type": "token", "field", "text"} for each piece of an output of type str, and last
            {"type": "prediction", "outputs", "usage"}.
        """
        async with _leased(ctx.session, handle, lm) as (program, model):
            request = program.request(inputs, model, config, response_format)
            async with aclosing(self._dspy.stream(request)) as events:
                async for event in events:
                    yield event

    @tool
    def dump_state(self, handle: str, ctx: CallContext) -> dict[str, Any]:
        """Show what a program has learned: the instructions and demos of its predictors.

        Args:
            handle: Handle or name of the program.
            ctx: The call.

        Returns:
            The state by predictor, for `dspy.load_state`.
        """
        with ctx.session.lease(handle, _MODULE) as program:
            state: dict[str, Any] = program.dump_state()
            return state

    @tool
    def load_state(
        self, handle: str, state: dict[str, dict[str, Any]], ctx: CallContext
    ) -> dict[str, Any]:
        """Give a program what another one of its form has learned.

        Calls that run keep what the program knew before; those that follow wait for the change.

        Args:
            handle: Handle or name of the program.
            state: What `dspy.dump_state` gave.
            ctx: The call.

        Returns:
            The program's handle, kind and name.
        """
        with ctx.session.lease(handle, _MODULE, exclusive=True) as program:
            program.load_state(state)
        return _identity(ctx.session.get(handle))

    @tool
    async def inspect(self, handle: str, ctx: CallContext) -> dict[str, Any]:
        """Show a program: its signature, its demos, and the language model that would answer.

        Args:
            handle: Handle or name of the program.
            ctx: The call.
        """
        resource = ctx.session.get(handle, _MODULE)
        program: Program = resource.value
        try:
            lm = _identity(found := ctx.session.get(program.lm, _LM)) | found.value.describe()
        except NotFound:
            lm = None
        return _identity(resource) | program.describe() | {"lm": lm}

    @property
    def _dspy(self) -> Framework:
        if self._framework is None:
            raise Unavailable("DSPy is not loaded in this worker")
        return self._framework


@asynccontextmanager
async def _leased(
    session: Session, handle: str, lm: str | None
) -> AsyncIterator[tuple[Program, LanguageModel]]:
    """A program and the language model that answers, neither of which closes before the block ends.

    Raises:
        NotFound: When the session has no such program.
        FailedPrecondition: When it has no such language model.
    """
    async with AsyncExitStack() as leases:
        program: Program = await leases.enter_async_context(session.lease(handle, _MODULE))
        name = lm or program.lm
        try:
            model = await leases.enter_async_context(session.lease(name, _LM))
        except NotFound:
            raise FailedPrecondition(
                f"no language model {name!r} is configured in this session",
                details={"lm": name},
                help="call dspy.configure_lm first",
            ) from None
        yield program, model


def _keep(session: Session, program: Program, name: str | None) -> dict[str, Any]:
    facts = {"module": program.kind, "lm": program.lm}
    resource = session.put(
        _MODULE, program, name=name, metadata=facts, recipe=program.recipe, size=_PROGRAM_SIZE
    )
    return _identity(resource) | facts | {"signature": program.signature.describe()}


def _identity(resource: Resource) -> dict[str, Any]:
    return {"handle": resource.handle, "kind": resource.kind, "name": resource.name}
