"""What adapter authors import, and that importing it is cheap."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from importlib import metadata

import pytest

import snakepit_worker

EXPECTED = {
    "snakepit_worker": ["Adapter", "Binary", "CallContext", "Chunk", "Rebuilt", "tool"],
    "snakepit_worker.testing": ["Connection", "StandInHost", "ToolFailure"],
    "snakepit_worker.sessions": [
        "Closers",
        "Ended",
        "Lease",
        "Limits",
        "Recipe",
        "Resource",
        "Session",
        "SessionStore",
        "exclusively_held",
    ],
}
MODULES = [
    found.name
    for found in pkgutil.walk_packages(snakepit_worker.__path__, "snakepit_worker.")
    if ".generated." not in found.name and not found.name.endswith("__main__")
]


@pytest.mark.parametrize("module", EXPECTED)
def test_the_public_names_are_these_and_no_others(module: str) -> None:
    assert importlib.import_module(module).__all__ == EXPECTED[module]


@pytest.mark.parametrize("module", ["snakepit_worker", *MODULES])
def test_every_exported_name_is_there(module: str) -> None:
    imported = importlib.import_module(module)
    for name in getattr(imported, "__all__", []):
        assert getattr(imported, name) is not None


@pytest.mark.parametrize("name", EXPECTED["snakepit_worker"])
def test_every_public_name_is_explained(name: str) -> None:
    public = getattr(snakepit_worker, name)
    assert inspect.getdoc(public)
    assert public.__module__.startswith("snakepit_worker.")


def test_the_version_is_that_of_the_distribution() -> None:
    assert snakepit_worker.__version__ == metadata.version("snakepit-worker")


def imported_by(statement: str) -> set[str]:
    """Modules that a fresh interpreter has after a statement."""
    code = f"import json, sys\n{statement}\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


HEAVY = {"grpc", "structlog", "uvloop", "orjson", "numpy", "google.protobuf", "dspy", "sqlalchemy"}


def test_importing_the_package_is_cheap() -> None:
    assert imported_by("import snakepit_worker").isdisjoint(HEAVY)


def test_writing_an_adapter_is_cheap_too() -> None:
    statement = """
from snakepit_worker import Adapter, Binary, CallContext, Chunk, tool
class Echo(Adapter):
    name = "echo"
    @tool
    async def say(self, text: str, ctx: CallContext) -> str:
        return text
"""
    assert imported_by(statement).isdisjoint(HEAVY)


def test_errors_and_deadlines_import_nothing_of_ours() -> None:
    ours = {
        name
        for name in imported_by("import snakepit_worker.errors, snakepit_worker.deadline")
        if name.startswith("snakepit_worker.")
    }
    # The package itself brings in what authors need, and nothing else.
    assert ours == {
        name
        for name in imported_by("import snakepit_worker")
        if name.startswith("snakepit_worker.")
    } | {"snakepit_worker.deadline"}


def test_a_worker_imports_no_optional_part() -> None:
    imported = imported_by("import snakepit_worker.runtime")
    optional = {"numpy", "sqlalchemy", "opentelemetry", "prometheus_client", "rich", "dspy"}
    assert imported.isdisjoint(optional)
    assert "grpc_reflection.v1alpha.reflection" not in imported
