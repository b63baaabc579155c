"""Whatever a worker is doing when its parent is killed: nothing is left behind.

`make test` kills 50 parents, `make chaos` a thousand (`PARENT_KILLS`).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from snakepit_worker.launch import MARKER
from tests.process.conftest import LIMIT, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from snakepit_worker.testing import Connection
    from tests.process.conftest import Workers

KILLS: Final = int(os.environ.get("PARENT_KILLS", "50"))
ROUNDS: Final = 10
"""Tests among which the kills are shared out."""
ADAPTERS: Final = "tests.process.adapters"

# Starts a worker as the host does (stdin a pipe that nobody writes to, one pipe for all output,
# always drained), and waits: to be killed.
PARENT: Final = """
import subprocess, sys
{before}
worker = subprocess.Popen(
    [*sys.argv[2:]{more}],
    stdin={{"pipe": subprocess.PIPE, "inherited": None}}[sys.argv[1]],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
)
print(worker.pid, flush=True)
for _ in worker.stdout:
    pass
worker.wait()
"""
PLAIN: Final = PARENT.format(before="", more="")
HOST_INSIDE: Final = PARENT.format(
    before="from snakepit_worker.testing import StandInHost; host = StandInHost()",
    more=", '--elixir-address', host.address",
)


class Scene:
    """One parent with its worker."""

    def __init__(self, workers: Workers, number: int) -> None:
        self.workers = workers
        self.gate = workers.gate
        self.chance = random.Random(number)
        self.ready_file = workers.folder / f"snakepit_ready_default_worker_{number}_7"
        self._held: list[int] = []

    def start(
        self,
        *adapters: str,
        code: str = PLAIN,
        stdin: str = "pipe",
        host: str | None = None,
        **environment: str,
    ) -> None:
        """Start parent and worker; returns when the worker's process exists."""
        command = [sys.executable, *MARKER, "-m", "snakepit_worker", "--grace-ms", "100"]
        command += [item for name in adapters for item in ("--adapter", f"{ADAPTERS}.{name}")]
        if code is PLAIN:
            command += ["--elixir-address", host or self.workers.host.address]
        variables = {
            "SNAKEPIT_READY_FILE": str(self.ready_file),
            "SNAKEPIT_PROCESS_GROUP": "1",
            **environment,
        }
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        if stdin == "inherited":  # this process keeps it open, whatever becomes of the parent
            reading, writing = os.pipe()
            self._held += [reading, writing]
            pipes["stdin"] = reading
        options = self.workers.popen_options(variables, pipes)
        self.parent = self.workers.adopt(
            subprocess.Popen([sys.executable, "-c", code, stdin, *command], **options)
        )
        assert self.parent.stdout is not None
        assert self.parent.stdout.readline()

    def serving(self, *adapters: str, **options: Any) -> Connection:
        """Start, and connect as the host does."""
        self.start(*adapters, **options)
        wait_until(self.ready_file.exists, "readiness")
        connection = self.workers.connect(int(self.ready_file.read_text()))
        connection.greet()
        return connection

    def running(self, adapter: str, tool: str, **options: Any) -> Connection:
        """Start, and have a tool running."""
        connection = self.serving(adapter, **options)
        self.workers.begin(connection, tool, label="running")
        self.gate.arrive("running")
        return connection

    def kill(self) -> None:
        self.parent.kill()
        assert self.parent.wait(LIMIT) == -signal.SIGKILL
        self.workers.all_gone()
        for descriptor in self._held:
            os.close(descriptor)


def just_spawned(scene: Scene) -> None:
    scene.start()


def starting(scene: Scene) -> None:
    """Anywhere between the interpreter's own start and readiness."""
    scene.start("waiting.Waiting")
    time.sleep(scene.chance.uniform(0, 0.4))


def waiting_for_the_host(scene: Scene) -> None:
    scene.start(host="127.0.0.1:9")  # nobody listens there
    time.sleep(scene.chance.uniform(0.1, 0.5))


def importing_an_adapter(scene: Scene) -> None:
    scene.start("importing.Importing", IMPORT_WAITS="receiving")
    scene.gate.arrive("import")


def importing_with_the_interpreter_held(scene: Scene) -> None:
    scene.start("importing.Importing", IMPORT_WAITS="spinning")
    scene.gate.arrive("import")


def entering_a_lifespan(scene: Scene) -> None:
    scene.start("lifespans.Slow")
    scene.gate.arrive("starting")


def just_ready(scene: Scene) -> None:
    scene.start()
    wait_until(scene.ready_file.exists, "readiness")


def idle(scene: Scene) -> None:
    scene.serving()


def idle_with_its_host(scene: Scene) -> None:
    scene.serving(code=HOST_INSIDE)


def idle_with_stdin_kept_open(scene: Scene) -> None:
    scene.serving(stdin="inherited")


def running_a_sync_tool(scene: Scene) -> None:
    scene.running("waiting.Waiting", "wait.synchronous")


def running_an_async_tool(scene: Scene) -> None:
    scene.running("waiting.Waiting", "wait.asynchronous")


def running_a_tool_on_the_main_thread(scene: Scene) -> None:
    scene.running("waiting.Waiting", "wait.on_main_thread")


def running_a_tool_that_does_not_stop(scene: Scene) -> None:
    tool = scene.chance.choice(["sleep", "spin", "shrug", "sleep_on_main_thread"])
    scene.running("waiting.Stubborn", f"stubborn.{tool}")


def with_a_blocked_event_loop(scene: Scene) -> None:
    scene.running("waiting.Stubborn", "stubborn.block_the_loop")


def streaming(scene: Scene) -> None:
    connection = scene.serving("waiting.Waiting")
    tool = scene.chance.choice(["wait.stream_sync", "wait.stream_async"])
    next(connection.stream(tool, {"label": "running"}))
    scene.gate.arrive("running")


def with_children(scene: Scene) -> None:
    connection = scene.serving("children.Children")
    kind = scene.chance.choice(["plain", "deaf", "grandchild"])
    assert connection.call(f"children.{kind}")
    scene.gate.arrive("child")


def draining(scene: Scene) -> None:
    connection = scene.running("waiting.Waiting", "wait.synchronous")
    os.kill(connection.call("worker.info")["pid"], signal.SIGTERM)
    time.sleep(scene.chance.uniform(0, 0.1))


STAGES: Final[tuple[Callable[[Scene], None], ...]] = (
    just_spawned,
    starting,
    waiting_for_the_host,
    importing_an_adapter,
    importing_with_the_interpreter_held,
    entering_a_lifespan,
    just_ready,
    idle,
    idle_with_its_host,
    idle_with_stdin_kept_open,
    running_a_sync_tool,
    running_an_async_tool,
    running_a_tool_on_the_main_thread,
    running_a_tool_that_does_not_stop,
    with_a_blocked_event_loop,
    streaming,
    with_children,
    draining,
)


@pytest.mark.conforms(16, 22, "D36")
@pytest.mark.timeout(120 + 3 * KILLS)
@pytest.mark.parametrize("first", range(ROUNDS))
def test_a_worker_whose_parent_is_killed_leaves_nothing(first: int, workers: Workers) -> None:
    for number in range(first, KILLS, ROUNDS):
        scene = Scene(workers, number)
        stage = STAGES[number % len(STAGES)]
        stage(scene)
        try:
            scene.kill()
        except TimeoutError:
            pytest.fail(f"survived the end of its parent while {stage.__name__}: {number}")


def test_every_stage_is_among_the_kills() -> None:
    assert {number % len(STAGES) for number in range(KILLS)} == set(range(len(STAGES)))
