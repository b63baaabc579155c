"""JSON of whatever there is, for texts that have to get through: failures and log lines."""

from __future__ import annotations

import orjson

__all__ = ["dumps", "valid_text"]

_DEPTH = 8


def dumps(value: object) -> str:
    """The value as strict JSON.  Never raises.

    What is not JSON becomes text; text that is not valid Unicode is mended.

    Args:
        value: Anything; a dictionary, mostly.
    """
    try:
        return orjson.dumps(value, valid_text).decode()
    except (TypeError, RecursionError):
        return orjson.dumps(_printable(value, _DEPTH)).decode()


def _printable(value: object, depth: int) -> object:
    if isinstance(value, dict) and depth:
        return {valid_text(key): _printable(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple) and depth:
        return [_printable(item, depth - 1) for item in value]
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return value
    return valid_text(value)


def valid_text(value: object) -> str:
    """The value as text that is valid Unicode.  Never raises.

    Args:
        value: Anything.
    """
    try:
        text = str(value)
    except BaseException:  # noqa: BLE001 - str() of a foreign object may do anything
        text = f"<{type(value).__name__}>"
    return str.encode(text, "utf-8", "replace").decode()  # it may be of a class of its own
