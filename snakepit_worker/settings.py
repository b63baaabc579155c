"""Settings of a worker: one frozen object.

The fields of `Settings` are the one table from which the flags, the environment variables, the
defaults, ``--help`` and ``docs/settings.md`` all come.
"""

from __future__ import annotations

import re
import typing
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any, Final, Literal

import msgspec

from snakepit_worker.wire.markers import DETAIL_POLICIES, DetailPolicy
from snakepit_worker.wire.tracebacks import Frames

__all__ = ["HEARTBEAT_CONFIG", "LogLevel", "Option", "Settings", "options"]

LogLevel = Literal["debug", "info", "warning", "error", "none"]
HEARTBEAT_CONFIG: Final = "SNAKEPIT_HEARTBEAT_CONFIG"
_DEFAULT_THREADS: Final = 10
"""As in the program that Snakepit ships."""


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
    max_calls: Annotated[
        int,
        _option(
            "calls of coroutine tools that run at once",
            flag="--max-calls",
            env=("SNAKEPIT_WORKER_MAX_CALLS",),
            ge=1,
        ),
    ] = 1_000
    max_waiting: Annotated[
        int,
        _option(
            "calls that may wait for a place to run, or for an adapter to start; what comes beyond "
            "is refused at once with RESOURCE_EXHAUSTED",
            flag="--max-waiting",
            env=("SNAKEPIT_WORKER_MAX_WAITING",),
            ge=0,
        ),
    ] = 1_000
    max_session_calls: Annotated[
        int,
        _option(
            "calls of one session that run at once; 0 means as many as there are places",
            flag="--max-session-calls",
            env=("SNAKEPIT_WORKER_MAX_SESSION_CALLS",),
            ge=0,
        ),
    ] = 0
    max_session_waiting: Annotated[
        int,
        _option(
            "calls of one session that may wait for a place to run",
            flag="--max-session-waiting",
            env=("SNAKEPIT_WORKER_MAX_SESSION_WAITING",),
            ge=0,
        ),
    ] = 250
    max_jobs: Annotated[
        int,
        _option(
            "jobs held, running ones and ended ones; beyond it the one that ended first goes, and "
            "where all of them run job.start is refused",
            flag="--max-jobs",
            env=("SNAKEPIT_WORKER_MAX_JOBS",),
            ge=1,
        ),
    ] = 1_000
    max_session_jobs: Annotated[
        int,
        _option(
            "jobs that one session holds, running ones and ended ones",
            flag="--max-session-jobs",
            env=("SNAKEPIT_WORKER_MAX_SESSION_JOBS",),
            ge=1,
        ),
    ] = 250
    max_job_mb: Annotated[
        int,
        _option(
            "MiB of events and results that ended jobs may hold; beyond it the one that ended "
            "first goes, until there is only one",
            flag="--max-job-mb",
            env=("SNAKEPIT_WORKER_MAX_JOB_MB",),
            ge=1,
        ),
    ] = 256
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
    max_session_bytes: Annotated[
        int,
        _option(
            "bytes that all sessions together may hold, as far as adapters say or it can be "
            "estimated; beyond it idle sessions go, the one unused for longest first",
            flag="--max-session-bytes",
            env=("SNAKEPIT_WORKER_MAX_SESSION_BYTES",),
            ge=0,
        ),
    ] = 4 * 1024**3
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
    archive: Annotated[
        str | None,
        _option(
            "database in which sessions outlive this worker: sqlite:///FILE or "
            "postgresql://USER:PASSWORD@HOST/DATABASE; better in the environment, since everybody "
            "on the machine can read the command line",
            flag="--archive",
            env=("SNAKEPIT_WORKER_ARCHIVE",),
            metavar="URL",
        ),
    ] = None
    archive_namespace: Annotated[
        str,
        _option(
            "keeps applications apart that share an archive",
            flag="--archive-namespace",
            env=("SNAKEPIT_WORKER_ARCHIVE_NAMESPACE",),
            metavar="NAME",
        ),
    ] = "default"
    archive_durability: Annotated[
        Literal["commit", "delayed"],
        _option(
            "when a call that has changed something is answered: after the commit, or at once, "
            "with the commit a moment later",
            flag="--archive-durability",
            env=("SNAKEPIT_WORKER_ARCHIVE_DURABILITY",),
            metavar="MODE",
        ),
    ] = "commit"
    archive_lease_s: Annotated[
        int,
        _option(
            "seconds after which others may take the sessions of a worker that cannot be reached; "
            "one that has died on the same machine is noticed at once",
            flag="--archive-lease",
            env=("SNAKEPIT_WORKER_ARCHIVE_LEASE",),
            metavar="SECONDS",
            ge=1,
            le=3_600,
        ),
    ] = 30
    archive_ttl_s: Annotated[
        int,
        _option(
            "seconds without use after which a session leaves the archive",
            flag="--archive-ttl",
            env=("SNAKEPIT_WORKER_ARCHIVE_TTL",),
            metavar="SECONDS",
            ge=1,
        ),
    ] = 7 * 86_400
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
            "file that receives the port once the worker serves, which needs --elixir-address; "
            "without it the line GRPC_READY:<port> is printed on stdout",
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
        _option(
            "heartbeats missed in a row that mean a lost host",
            flag="--heartbeat-max-missed",
            ge=0,
        ),
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
    tracebacks: Annotated[
        Frames,
        _option(
            "frames that callers see of a failure: full, own (the adapter's and the application's "
            "code, without the runtime and installed packages) or none; the log has all of them",
            flag="--tracebacks",
            env=("SNAKEPIT_WORKER_TRACEBACKS",),
            metavar="FRAMES",
        ),
    ] = "full"
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
    otel_endpoint: Annotated[
        str | None,
        _option(
            "where OpenTelemetry spans are sent (OTLP over HTTP), such as http://127.0.0.1:4318; "
            "OTEL_EXPORTER_OTLP_ENDPOINT and its like work too; needs snakepit-worker[otel]",
            env=("SNAKEPIT_OTEL_ENDPOINT",),
        ),
    ] = None
    otel_console: Annotated[
        bool,
        _option(
            "write OpenTelemetry spans to stderr",
            env=("SNAKEPIT_OTEL_CONSOLE",),
        ),
    ] = False
    service_name: Annotated[
        str,
        _option("service.name of the spans", env=("SNAKEPIT_SERVICE_NAME",)),
    ] = "snakepit.python.bridge"
    instance_id: Annotated[
        str,
        _option(
            "service.instance.id of the spans; random where not set",
            env=("SNAKEPIT_INSTANCE_ID",),
        ),
    ] = ""
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
