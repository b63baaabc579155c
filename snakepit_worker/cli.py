"""The command line: ``snakepit-worker [serve|doctor|tools] [options]``."""

from __future__ import annotations

import difflib
import os
import sys
from typing import TYPE_CHECKING, Final, NoReturn

from snakepit_worker import __version__
from snakepit_worker.errors import StartError
from snakepit_worker.flags import parse
from snakepit_worker.process.readiness import RealStdout

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from snakepit_worker.doctor import Check
    from snakepit_worker.settings import Settings

__all__ = ["main"]

_COMMANDS: Final = ("serve", "doctor", "tools")


def main(argv: Sequence[str] | None = None) -> int:  # noqa: PLR0911 - one for each way to end
    """Run a command.

    Args:
        argv: Arguments after the program's name; those of the process when omitted.

    Returns:
        The exit status: 0 for success, 1 for a failure, 2 for wrong usage.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments in (["--version"], ["version"]):
        print(f"snakepit-worker {__version__}")
        return 0
    if arguments == ["help"]:
        arguments = ["--help"]
    ignored: list[str] = []
    try:
        command = _command(arguments)
        settings = parse(arguments, os.environ, warn=ignored.append)
        wrong = [text for text in ignored if text.startswith("ignored ")]
        if command != "serve" and wrong:
            raise StartError(f"{command}: {wrong[0].removeprefix('ignored ')}", exit_status=2)
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
    except BrokenPipeError:  # whoever read the answer has seen enough
        return 1


def _command(arguments: list[str]) -> str:
    """Take the command off the arguments.

    The host passes on whatever its configuration holds, so a stray word is no error; one that
    looks like a command, or stands alone, is a mistake of a person.

    Raises:
        StartError: For such a word.
    """
    word = arguments[0] if arguments else ""
    if word in _COMMANDS:
        return arguments.pop(0)
    near = difflib.get_close_matches(word, _COMMANDS, n=1)
    if word and not word.startswith("-") and (near or len(arguments) == 1):
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(_COMMANDS)}"
        raise StartError(f"unknown command {word!r}; {hint}", exit_status=2)
    return "serve"


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
    from snakepit_worker.tools.builtin import Inside, builtin_adapters  # noqa: PLC0415
    from snakepit_worker.tools.loading import load  # noqa: PLC0415
    from snakepit_worker.tools.registry import Registry  # noqa: PLC0415

    def served(*_: object, **__: object) -> NoReturn:
        raise NotImplementedError  # they are only described

    own = builtin_adapters(
        Inside(
            store=SessionStore(Limits()),
            info=served,
            stats=served,
            tools=served,
            serve=served,
            enter=served,
            rebuild=served,
            start_job=served,
        )
    )
    loaded = [load(name) for name in settings.adapters]
    registry = Registry([*own, *(one for one in loaded if isinstance(one, Adapter))])
    stdout.write(json.dumps(registry.describe(), indent=2))
    return 0
