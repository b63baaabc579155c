"""Adapters by entry point and by class path; a wrong name says what would be right."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import TYPE_CHECKING

import pytest

from snakepit_worker import Adapter
from snakepit_worker.errors import StartError
from snakepit_worker.tools.loading import ENTRY_POINT_GROUP, load

if TYPE_CHECKING:
    from pathlib import Path

MODULE = """
from snakepit_worker import Adapter

class Good(Adapter):
    name = "good"

class Plain: ...

class Failing(Adapter):
    name = "failing"
    def __init__(self):
        raise ValueError("no licence")

class Demanding(Adapter):
    name = "demanding"
    def __init__(self, settings): ...

an_instance = Good()
"""


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that can be imported from the working directory, as a user's own are."""
    (tmp_path / "own_adapters.py").write_text(MODULE)
    (tmp_path / "own_broken.py").write_text("import no_such_module_anywhere\n")
    (tmp_path / "own_raising.py").write_text("raise ValueError('bad configuration')\n")
    (tmp_path / "own_syntax.py").write_text("def (:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))  # load() adds to it
    for name in [name for name in sys.modules if name.startswith("own_")]:
        monkeypatch.delitem(sys.modules, name)


def with_entry_point(monkeypatch: pytest.MonkeyPatch, **targets: str) -> None:
    found = [
        metadata.EntryPoint(name, target, ENTRY_POINT_GROUP) for name, target in targets.items()
    ]

    def entry_points(group: str) -> list[metadata.EntryPoint]:
        assert group == ENTRY_POINT_GROUP
        return found

    monkeypatch.setattr(metadata, "entry_points", entry_points)


def test_a_class_in_the_working_directory() -> None:
    adapter = load("own_adapters.Good")
    assert type(adapter).__name__ == "Good"
    assert isinstance(adapter, Adapter)
    assert adapter.name == "good"


def test_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    with_entry_point(monkeypatch, fine="own_adapters:Good")
    monkeypatch.syspath_prepend(".")
    adapter = load("fine")
    assert isinstance(adapter, Adapter)
    assert adapter.name == "good"


def test_the_adapters_that_come_along_have_entry_points() -> None:
    names = {point.name for point in metadata.entry_points(group=ENTRY_POINT_GROUP)}
    assert "dspy" in names


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("own_adapters.Missing", "module own_adapters has no Missing"),
        ("own_missing.Good", "own_missing cannot be imported: ModuleNotFoundError"),
        ("own_broken.Good", "cannot be imported: ModuleNotFoundError.*no_such_module_anywhere"),
        ("own_raising.Good", "cannot be imported: ValueError: bad configuration"),
        ("own_syntax.Good", "cannot be imported: SyntaxError"),
        ("own_adapters.Plain", "Plain.* is neither a subclass of snakepit_worker.Adapter"),
        ("own_adapters.an_instance", "is neither a subclass"),
        ("own_adapters.MODULE.Good", "own_adapters.MODULE cannot be imported"),
        ("own_adapters.Failing", r"Failing\(\) failed: ValueError: no licence"),
        ("own_adapters.Demanding", r"Demanding\(\) failed: TypeError"),
        (".Good", "Good"),
        ("own_adapters.", "own_adapters"),
        (".", "adapter"),
    ],
)
def test_what_cannot_be_loaded_says_why(name: str, words: str) -> None:
    with pytest.raises(StartError, match=words) as caught:
        load(name)
    assert f"adapter {name}" in str(caught.value)
    assert caught.value.exit_status == 1


def test_the_original_error_is_kept_as_the_cause() -> None:
    with pytest.raises(StartError) as caught:
        load("own_raising.Good")
    assert isinstance(caught.value.__cause__, ValueError)


def test_an_unknown_name_lists_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    with_entry_point(monkeypatch, zeta="a:B", alpha="a:C")
    with pytest.raises(StartError, match=r"unknown adapter 'beta'; installed are: alpha, zeta"):
        load("beta")


def test_an_unknown_name_where_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    with_entry_point(monkeypatch)
    with pytest.raises(StartError, match=r"installed are: none; .* package\.module\.ClassName"):
        load("beta")


def test_an_entry_point_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(".")
    with_entry_point(monkeypatch, bad="own_missing:Good", worse="own_adapters:Missing")
    with pytest.raises(StartError, match=r"adapter bad \(own_missing:Good\) cannot be imported"):
        load("bad")
    with pytest.raises(StartError, match=r"adapter worse .* cannot be imported: AttributeError"):
        load("worse")
