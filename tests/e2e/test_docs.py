"""The code in the pages on adapters, jobs, sessions and DSPy runs, and prints what they show."""

from __future__ import annotations

import contextlib
import io
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

from snakepit_worker.testing import Connection
from snakepit_worker.tools.loading import ENTRY_POINT_GROUP

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS: Final = Path(__file__).parents[2] / "docs"
BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE: Final = re.compile(r"# (\w+\.py)\n")
ELIXIR_CALL: Final = re.compile(r'\b(?:call!|stream)\("([\w.]+)"(?:, (\w+)|, (?=%\{))?')
ELIXIR_VARIABLE: Final = re.compile(r"^(\w+) = (?=%\{)", re.MULTILINE)
ELIXIR_BINARY: Final = re.compile(r", binary_parameters: (?=%\{)")
STRING: Final = r'"(?:\\.|[^"\\])*"'
BRACE: Final = re.compile(rf"{STRING}|[{{}}]")
TERM: Final = re.compile(rf"({STRING})|([a-z]\w*):(?=\s)|(=>|%\{{|\bnil\b|\btrue\b|\bfalse\b)")
WORDS: Final = {"=>": ":", "%{": "{", "nil": "None", "true": "True", "false": "False"}


class Call(NamedTuple):
    """A call of a tool, in whichever language it is written."""

    tool: str
    arguments: dict[str, Any]
    binary: dict[str, Any]


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of each block of a page, in order."""
    return BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))


def elixir_calls(text: str, names: dict[str, Any]) -> Iterator[Call]:
    """The calls in a block of Elixir, whose variables are those of the Python beside it."""
    for match in ELIXIR_VARIABLE.finditer(text):
        assert value(term(text, match.end()), names) == names[match[1]], match[1]
    for match in ELIXIR_CALL.finditer(text):
        arguments = match[2] or term(text, match.end())
        rest = match.end() if match[2] else match.end() + len(arguments)
        found = ELIXIR_BINARY.match(text, rest)
        binary = term(text, found.end()) if found else ""
        yield Call(match[1], value(arguments, names) or {}, value(binary, names) or {})


def term(text: str, start: int) -> str:
    """The map that begins there, if one does."""
    if not text.startswith("%{", start):
        return ""
    depth = 0
    for brace in BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return text[start : brace.end()]
    raise AssertionError(f"not closed: {text[start:]}")


def value(elixir: str, names: dict[str, Any]) -> Any:
    """What a term of maps, lists, texts, numbers and variables is in Python."""

    def translated(match: re.Match[str]) -> str:
        text, key, word = match.groups()
        return text or (f'"{key}":' if key else WORDS[word])

    return eval(TERM.sub(translated, elixir or "nil"), {}, names)  # noqa: S307 - our own text


def run(page: str, folder: Path, namespace: dict[str, Any], made: list[Call] | None = None) -> int:
    """Run a page in the working directory; the number of outputs that were compared.

    A block that begins with a file's name is that file; a text block is what the block before it
    prints.  Where calls are remembered, those of a Python block are those of the Elixir before it.
    """
    compared = 0
    printed = None
    elixir = ""
    for language, text in blocks(page):
        if language == "python":
            if file := FILE.match(text):
                (folder / file[1]).write_text(text, encoding="utf-8")
                continue
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile(text, page, "exec"), namespace)  # noqa: S102 - our own text
            printed = output.getvalue()
            if made is not None:
                assert made == list(elixir_calls(elixir, namespace)), text
                made.clear()
                elixir = ""
        elif language == "elixir":
            elixir += text
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


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """The calls that connections make."""
    calls: list[Call] = []
    request = Connection.request

    def remember(self: Connection, tool: str, arguments: Any = None, **more: Any) -> Any:
        calls.append(Call(tool, dict(arguments or {}), dict(more.get("binary") or {})))
        return request(self, tool, arguments, **more)

    monkeypatch.setattr(Connection, "request", remember)
    return calls


@pytest.mark.timeout(120)
def test_dspy_answers_as_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: list[Call]
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    try:
        assert run("dspy.md", tmp_path, namespace, made) == 12
    finally:
        for name, end in (
            ("connection", "close"),
            ("worker", "stop"),
            ("host", "close"),
            ("model", "close"),
        ):
            if name in namespace:
                getattr(namespace[name], end)()
