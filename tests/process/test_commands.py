"""The commands beside serving: --health-check, doctor, tools."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from snakepit_worker.testing import StandInHost
    from tests.process.conftest import Workers

CHATTY = "tests.process.adapters.chatty.Chatty"
NOISY = "tests.process.adapters.noisy.Noisy"
LIFESPANS = "tests.process.adapters.lifespans"
CONFIGURED = (
    *("--max-workers", "4", "--thread-safety-check", "--mode", "threaded"),
    *("--heartbeat-interval-ms", "2000", "--heartbeat-dependent", "stray"),
    *("--port", "0", "--snakepit-run-id", "abc1234", "--snakepit-instance-name", "dev"),
)
UNSAFE = """
class Broken:
    def execute_tool(self, tool_name, arguments, context):
        return tool_name
"""
UNBUILT = f"""
{UNSAFE}
    __thread_safe__ = True
    def __init__(self):
        raise OSError("no licence")
"""
SHOUTING = """
from snakepit_worker import Adapter
class Shouting(Adapter):
    name = "shouting"
    def __init__(self):
        raise RuntimeError("one thing is wrong\\nand another thing too")
"""


def verdicts(done: subprocess.CompletedProcess[str]) -> tuple[list[str], list[str]]:
    """What has passed and what has failed; every line has to be one or the other."""
    lines = [*done.stdout.splitlines(), *done.stderr.splitlines()]
    marks: dict[str, list[str]] = {"ok    ": [], "FAIL  ": []}
    for line in lines:
        marks[line[:6]].append(line[6:])
    return marks["ok    "], marks["FAIL  "]


def are(found: list[str], subjects: set[str]) -> bool:
    """Whether each subject has its line, and nothing else has one."""
    return len(found) == len(subjects) and all(
        any(line.startswith(f"{subject} ") for line in found) for subject in subjects
    )


@pytest.mark.conforms(21, "D40")
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((), id="alone"),
        pytest.param(("--adapter", CHATTY), id="adapter"),
        pytest.param(("--adapter", CHATTY, *CONFIGURED), id="all flags"),
    ],
)
def test_the_health_check_passes_without_a_host(
    arguments: tuple[str, ...], workers: Workers, ready_file: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as host:
        host.settimeout(0)
        environment = {
            "SNAKEPIT_READY_FILE": str(ready_file),
            "SNAKEPIT_GRPC_ADDRESS": f"127.0.0.1:{host.getsockname()[1]}",
        }
        done = workers.run("--health-check", *arguments, environment=environment)
        with pytest.raises(BlockingIOError):
            host.accept()
    assert done.returncode == 0, done.stderr
    assert not ready_file.exists()
    assert "GRPC_READY" not in done.stdout


@pytest.mark.conforms(21)
def test_the_health_check_asks_for_thread_safety_only_where_it_is_needed(
    workers: Workers, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text(UNSAFE)
    done = workers.run("--health-check", "--adapter", "broken.Broken")
    assert done.returncode == 0, done.stderr


@pytest.mark.conforms(21, "D41")
@pytest.mark.parametrize(
    ("adapter", "code", "cause"),
    [
        ("no_such_package.Adapter", "", "No module named 'no_such_package'"),
        ("no-such-entry-point", "", "installed are: dspy"),
        ("broken.Broken", "import no_such_module", "No module named 'no_such_module'"),
        ("broken.Broken", "raise SystemExit(0)", "SystemExit"),
        ("broken.Broken", UNSAFE, "__thread_safe__"),
        ("broken.Broken", UNBUILT, "OSError: no licence"),
        (f"{LIFESPANS}.Failing", "", "libfancy.so.7 is missing"),
        (f"{LIFESPANS}.Leaving", "", "no licence found"),
    ],
)
def test_the_health_check_fails_and_says_why(
    adapter: str, code: str, cause: str, workers: Workers, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text(code)
    done = workers.run("--health-check", "--adapter", adapter, "--max-workers", "4")
    assert done.returncode == 1, done
    assert cause in done.stderr
    assert adapter in done.stderr
    assert "Traceback" not in done.stderr


def test_the_health_check_looks_at_every_adapter(workers: Workers) -> None:
    done = workers.run("--health-check", "--adapter", f"{LIFESPANS}.Failing", "--adapter", CHATTY)
    assert done.returncode == 1
    passed, failed = verdicts(done)
    assert are(passed, {f"adapter {CHATTY}"})
    assert are(failed, {f"adapter {LIFESPANS}.Failing"})


def test_the_doctor_gives_a_verdict_for_each_line(workers: Workers, host: StandInHost) -> None:
    done = workers.run("doctor", "--adapter", CHATTY, "--elixir-address", host.address)
    assert done.returncode == 0, done
    passed, failed = verdicts(done)
    assert failed == []
    machine = {"python", "grpcio", "protobuf", "uvloop", "orjson", "msgspec", "structlog"}
    around = {"stubs", "loopback", "readiness", "host", f"adapter {CHATTY}"}
    assert are(passed, machine | around)
    assert host.received["Ping"] == 1


def test_the_doctor_names_what_is_wrong(workers: Workers, tmp_path: Path) -> None:
    (tmp_path / "shouting.py").write_text(SHOUTING)
    with socket.socket() as nobody, socket.create_server(("127.0.0.1", 0)) as taken:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        done = workers.run(
            *("doctor", "--adapter", "shouting.Shouting", "--elixir-address", address),
            *("--port", str(taken.getsockname()[1])),
            environment={"SNAKEPIT_READY_FILE": str(tmp_path / "missing" / "ready")},
        )
    assert done.returncode == 1
    _, failed = verdicts(done)
    assert are(failed, {"loopback", "readiness", "host", "adapter shouting.Shouting"})
    assert address in done.stderr


def test_the_tools_of_an_adapter_are_described_as_json(workers: Workers) -> None:
    done = workers.run("tools", "--adapter", CHATTY)
    assert (done.returncode, done.stderr) == (0, "")
    tools = {tool["name"]: tool for tool in json.loads(done.stdout)}
    assert {"worker.info", "session.info", "chatty.log_oddly"} <= tools.keys()
    odd = tools["chatty.log_oddly"]
    assert odd["description"] == "What frameworks do to the standard library's logging."
    assert odd["parameters"]["properties"] == {"oddity": {"type": "string"}}
    assert odd["parameters"]["required"] == ["oddity"]
    assert odd["streams"] is False


@pytest.mark.parametrize("command", ["tools", "doctor"])
def test_what_adapters_print_does_not_mix_with_the_answer(command: str, workers: Workers) -> None:
    done = workers.run(command, "--adapter", NOISY)
    assert done.returncode == 0, done.stderr
    assert "import: print" not in done.stdout
    assert "import: child" not in done.stdout
    if command == "tools":
        assert "noisy.shout" in {tool["name"] for tool in json.loads(done.stdout)}


def test_the_tools_of_dspy_are_described_without_it(workers: Workers, tmp_path: Path) -> None:
    (tmp_path / "dspy.py").write_text("raise SystemExit('dspy was imported')")
    done = workers.run("tools", "--adapter", "dspy")
    assert done.returncode == 0, done.stderr
    described = [t for t in json.loads(done.stdout) if t["name"].startswith("dspy.")]
    assert described
    assert all(tool["parameters"]["type"] == "object" for tool in described)


def test_an_adapter_that_is_not_there_has_no_tools(workers: Workers) -> None:
    done = workers.run("tools", "--adapter", "no_such_package.Adapter")
    assert (done.returncode, done.stdout) == (1, "")
    assert "No module named 'no_such_package'" in done.stderr
    assert "Traceback" not in done.stderr
