"""The command line: ``snakepit-worker [serve|doctor|tools] [options]``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from snakepit_worker.errors import StartError
from snakepit_worker.process.readiness import RealStdout
from snakepit_worker.settings import Settings, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from snakepit_worker.doctor import Check

__all__ = ["main"]

_COMMANDS: Final = ("serve", "doctor", "tools")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Arguments after the program's name; those of the process when omitted.

    Returns:
        The exit status: 0 for success, 1 for a failure, 2 for wrong usage.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments.pop(0) if arguments and arguments[0] in _COMMANDS else "serve"
    ignored: list[str] = []
    try:
        settings = parse(arguments, os.environ, warn=ignored.append)
    except StartError as error:
        print(f"snakepit-worker: {error}", file=sys.stderr)
        return error.exit_status
    # Whatever an adapter prints goes to stderr: stdout is for what was asked for.
    stdout = RealStdout()
    if command == "serve" and not settings.health_check:
        return _serve(settings, ignored, stdout)
    for text in ignored:
        print(f"snakepit-worker: {text}", file=sys.stderr)
    try:
        if command == "tools":
            return _tools(settings, stdout)
        return _check(settings, stdout, everything=command == "doctor")
    except StartError as error:
        print(f"snakepit-worker: {error}", file=sys.stderr)
        return error.exit_status


def _serve(settings: Settings, ignored: Sequence[str], stdout: RealStdout) -> int:
    # Imported here, so that the other commands do not pay for it.
    from snakepit_worker.process.serve import Process, enable_stack_dumps, report  # noqa: PLC0415
    from snakepit_worker.telemetry import logging  # noqa: PLC0415
    from snakepit_worker.telemetry.writer import LineStream, StderrWriter  # noqa: PLC0415

    terminal = sys.stderr.isatty()
    writer = StderrWriter()
    sys.stdout = sys.stderr = LineStream(writer)  # which block nobody
    enable_stack_dumps()
    logging.configure(settings.log_level, writer, terminal=terminal)
    for text in ignored:
        logging.logger().warning(text)
    try:
        return Process(settings, writer, stdout).run()
    except BaseException as error:  # noqa: BLE001 - said on stderr, the cause last
        return report(error)
    finally:
        sys.stderr.flush()
        writer.flush()


def _check(settings: Settings, stdout: RealStdout, *, everything: bool) -> int:
    from snakepit_worker.doctor import check_adapters, check_all  # noqa: PLC0415 - as in _serve

    checks: Iterable[Check] = check_all(settings) if everything else check_adapters(settings)
    failed = False
    for check in checks:
        if check.passed:
            stdout.write(str(check))
        else:
            print(check, file=sys.stderr, flush=True)
            failed = True
    return 1 if failed else 0


def _tools(settings: Settings, stdout: RealStdout) -> int:
    import json  # noqa: PLC0415 - as in _serve

    from snakepit_worker.sessions import Limits, SessionStore  # noqa: PLC0415
    from snakepit_worker.tools.api import Adapter  # noqa: PLC0415
    from snakepit_worker.tools.builtin import builtin_adapters  # noqa: PLC0415
    from snakepit_worker.tools.loading import load  # noqa: PLC0415
    from snakepit_worker.tools.registry import Registry  # noqa: PLC0415

    own = builtin_adapters(SessionStore(Limits()), dict, dict, list)
    loaded = [load(name) for name in settings.adapters]
    registry = Registry([*own, *(one for one in loaded if isinstance(one, Adapter))])
    stdout.write(json.dumps(registry.describe(), indent=2))
    return 0
