"""``docs/conformance.md`` and the tests that it names agree."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pytest

from scripts.generate_conformance_doc import ROOT, TARGET, Row, filled, marked, rows

if TYPE_CHECKING:
    from pathlib import Path

STATEMENTS: Final = [*map(str, range(1, 98)), *(f"D{number}" for number in range(1, 54))]
PAGE: Final = TARGET.read_text(encoding="utf-8")
ROWS: Final = rows(PAGE)
REASON: Final = "*Differs*: "


@pytest.fixture(scope="module")
def tests() -> dict[str, list[str]]:
    return marked(ROOT / "tests")


def test_every_statement_and_defect_stands_once_and_in_order() -> None:
    assert [row.key for row in ROWS] == STATEMENTS


def test_each_has_a_test_or_a_reason(tests: dict[str, list[str]]) -> None:
    missing = [row.key for row in ROWS if row.key not in tests and REASON not in row.text]
    assert missing == [], (
        f"nothing proves {', '.join(missing)}: mark the test that would fail if it were not so, "
        f'@pytest.mark.conforms(3) or conforms("D36"), or write "{REASON}" and the reason into '
        f"its row of {TARGET.relative_to(ROOT)}"
    )


def test_no_marker_names_what_is_not_there(tests: dict[str, list[str]]) -> None:
    unknown = {key: found for key, found in tests.items() if key not in STATEMENTS}
    assert unknown == {}, f"no row of {TARGET.relative_to(ROOT)} has this number"


def test_the_rows_name_the_tests_that_are_marked(tests: dict[str, list[str]]) -> None:
    assert filled(PAGE, tests) == PAGE, f"{TARGET.name} is not current; run `make docs`"
    assert {row.key: list(row.tests) for row in ROWS if row.tests} == tests


def test_the_tests_that_the_text_names_exist() -> None:
    for path in re.findall(r"`(tests/[\w/]+(?:\.py)?)`", PAGE):
        assert (ROOT / path).exists(), path


# --- The script ----------------------------------------------------------------------------------

MODULE = """
import pytest

@pytest.mark.conforms(3, "D36")
@pytest.mark.parametrize("n", [1, 2])
async def test_one(n): ...

@pytest.mark.conforms(4)
class TestSome:
    @pytest.mark.timeout(5)
    @pytest.mark.conforms(3)
    def test_two(self): ...

def test_three(): ...
"""


def test_markers_are_read_from_the_source(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "test_it.py").write_text(MODULE)
    (tmp_path / "helper.py").write_text(MODULE)
    assert marked(tmp_path, tmp_path) == {
        "3": ["deep/test_it.py::test_one", "deep/test_it.py::TestSome::test_two"],
        "4": ["deep/test_it.py::TestSome"],
        "D36": ["deep/test_it.py::test_one"],
    }


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("pytestmark = pytest.mark.conforms(3)", "test_it.py:1: conforms marks test functions"),
        ("@pytest.mark.conforms(3)\ndef helper(): ...", "test_it.py:1: conforms marks"),
        ("@pytest.mark.conforms(N)\ndef test_it(): ...", "takes numbers such as 3.*got N"),
        ("@pytest.mark.conforms('36D')\ndef test_it(): ...", "takes numbers such as 3"),
        ("@pytest.mark.conforms(-1)\ndef test_it(): ...", "takes numbers such as 3"),
    ],
)
def test_a_marker_that_proves_nothing_is_an_error(code: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(code)
    with pytest.raises(ValueError, match=words):
        marked(tmp_path, tmp_path)


def test_the_last_cell_is_filled_in_and_the_rest_left_alone() -> None:
    page = "# Title\n\n| no | text |\n| --- | --- |\n| 3 | one | `old` |\n| D36 | two | three | |\n"
    done = filled(page, {"3": ["a::b", "c::d"]})
    assert done == page.replace("`old`", "`a::b`<br>`c::d`")
    assert rows(done) == [
        Row("3", "| 3 | one ", ("a::b", "c::d")),
        Row("D36", "| D36 | two | three ", ()),
    ]
