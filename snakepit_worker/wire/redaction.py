"""Removal of secrets from text that leaves the process: replies, log lines, markers.

The patterns follow the rules that the host's ecosystem documents: bearer tokens, keys that start
with ``sk-``, quoted values behind a telling name; and, beyond them, credentials inside URLs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import Final

__all__ = ["REDACTED", "is_secret", "redact", "redact_value"]

REDACTED: Final = "[REDACTED]"
_DEPTH: Final = 6
_MOST: Final = 200
_LONGEST: Final = 4_096

_NAMED: Final = r"(?i)((?:api[ _-]?key|token|secret|password)(?:\\?[\"'])?\s{0,8}[:=]\s{0,8}\\?)"
# Every repetition is bounded or cannot match in two ways: the texts come from anywhere.
_PATTERNS: Final = (
    (re.compile(r"(?i)\b(bearer\s{1,8})[A-Za-z0-9._~+/=-]+"), rf"\g<1>{REDACTED}"),
    (re.compile(r"\bsk-(?:[_-]{0,8}[A-Za-z0-9]){10,}[A-Za-z0-9_-]*"), REDACTED),
    # The closing quote may be escaped, as in the JSON of a log line.
    (re.compile(_NAMED + r'"(?:[^"\\]|\\(?!"))*(\\?")'), rf'\g<1>"{REDACTED}\g<2>'),
    (re.compile(_NAMED + r"'[^']*'"), rf"\g<1>'{REDACTED}'"),
    (
        re.compile(r"(?i)\b([a-z][a-z0-9+.-]{0,30}://[^/\s:@]{0,256}:)[^/\s@]{1,512}(?=@)"),
        rf"\g<1>{REDACTED}",
    ),
)
_SECRET_NAME: Final = re.compile(
    r"(?i)(?:^|[_.-])(?:key|api_?key|token|secret|password|passwd|credentials?|authorization)$"
)


def is_secret(name: str) -> bool:
    """Whether what goes by this name should never be shown.

    Args:
        name: Of an argument or a field, such as ``api_key``.
    """
    return _SECRET_NAME.search(name) is not None


def redact(text: str) -> str:
    """The text with everything that looks like a secret replaced."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact_value(value: object, depth: int = _DEPTH) -> object:
    """A JSON value without secrets: what goes by a telling name, and what looks like one.

    Args:
        value: The value; long texts are cut, long containers and deep ones too.
        depth: Levels that are still looked at.
    """
    if isinstance(value, str):
        return redact(value[:_LONGEST])
    if isinstance(value, Mapping):
        if depth == 0:
            return f"{len(value)} entries"
        return {
            key: REDACTED
            if isinstance(key, str) and is_secret(key) and item is not None
            else redact_value(item, depth - 1)
            for key, item in islice(value.items(), _MOST)
        }
    if isinstance(value, list | tuple):
        if depth == 0:
            return f"{len(value)} items"
        return [redact_value(item, depth - 1) for item in islice(value, _MOST)]
    return value
