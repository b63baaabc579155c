"""Passages as callers give them.  Does not import DSPy."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from snakepit_worker.errors import InvalidArgument, Violation

__all__ = ["PassageSpec", "read_passages"]

_MOST: Final = 20_000
_LONGEST: Final = 100_000
"""Characters of a passage.  Embedders read the beginning at most."""
_MOST_TEXT: Final = 32 * 1024 * 1024
"""Characters of all passages."""
_SHOWN: Final = 10


class PassageSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A passage.

    Attributes:
        text: What is searched.
        metadata: What comes along where it is found.
    """

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=_LONGEST)]
    metadata: dict[str, Any] | None = None


def read_passages(given: list[str | PassageSpec] | None, jsonl: bytes | None) -> list[PassageSpec]:
    """The passages of a corpus.

    Args:
        given: Texts, or objects with more.
        jsonl: The same as lines of JSON.

    Raises:
        InvalidArgument: When there are none, too many, or some that are none.
    """
    if (given is None) == (jsonl is None):
        raise _invalid([Violation("passages", "expected either passages or jsonl")])
    if given is not None:
        passages, violations = _checked(given)
    else:
        passages, violations = _lines(jsonl or b"")
    if not passages and not violations:
        violations = [Violation("passages" if jsonl is None else "jsonl", "expected at least one")]
    if len(passages) > _MOST:
        violations = [Violation("passages", f"expected {_MOST} at most, got {len(passages)}")]
    characters = sum(len(passage.text) for passage in passages)
    if characters > _MOST_TEXT:
        text = f"expected {_MOST_TEXT} characters in all at most, got {characters}"
        violations = [Violation("passages", text)]
    if violations:
        raise _invalid(violations[:_SHOWN])
    return passages


def _checked(given: list[str | PassageSpec]) -> tuple[list[PassageSpec], list[Violation]]:
    violations = []
    passages = [PassageSpec(item) if isinstance(item, str) else item for item in given]
    for index, passage in enumerate(passages):
        if not passage.text.strip() or len(passage.text) > _LONGEST:
            text = f"expected a text of 1 to {_LONGEST} characters"
            violations.append(Violation(f"passages[{index}]", text))
    return passages, violations


def _lines(data: bytes) -> tuple[list[PassageSpec], list[Violation]]:
    passages: list[PassageSpec] = []
    violations = []
    decode = msgspec.json.Decoder(str | PassageSpec).decode
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        if len(passages) > _MOST:
            break
        try:
            item = decode(line)
        except (msgspec.MsgspecError, ValueError) as error:
            violations.append(Violation(f"jsonl:{number}", str(error)))
            continue
        passage = PassageSpec(item) if isinstance(item, str) else item
        if passage.text.strip():
            passages.append(passage)
        else:
            violations.append(Violation(f"jsonl:{number}", "expected a text"))
    return passages, violations


def _invalid(violations: list[Violation]) -> InvalidArgument:
    text = "; ".join(f"{wrong.field}: {wrong.description}" for wrong in violations)
    return InvalidArgument(text, violations=violations)
