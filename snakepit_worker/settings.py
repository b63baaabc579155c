"""Settings of a worker: one frozen object, filled from flags, environment and defaults.

The fields of `Settings` are the one table from which the flags, the environment variables, the
defaults, ``--help`` and ``docs/settings.md`` all come.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import typing
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn

import msgspec

from snakepit_worker.errors import StartError
from snakepit_worker.wire.markers import DETAIL_POLICIES, DetailPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["LogLevel", "Option", "Settings", "options", "parse"]

LogLevel = Literal["debug", "info", "warning", "error", "none"]
HEARTBEAT_CONFIG: Final = "SNAKEPIT_HEARTBEAT_CONFIG"
_DEFAULT_THREADS: Final = 10
"""As in the program that Snakepit ships."""
_CLAMPED: Final = {
    "unserializable_repr_maxlen": (0, 2000),
    "tolist_max_elements": (0, sys.maxsize),
}
_TRUTHY: Final = ("1", "true", "yes", "on")
_FALSY: Final = ("0", "false", "no", "off", "")


def _option(  # noqa: PLR0913 - one keyword per column of the table
    help_text: str,
    *,
    flag: str | None = None,
    off_flag: str | None = None,
    env: tuple[str, ...] = (),
    metavar: str | None = None,
    ge: int | None = None,
    le: int | None = None,
) -> msgspec.Meta:
    """One row of the table.

    Args:
        help_text: What it does, one sentence.
        flag: Command-line flag; a switch when the field is a boolean.
        off_flag: Switch that sets the field to false.
        env: Environment variables, the first one set wins.
        metavar: What stands for the value in ``--help``.
        ge: Smallest value.
        le: Largest value.
    """
    columns = {"flag": flag, "off_flag": off_flag, "env": env, "metavar": metavar}
    return msgspec.Meta(description=help_text, ge=ge, le=le, extra=columns)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set, with its default."""

    adapters: Annotated[
        tuple[str, ...],
        _option(
            "adapters to serve: entry-point names (dspy) or dotted class paths; repeat the flag or "
            "separate with commas; without one, only the built-in tools are served",
            flag="--adapter",
            env=("SNAKEPIT_WORKER_ADAPTER",),
            metavar="NAME",
        ),
    ] = ()
    port: Annotated[
        int,
        _option("port on 127.0.0.1; 0 takes any free one", flag="--port", ge=0, le=65535),
    ] = 0
    elixir_address: Annotated[
        str | None,
        _option(
            "gRPC server of the host; without it the worker is its own session authority",
            flag="--elixir-address",
            env=("SNAKEPIT_GRPC_ADDRESS", "SNAKEPIT_ELIXIR_ADDRESS"),
            metavar="HOST:PORT",
        ),
    ] = None
    values: Annotated[
        Literal["exact", "compatible"],
        _option(
            "result types: exact (None is null, 7 is 7, bytes are binary) or compatible with the "
            "shapes of Snakepit's own program (None is 'None', 7 is 7.0)",
            flag="--values",
            env=("SNAKEPIT_WORKER_VALUES",),
            metavar="MODE",
        ),
    ] = "exact"
    max_workers: Annotated[
        int,
        _option(
            "threads for synchronous tools, the number that run at once; adapters written for "
            "Snakepit then have to say that they are thread-safe; 0 means 10 threads and asks "
            "nothing of adapters",
            flag="--max-workers",
            env=("SNAKEPIT_WORKER_MAX_WORKERS",),
            ge=0,
            le=1024,
        ),
    ] = 0
    grace_ms: Annotated[
        int,
        _option(
            "time that running calls get to finish after SIGTERM",
            flag="--grace-ms",
            env=("SNAKEPIT_WORKER_GRACE_MS",),
            ge=0,
            le=600_000,
        ),
    ] = 2_000
    host_attempts: Annotated[
        int,
        _option(
            "how often to try to reach the host before giving up, with pauses from 0.05 s to 2 s",
            flag="--host-attempts",
            env=("SNAKEPIT_WORKER_HOST_ATTEMPTS",),
            ge=1,
            le=10_000,
        ),
    ] = 60
    adapter_timeout_ms: Annotated[
        int,
        _option(
            "longest time that a call without a deadline waits for its adapter to start",
            flag="--adapter-timeout-ms",
            env=("SNAKEPIT_WORKER_ADAPTER_TIMEOUT_MS",),
            ge=1,
            le=3_600_000,
        ),
    ] = 300_000
    max_sessions: Annotated[
        int,
        _option(
            "sessions kept; beyond it the one unused for longest goes",
            flag="--max-sessions",
            env=("SNAKEPIT_WORKER_MAX_SESSIONS",),
            ge=1,
        ),
    ] = 10_000
    max_resources: Annotated[
        int,
        _option(
            "resources that one session may hold",
            flag="--max-resources",
            env=("SNAKEPIT_WORKER_MAX_RESOURCES",),
            ge=1,
        ),
    ] = 10_000
    session_ttl_s: Annotated[
        int,
        _option(
            "seconds without use after which a session is closed",
            flag="--session-ttl",
            env=("SNAKEPIT_WORKER_SESSION_TTL",),
            metavar="SECONDS",
            ge=1,
        ),
    ] = 3_600
    log_level: Annotated[
        LogLevel,
        _option(
            "log level; an unknown one means error",
            env=("SNAKEPIT_LOG_LEVEL",),
        ),
    ] = "info"
    ready_file: Annotated[
        str | None,
        _option(
            "file that receives the port once the worker serves; without it the line "
            "GRPC_READY:<port> is printed on stdout",
            env=("SNAKEPIT_READY_FILE",),
        ),
    ] = None
    process_group: Annotated[
        bool,
        _option(
            "lead a process group of its own, so that a signal reaches children too",
            env=("SNAKEPIT_PROCESS_GROUP",),
        ),
    ] = False
    run_id: Annotated[
        str,
        _option(
            "run of the host, read back by it from the process table",
            flag="--snakepit-run-id",
            metavar="ID",
        ),
    ] = ""
    instance_name: Annotated[
        str,
        _option(
            "name of the host instance, read back from the process table",
            flag="--snakepit-instance-name",
            metavar="NAME",
        ),
    ] = ""
    instance_token: Annotated[
        str,
        _option(
            "token of the host instance, read back from the process table; not a secret",
            flag="--snakepit-instance-token",
            metavar="TOKEN",
        ),
    ] = ""
    heartbeat_enabled: Annotated[
        bool,
        _option(
            "keep the worker's session on the host alive, and notice when the host is gone",
            flag="--heartbeat-enabled",
        ),
    ] = True
    heartbeat_interval_ms: Annotated[
        int, _option("pause after each heartbeat", flag="--heartbeat-interval-ms", ge=1)
    ] = 2_000
    heartbeat_timeout_ms: Annotated[
        int, _option("time limit of one heartbeat", flag="--heartbeat-timeout-ms", ge=1)
    ] = 10_000
    heartbeat_max_missed: Annotated[
        int,
        _option("heartbeats missed in a row that mean a lost host", flag="--heartbeat-max-missed"),
    ] = 3
    heartbeat_initial_delay_ms: Annotated[
        int, _option("pause before the first heartbeat", flag="--heartbeat-initial-delay-ms", ge=0)
    ] = 0
    heartbeat_jitter_ms: Annotated[
        int, _option("largest random addition to the pause (only in the JSON object)", ge=0)
    ] = 0
    heartbeat_dependent: Annotated[
        bool,
        _option(
            "stop when the host is lost; independent workers go on serving",
            flag="--heartbeat-dependent",
            off_flag="--heartbeat-independent",
        ),
    ] = True
    thread_sensitive: Annotated[
        tuple[str, ...],
        _option(
            "modules, or module.function, whose calls run on the main thread; comma-separated",
            env=("SNAKEPIT_THREAD_SENSITIVE",),
        ),
    ] = ()
    thread_safety_check: Annotated[
        bool,
        _option(
            "accepted from the thread profile; this runtime serves both profiles the same way",
            flag="--thread-safety-check",
        ),
    ] = False
    unserializable_detail: Annotated[
        DetailPolicy,
        _option(
            "what a marker says about a value that is not JSON: " + ", ".join(DETAIL_POLICIES),
            env=("SNAKEPIT_UNSERIALIZABLE_DETAIL",),
        ),
    ] = "none"
    unserializable_repr_maxlen: Annotated[
        int,
        _option(
            "characters of repr in a marker, 0 to 2000",
            env=("SNAKEPIT_UNSERIALIZABLE_REPR_MAXLEN",),
        ),
    ] = 500
    tolist_max_elements: Annotated[
        int,
        _option(
            "arrays with more elements become markers instead of lists",
            env=("SNAKEPIT_TOLIST_MAX_ELEMENTS",),
            ge=0,
        ),
    ] = 1_000_000
    health_check: Annotated[
        bool,
        _option(
            "import the adapters, say whether they can be served, and exit 0 or 1",
            flag="--health-check",
        ),
    ] = False

    @property
    def threads(self) -> int:
        """Threads for synchronous tools."""
        return self.max_workers or _DEFAULT_THREADS

    @property
    def worker_id(self) -> str | None:
        """The host's name for this worker, which only the readiness file's name tells."""
        if self.ready_file is None:
            return None
        match = re.fullmatch(r"snakepit_ready_(.+)_\d+", PurePath(self.ready_file).name)
        return match[1] if match else None


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the settings table, for help and docs."""

    name: str
    hint: Any
    default: object
    help: str
    flag: str | None
    off_flag: str | None
    env: tuple[str, ...]
    metavar: str | None

    @property
    def is_switch(self) -> bool:
        """Whether the flag takes no value."""
        return isinstance(self.default, bool)


def options() -> tuple[Option, ...]:
    """The settings table."""
    hints = typing.get_type_hints(Settings, include_extras=True)
    rows = []
    for row in msgspec.structs.fields(Settings):
        hint = hints[row.name]
        meta = next(item for item in hint.__metadata__ if isinstance(item, msgspec.Meta))
        columns: dict[str, Any] = meta.extra or {}
        rows.append(Option(row.name, hint, row.default, meta.description or "", **columns))
    return tuple(rows)


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


def _expected(row: Option, error: msgspec.ValidationError) -> str:
    choices = typing.get_args(typing.get_args(row.hint)[0])
    if typing.get_origin(typing.get_args(row.hint)[0]) is Literal:
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
        return "error"
    try:
        value = _convert(row, _clamped(row, text))
    except msgspec.ValidationError as error:
        warn(f"ignored {variable}={text!r}: {error}")
        return row.default
    return value


def _clamped(row: Option, text: str) -> str:
    """The numbers that the host's contract does not refuse but brings into their range."""
    limits = _CLAMPED.get(row.name)
    try:
        return text if limits is None else str(min(max(int(text), limits[0]), limits[1]))
    except ValueError:
        return text


def _convert(row: Option, text: str) -> object:
    if isinstance(row.default, tuple):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if isinstance(row.default, bool):
        return _boolean(text)
    if row.name == "elixir_address" and not re.fullmatch(r".+:\d{1,5}", text):
        msg = "Expected HOST:PORT"
        raise msgspec.ValidationError(msg)
    if isinstance(row.default, str) and row.flag is None:  # the host's own words, in any case
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
            warn(f"ignored {key} in {HEARTBEAT_CONFIG}: {error}")
            continue
        if name == "heartbeat_max_missed" and isinstance(converted, int) and converted < 0:
            continue
        fields[name] = converted
    return fields
