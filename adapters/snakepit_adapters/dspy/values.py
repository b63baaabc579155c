"""Values of a signature's fields: checked on their way in, plain data on their way out."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from pydantic import Field as Limits
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from snakepit_adapters.dspy.media import MediaError, from_json
from snakepit_worker.errors import InvalidArgument, Violation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from snakepit_adapters.dspy.signatures import Field, Signature

__all__ = ["Values", "outputs_of", "plain", "refuse"]

_MARKER: Final = "<<CUSTOM-TYPE-START-IDENTIFIER>>"
"""What stands behind it in a prompt DSPy takes for an image or a file, with an address to fetch."""
_MEDIA: Final = "a binary parameter of the call, such as inputs.photo, or an address of an image"
_PLAIN: Final = frozenset({str, int, float, bool, type(None)})


class Values:
    """Checks values of the fields of a signature.

    Args:
        signature: The signature.
    """

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._fields = {f.name: f for f in (*signature.inputs, *signature.outputs)}
        self._types: dict[str, TypeAdapter[Any]] = {
            name: TypeAdapter(_annotation(field)) for name, field in self._fields.items()
        }

    def inputs(self, inputs: Mapping[str, Any], path: str = "inputs") -> dict[str, Any]:
        """The inputs of a call as DSPy wants them; it would itself only log that they are wrong.

        Args:
            inputs: Values by field; one whose type allows ``None`` may be left out.
            path: What violations call them.

        Raises:
            InvalidArgument: Naming every input that is missing, unknown or of a wrong type.
        """
        values, violations = self._check(path, inputs, self._signature.inputs)
        for field in self._signature.inputs:
            if field.name not in inputs and not field.type.optional:
                missing = f"expected {field.type.text}, got nothing"
                violations.append(Violation(f"{path}.{field.name}", missing))
        refuse(violations)
        return values

    def wrong(self, inputs: Mapping[str, Any], path: str) -> list[Violation]:
        """What is wrong with some of the inputs of a call.

        Args:
            inputs: Values by field.
            path: What violations call them.
        """
        return self._check(path, inputs, self._signature.inputs)[1]

    def demo(self, path: str, demo: Mapping[str, Any]) -> dict[str, Any]:
        """A worked example as DSPy wants it.

        Args:
            path: What violations call it.
            demo: Values by input and output field; not all of them have to be there.

        Raises:
            InvalidArgument: When it does not fit the signature.
        """
        signature = self._signature
        fields = tuple(field for field in self._fields.values() if field.type.media is None)
        values, violations = self._check(path, demo, fields)
        for side, of in (("input", signature.inputs), ("output", signature.outputs)):
            if not any(field.name in demo for field in of):
                violations.append(Violation(path, f"expected at least one {side} field"))
        refuse(violations)
        return values

    def schemas(self) -> dict[str, Any]:
        """JSON Schemas of the inputs and of the outputs, each of an object."""
        signature = self._signature
        return {
            "inputs": self._schema(signature.inputs, required=True),
            "outputs": self._schema(signature.outputs, required=False),
        }

    def _schema(self, fields: Sequence[Field], *, required: bool) -> dict[str, Any]:
        keys = [
            (field.name, "validation", self._types[field.name])
            for field in fields
            if field.type.media is None
        ]
        schemas, definitions = TypeAdapter.json_schemas(keys)  # type: ignore[arg-type]
        properties: dict[str, Any] = {}
        shape: dict[str, Any]
        for field in fields:
            if field.type.media is None:
                shape = dict(schemas[field.name, "validation"])
            else:
                shape = {"title": field.type.text, "description": _MEDIA}
            if field.description is not None:
                shape["description"] = field.description
            properties[field.name] = shape
        return {
            "type": "object",
            "properties": properties,
            "required": [f.name for f in fields if not (required and f.type.optional)],
            "additionalProperties": False,
            **definitions,
        }

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
                checked[name] = self._read(name, value)
            except ValidationError as error:
                violations.append(
                    Violation(f"{path}.{name}", _wrong(self._fields[name], value, error))
                )
            except MediaError as error:
                violations.append(Violation(f"{path}.{name}", str(error)))
        return checked, violations

    def _read(self, name: str, value: Any) -> Any:  # noqa: ANN401 - of any type
        field_type = self._fields[name].type
        if field_type.media is not None:
            value = from_json(value, field_type.media)
            return self._types[name].validate_python(value, strict=True)
        if type(value) is str:
            marked = _MARKER in value
        else:
            marked = type(value) not in _PLAIN and _MARKER in _text(value)
            if _has_bytes(value):
                raise MediaError(f"expected {field_type.text}, got bytes")
        if marked:
            raise MediaError(f"{_MARKER} is DSPy's own")
        if field_type.converted:
            # As JSON a date is a text and an object has no class, and all else stays strict.
            return self._types[name].validate_json(msgspec.json.encode(value), strict=True)
        return self._types[name].validate_python(value, strict=True)


def outputs_of(prediction: Any) -> dict[str, Any]:  # noqa: ANN401 - DSPy has no types
    """The outputs of a prediction as plain data.

    Args:
        prediction: DSPy's.
    """
    return {name: plain(value) for name, value in prediction.items()}


def plain(value: Any) -> Any:  # noqa: ANN401 - of any type
    """A value as JSON has it.

    Args:
        value: Of any type.
    """
    if type(value) in _PLAIN:
        return value
    return to_jsonable_python(value, bytes_mode="base64", fallback=str)


def refuse(violations: Sequence[Violation]) -> None:
    """Refuse the call if anything is wrong with it.

    Args:
        violations: What is wrong.

    Raises:
        InvalidArgument: When there is any.
    """
    if violations:
        text = "; ".join(f"{v.field}: {v.description}" for v in violations)
        raise InvalidArgument(text, violations=violations)


def _annotation(field: Field) -> Any:  # noqa: ANN401 - any type
    if not field.limits:
        return field.type.annotation
    return Annotated[field.type.annotation, Limits(**field.limits)]


def _has_bytes(value: object) -> bool:
    if isinstance(value, list):
        return any(map(_has_bytes, value))
    if isinstance(value, dict):
        return any(map(_has_bytes, value.values()))
    return isinstance(value, bytes)


def _text(value: object) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError):
        return ""


def _wrong(field: Field, value: object, error: ValidationError) -> str:
    """What is wrong with a value: its type, or a limit that it does not keep."""
    first = error.errors(include_url=False, include_input=False)[0]
    steps = [str(step) for step in first["loc"]]
    place = f" (at {'.'.join(steps)})" if steps else ""
    if "type" in first["type"] or first["type"].endswith(("parsing", "union_tag_invalid")):
        kind = "null" if value is None else type(value).__name__
        return f"expected {field.type.text}, got {kind}{place}"
    return f"expected {field.type.text}: {first['msg']}{place}"
