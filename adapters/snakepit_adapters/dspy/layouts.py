"""How answers are laid out: DSPy's adapters, which here keep the limits of outputs as well.

DSPy tells the model of the limits of an output and then takes any value of its type.  It finds the
listeners of a stream by the names of the adapters' classes, so these bear the same names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from weakref import WeakKeyDictionary

import dspy
from pydantic import TypeAdapter, ValidationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from snakepit_adapters.dspy.arguments import ResponseFormat

__all__ = ["LAYOUTS"]


class _Limits:
    """The limited outputs of each signature, which DSPy's classes of signatures are asked once."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Any, dict[str, TypeAdapter[Any]]] = WeakKeyDictionary()

    def check(self, adapter: str, signature: Any, answer: str, outputs: dict[str, Any]) -> None:  # noqa: ANN401
        """Refuse outputs beyond their limits, as DSPy refuses outputs of other types.

        Raises:
            dspy.AdapterParseError: Naming the output.
        """
        limited = self._known.get(signature)
        if limited is None:
            limited = self._known[signature] = {
                name: TypeAdapter(_limited(field))
                for name, field in signature.output_fields.items()
                if field.metadata
            }
        for name, kind in limited.items():
            try:
                kind.validate_python(outputs.get(name))
            except ValidationError as error:
                reason = error.errors(include_url=False, include_input=False)[0]["msg"]
                raise dspy.AdapterParseError(
                    adapter_name=adapter,
                    signature=signature,
                    lm_response=answer,
                    message=f"output {name}: {reason}",
                    parsed_result=outputs,
                ) from None


def _limited(field: Any) -> Any:  # noqa: ANN401 - pydantic's description of a field
    return Annotated[(field.annotation, *field.metadata)]


_limits: Final = _Limits()


class _JSONAdapter(dspy.JSONAdapter):  # type: ignore[misc]  # DSPy has no types
    """A JSON object, constrained where DSPy knows that the model can be."""

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:  # noqa: ANN401
        """The outputs of an answer."""
        outputs: dict[str, Any] = super().parse(signature, completion)
        _limits.check("JSONAdapter", signature, completion, outputs)
        return outputs


class _SchemaAdapter(_JSONAdapter):
    """The same, with a JSON Schema in every request, of whichever predictor."""

    def __init__(self) -> None:
        super().__init__()
        self._schemas: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()

    def _prepare_response_format(self, _: Any, lm_kwargs: dict[str, Any], signature: Any) -> None:  # noqa: ANN401
        schema = self._schemas.get(signature)
        if schema is None:
            schema = self._schemas[signature] = _schema(signature)
        lm_kwargs["response_format"] = schema


class _ChatAdapter(dspy.ChatAdapter):  # type: ignore[misc]  # DSPy has no types
    """Field markers."""

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:  # noqa: ANN401
        """The outputs of an answer."""
        outputs: dict[str, Any] = super().parse(signature, completion)
        _limits.check("ChatAdapter", signature, completion, outputs)
        return outputs

    def _make_json_adapter_fallback(self) -> Any:  # noqa: ANN401
        return LAYOUTS["json"]


_JSONAdapter.__name__ = _SchemaAdapter.__name__ = "JSONAdapter"
_ChatAdapter.__name__ = "ChatAdapter"


def _schema(signature: Any) -> dict[str, Any]:  # noqa: ANN401 - DSPy has no types
    names = list(signature.output_fields)
    keys: list[tuple[str, Literal["validation"], TypeAdapter[Any]]] = [
        (name, "validation", TypeAdapter(_limited(field) if field.metadata else field.annotation))
        for name, field in signature.output_fields.items()
    ]
    schemas, definitions = TypeAdapter.json_schemas(keys)
    schema = {
        "type": "object",
        "properties": {name: schemas[name, "validation"] for name in names},
        "required": names,
        "additionalProperties": False,
        **definitions,
    }
    named = {"name": "outputs", "schema": schema, "strict": True}
    return {"type": "json_schema", "json_schema": named}


LAYOUTS: Final[Mapping[ResponseFormat, Any]] = {
    "text": _ChatAdapter(),
    "json": _JSONAdapter(),
    "json_schema": _SchemaAdapter(),
}
"""The adapter for each way to lay out an answer."""
