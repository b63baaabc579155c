"""What all tests share."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from hypothesis import HealthCheck, settings

from tests.databases import postgres, url

__all__ = ["Clock", "name_of", "postgres", "strict_json", "url"]

# Properties are checked with the same examples in every run.
settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],  # the machine may be
)
settings.load_profile("repeatable")


def name_of(value: object) -> str:
    """A parameter's part of a test's name: its text, without addresses and not too long."""
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(value))
    return text if len(text) <= 60 else f"{text[:40]}...{text[-10:]}"


class Clock:
    """Monotonic seconds that stand still until a test moves them."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def strict_json(text: str | bytes) -> Any:
    """The value of JSON as every parser takes it: valid UTF-8, and no bare NaN."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "strict")
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")
