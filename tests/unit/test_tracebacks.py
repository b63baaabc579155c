"""Tracebacks: which frames, and that nothing else is in them."""

from __future__ import annotations

import linecache
import site
import statistics
import sys
import sysconfig
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import snakepit_worker
from snakepit_worker.wire.failures import CallSite, describe
from snakepit_worker.wire.status import as_status
from snakepit_worker.wire.tracebacks import (
    LINE_LIMIT,
    MOST_FRAMES,
    MOST_LINES,
    MOST_LINKS,
    traceback_lines,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECRET = "Xq7hTz0pLm93wVbNs2Rk"  # noqa: S105 - it opens nothing
OURS = str(Path(snakepit_worker.__file__).parent)
STDLIB = sysconfig.get_path("stdlib")


def caught(function: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as info:  # noqa: PT011 - all kinds are under test
        function()
    error = info.value
    assert error.__traceback__ is not None
    return error.with_traceback(error.__traceback__.tb_next)  # without this function


def run(path: str, source: str, **names: Any) -> Any:
    """The function ``go`` of code that pretends to lie at a path."""
    exec(compile(source, path, "exec"), names)  # noqa: S102 - our own text
    return names["go"]


def through(*paths: str) -> BaseException:
    """An exception whose frames lie at these paths, the outermost first."""

    def fail() -> None:
        raise ValueError("no")

    go: Any = fail
    for path in reversed(paths):
        go = run(path, "def go():\n    inner()\n", inner=go)
    return caught(go)


def paths(lines: tuple[str, ...]) -> list[str]:
    return [line.split('"')[1] for line in lines if line.startswith('  File "')]


# --- What a traceback looks like ------------------------------------------------------------------


def test_it_reads_like_pythons() -> None:
    lines = traceback_lines(through("/app/shop.py"))
    assert lines[0] == "Traceback (most recent call last):\n"
    assert '  File "/app/shop.py", line 2, in go\n' in lines
    assert lines[-2].endswith(', in fail\n    raise ValueError("no")\n')
    assert lines[-1] == "ValueError: no\n"
    assert all(line.endswith("\n") for line in lines)


def test_classes_are_named_with_their_module() -> None:
    closed = type(
        "Closed", (Exception,), {"__module__": "shop", "__qualname__": "OfTheShop.Closed"}
    )
    assert traceback_lines(closed("no")) == ("shop.OfTheShop.Closed: no\n",)
    assert traceback_lines(KeyboardInterrupt()) == ("KeyboardInterrupt\n",)


def test_notes_follow_the_text() -> None:
    error = ValueError("no")
    error.add_note("a note")
    error.add_note(f"password='{SECRET}'")
    assert traceback_lines(error) == ("ValueError: no\n", "a note\n", "password='[REDACTED]'\n")


def test_causes_come_before_what_they_caused() -> None:
    def fail() -> None:
        try:
            try:
                raise KeyError("first")
            except KeyError:
                raise ValueError("second")  # noqa: B904 - the implicit context counts too
        except ValueError as error:
            raise RuntimeError("third") from error

    text = "".join(traceback_lines(caught(fail)))
    parts = [
        "KeyError: 'first'\n",
        "\nDuring handling of the above exception, another exception occurred:\n\nTraceback",
        "ValueError: second\n",
        "\nThe above exception was the direct cause of the following exception:\n\nTraceback",
        "RuntimeError: third\n",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert text.count("Traceback (most recent call last):\n") == 3


def test_a_suppressed_context_is_left_out() -> None:
    def fail() -> None:
        try:
            raise KeyError("hidden")
        except KeyError:
            raise ValueError("shown") from None

    text = "".join(traceback_lines(caught(fail)))
    assert "shown" in text
    assert "KeyError" not in text


def test_groups_show_their_members_indented() -> None:
    def fail() -> None:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ExceptionGroup("many", [error, ValueError("other")]) from None

    lines = traceback_lines(caught(fail))
    text = "".join(lines)
    assert "ExceptionGroup: many (2 sub-exceptions)\n" in lines
    assert "  +-- 1 of 2\n" in lines
    assert "  | Traceback (most recent call last):\n" in text
    assert "  |     raise KeyError" in text
    assert text.endswith("  +-- 2 of 2\n  | ValueError: other\n")


# --- Limits ---------------------------------------------------------------------------------------


def test_recursion_is_shortened() -> None:
    def forever() -> None:
        forever()

    lines = traceback_lines(caught(forever))
    assert len(lines) < 15
    assert "Previous line repeated" in "".join(lines)


def test_of_many_frames_the_innermost_are_shown() -> None:
    lines = traceback_lines(through(*(f"/app/{number}.py" for number in range(200))))
    assert len(paths(lines)) == MOST_FRAMES
    assert paths(lines)[-2] == "/app/199.py"


@pytest.mark.parametrize("frames", ["full", "own"])
def test_of_a_long_chain_the_nearest_are_shown(frames: Any) -> None:
    error = through(f"{STDLIB}/x.py")
    for number in range(3 * sys.getrecursionlimit()):
        following = ValueError(f"link {number}")
        following.__cause__ = error
        error = following
    lines = traceback_lines(error, frames)
    named = [line for line in lines if line.startswith("ValueError: link")]
    assert len(named) == MOST_LINKS
    assert named[-1] == f"ValueError: {error}\n"


def test_a_chain_that_goes_round_ends() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__context__ = second, first
    lines = traceback_lines(first)
    assert [line for line in lines if line.startswith("ValueError")] == [
        "ValueError: second\n",
        "ValueError: first\n",
    ]


def test_of_large_groups_the_first_are_shown() -> None:
    group = ExceptionGroup("g", [ValueError(str(number)) for number in range(10_000)])
    lines = traceback_lines(group)
    assert "ValueError: 9\n" in "".join(lines)
    assert lines[-1] == "  +-- 9990 more\n"


def test_nested_groups_share_the_room() -> None:
    error: Exception = ValueError("no").with_traceback(through("/app/leaf.py").__traceback__)
    for _ in range(3):
        error = ExceptionGroup("g", [error] * 12)
    lines = traceback_lines(error)
    assert MOST_LINES / 2 < len(lines) <= MOST_LINES


def test_deep_groups_end() -> None:
    error: Exception = ValueError("at the bottom")
    for _ in range(200):
        error = ExceptionGroup("g", [error])
    lines = traceback_lines(error)
    assert len(lines) < 20
    assert "at the bottom" not in "".join(lines)


def test_long_source_lines_are_cut() -> None:
    source = f"def go(): raise ValueError('short'){' ' * 10}# {'x' * 100_000}\n"
    linecache.cache["/app/long.py"] = (len(source), None, [source], "/app/long.py")
    try:
        lines = traceback_lines(caught(run("/app/long.py", source)))
    finally:
        del linecache.cache["/app/long.py"]
    assert "xxx" in lines[-2]
    assert max(map(len, lines)) <= LINE_LIMIT + 1


# --- Nothing that must not be seen ----------------------------------------------------------------


@pytest.mark.parametrize("frames", ["full", "own"])
def test_values_of_variables_never_appear(frames: Any) -> None:
    def fail(given: str) -> None:
        local = given.upper()
        assert local
        raise ValueError("no")

    lines = traceback_lines(caught(partial(fail, f"value-{4_000 + 711}")), frames)
    assert "4711" not in "".join(lines)
    assert "local = " not in "".join(lines)


def test_secrets_in_source_lines_and_texts_are_removed() -> None:
    source = f"def go(): raise ValueError(\"password='{SECRET}'\")\n"
    linecache.cache["/app/secret.py"] = (len(source), None, [source], "/app/secret.py")
    try:
        text = "".join(traceback_lines(caught(run("/app/secret.py", source))))
    finally:
        del linecache.cache["/app/secret.py"]
    assert "def go(): raise" in text
    assert SECRET not in text
    assert text.count("[REDACTED]") == 2


@pytest.mark.parametrize("padding", range(16_384 - 60, 16_384 + 10, 5))
def test_a_secret_is_removed_before_a_long_text_is_cut(padding: int) -> None:
    error = ValueError(f"{'.' * padding} password='{SECRET}'")
    assert SECRET[:6] not in "".join(traceback_lines(error))


# --- Which frames ---------------------------------------------------------------------------------


def test_none_means_none() -> None:
    assert traceback_lines(through("/app/shop.py"), "none") == ()


def installed() -> Iterator[str]:
    yield from (STDLIB, sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    yield from (*site.getsitepackages(), site.getusersitepackages(), OURS)


@pytest.mark.parametrize("folder", sorted(set(installed())))
def test_frames_of_installed_code_are_not_own(folder: str) -> None:
    error = through("/app/shop.py", f"{folder}/some/module.py", "/app/model.py")
    assert paths(traceback_lines(error, "own")) == ["/app/shop.py", "/app/model.py", __file__]
    assert f"{folder}/some/module.py" in paths(traceback_lines(error, "full"))


@pytest.mark.parametrize("folder", [STDLIB, OURS])
def test_a_folder_is_not_another_whose_name_goes_on(folder: str) -> None:
    error = through(f"{folder}-of-the-application/shop.py")
    assert f"{folder}-of-the-application/shop.py" in paths(traceback_lines(error, "own"))


def test_frozen_modules_are_not_own() -> None:
    error = through("<frozen importlib._bootstrap>", "<string>")
    assert paths(traceback_lines(error, "own")) == ["<string>", __file__]


def test_an_adapter_s_frames_are_own_wherever_it_is_installed() -> None:
    folder = f"{sysconfig.get_path('purelib')}/shop/"
    error = through(f"{folder}tools.py", f"{folder[:-1]}keeper/x.py")
    assert paths(traceback_lines(error, "own", folder)) == [f"{folder}tools.py", __file__]


def test_the_rule_holds_for_causes_and_members_too() -> None:
    path = f"{OURS}/x.py"
    error = ExceptionGroup("g", [ValueError("x").with_traceback(through(path).__traceback__)])
    error.__cause__ = through(path)
    assert path in "".join(traceback_lines(error, "full"))
    assert path not in "".join(traceback_lines(error, "own"))


def test_without_own_frames_the_text_is_left() -> None:
    error = ValueError("no")
    path = f"{OURS}/x.py"
    go = run(path, "def go():\n    raise error\n", error=error)
    assert paths(traceback_lines(caught(go))) == [path]
    assert traceback_lines(error, "own") == ("ValueError: no\n",)


# --- Exceptions that misbehave --------------------------------------------------------------------


class OddError(Exception):
    """Answers every question with an exception."""

    def __str__(self) -> str:
        raise RecursionError

    __repr__ = __str__

    def __getattr__(self, name: str) -> object:
        raise KeyError(name)

    def __bool__(self) -> bool:
        raise ValueError

    def __eq__(self, other: object) -> bool:
        raise ValueError

    __hash__ = Exception.__hash__


@pytest.mark.parametrize("frames", ["full", "own", "none"])
def test_whatever_an_exception_does_it_is_described(frames: Any) -> None:
    error = OddError()
    error.__cause__ = OddError()
    failure = describe(caught(partial(raise_, error)), CallSite("t", "s"), None, frames)
    assert failure.type == "OddError"
    assert [cause["type"] for cause in failure.cause] == ["OddError"]
    assert failure.notes == ()
    assert (failure.stacktrace == ()) == (frames == "none")


def raise_(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("notes", ["text", 7, [1, None, "kept"], ("a",)])
def test_notes_that_are_none(notes: Any) -> None:
    error = ValueError("no")
    error.__notes__ = notes
    kept = ("kept",) if isinstance(notes, list) else ()
    assert describe(error, CallSite("t", "s")).notes == kept


def test_source_that_cannot_be_read_does_no_harm() -> None:
    class Loader:
        def get_source(self, name: str) -> str:
            raise ZeroDivisionError(name)

    source = "def go(): raise ValueError('no')\n"
    go = run("/app/odd.py", source, __name__="odd", __loader__=Loader())
    assert traceback_lines(caught(go), "own")[-1] == "ValueError: no\n"


# --- What it costs --------------------------------------------------------------------------------


def deep(frames: int) -> None:
    if frames:
        deeper(frames - 1)
    raise ValueError("at the bottom")


def deeper(frames: int) -> None:
    deep(frames - 1)


def chained(links: int, frames: int) -> None:
    if not links:
        deep(frames)
    try:
        chained(links - 1, frames)
    except Exception as error:
        raise RuntimeError(f"link {links}") from error


@pytest.mark.parametrize("streaming", [False, True])
def test_a_failure_costs_less_than_a_millisecond(streaming: bool) -> None:  # noqa: FBT001
    """CPU time of this thread, and the median of many: a busy machine makes no difference."""
    error = caught(partial(chained, 4, 30))
    site_of_call = CallSite("shop.price", "session", "sp-1", {"article": "tea"})

    def build() -> object:
        failure = describe(error, site_of_call)
        return as_status(failure) if streaming else failure.to_json()

    assert len(describe(error, site_of_call).cause) == 4
    assert len(paths(describe(error, site_of_call).stacktrace)) > 30
    seconds = []
    for _ in range(200):
        before = time.thread_time()
        build()
        seconds.append(time.thread_time() - before)
    assert statistics.median(seconds) < 0.001
