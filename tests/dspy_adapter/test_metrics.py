from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import dspy
import msgspec
import pytest

from snakepit_adapters.dspy import registered_metrics
from snakepit_adapters.dspy.metric_specs import MetricSpec
from snakepit_adapters.dspy.metrics import metric, verdict_of
from snakepit_worker.errors import FailedPrecondition, NotFound, StartError

if TYPE_CHECKING:
    from collections.abc import Iterator


def verdict(spec: Any, expected: Any, actual: Any) -> Any:
    described: MetricSpec = msgspec.convert(spec, MetricSpec)
    example = dspy.Example(question="?", answer=expected).with_inputs("question")
    return metric(described).judge(example, dspy.Prediction(answer=actual, other=1))


@pytest.mark.parametrize(
    ("spec", "expected", "actual", "score"),
    [
        ("exact_match", "The Paris!", "paris", 1),
        ("exact_match", ["Rome", "Paris"], "paris", 1),
        ("exact_match", ["a", "b"], ["a", "b"], 1),
        ("exact_match", "Paris", "Paris, France", 0),
        ("exact_match", 3, 3, 1),
        ("exact_match", 3, "3", 0),
        ({"type": "exact_match", "normalize": False}, "Paris", "paris", 0),
        ("contains", "paris", "It is Paris.", 1),
        ("contains", ["Rome", "Lima"], "It is Paris.", 0),
        ({"type": "contains", "case_sensitive": True}, "paris", "It is Paris.", 0),
        ("f1", "red green", "green blue", 0.5),
        ({"type": "f1", "threshold": 0.5}, "red green", "green blue", 1),
        ({"type": "f1", "threshold": 0.6}, "red green", "green blue", 0),
        ("numeric", 12, "about 12.0 kg", 1),
        ("numeric", 1200, "1,200", 1),
        ("numeric", 12, 12.1, 0),
        ({"type": "numeric", "absolute": 0.2}, 12, 12.1, 1),
        ({"type": "numeric", "relative": 0.01}, 12, 12.1, 1),
        ("json_equal", {"a": [1, 2]}, '{"a": [1, 2.0]}', 1),
        ("json_equal", {"a": [1, 2]}, {"a": [2, 1]}, 0),
        ("json_equal", {"a": True}, {"a": 1}, 0),
        ("json_equal", "text", "text", 1),
        ({"type": "json_equal", "ignore_order": True}, {"a": [1, 2]}, {"a": [2, 1]}, 1),
    ],
)
def test_built_in_metrics(spec: Any, expected: Any, actual: Any, score: float) -> None:
    found = verdict(spec, expected, actual)
    assert found.score == pytest.approx(score)
    assert (found.feedback == "correct") is (score == 1)


def test_texts_of_one_meaning_are_near() -> None:
    near = verdict("semantic_similarity", "The doctor prescribed pills.", "A physician gave drugs.")
    far = verdict("semantic_similarity", "The doctor prescribed pills.", "The rocket flew.")
    assert 0 <= far.score < near.score < 1
    assert verdict({"type": "semantic_similarity", "threshold": 0.99}, "a b", "a b").score == 1


def test_the_scores_of_several_fields_are_averaged() -> None:
    example = dspy.Example(q="?", a="x", b="y").with_inputs("q")
    prediction = dspy.Prediction(a="x", b="z", c="?")
    found = metric("exact_match").judge(example, prediction)
    assert (found.score, found.feedback) == (0.5, "b: expected 'y', got 'z'")
    only = msgspec.convert({"type": "exact_match", "fields": ["a"]}, MetricSpec)
    assert metric(only)(example, prediction) == 1


@pytest.mark.parametrize(
    ("example", "prediction", "message"),
    [
        ({"q": "?"}, {"a": 1}, "no expected value"),
        ({"q": "?", "b": 1}, {"a": 1}, "no expected value"),
    ],
)
def test_what_cannot_be_compared_has_no_score(example: Any, prediction: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric("exact_match")(
            dspy.Example(**example).with_inputs("q"), dspy.Prediction(**prediction)
        )
    with pytest.raises(ValueError, match="no prediction"):
        metric("exact_match")(dspy.Example(**example).with_inputs("q"), None)


@pytest.mark.parametrize("text", ["none", "1 or 2"])
def test_a_text_without_one_number_has_no_score(text: str) -> None:
    with pytest.raises(ValueError, match="expected a number"):
        verdict("numeric", 1, text)


def test_a_score_is_a_number() -> None:
    assert verdict_of({"score": True}).score == 1
    assert verdict_of({"score": 0.5, "feedback": 3}) == (0.5, "3")
    assert verdict_of(dspy.Prediction(score=0.5)) == (0.5, None)
    for value in ("1", None, {"feedback": "?"}):
        with pytest.raises(TypeError, match="expected a number"):
            verdict_of(value)
    with pytest.raises(ValueError, match="finite"):
        verdict_of(float("nan"))


def test_an_elixir_tool_needs_a_call() -> None:
    with pytest.raises(FailedPrecondition, match="outside of a call"):
        verdict({"type": "elixir", "tool": "grade"}, "a", "a")


def test_unknown_metrics_are_refused() -> None:
    for spec in ("bleu", {"type": "bleu"}, {"type": "f1", "treshold": 1}, {"type": "elixir"}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(spec, MetricSpec)


# --- Functions of the operator --------------------------------------------------------------------


@pytest.fixture
def functions(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    module = ModuleType("metrics_of_a_test")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    yield module
    registered_metrics.load({})


def load(entries: str) -> None:
    registered_metrics.load({registered_metrics.VARIABLE: entries})


def test_registered_functions_take_two_or_three_arguments(functions: ModuleType) -> None:
    vars(functions).update(
        two=lambda _, prediction: prediction.answer == "a",
        three=lambda _, __, trace: {"score": 0.5, "feedback": str(trace)},
    )
    load("two=metrics_of_a_test:two, three=metrics_of_a_test:three,")
    assert verdict({"type": "python", "name": "two"}, "?", "a").score == 1
    assert verdict({"type": "python", "name": "three"}, "?", "a") == (0.5, "None")
    with pytest.raises(NotFound, match="registered: three, two"):
        verdict({"type": "python", "name": "four"}, "?", "a")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("two", "expected name=package.module:function, got 'two'"),
        ("two=metrics_of_a_test.two", "expected name="),
        ("two=nowhere_at_all:two", "two: No module named"),
        ("two=metrics_of_a_test:missing", "two: "),
        ("two=metrics_of_a_test:number", "two is no function"),
        ("two=metrics_of_a_test:one", "two takes no example and prediction"),
    ],
)
def test_a_list_that_cannot_be_read_stops_the_start(
    functions: ModuleType, entries: str, message: str
) -> None:
    vars(functions).update(number=3, one=lambda example: example)
    with pytest.raises(StartError, match=message):
        load(entries)
