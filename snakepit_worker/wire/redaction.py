"""Removal of secrets from text that leaves the process: replies, log lines, spans, events, markers.

A secret is known by the name that it goes by (``api_key``), by its shape (tokens of well-known
services, private keys) or by its place (credentials and parameters of URLs, headers).  The patterns
go beyond those of the host's ecosystem, which knows bearer tokens, keys that start with ``sk-`` and
quoted values behind a telling name.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time
from itertools import islice
from typing import Final, NamedTuple
from uuid import UUID

from snakepit_worker.wire.json_text import valid_text

__all__ = ["REDACTED", "is_secret", "redact", "redact_value"]

REDACTED: Final = "[REDACTED]"
_DEPTH: Final = 6
_MOST: Final = 200
_LONGEST: Final = 4_096
_LONGEST_NAME: Final = 100
_HARMLESS: Final = (type(None), bool, int, float, date, datetime, time, UUID)


class _Rule(NamedTuple):
    marks: tuple[str, ...]
    """Lower-case texts of which one is part of every match; far quicker to look for."""
    pattern: re.Pattern[str]
    replacement: str


def _rule(marks: tuple[str, ...] | str, pattern: str, replacement: str = REDACTED) -> _Rule:
    return _Rule((marks,) if isinstance(marks, str) else marks, re.compile(pattern), replacement)


_KEYS: Final = ("api", "access", "private", "secret")
_KEY: Final = rf"(?:{'|'.join(_KEYS)})[ _-]?key"
_PASSWORD: Final = r"passw(?:or)?d|passphrase"  # noqa: S105 - a pattern
_NAME: Final = rf"(?:{_KEY}|{_PASSWORD}|token|secret|authorization|credentials?|cookie)"
_NAME_MARKS: Final = (
    *(f"{kind}{gap}key" for kind in _KEYS for gap in ("_", "", "-", " ")),
    *("passw", "passphrase", "token", "secret", "authorization", "credential", "cookie"),
)
_PARAMETERS: Final = rf"(?:api|access)?key|token|secret|{_PASSWORD}|pwd|sig|signature|credentials?"
_PARAMETER_MARKS: Final = (
    *("key=", "token=", "secret=", "passwd=", "password=", "passphrase=", "pwd="),
    *("sig=", "signature=", "credential=", "credentials="),
)
_KEY_WITH_END: Final = r"[^-]*+(?:-(?!----)[^-]*+)*+-----END [A-Z0-9 ]{1,90}-----"
_KEY_LINES: Final = (
    r"(?:(?:\s|\\[nr])*+(?:(?:Proc-Type|DEK-Info):[^\n\\]*+|[A-Za-z0-9+/=]{20,}+))*+"
    r"""(?:(?:\s|\\[nr])*+[A-Za-z0-9+/=]{1,64}(?=\Z|["'…]))?"""
)
_BARE: Final = "A-Za-z+/_~.=!@$%^*-"
_START: Final = "(?<![A-Za-z0-9])"

# Every repetition is bounded or cannot match in two ways: the texts come from anywhere.  What was
# cut off at the end of a text is a secret all the same.
_RULES: Final = (
    _rule(
        "-----begin",
        r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY-----"
        rf"(?:{_KEY_WITH_END}|{_KEY_LINES})",
    ),
    _rule(
        "://",
        r"""(?i)\b([a-z][a-z0-9+.-]{0,30}://[^/\s:@"]*+:)[^/\s@"]++(?=@)""",
        rf"\g<1>{REDACTED}",
    ),
    _rule(
        _PARAMETER_MARKS,
        rf"(?i)([?&;](?:[\w.-]{{0,40}}[_.-])?(?:{_PARAMETERS})=)"
        r"""[^\s&;"'<>\\]++""",
        rf"\g<1>{REDACTED}",
    ),
    _rule(
        "authorization",
        r"""(?i)(authorization["']?\s{0,8}[:=]\s{0,8}["']?(?:basic|digest|token|apikey)\s{1,8})"""
        r"""[^\s"',;\\]++""",
        rf"\g<1>{REDACTED}",
    ),
    _rule("bearer", r"(?i)\b(bearer\s{1,8})[A-Za-z0-9._~+/=-]++", rf"\g<1>{REDACTED}"),
    # The closing quote may be escaped, as in JSON within a text.
    _rule(
        _NAME_MARKS,
        rf"""(?i)({_NAME}(?:\\?["'])?\s{{0,8}}[:=]\s{{0,8}}b?\\?)(["'])"""
        r"""(?:(?<=")[^"\\]*+(?:\\(?!")[^"\\]*+)*+|(?<=')[^']*+)(\\?"|'|\\?\Z)""",
        rf"\g<1>\g<2>{REDACTED}\g<3>",
    ),
    # Without quotes only what is hardly a word or a piece of code: it has a digit.
    _rule(
        _NAME_MARKS,
        rf"(?i)((?:(?:{_KEY}|{_PASSWORD})\s?[:=]\s?|(?:token|secret)=))"
        rf"(?=[{_BARE}]{{0,64}}[0-9])[0-9{_BARE}]{{6,}}+",
        rf"\g<1>{REDACTED}",
    ),
    _rule("sk-", _START + r"sk-(?:[_-]{0,8}[A-Za-z0-9]){10}[A-Za-z0-9_-]*+"),
    _rule(("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), _START + r"gh[oprsu]_[A-Za-z0-9]{16,}+"),
    _rule(("github_pat_", "glpat-"), _START + r"(?:github_pat_|glpat-)[A-Za-z0-9_-]{16,}+"),
    _rule(("akia", "asia"), _START + r"A[KS]IA[A-Z0-9]{16}(?![A-Za-z0-9])"),
    _rule("aiza", _START + r"AIza[A-Za-z0-9_-]{30,}+"),
    _rule(("hf_", "gsk_"), _START + r"(?:hf|gsk)_[A-Za-z0-9]{20,}+"),
    _rule("xox", _START + r"xox[a-eprs](?:\.xox[a-eprs])?-[A-Za-z0-9-]{10,}+"),
    _rule(
        "eyj",
        r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+(?:\.[A-Za-z0-9_-]*+)?",
    ),
)
_NAME_ENDS: Final = (
    *("key", "token", "secret", "password", "passwd", "passphrase"),
    *("authorization", "credential", "credentials", "cookie"),
)
_SECRET_NAME: Final = re.compile(rf"(?:^|[_.-])(?i:{_NAME}|key)$|(?<=[a-z0-9])[A-Z][a-z]+$")


def is_secret(name: str) -> bool:
    """Whether what goes by this name should never be shown.

    Args:
        name: Of an argument or a field, such as ``api_key`` or ``clientSecret``.
    """
    name = name[-_LONGEST_NAME:]
    return name.lower().endswith(_NAME_ENDS) and _SECRET_NAME.search(name) is not None


def redact(text: str, limit: int | None = None) -> str:
    """The text with everything that looks like a secret replaced.

    Args:
        text: Any text.
        limit: Characters to keep.  The rest goes after the secrets do: half of one is still one.
    """
    if limit is not None:
        text = text[: 2 * limit]
    lowered = text.lower()
    for marks, pattern, replacement in _RULES:
        for mark in marks:
            if mark in lowered:
                text = pattern.sub(replacement, text)
                break
    return text if limit is None else text[:limit]


def redact_value(value: object, depth: int = _DEPTH) -> object:
    """A JSON value without secrets: what goes by a telling name, and what looks like one.

    What is not JSON becomes text, except for dates and UUIDs, which the encoder knows.

    Args:
        value: The value; long texts are cut, long containers and deep ones too.
        depth: Levels that are still looked at.
    """
    if isinstance(value, _HARMLESS):
        return value
    if isinstance(value, dict):
        if depth == 0:
            return f"{len(value)} entries"
        return {
            redact_value(key, 0): REDACTED
            if isinstance(key, str) and is_secret(key) and item is not None
            else redact_value(item, depth - 1)
            for key, item in islice(value.items(), _MOST)
        }
    if isinstance(value, list | tuple | set | frozenset):
        if depth == 0:
            return f"{len(value)} items"
        return [redact_value(item, depth - 1) for item in islice(value, _MOST)]
    return redact(value if isinstance(value, str) else valid_text(value), _LONGEST)
