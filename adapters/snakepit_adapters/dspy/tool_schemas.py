"""JSON Schemas of the arguments of agents' tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["closed", "from_parameters", "inlined", "without_bytes"]

_TYPES: Final = {
    **dict.fromkeys(("string", "str", "text", "binary", "atom", "date", "datetime"), "string"),
    **dict.fromkeys(("integer", "int", "non_neg_integer", "pos_integer"), "integer"),
    **dict.fromkeys(("number", "float", "double", "decimal"), "number"),
    **dict.fromkeys(("boolean", "bool"), "boolean"),
    **dict.fromkeys(("array", "list"), "array"),
    **dict.fromkeys(("object", "map", "dict", "keyword"), "object"),
}
"""JSON types by the names that Elixir and Python code registers tools with; types are free text."""

_KEYWORDS: Final[dict[str, type | tuple[type, ...]]] = {
    "enum": list,
    "pattern": str,
    "format": str,
    "items": dict,
    "properties": dict,
    "required": list,
    "minimum": (int, float),
    "maximum": (int, float),
    "exclusiveMinimum": (int, float),
    "exclusiveMaximum": (int, float),
    "multipleOf": (int, float),
    "minLength": int,
    "maxLength": int,
    "minItems": int,
    "maxItems": int,
}
"""Validations that are JSON Schema already, and what they have to be."""

_CHOICES: Final = ("choices", "one_of", "in")
_BOUNDS: Final = {
    "string": ("minLength", "maxLength"),
    "array": ("minItems", "maxItems"),
    "integer": ("minimum", "maximum"),
    "number": ("minimum", "maximum"),
}
"""What ``min`` and ``max`` bound, by type."""

_LENGTHS: Final = {"min_length": 0, "max_length": 1}
_DEEPEST: Final = 8
"""References that are followed inside of each other; a schema may refer to itself."""


def from_parameters(parameters: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The schema of a tool whose parameters the host describes one by one.

    Args:
        parameters: Each with name, type, description, required, default and validation.
    """
    properties = {}
    required = []
    for parameter in parameters:
        name = parameter["name"]
        properties[name] = _property(parameter)
        if parameter["required"]:
            required.append(name)
    return closed({"type": "object", "properties": properties, "required": required})


def _property(parameter: Mapping[str, Any]) -> dict[str, Any]:
    kind = _TYPES.get(parameter["type"].strip().lower().removeprefix(":"))
    schema: dict[str, Any] = {} if kind is None else {"type": kind}
    if parameter["description"]:
        schema["description"] = parameter["description"]
    if parameter["default"] is not None:
        schema["default"] = parameter["default"]
    rules = parameter["validation"]
    if not isinstance(rules, dict):
        return schema
    for keyword, expected in _KEYWORDS.items():
        if keyword in rules and isinstance(rules[keyword], expected):
            schema[keyword] = rules[keyword]
    for word in _CHOICES:
        if isinstance(rules.get(word), list):
            schema.setdefault("enum", rules[word])
    bounds = _BOUNDS.get(kind or "")
    for word, place in {"min": 0, "max": 1, **_LENGTHS}.items():
        if bounds is not None and isinstance(rules.get(word), int | float):
            schema.setdefault(bounds[place], rules[word])
    return schema


def closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema of an object that has no other properties than those it names.

    Args:
        schema: The schema.
    """
    return {"properties": {}, "required": [], **schema, "additionalProperties": False}


def without_bytes(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """A schema of a tool of this worker without its binary parameters.

    Args:
        schema: The schema.

    Returns:
        The rest, or ``None`` where one of them is required.
    """
    definitions = schema.get("$defs", {})
    binary = {
        name
        for name, part in schema.get("properties", {}).items()
        if _is_binary(inlined(part, definitions))
    }
    if binary.intersection(schema.get("required", ())):
        return None
    kept = {name: part for name, part in schema["properties"].items() if name not in binary}
    return {**schema, "properties": kept}


def inlined(schema: Any, definitions: Mapping[str, Any], depth: int = _DEEPEST) -> Any:  # noqa: ANN401 - any JSON
    """A schema with what it refers to in place of the references.

    Args:
        schema: The schema, or a part of one.
        definitions: What it refers to by ``#/$defs/NAME``.
        depth: References to follow inside of each other.
    """
    if isinstance(schema, list):
        return [inlined(item, definitions, depth) for item in schema]
    if not isinstance(schema, dict):
        return schema
    reference = schema.get("$ref")
    if isinstance(reference, str):
        target = definitions.get(reference.rpartition("/")[2])
        if target is None or depth == 0:
            return {"description": "any value"}
        return inlined(target, definitions, depth - 1)
    return {key: inlined(value, definitions, depth) for key, value in schema.items()}


def _is_binary(schema: Mapping[str, Any]) -> bool:
    if schema.get("contentEncoding") == "base64":
        return True
    return any(part.get("contentEncoding") == "base64" for part in schema.get("anyOf", ()))
