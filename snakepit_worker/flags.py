"""From a command line and an environment to settings: flags over environment over defaults."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import typing
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

import msgspec

from snakepit_worker.errors import StartError
from snakepit_worker.settings import HEARTBEAT_CONFIG, LogLevel, Option, Settings, options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["parse"]

_CLAMPED: Final = {
    "unserializable_repr_maxlen": (0, 2000),
    "tolist_max_elements": (0, sys.maxsize),
}
_TRUTHY: Final = ("1", "true", "yes", "on")
_FALSY: Final = ("0", "false", "no", "off", "")


def parse(
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    prog: str = "snakepit-worker",
    warn: Callable[[str], None] = lambda _: None,
) -> Settings:
    """Settings from a command line and an environment.

    Args:
        argv: Arguments after the program's name.
        environ: Environment variables.
        prog: The program's name in messages.
        warn: Receives a sentence for everything that was ignored.

    Raises:
        StartError: For a flag whose value is wrong (exit status 2).
    """
    rows = options()
    flags, unknown = _parser(rows, prog).parse_known_args(list(argv))
    if unknown:
        warn(f"ignored unknown arguments: {' '.join(unknown)}{_meant(unknown, rows)}")
    fields: dict[str, object] = {}
    for row in rows:
        given = getattr(flags, row.name)
        if given is not None:
            fields[row.name] = _from_flag(row, given)
            continue
        for variable in row.env:
            if environ.get(variable):
                fields[row.name] = _from_environment(row, variable, environ[variable], warn)
                break
    fields.update(_heartbeat(environ.get(HEARTBEAT_CONFIG), rows, warn))
    return Settings(**fields)  # type: ignore[arg-type]  # each value was converted to its hint


def _meant(unknown: Sequence[str], rows: Sequence[Option]) -> str:
    """Flags that may have been meant, for the warning."""
    flags = [row.flag for row in rows if row.flag]
    near = [found for word in unknown for found in difflib.get_close_matches(word, flags, n=1)]
    return f" (did you mean {' or '.join(near)}?)" if near else ""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise StartError(message, exit_status=2)


def _parser(rows: Sequence[Option], prog: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=prog,
        # Abbreviations would turn unknown flags into known ones.
        allow_abbrev=False,
        description="Serve framework adapters to an Elixir host over gRPC.",
        epilog=_epilog(rows),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for row in rows:
        if row.flag is None:
            parser.set_defaults(**{row.name: None})
            continue
        text = row.help.replace("%", "%%") + _default_text(row)
        if row.is_switch:
            parser.add_argument(
                row.flag, dest=row.name, action="store_const", const="true", help=text
            )
        else:
            action = "append" if isinstance(row.default, tuple) else "store"
            metavar = row.metavar or ("N" if isinstance(row.default, int) else "TEXT")
            parser.add_argument(row.flag, dest=row.name, action=action, metavar=metavar, help=text)
        if row.off_flag:
            parser.add_argument(
                row.off_flag,
                dest=row.name,
                action="store_const",
                const="false",
                help=f"the opposite of {row.flag}",
            )
    return parser


def _default_text(row: Option) -> str:
    parts = [f"or {' or '.join(row.env)}"] if row.env else []
    if not row.is_switch and row.default not in (None, "", ()):
        parts.append(f"default {row.default}")
    return f" ({'; '.join(parts)})" if parts else ""


def _epilog(rows: Sequence[Option]) -> str:
    lines = [
        "commands:",
        "  snakepit-worker [serve] …    serve (the default)",
        "  snakepit-worker doctor …     check this machine, a verdict per line",
        "  snakepit-worker tools …      print the tools of the adapters as JSON Schema",
        "",
        "environment without a flag:",
    ]
    lines += [f"  {name:<36} {row.help}" for row in rows if row.flag is None for name in row.env]
    lines += [f"  {HEARTBEAT_CONFIG:<36} JSON object of the heartbeat options; beats the flags"]
    return "\n".join(lines)


def _from_flag(row: Option, given: Any) -> object:  # noqa: ANN401 - str, or list of str
    try:
        return _convert(row, ",".join(given) if isinstance(given, list) else given)
    except msgspec.ValidationError as error:
        flag = row.flag or row.name
        raise StartError(f"{flag}: {_expected(row, error)}, got {given!r}", exit_status=2) from None


def _choices(row: Option) -> tuple[object, ...]:
    hint = typing.get_args(row.hint)[0]
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else ()


def _expected(row: Option, error: msgspec.ValidationError) -> str:
    if choices := _choices(row):
        return f"expected {' or '.join(map(str, choices))}"
    meta = next(item for item in row.hint.__metadata__ if isinstance(item, msgspec.Meta))
    if isinstance(row.default, int) and not row.is_switch:
        most = "" if meta.le is None else f" to {meta.le}"
        return f"expected a whole number from {meta.ge or 0}{most}"
    text = str(error).partition(", got ")[0].replace("`", "")
    return text[:1].lower() + text[1:]


def _from_environment(row: Option, variable: str, text: str, warn: Callable[[str], None]) -> object:
    """A bad variable never stops a worker: the host's contract has a fallback for each."""
    if row.name == "log_level" and text.lower() not in typing.get_args(LogLevel):
        warn(f"{variable}={text!r} is unknown; error is used")
        return "error"
    clamped = _clamped(row, text)
    try:
        value = _convert(row, clamped)
    except msgspec.ValidationError as error:
        warn(f"ignored {variable}={text!r}: {_expected(row, error)}")
        return row.default
    if clamped != text.strip():
        warn(f"{variable}={text!r} is out of range; {clamped} is used")
    return value


def _clamped(row: Option, text: str) -> str:
    """The numbers that the host's contract does not refuse but brings into their range."""
    limits = _CLAMPED.get(row.name)
    text = text.strip()
    try:
        number = 0 if limits is None else int(text)
    except ValueError:
        return text
    if limits is None or limits[0] <= number <= limits[1]:
        return text
    return str(min(max(number, limits[0]), limits[1]))


def _convert(row: Option, text: str) -> object:
    if isinstance(row.default, tuple):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if isinstance(row.default, bool):
        return _boolean(text)
    if row.name == "elixir_address" and not re.fullmatch(r".+:\d{1,5}", text):
        msg = "Expected HOST:PORT"
        raise msgspec.ValidationError(msg)
    if row.name == "otel_endpoint" and not re.fullmatch(r"https?://[^/\s]+\S*", text):
        msg = "Expected http://HOST:PORT"
        raise msgspec.ValidationError(msg)
    if _choices(row) and row.flag is None:  # the host's own words, in any case
        text = text.lower()
    return msgspec.convert(text, row.hint, strict=False)


def _boolean(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered in _TRUTHY:
        return True
    if lowered in _FALSY:
        return False
    expected = "/".join((*_TRUTHY, *_FALSY[:-1]))
    msg = f"Expected one of {expected}"
    raise msgspec.ValidationError(msg)


def _heartbeat(
    text: str | None, rows: Sequence[Option], warn: Callable[[str], None]
) -> dict[str, object]:
    """The host's heartbeat object: unknown keys are ignored, camelCase and text are accepted."""
    if not text:
        return {}
    try:
        config = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        warn(f"ignored {HEARTBEAT_CONFIG}: {error}")
        return {}
    by_name = {row.name: row for row in rows}
    fields: dict[str, object] = {}
    for key, value in config.items():
        snake = re.sub(r"(?<=[a-z])([A-Z])", r"_\1", key).lower()
        name = "heartbeat_" + snake.replace("max_missed_heartbeats", "max_missed")
        row = by_name.get(name)
        if row is None:
            continue
        try:
            converted = _convert(row, str(value))
        except msgspec.ValidationError as error:
            warn(f"ignored {key}={value!r} in {HEARTBEAT_CONFIG}: {_expected(row, error)}")
            continue
        fields[name] = converted
    return fields
