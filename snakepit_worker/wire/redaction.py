"""Removal of secrets from text that leaves the process: replies, log lines, markers.

The patterns follow the rules that the host's ecosystem documents: bearer tokens, keys that start
with ``sk-``, quoted values behind a telling name; and, beyond them, credentials inside URLs.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["REDACTED", "is_secret", "redact"]

REDACTED: Final = "[REDACTED]"

_PATTERNS: Final = (
    (re.compile(r"(?i)\b(bearer\s+)[A-Za-z0-9._~+/=-]+"), rf"\g<1>{REDACTED}"),
    (re.compile(r"\bsk-[A-Za-z0-9_-]*[A-Za-z0-9]{10,}[A-Za-z0-9_-]*"), REDACTED),
    (
        re.compile(
            r"""(?ix)
            ( (?:api[\ _-]?key | token | secret | password) ["']? \s* [:=] \s* )
            (?: "[^"]*" | '[^']*' )
            """
        ),
        rf"\g<1>'{REDACTED}'",
    ),
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://[^/\s:@]*:)[^/\s@]+(?=@)"), rf"\g<1>{REDACTED}"),
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
