"""Programs: the modules that a session calls by handle."""

from __future__ import annotations

import difflib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import dspy
import msgspec
from pydantic import TypeAdapter, ValidationError

from snakepit_adapters.dspy.arguments import SignatureSpec
from snakepit_adapters.dspy.failures import without
from snakepit_adapters.dspy.signatures import Field, Signature, read_signature
from snakepit_worker.errors import InvalidArgument, Violation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from snakepit_adapters.dspy.arguments import Generation, ResponseFormat
    from snakepit_adapters.dspy.language_models import LanguageModel
    from snakepit_worker.sessions import Recipe

__all__ = ["ModuleName", "Program", "Request", "answer"]

ModuleName = Literal["Predict", "ChainOfThought"]

_REASONING: Final = Field("reasoning")
"""The output that ``ChainOfThought`` puts before the others."""

_STATE: Final = ("traces", "train", "demos", "signature")
"""What belongs to a predictor's state; its language model is the session's."""

_ADAPTERS: Final[Mapping[ResponseFormat, Any]] = {
    "text": dspy.ChatAdapter(),
    "json": dspy.JSONAdapter(),
    "json_schema": dspy.JSONAdapter(),
}


class Program:
    """A DSPy module with its signature and the examples that it shows to the model.

    Args:
        kind: Name of DSPy's class.
        signature: What the caller declared.
        demos: Worked examples: values of inputs and outputs by name.
        lm: Name of the session's language model that answers.

    Raises:
        InvalidArgument: When a demo does not fit the signature, or a field bears the name of one
            that the class adds.

    Attributes:
        kind: Name of DSPy's class.
        signature: What was declared and what the class adds.
        lm: Name of the session's language model that answers.
        module: DSPy's object.
    """

    def __init__(
        self,
        kind: ModuleName,
        signature: Signature,
        *,
        demos: Sequence[Mapping[str, Any]] = (),
        lm: str = "default",
    ) -> None:
        self.kind = kind
        self.lm = lm
        self._declared = signature
        self.signature = _extended(signature) if kind == "ChainOfThought" else signature
        self._fields = {f.name: f for f in (*self.signature.inputs, *self.signature.outputs)}
        self._types: dict[str, TypeAdapter[Any]] = {
            name: TypeAdapter(field.type.annotation) for name, field in self._fields.items()
        }
        self._demos = [self._demo(f"demos[{index}]", demo) for index, demo in enumerate(demos)]
        self.module = getattr(dspy, kind)(_for_dspy(signature))
        for predictor in self.module.predictors():
            predictor.demos = [dspy.Example(demo) for demo in self._demos]

    @classmethod
    def rebuild(cls, recipe: Recipe) -> Program:
        """The program that a recipe describes, with what it has learned.

        Args:
            recipe: What ``recipe`` gave.

        Raises:
            WorkerError: When it is no such thing.
        """
        source = recipe["signature"]
        fields = {side: source[side] for side in ("inputs", "outputs")}
        declared = read_signature(
            msgspec.convert(fields, SignatureSpec), source.get("instructions")
        )
        program = cls(recipe["module"], declared, demos=recipe["demos"], lm=recipe["lm"])
        program.load_state(recipe["state"])
        return program

    def recipe(self) -> Recipe:
        """What it takes to build it again, what it has learned included."""
        return {
            "module": self.kind,
            "signature": self._declared.describe(),
            "demos": self._demos,
            "lm": self.lm,
            "state": self.dump_state(),
        }

    def dump_state(self) -> dict[str, Any]:
        """What DSPy's optimizers change: instructions and demos by predictor, as JSON values."""
        return {
            name: {key: value for key, value in predictor.dump_state().items() if key in _STATE}
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
                known[name].load_state(part)
        except Exception as error:
            text = f"expected the state of such a program: {type(error).__name__}: {error}"
            raise InvalidArgument(text, violations=[Violation("state", text)]) from error

    @property
    def asynchronous(self) -> bool:
        """Whether DSPy's class can be awaited; some of them only block."""
        return hasattr(type(self.module), "aforward")

    def describe(self) -> dict[str, object]:
        """The program as JSON values."""
        return {
            "module": self.kind,
            "signature": self.signature.describe(),
            "predictors": {
                name: {
                    "instructions": predictor.signature.instructions,
                    "demos": [dict(demo) for demo in predictor.demos],
                }
                for name, predictor in self.module.named_predictors()
            },
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
        values, violations = self._check("inputs", inputs, self.signature.inputs)
        for field in self.signature.inputs:
            if field.name not in inputs and not field.type.optional:
                missing = f"expected {field.type.text}, got nothing"
                violations.append(Violation(f"inputs.{field.name}", missing))
        _refuse(violations)
        config = {} if generation is None else generation.given()
        layout = response_format or language_model.settings.response_format
        if layout == "json_schema":
            config["response_format"] = self._response_format()
        return Request(self, language_model, layout, {**values, "config": config})

    def _demo(self, path: str, demo: Mapping[str, Any]) -> dict[str, Any]:
        values, violations = self._check(path, demo, tuple(self._fields.values()))
        for side, fields in (("input", self.signature.inputs), ("output", self.signature.outputs)):
            if not any(field.name in demo for field in fields):
                violations.append(Violation(path, f"expected at least one {side} field"))
        _refuse(violations)
        return values

    def _check(
        self, path: str, values: Mapping[str, Any], fields: Sequence[Field]
    ) -> tuple[dict[str, Any], list[Violation]]:
        names = [field.name for field in fields]
        checked: dict[str, Any] = {}
        violations: list[Violation] = []
        for name, value in values.items():
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}"
                violations.append(Violation(f"{path}.{name}", f"unknown field; {hint}"))
                continue
            try:
                checked[name] = self._types[name].validate_python(value, strict=True)
            except ValidationError as error:
                expected = f"expected {self._fields[name].type.text}, got {_kind(value)}"
                violations.append(Violation(f"{path}.{name}", expected + _place(error)))
        return checked, violations

    def _response_format(self) -> dict[str, object]:
        names = [field.name for field in self.signature.outputs]
        schema = {
            "type": "object",
            "properties": {name: self._types[name].json_schema() for name in names},
            "required": names,
            "additionalProperties": False,
        }
        named = {"name": "outputs", "schema": schema, "strict": True}
        return {"type": "json_schema", "json_schema": named}


@dataclass(frozen=True, slots=True)
class Request:
    """One call of a program.

    Attributes:
        program: What is called.
        language_model: Who answers.
        response_format: How the answer is laid out.
        arguments: Keyword arguments for DSPy's object.
    """

    program: Program
    language_model: LanguageModel
    response_format: ResponseFormat
    arguments: Mapping[str, Any]

    @contextmanager
    def settings(self) -> Iterator[None]:
        """DSPy's settings for this call, in this task alone, leaving no trace of it behind.

        DSPy keeps prompts of all sessions in lists of the process unless each call forbids it.
        """
        with (
            without(self.language_model.settings.api_key),
            dspy.context(
                lm=self.language_model.lm,
                adapter=_ADAPTERS[self.response_format],
                callbacks=[],
                disable_history=True,
                max_history_size=0,
                trace=None,
                track_usage=True,
                warn_on_type_mismatch=False,
            ),
        ):
            yield

    async def run(self, run_sync: Callable[..., Awaitable[Any]]) -> dict[str, object]:
        """Call the program and wait for its answer.

        Args:
            run_sync: Runs a blocking function elsewhere, context variables included.
        """
        module = self.program.module
        with self.settings():
            if self.program.asynchronous:
                prediction = await module.acall(**self.arguments)
            else:
                prediction = await run_sync(module, **self.arguments)
        return answer(prediction)


def answer(prediction: Any) -> dict[str, object]:  # noqa: ANN401 - DSPy has no types
    """A prediction of DSPy as plain data: the outputs, and the tokens used by model."""
    return {"outputs": prediction.toDict(), "usage": prediction.get_lm_usage() or {}}


def _extended(signature: Signature) -> Signature:
    if any(field.name == _REASONING.name for field in (*signature.inputs, *signature.outputs)):
        name = _REASONING.name
        _refuse([Violation("signature", f"field {name!r}: a chain of thought adds it by itself")])
    outputs = (_REASONING, *signature.outputs)
    return Signature(signature.inputs, outputs, signature.instructions)


def _for_dspy(signature: Signature) -> Any:  # noqa: ANN401 - DSPy has no types
    fields: dict[str, tuple[Any, Any]] = {}
    for make, side in (
        (dspy.InputField, signature.inputs),
        (dspy.OutputField, signature.outputs),
    ):
        for field in side:
            description = {} if field.description is None else {"desc": field.description}
            fields[field.name] = (field.type.annotation, make(**description))
    return dspy.make_signature(fields, signature.instructions)


def _refuse(violations: Sequence[Violation]) -> None:
    if violations:
        text = "; ".join(f"{v.field}: {v.description}" for v in violations)
        raise InvalidArgument(text, violations=violations)


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _place(error: ValidationError) -> str:
    """Where inside a container the first fault lies."""
    steps = [str(step) for step in error.errors(include_url=False, include_input=False)[0]["loc"]]
    return f" (at {'.'.join(steps)})" if steps else ""
