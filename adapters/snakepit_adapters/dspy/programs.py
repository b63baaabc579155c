"""Programs: the modules that a session calls by handle."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

import dspy
import msgspec

from snakepit_adapters.dspy.agent_tools import AgentTool
from snakepit_adapters.dspy.arguments import Generation, SignatureSpec
from snakepit_adapters.dspy.guarding import awaitable
from snakepit_adapters.dspy.media import has_address
from snakepit_adapters.dspy.module_options import options_of
from snakepit_adapters.dspy.modules import KINDS, Parts, build
from snakepit_adapters.dspy.registered import signature_of
from snakepit_adapters.dspy.running import Request
from snakepit_adapters.dspy.signatures import read_signature
from snakepit_adapters.dspy.tool_specs import ToolDescription
from snakepit_adapters.dspy.values import Values, plain, refuse
from snakepit_worker.errors import InvalidArgument, NotFound, Violation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from snakepit_adapters.dspy.arguments import ResponseFormat
    from snakepit_adapters.dspy.language_models import LanguageModel
    from snakepit_adapters.dspy.signatures import Signature
    from snakepit_worker.sessions import Recipe

__all__ = ["Program", "Request"]

_STATE: Final = ("traces", "train", "demos", "signature")
"""What belongs to a predictor's state; its language model is the session's."""
_SIZE: Final = 15_000
"""Bytes that a small program takes: DSPy's module, its signature class and its type adapters."""
_NONE: Final[Mapping[str, Any]] = {}


class Program:
    """A DSPy module with its signature and the examples that it shows to the model.

    Args:
        kind: Name of DSPy's class, or of one of ours in `modules`.
        signature: What the caller declared, for modules that have one of their own.
        demos: Worked examples: values of inputs and outputs by name.
        lm: Name of the session's language model that answers.
        options: The module's own options, as JSON values.
        programs: Other programs that it calls, by name; one alone is called ``program``.
        tools: Tools that it may call.
        config: Options of each call of the model.

    Raises:
        WorkerError: When a demo does not fit the signature, a field bears the name of one that the
            class adds, a part is missing or does not belong, or the module is not allowed here.

    Attributes:
        kind: Name of the class.
        signature: What was declared and what the class adds.
        lm: Name of the session's language model that answers.
        module: DSPy's object.
        values: Checks values of the signature.
        open: Whether it gives outputs that the signature does not name.
        programs: Other programs that it calls, by name.
        tools: Tools that it may call.
    """

    def __init__(  # noqa: PLR0913 - the parts of a program
        self,
        kind: str,
        signature: Signature | None = None,
        *,
        demos: Sequence[Mapping[str, Any]] = (),
        lm: str = "default",
        options: Mapping[str, Any] = _NONE,
        programs: Mapping[str, Program] = _NONE,
        tools: Sequence[AgentTool] = (),
        config: Generation | None = None,
    ) -> None:
        self.kind = kind
        self.lm = lm
        self.programs = programs
        self.tools = tools
        self._declared = signature
        self._config = config
        self._options = options_of(kind, options)
        built = build(kind, Parts(signature, self._options, programs, tools, lm))
        self.module = built.module
        self.signature = built.signature
        self.open = built.open
        self.values = Values(built.signature)
        self._demos = [plain(dict(demo)) for demo in demos]
        if demos:
            self.set_demos(demos)

    @classmethod
    def rebuild(cls, recipe: Recipe) -> Program:
        """The program that a recipe describes, with what it has learned.

        Args:
            recipe: What ``recipe`` gave.

        Raises:
            WorkerError: When it is no such thing, or not allowed here.
        """
        source = recipe["signature"]
        declared = None
        if source is not None:
            fields = {
                part: source[part] for part in ("inputs", "outputs", "types") if part in source
            }
            declared = read_signature(
                msgspec.convert(fields, SignatureSpec), source.get("instructions")
            )
        config = recipe.get("config")
        program = cls(
            recipe["module"],
            declared,
            demos=recipe["demos"],
            lm=recipe["lm"],
            options=recipe.get("options", {}),
            programs={name: cls.rebuild(part) for name, part in recipe.get("programs", {}).items()},
            tools=[_tool(tool) for tool in recipe.get("tools", ())],
            config=None if config is None else msgspec.convert(config, Generation),
        )
        if "state" in recipe:
            program.load_state(recipe["state"])
        return program

    def recipe(self) -> Recipe:
        """What it takes to build it again, what it has learned included."""
        return self._recipe() | {"state": self.dump_state()}

    def _recipe(self) -> dict[str, Any]:
        more = {
            "options": msgspec.to_builtins(self._options),
            # What they have learned is among the state of the whole.
            "programs": {name: part._recipe() for name, part in self.programs.items()},  # noqa: SLF001 - of our own class
            "tools": [msgspec.to_builtins(tool.described) for tool in self.tools],
            "config": None if self._config is None else self._config.given(),
        }
        return {
            "module": self.kind,
            "signature": None if self._declared is None else self._declared.describe(),
            "demos": self._demos,
            "lm": self.lm,
            **{name: value for name, value in more.items() if value},
        }

    def copy(self) -> Program:
        """Another program like this one, with what this one has learned."""
        return Program.rebuild(copy.deepcopy(self.recipe()))

    def reset(self) -> None:
        """Forget what was learned; what was declared stays."""
        self.load_state(Program.rebuild(copy.deepcopy(self._recipe())).dump_state())

    def dump_state(self) -> dict[str, Any]:
        """What DSPy's optimizers change: instructions and demos by predictor, as JSON values."""
        return {
            name: {
                key: plain(value) for key, value in predictor.dump_state().items() if key in _STATE
            }
            for name, predictor in self.module.named_predictors()
        }

    def load_state(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over what another program of this form has learned.

        Args:
            state: What ``dump_state`` gave.

        Raises:
            InvalidArgument: When it belongs to another form of program, or is no state at all.
        """
        known = dict(self.module.named_predictors())
        if sorted(state) != sorted(known):
            expected = f"expected the predictors {', '.join(known)}, got {', '.join(state)}"
            raise InvalidArgument(expected, violations=[Violation("state", expected)])
        # DSPy sets every key that it does not know as an attribute.
        parts = {
            name: {key: value for key, value in part.items() if key in _STATE} | {"lm": None}
            for name, part in state.items()
        }
        try:
            for name, part in parts.items():
                copy.copy(known[name]).load_state(part)  # all or nothing
            for name, part in parts.items():
                known[name].load_state(part)
        except Exception as error:
            text = f"expected the state of such a program: {type(error).__name__}: {error}"
            raise InvalidArgument(text, violations=[Violation("state", text)]) from error

    def set_demos(self, demos: Sequence[Mapping[str, Any]], predictor: str | None = None) -> None:
        """Show other worked examples to the model.

        Args:
            demos: Values of inputs and outputs by name.
            predictor: Which predictor shows them; may be left out where there is only one.

        Raises:
            InvalidArgument: When one does not fit.
            NotFound: When there is no such predictor.
        """
        found = self.predictor(predictor)
        values = self.values
        if not KINDS[self.kind].one_predictor:
            values = Values(signature_of(found))
        checked = [values.demo(f"demos[{index}]", demo) for index, demo in enumerate(demos)]
        found.demos = [dspy.Example(demo) for demo in checked]

    def set_instructions(self, instructions: str, predictor: str | None = None) -> None:
        """Tell the model the task in other words.

        Args:
            instructions: The words.
            predictor: Which predictor says them; may be left out where there is only one.

        Raises:
            NotFound: When there is no such predictor.
        """
        found = self.predictor(predictor)
        found.signature = found.signature.with_instructions(instructions)

    def predictor(self, name: str | None = None) -> Any:  # noqa: ANN401 - DSPy has no types
        """One of the module's predictors.

        Args:
            name: Its name; may be left out where there is only one.

        Raises:
            NotFound: When there is none of the name.
            InvalidArgument: When the name is missing.
        """
        known = dict(self.module.named_predictors())
        if name is None:
            if len(known) != 1:
                text = f"expected one of {', '.join(known) or 'none'}"
                refuse([Violation("predictor", text)])
            return next(iter(known.values()))
        if name not in known:
            raise NotFound(f"no predictor {name!r}; there are {', '.join(known) or 'none'}")
        return known[name]

    @property
    def asynchronous(self) -> bool:
        """Whether the module can be awaited; some of them only block."""
        return awaitable(type(self.module))

    @property
    def size(self) -> int:
        """Bytes that it takes, more or less."""
        return _SIZE + sum(program.size for program in self.programs.values())

    def describe(self) -> dict[str, object]:
        """The program as JSON values."""
        return {
            "module": self.kind,
            "signature": self.signature.describe(),
            "sizes": self._sizes(),
            "predictors": {
                name: {
                    "instructions": predictor.signature.instructions,
                    "demos": [plain(dict(demo)) for demo in predictor.demos],
                }
                for name, predictor in self.module.named_predictors()
            },
            **{
                name: value
                for name, value in self._recipe().items()
                if name in ("options", "config")
            },
            **({"programs": self._parts()} if self.programs else {}),
            **({"tools": [tool.name for tool in self.tools]} if self.tools else {}),
        }

    def _sizes(self) -> dict[str, int]:
        predictors = self.module.predictors()
        return {
            "predictors": len(predictors),
            "demos": sum(len(predictor.demos) for predictor in predictors),
            "state_bytes": len(msgspec.json.encode(self.dump_state())),
        }

    def _parts(self) -> dict[str, object]:
        return {
            name: {"module": part.kind, "signature": part.signature.describe()}
            for name, part in self.programs.items()
        }

    def request(
        self,
        inputs: Mapping[str, Any],
        language_model: LanguageModel,
        generation: Generation | None = None,
        response_format: ResponseFormat | None = None,
    ) -> Request:
        """A call of the program, checked: DSPy itself only logs that inputs are wrong.

        Args:
            inputs: Values by input field; one whose type allows ``None`` may be left out.
            language_model: Who answers.
            generation: Options of this call.
            response_format: How the answer is laid out; the language model's way when ``None``.

        Raises:
            InvalidArgument: Naming every input that is missing, unknown or of a wrong type.
        """
        values = self.values.inputs(inputs)
        if has_address(values) and language_model.lm.engine == "litellm":  # it would fetch them
            text = "a provider that is reached by LiteLLM gets images as binary parameters only"
            refuse([Violation("inputs", text)])
        config = {} if self._config is None else self._config.given()
        if generation is not None:
            config |= generation.given()
        layout = response_format or language_model.settings.response_format
        if KINDS[self.kind].one_predictor:
            return Request(self, language_model, layout, {**values, "config": config})
        return Request(self, language_model, layout, values, config)


def _tool(recipe: Any) -> AgentTool:  # noqa: ANN401 - JSON
    return AgentTool(msgspec.convert(recipe, ToolDescription))
