"""The code in the pages on adapters, jobs, sessions and DSPy runs, and prints what they show."""

from __future__ import annotations

import contextlib
import io
import re
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

from snakepit_worker.tools.loading import ENTRY_POINT_GROUP

DOCS: Final = Path(__file__).parents[2] / "docs"
BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE: Final = re.compile(r"# (\w+\.py)\n")


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of each block of a page, in order."""
    return BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))


def run(page: str, folder: Path, namespace: dict[str, Any]) -> int:
    """Run a page in the working directory; the number of outputs that were compared.

    A block that begins with a file's name is that file; a text block is what the block before it
    prints.
    """
    compared = 0
    printed = None
    for language, text in blocks(page):
        if language == "python":
            if file := FILE.match(text):
                (folder / file[1]).write_text(text, encoding="utf-8")
                continue
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile(text, page, "exec"), namespace)  # noqa: S102 - our own text
            printed = output.getvalue()
        elif language == "text":
            assert printed == text
            printed = None
            compared += 1
        assert language == "python" or not printed, f"not shown: {printed}"
    assert not printed, f"not shown: {printed}"
    return compared


def install(project: dict[str, Any], folder: Path) -> None:
    """What pip leaves of a project, as far as entry points need it."""
    name, version = project["name"], project["version"]
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n", encoding="utf-8")
    lines = [f"[{ENTRY_POINT_GROUP}]"]
    lines += [f"{key} = {path}" for key, path in project["entry-points"][ENTRY_POINT_GROUP].items()]
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")


@pytest.mark.timeout(120)
def test_the_adapter_is_served_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (project,) = [text for language, text in blocks("adapters.md") if language == "toml"]
    install(tomllib.loads(project)["project"], tmp_path)
    assert run("adapters.md", tmp_path, {}) == 3


@pytest.mark.timeout(120)
def test_a_job_goes_as_shown(tmp_path: Path) -> None:
    assert run("jobs.md", tmp_path, {}) == 1


@pytest.mark.timeout(120)
def test_a_session_holds_what_is_shown(tmp_path: Path) -> None:
    assert run("sessions.md", tmp_path, {}) == 1


@pytest.mark.timeout(120)
def test_dspy_answers_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    try:
        assert run("dspy.md", tmp_path, namespace) > 3
    finally:
        for name, end in (("connection", "close"), ("worker", "stop"), ("model", "close")):
            if name in namespace:
                getattr(namespace[name], end)()
