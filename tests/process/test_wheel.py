"""The wheel on its own: what it holds, and that it runs where nothing else is installed."""

import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import uv

from snakepit_worker.wire.generated.snakepit_bridge_pb2 import PingRequest
from snakepit_worker.wire.generated.snakepit_bridge_pb2_grpc import BridgeServiceStub

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("snakepit_worker", "dspex", "snakepit_adapters")

# Room for downloads, should uv's cache be empty.
pytestmark = pytest.mark.timeout(300)


def run(*command: str | Path, cwd: Path) -> str:
    """Return what the command prints; fail with everything that it printed otherwise."""
    done = subprocess.run(
        command, cwd=cwd, env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def clean_environment() -> dict[str, str]:
    """Return the environment without what would point a child at this tree or at a host."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "SNAKEPIT_", "VIRTUAL_ENV"))
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (built,) = folder.glob("snakepit_worker-*-py3-none-any.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel and what it requires, no extras."""
    folder = tmp_path_factory.mktemp("installed")
    interpreter = folder / "venv" / "bin" / "python"
    installer = uv.find_uv_bin()
    run(installer, "venv", "--python", sys.executable, "venv", cwd=folder)
    run(
        *(installer, "pip", "install", "--python", interpreter),
        *("--constraints", ROOT / "requirements.lock", wheel),
        cwd=folder,
    )
    return interpreter


@pytest.fixture
def server(python: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with (
        (tmp_path / "stderr").open("w") as log,
        subprocess.Popen(
            [python, "-m", "snakepit_worker", "--port", "0"],
            cwd=tmp_path,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        yield process
        process.kill()


def test_the_wheel_holds_three_typed_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (info,) = {name.split("/")[0] for name in names if ".dist-info/" in name}
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
    assert {name.split("/")[0] for name in names} == {info, *PACKAGES}
    assert {
        f"{package}/{file}" for package in PACKAGES for file in ("__init__.py", "py.typed")
    } <= {*names}
    assert "snakepit-worker = snakepit_worker.cli:main" in entry_points
    assert "snakepit-python = snakepit_worker.interpreter:main" in entry_points
    assert "dspy = snakepit_adapters.dspy:DspyAdapter" in entry_points


def test_the_installed_module_and_command_explain_themselves(python: Path, tmp_path: Path) -> None:
    by_module = run(python, "-m", "snakepit_worker", "--help", cwd=tmp_path)
    by_command = run(python.with_name("snakepit-worker"), "--help", cwd=tmp_path)
    assert "--elixir-address" in by_module
    assert "--elixir-address" in by_command


def test_the_installed_worker_serves_without_a_host(
    server: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert server.stdout is not None
    ready = next(
        (found for line in server.stdout if (found := re.match(r"GRPC_READY:(\d+)$", line))), None
    )
    assert ready is not None, (tmp_path / "stderr").read_text()
    with grpc.insecure_channel(f"127.0.0.1:{ready[1]}") as channel:
        reply = BridgeServiceStub(channel).Ping(PingRequest(message="hello"), timeout=10)
    assert "hello" in reply.message
    server.send_signal(signal.SIGTERM)
    assert server.wait(timeout=20) == 0, (tmp_path / "stderr").read_text()
