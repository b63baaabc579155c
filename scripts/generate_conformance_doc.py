"""Fill in the tests of each row of ``docs/conformance.md``.  ``--check`` only compares.

The text of the rows is written by hand.  Which tests prove a row is said by the tests themselves,
with the marker ``conforms``.  Run with the project's environment: ``make docs``.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT: Final = Path(__file__).parents[1]
TARGET: Final = ROOT / "docs" / "conformance.md"
MARKER: Final = "conforms"

_ROW: Final = re.compile(r"\| (D?\d+) \|.*\|")
_Definition: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        key: Number of the statement, or of the defect with a D before it.
        text: The cells that are written by hand.
        tests: Ids of the tests that it names.
    """

    key: str
    text: str
    tests: tuple[str, ...]


def rows(page: str) -> list[Row]:
    """The rows of all tables, in order.

    Args:
        page: The document.
    """
    found = []
    for line in page.splitlines():
        if match := _ROW.fullmatch(line):
            text, tests, _ = line.rsplit("|", 2)
            found.append(Row(match[1], text, tuple(re.findall(r"`(.+?)`", tests))))
    return found


def marked(folder: Path, root: Path = ROOT) -> dict[str, list[str]]:
    """Ids of the tests that prove each row, read from the source.

    Args:
        folder: Where the tests are.
        root: What the ids are relative to.

    Raises:
        ValueError: When a marker stands where it marks no test, or names something odd.
    """
    tests: dict[str, list[str]] = defaultdict(list)
    for path in sorted(folder.rglob("test_*.py")):
        name = path.relative_to(root).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = {
            node.lineno
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and _is_marker(node)
        }
        for test, marker in _markers(tree, name):
            calls.discard(marker.lineno)
            for key in _keys(marker, name):
                tests[key].append(test)
        if calls:
            msg = f"{name}:{min(calls)}: {MARKER} marks test functions and classes, nothing else"
            raise ValueError(msg)
    return dict(tests)


def filled(page: str, tests: Mapping[str, Sequence[str]]) -> str:
    """The document with the tests in the last cell of each row.

    Args:
        page: The document.
        tests: As ``marked`` gives them.
    """
    lines = []
    for line in page.splitlines(keepends=True):
        match = _ROW.fullmatch(line.rstrip("\n"))
        if match:
            text, _, _ = line.rsplit("|", 2)
            cell = "<br>".join(f"`{test}`" for test in tests.get(match[1], ()))
            lines.append(f"{text}| {cell} |\n" if cell else f"{text}| |\n")
        else:
            lines.append(line)
    return "".join(lines)


def _markers(tree: ast.AST, prefix: str) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, _Definition) and node.name.startswith(("test_", "Test")):
            test = f"{prefix}::{node.name}"
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and _is_marker(decorator):
                    yield test, decorator
            if isinstance(node, ast.ClassDef):
                yield from _markers(node, test)


def _is_marker(call: ast.Call) -> bool:
    return ast.unparse(call.func) == f"pytest.mark.{MARKER}"


def _keys(marker: ast.Call, name: str) -> Iterator[str]:
    for argument in marker.args:
        key = argument.value if isinstance(argument, ast.Constant) else None
        if not isinstance(key, int | str) or not re.fullmatch(r"D?[1-9]\d*", str(key)):
            got = ast.unparse(argument)
            msg = f'{name}:{marker.lineno}: {MARKER} takes numbers such as 3 and "D36", got {got}'
            raise ValueError(msg)
        yield str(key)


def main() -> int:
    """Write or compare; the exit status."""
    page = TARGET.read_text(encoding="utf-8")
    wanted = filled(page, marked(ROOT / "tests"))
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(wanted, encoding="utf-8")
        return 0
    if page == wanted:
        return 0
    print(f"{TARGET.name} is not current; run `make docs`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
