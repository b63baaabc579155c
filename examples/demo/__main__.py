"""The demo: ``python -m examples.demo``, or ``make demo``.

A worker is started exactly as the Elixir pool starts it, hosts the DSPy adapter, and answers real
requests with a real language model.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from examples.demo.model import start_model_server
from snakepit_worker import launch
from snakepit_worker.testing import Connection, StandInHost, ToolFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from examples.demo.model import ModelServer
    from snakepit_worker.launch import WorkerProcess

QUESTIONS: Final = (
    "What is the capital of France?",
    "What is the capital of Japan?",
    "What is the capital of Italy?",
)
DEMOS: Final = [
    {
        "question": "What is the capital of Spain?",
        "answer": "The capital of Spain is Madrid.",
    },
    {
        "question": "Who painted the Mona Lisa?",
        "answer": "Leonardo da Vinci painted the Mona Lisa.",
    },
]
"""Worked examples, without which so small a model copies the template instead of filling it."""
STREAMED: Final = "What is the largest ocean on Earth?"
ANSWER_TIMEOUT: Final = 120.0
"""Seconds for one answer: the model is small, but so may the machine be."""
STEPS: Final = 8


class Demo:
    """The steps, each with what it shows and how long it took.

    Args:
        console: Where they are shown.
        progress: The bar that counts them.
        scripted: Whether a script answers instead of a model.
    """

    def __init__(self, console: Console, progress: Progress, *, scripted: bool) -> None:
        self._scripted = scripted
        self._console = console
        self._progress = progress
        self._bar = progress.add_task("", total=STEPS)

    def run(self) -> None:
        """All of them, in order."""
        with ExitStack() as running:
            with self._step("A language model on this machine") as note:
                model = start_model_server(note, scripted=self._scripted)
                running.enter_context(closing(model))
                note(_which(model))
            with self._step("A worker, started the way the Elixir pool does it") as note:
                host = running.enter_context(StandInHost())
                worker = launch.start(host=host.address, adapters=["dspy"])
                running.callback(worker.stop)
                connection = running.enter_context(Connection(worker.address))
                connection.greet()
                note(
                    f"pid {worker.pid} serves on {worker.address}, "
                    f"ready after {worker.ready_after:.2f} s"
                )
            self._discover(connection)
            handle = self._create(connection, model)
            self._ask(connection, handle)
            self._stream(connection, handle)
            self._fail(connection, handle)
            self._stop(worker)

    def _discover(self, connection: Connection) -> None:
        with self._step("What can it do? worker.tools") as note:
            table = Table("tool", "arguments", "what it does", box=None, padding=(0, 2, 0, 0))
            for tool in connection.call("worker.tools"):
                arguments = tool["parameters"]["properties"]
                table.add_row(
                    tool["name"] + (" (streams)" if tool["streams"] else ""),
                    _names(arguments, 4),
                    tool["description"].partition(".")[0],
                )
            note(table)

    def _create(self, connection: Connection, model: ModelServer) -> str:
        with self._step("A module in a session: dspy.configure_lm, dspy.predict") as note:
            note("waiting for the adapter, which imports DSPy in the background")
            connection.call(
                "dspy.configure_lm",
                {
                    "model": model.model,
                    "api_base": model.base_url,
                    "api_key": "not-needed-here",
                    "temperature": 0.0,
                    "max_tokens": 60,
                    "response_format": "json_schema",
                },
                timeout=ANSWER_TIMEOUT,
            )
            created = connection.call(
                "dspy.predict",
                {
                    "signature": "question -> answer",
                    "instructions": "Answer in one sentence.",
                    "demos": DEMOS,
                },
            )
            note(f"handle {created['handle']}")
            return str(created["handle"])

    def _ask(self, connection: Connection, handle: str) -> None:
        with self._step("Three questions: dspy.call") as note:
            table = Table("question", "answer", "time", box=None, padding=(0, 2, 0, 0))
            for question in QUESTIONS:
                begun = time.perf_counter()
                reply = connection.call(
                    "dspy.call",
                    {"handle": handle, "inputs": {"question": question}},
                    timeout=ANSWER_TIMEOUT,
                )
                seconds = time.perf_counter() - begun
                table.add_row(question, reply["outputs"]["answer"], f"{seconds:.1f} s")
            note(table)

    def _stream(self, connection: Connection, handle: str) -> None:
        with self._step("An answer as it is written: dspy.stream") as note:
            note(STREAMED)
            pieces = []
            begun = time.perf_counter()
            first = 0.0
            arguments = {"handle": handle, "inputs": {"question": STREAMED}}
            for event in connection.stream("dspy.stream", arguments, timeout=ANSWER_TIMEOUT):
                if event.get("type") == "token":
                    first = first or time.perf_counter() - begun
                    pieces.append(event["text"])
            note("|".join(pieces))
            note(f"{len(pieces)} pieces, the first one after {first:.1f} s")

    def _fail(self, connection: Connection, handle: str) -> None:
        with self._step("A wrong argument, and what Elixir is told") as note:
            try:
                connection.call("dspy.call", {"handle": handle, "input": "What is this?"})
            except ToolFailure as failure:
                shown = ("type", "code", "category", "retryable", "message", "violations")
                table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
                for key in shown:
                    value = failure.failure[key]
                    table.add_row(key, value if isinstance(value, str) else json.dumps(value))
                note(table)

    def _stop(self, worker: WorkerProcess) -> None:
        with self._step("A clean stop: SIGTERM") as note:
            note(f"exit status {worker.stop()}")

    @contextmanager
    def _step(self, title: str) -> Iterator[Callable[[Any], None]]:
        """One step; what it notes is shown under its title."""
        self._progress.update(self._bar, description=title)
        self._console.print(Text(f"\n{title}", style="bold"))
        begun = time.perf_counter()
        yield self._note
        seconds = time.perf_counter() - begun
        self._console.print(Text(f"  {seconds:.1f} s", style="green"))
        self._progress.advance(self._bar)

    def _note(self, shown: Any) -> None:  # noqa: ANN401 - text or a table of rich
        self._console.print(Text(f"  {shown}") if isinstance(shown, str) else shown)


def _which(model: ModelServer) -> str:
    if model.scripted:
        return "SCRIPTED: the answers below come from a script, not from a model"
    return f"{model.model} at {model.base_url}"


def _names(arguments: dict[str, Any], most: int) -> str:
    names = list(arguments)
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def main() -> int:
    """Run the demo; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description="Run the demo.")
    parser.add_argument("--scripted", action="store_true", help="do without a real model")
    scripted = parser.parse_args().scripted
    console = Console(highlight=False)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    begun = time.perf_counter()
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            Demo(console, progress, scripted=scripted).run()
    except KeyboardInterrupt:
        console.print("\nStopped.")
        return 130
    console.print(f"\nDone in {time.perf_counter() - begun:.1f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
