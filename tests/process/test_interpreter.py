"""The launcher, and every other way to put the worker in the place of Snakepit's own program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from snakepit_worker import launch
from snakepit_worker.interpreter import command
from snakepit_worker.testing.connection import decode_response
from tests.process.conftest import LIMIT, ROOT, wait_until

if TYPE_CHECKING:
    from tests.process.conftest import Gate, Workers

HELLO = "tests.process.adapters.importing.Importing"
WAITING = "tests.process.adapters.waiting.Waiting"
WORKER = [*launch.MARKER, "-m", "snakepit_worker"]
THREAD_PROFILE = ("--max-workers", "4", "--thread-safety-check")

# What an installer writes for the entry point.
LAUNCHER = f"""#!{sys.executable}
import sys
from snakepit_worker.interpreter import main
sys.exit(main())
"""
SNAKEPITS_OWN = "raise SystemExit('this is the script that Snakepit ships')\n"
OF_A_HOST_ADAPTER = "from snakepit_worker.cli import main\nraise SystemExit(main())\n"
DOCS = (ROOT / "docs" / "elixir.md").read_text(encoding="utf-8")
SHOP, OF_THE_SAME_NAME = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
PROBE = "import os, sys; print(sys.argv, sys.flags, sys.executable, sys.path, os.getcwd())\n"

OPTIONS = [
    (),
    ("-u",),
    ("-uB", "-O"),
    ("-W", "ignore"),
    ("-Wignore", "-Xutf8"),
    ("-uWignore",),
    ("-bX", "utf8"),
    ("-X", "a=b", "-u", "-W", "error"),
    ("--check-hash-based-pycs", "always", "-s"),
]


@pytest.fixture
def launcher(tmp_path: Path) -> str:
    path = tmp_path / "bin" / "snakepit-python"
    path.parent.mkdir()
    path.write_text(LAUNCHER)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """A folder like Snakepit's ``priv/python``."""
    folder = tmp_path / "priv" / "python"
    folder.mkdir(parents=True)
    for name in ("grpc_server.py", "grpc_server_threaded.py"):
        (folder / name).write_text(SNAKEPITS_OWN)
    (folder / "probe.py").write_text(PROBE)
    return folder


def named(options: tuple[str, ...]) -> str:
    return " ".join(options) or "no options"


@pytest.mark.parametrize("script", ["grpc_server.py", "grpc_server_threaded.py"])
@pytest.mark.parametrize("folder", ["", "./", "/somewhere/with spaces/priv/python/"])
def test_both_scripts_become_the_worker(folder: str, script: str) -> None:
    arguments = ["--adapter", "dspy", "-m", "--", "grpc_server.py", ""]
    assert command([folder + script, *arguments]) == [*WORKER, *arguments]


@pytest.mark.parametrize("options", OPTIONS, ids=named)
def test_options_of_the_interpreter_are_kept(options: tuple[str, ...], scripts: Path) -> None:
    script = str(scripts / "grpc_server.py")
    assert command([*options, script, "--port", "0"]) == [*options, *WORKER, "--port", "0"]
    if options:
        assert command([*options, "--", script, "-u"]) == [*options, *WORKER, "-u"]
    # The interpreter reads these options as we do: what follows them is the script.
    probe = [sys.executable, *options, str(scripts / "probe.py"), "one", "-c"]
    shown = subprocess.run(probe, capture_output=True, text=True, check=True).stdout
    assert shown.startswith(f"['{scripts / 'probe.py'}', 'one', '-c'] ")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("-",),
        ("-", "grpc_server.py"),
        ("--",),
        ("-W",),
        ("-X", "grpc_server.py"),
        ("-W", "grpc_server.py", "other.py"),
        ("--check-hash-based-pycs", "grpc_server.py"),
        ("-c", "import grpc"),
        ("-c", "pass", "grpc_server.py"),
        ("-uc", "pass", "grpc_server.py"),
        ("-cpass", "grpc_server.py"),
        ("-m", "grpc_server.py"),
        ("-X", "snakepit=grpc_server.py", "-m", "snakepit_worker", "grpc_server.py"),
        ("other.py", "grpc_server.py"),
        ("grpc_server.pyc",),
        ("my_grpc_server.py",),
        ("grpc_server.py/other.py",),
    ],
    ids=named,
)
def test_everything_else_is_left_alone(arguments: tuple[str, ...]) -> None:
    assert command(arguments) == list(arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("-c", "import grpc"), id="the doctor's import"),
        pytest.param(("-c", "import no_such_module"), id="a failing import"),
        pytest.param(("-c", "import sys; sys.exit(7)"), id="a status"),
        pytest.param(("-c", PROBE, "grpc_server.py", "-u"), id="a program"),
        pytest.param(("-m", "probe", "grpc_server.py"), id="a module"),
        pytest.param(("probe.py", "grpc_server.py", ""), id="another script"),
        pytest.param(("-uB", "-W", "ignore", "probe.py"), id="options"),
        pytest.param(("-", "grpc_server.py"), id="a program on stdin"),
        pytest.param((), id="nothing"),
        pytest.param(("-V",), id="the version"),
        pytest.param(("no_such_script.py",), id="a missing script"),
        pytest.param(("-Z",), id="an unknown option"),
    ],
)
def test_it_is_the_interpreter_for_everything_else(
    arguments: tuple[str, ...], launcher: str, scripts: Path
) -> None:
    def run(executable: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [executable, *arguments],
            cwd=scripts,
            input=PROBE,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    assert run(launcher) == run(sys.executable)


def test_a_signal_ends_what_runs_in_it(launcher: str, workers: Workers, gate: Gate) -> None:
    code = "from tests.process.adapters import gate; import os; gate.wait('here', os.getpid())"
    process = subprocess.Popen([launcher, "-c", code], **workers.popen_options(None, {}))
    workers.adopt(process)
    assert int(gate.arrive("here")) == process.pid
    process.kill()
    assert process.wait(LIMIT) == -9
    gate.gone("here")


class Host:
    """Starts a worker with a command line of the host's making, as the host does."""

    def __init__(self, workers: Workers, folder: Path, ready_file: Path, launcher: str) -> None:
        self._workers = workers
        self._folder = folder
        self._ready_file = ready_file
        self.launcher = launcher

    def start(self, *beginning: str, profile: tuple[str, ...] = ()) -> Any:
        workers = self._workers
        environment = {
            "SNAKEPIT_READY_FILE": str(self._ready_file),
            "SNAKEPIT_PROCESS_GROUP": "1",
            "SNAKEPIT_PYTHON": self.launcher,  # told to every worker, whatever started it
            "PYTHONPATH": os.pathsep.join((workers.environment["PYTHONPATH"], str(self._folder))),
        }
        arguments = [
            *("--adapter", HELLO, "--adapter", WAITING, *profile, "--port", "0"),
            *("--elixir-address", workers.host.address, "--snakepit-run-id", "abc1234"),
            *("--snakepit-instance-name", "dev_app", "--snakepit-instance-token", "token_1"),
        ]
        process = subprocess.Popen(
            [*beginning, *arguments],
            **workers.popen_options(
                environment, {"cwd": self._folder, "stderr": subprocess.STDOUT}
            ),
        )
        workers.adopt(process)
        wait_until(lambda: process.poll() is not None or self._ready_file.exists(), "readiness")
        assert process.stdout is not None
        assert process.poll() is None, process.stdout.read().decode()
        connection = workers.connect(int(self._ready_file.read_text()))
        self._ready_file.unlink()
        connection.greet()
        return process, connection


@pytest.fixture
def starting(workers: Workers, scripts: Path, ready_file: Path, launcher: str) -> Host:
    return Host(workers, scripts, ready_file, launcher)


def is_a_worker_of_the_host(pid: int, folder: Path) -> None:
    """What the host reads in the process table (interop 1.3 and 1.6)."""
    process = Path("/proc", str(pid))
    arguments = (process / "cmdline").read_bytes().rstrip(b"\0").decode().split("\0")
    line = " ".join(arguments)
    assert "python" in (process / "comm").read_text().lower()
    assert "grpc_server.py" in line
    for option in ("run-id abc1234", "instance-name dev_app", "instance-token token_1"):
        assert re.search(rf" --snakepit-{option}( |$)", line)
    assert os.getpgid(pid) == pid
    assert (process / "cwd").readlink() == folder


PYTHON = sys.executable


@pytest.mark.conforms(1, 12, 13)
@pytest.mark.parametrize(
    "way",
    [
        pytest.param((PYTHON, *launch.MARKER, "-m", "snakepit_worker"), id="module and option"),
        pytest.param(
            (PYTHON, "-m", "snakepit_worker", "--served-as", "grpc_server.py"),
            id="module and argument",
        ),
        pytest.param(("launcher", "grpc_server.py"), id="interpreter"),
        pytest.param(("launcher", "-u", "grpc_server.py"), id="interpreter with an option"),
        pytest.param(
            ("launcher", *launch.MARKER, "-m", "snakepit_worker"), id="interpreter and module"
        ),
    ],
)
def test_the_process_profile_starts_by(
    way: tuple[str, ...], starting: Host, scripts: Path, workers: Workers
) -> None:
    begin = [starting.launcher if part == "launcher" else part for part in way]
    process, connection = starting.start(*begin)
    is_a_worker_of_the_host(process.pid, scripts)
    info = connection.call("worker.info")
    assert (info["pid"], info["worker_id"]) == (process.pid, "default_worker_1")
    assert info["host"] == workers.host.address
    assert connection.call("importing.hello") == "hello"
    process.stdin.close()  # what a BEAM that ends does
    assert process.wait(LIMIT) == 0


@pytest.mark.parametrize(
    ("script", "content"),
    [
        pytest.param("grpc_server.py", OF_A_HOST_ADAPTER, id="of the host adapter's choice"),
        pytest.param("grpc_server.py", OF_THE_SAME_NAME, id="in Snakepit's place"),
    ],
)
def test_the_process_profile_starts_by_a_script(
    script: str, content: str, starting: Host, scripts: Path
) -> None:
    (scripts / script).write_text(content)
    process, connection = starting.start(PYTHON, str(scripts / script))
    is_a_worker_of_the_host(process.pid, scripts)
    assert connection.call("importing.hello") == "hello"


@pytest.mark.conforms(1, 12, 13, "D39")
@pytest.mark.parametrize("way", ["interpreter", "same name"])
def test_the_thread_profile_starts_by(
    way: str, starting: Host, scripts: Path, workers: Workers, gate: Gate
) -> None:
    script = scripts / "grpc_server_threaded.py"
    if way == "same name":
        script.write_text(OF_THE_SAME_NAME)
    executable = starting.launcher if way == "interpreter" else PYTHON
    process, connection = starting.start(executable, str(script), profile=THREAD_PROFILE)
    is_a_worker_of_the_host(process.pid, scripts)
    assert connection.call("worker.stats")["threads"]["size"] == 4
    calls = [workers.begin(connection, "wait.synchronous", label="all") for _ in range(4)]
    gate.arrive("all", 4)
    gate.open("all")
    assert [decode_response(call.result(LIMIT)) for call in calls] == ["all"] * 4


@pytest.mark.conforms(21, "D40")
@pytest.mark.parametrize("script", ["grpc_server.py", "grpc_server_threaded.py"])
@pytest.mark.parametrize(
    ("adapter", "status"), [((), 0), ((HELLO, *THREAD_PROFILE), 0), (("no_such.Adapter",), 1)]
)
def test_the_doctor_can_check_the_server(
    adapter: tuple[str, ...], status: int, script: str, workers: Workers, launcher: str
) -> None:
    arguments = ["--adapter", *adapter] if adapter else []
    process = subprocess.Popen(
        [launcher, f"priv/python/{script}", "--health-check", *arguments],
        **workers.popen_options(None, {"stdin": subprocess.DEVNULL}),
    )
    _, stderr = workers.adopt(process).communicate(timeout=LIMIT)
    assert process.returncode == status, stderr.decode()
    assert ("no_such" in stderr.decode()) == bool(status)


def test_the_adapter_in_the_docs_passes_the_check(workers: Workers, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    done = workers.run("--health-check", "--adapter", "shop.Shop")
    assert (done.returncode, done.stderr) == (0, "")


def test_it_starts_with_little() -> None:
    code = "import sys, snakepit_worker.interpreter; print(*sys.modules)"
    shown = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True)
    assert not {"grpc", "structlog", "subprocess", "asyncio"} & {*shown.stdout.split()}
