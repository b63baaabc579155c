"""The Elixir side in ``examples/elixir``: compiled, tested, and used to start workers from a BEAM.

``python -m tests.e2e.test_elixir`` writes the failures that its tests read.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from snakepit_worker.errors import Conflict, InvalidArgument, ProviderError, Unavailable, Violation
from snakepit_worker.testing import StandInHost
from snakepit_worker.wire.failures import CallSite, Failure, describe
from snakepit_worker.wire.status import as_status

ROOT: Final = Path(__file__).resolve().parents[2]
PROJECT: Final = ROOT / "examples" / "elixir"
FIXTURES: Final = Path("test", "fixtures")
TRACEBACK: Final = (
    "Traceback (most recent call last):\n",
    '  File "shop.py", line 12, in price\n',
    "    raise\n",
)

MIX: Final = shutil.which("mix")
GIT: Final = shutil.which("git")
needs_elixir = pytest.mark.skipif(
    MIX is None, reason="needs Elixir's mix (on Debian: apt-get install elixir)"
)
pytestmark = pytest.mark.timeout(300)  # the first start of a BEAM on a busy machine takes long


class RateLimitError(Exception):
    """As providers' libraries name it."""


class HTTPStatusError(Exception):
    """What it comes from."""


def texts() -> dict[str, str]:
    """What the worker sends, by the name of the file for it."""
    too_many = RateLimitError("slow down")
    too_many.__cause__ = HTTPStatusError("429 Too Many Requests")
    limited = ProviderError(
        "slow down",
        code="RESOURCE_EXHAUSTED",
        retry_after=2.5,
        details={"provider": "openai", "status": 429, "limits": [60.5, None]},
        help="wait, or ask for more",
    )
    wrong = InvalidArgument(
        'wrong arguments for shop.price: articel: unknown argument; quantity: "zwölf"',
        violations=[
            Violation("articel", "unknown argument; did you mean article?"),
            Violation("quantity", 'expected int, got "zwölf"'),
        ],
    )
    elsewhere = Conflict(
        "session 'ann' lives on worker 'pool_worker_1' of here",
        retry_after=24.5,
        details={"session_id": "ann", "worker_id": "pool_worker_1", "host": "here"},
    )
    moved = Unavailable("session 'ann' has just been taken over; call again", retry_after=0.0)
    return {
        "lives_elsewhere": _failure(elsewhere).to_json(),
        "just_moved": _failure(moved).to_json(),
        "wrong_arguments": _failure(wrong).to_json(),
        "stream_wrong_arguments": as_status(_failure(wrong)).message,
        "rate_limit": _failure(too_many, limited).to_json(),
        "stream_too_long": as_status(_failure(ValueError("größer " * 1000))).message,
    }


def _failure(error: Exception, classification: ProviderError | None = None) -> Failure:
    correlation_id = "sp-0d11d67e0ed7f6651e74e2c1"
    site = CallSite("shop.price", "session_2_1795334162543942", correlation_id)
    described = describe(error, site, classification)
    return replace(described, error_id="0" * 32, stacktrace=(*TRACEBACK, f"{error}\n"))


def write(folder: Path) -> None:
    """Write the texts to files, each with a newline at its end."""
    for name, text in texts().items():
        (folder / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy beside the docs, as in the tree, so that nothing is built there."""
    copy = tmp_path / PROJECT.relative_to(ROOT)
    shutil.copytree(PROJECT, copy, ignore=shutil.ignore_patterns("_build", "deps"))
    docs = tmp_path / "docs"
    docs.mkdir()
    for page in ("elixir.md", "dspy.md"):
        shutil.copy(ROOT / "docs" / page, docs)
    return copy


def mix(*arguments: str, cwd: Path, **environment: str) -> str:
    """Run a task; what it prints."""
    own = {"MIX_ENV": "test", "MIX_HOME": str(cwd / ".mix")}
    done = subprocess.run(
        [MIX or "mix", *arguments],
        cwd=cwd,
        env={**os.environ, **own, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_failures_that_its_tests_read_are_what_the_worker_sends() -> None:
    kept = {path.stem: path.read_text(encoding="utf-8") for path in (PROJECT / FIXTURES).iterdir()}
    assert kept == {name: f"{text}\n" for name, text in texts().items()}


@needs_elixir
def test_it_compiles_without_warnings_and_passes_its_tests(project: Path) -> None:
    mix("format", "--check-formatted", cwd=project)
    mix("compile", "--warnings-as-errors", cwd=project)
    assert " 0 failures" in mix("test", "--warnings-as-errors", cwd=project)


@needs_elixir
def test_it_starts_workers_from_a_beam(project: Path, tmp_path: Path) -> None:
    launcher = tmp_path / "snakepit-python"
    launcher.write_text(
        f"#!{sys.executable}\nfrom snakepit_worker.interpreter import main\nmain()\n"
    )
    launcher.chmod(0o755)
    with StandInHost() as host:
        told = {
            "LAUNCH_TEST_HOST": host.address,
            "LAUNCH_TEST_PYTHON": sys.executable,
            "LAUNCH_TEST_LAUNCHER": str(launcher),
        }
        shown = mix("test", "--only", "starts_workers", cwd=project, **told)
    assert " 0 failures" in shown
    assert host.received["Ping"] >= 3


@needs_elixir
@pytest.mark.skipif(GIT is None, reason="needs git")
def test_it_can_be_a_sparse_git_dependency(project: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(project, repository / "examples" / "elixir")
    (repository / "pyproject.toml").touch()
    git = [GIT or "git", "-c", "user.name=tests", "-c", "user.email=tests@localhost"]
    git += ["-c", "core.hooksPath=/dev/null", "-c", "commit.gpgSign=false"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "All"]):
        subprocess.run([*git, *arguments], cwd=repository, check=True)
    mix("new", "shop", cwd=tmp_path)
    # Compiled in :test it needs no packages from Hex; an application leaves this option out.
    dependency = f'git: "{repository}", sparse: "examples/elixir", env: :test'
    definition = tmp_path / "shop" / "mix.exs"
    text = definition.read_text(encoding="utf-8")
    none = "      # {:dep_from_hexpm, "
    assert none in text
    text = text.replace(none, f"      {{:snakepit_worker_elixir, {dependency}}}\n{none}")
    definition.write_text(text, encoding="utf-8")
    mix("deps.get", cwd=tmp_path / "shop")
    script = "IO.inspect(SnakepitWorker.HostAdapter.script_args())"
    shown = mix("run", "-e", script, cwd=tmp_path / "shop")
    assert '["-X", "snakepit=grpc_server.py", "-m", "snakepit_worker"]' in shown
    fetched = {path.name for path in (tmp_path / "shop" / "deps").rglob("*.toml")}
    assert not fetched, "more than the sparse folder was checked out"


if __name__ == "__main__":
    write(PROJECT / FIXTURES)
