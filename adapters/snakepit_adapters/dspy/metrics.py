"""Metrics: what a prediction is worth beside what was expected."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import dspy
import msgspec
from dspy.evaluate.metrics import f1_score, normalize_text

from snakepit_adapters.dspy import metric_specs as specs
from snakepit_adapters.dspy.local_embedder import local_embeddings
from snakepit_adapters.dspy.registered_metrics import registered
from snakepit_adapters.dspy.values import plain
from snakepit_worker.errors import FailedPrecondition
from snakepit_worker.tools.context import current_call

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Metric", "Verdict", "metric", "verdict_of"]

_NUMBER: Final = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?")
_BY_NAME: Final[dict[str, type[Any]]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (
        *(specs.ExactMatch, specs.Contains, specs.F1, specs.Numeric, specs.JsonEqual),
        *(specs.Similarity, specs.Judge),
    )
}
_JUDGED: Final = dspy.make_signature(
    {
        "criteria": (str, dspy.InputField(desc="what makes the output good")),
        "given": (str, dspy.InputField(desc="what the output is the answer to")),
        "expected": (str, dspy.InputField(desc="the expected output, if there is one")),
        "actual": (str, dspy.InputField(desc="the output to judge")),
        "score": (float, dspy.OutputField(desc="from 0 for useless to 1 for perfect")),
        "reason": (str, dspy.OutputField(desc="one sentence")),
    },
    "Judge an output by the criteria, and by nothing else.",
)


class Verdict(NamedTuple):
    """What one prediction is worth.

    Attributes:
        score: The higher the better; built-in metrics stay between 0 and 1.
        feedback: Why, for optimizers that reflect.
    """

    score: float
    feedback: str | None = None


class Metric:
    """A metric as DSPy calls it: on any thread, several at once.

    Args:
        name: What it is called in messages.
        judge: Compares an example of DSPy with a prediction.
        blocking: Whether it waits for something, so that it must not run on the event loop.

    Attributes:
        name: What it is called in messages.
        blocking: Whether it waits for something.
        judge: Compares an example of DSPy with a prediction.
    """

    def __init__(
        self, name: str, judge: Callable[[Any, Any], Verdict], *, blocking: bool = False
    ) -> None:
        self.name = name
        self.judge = judge
        self.blocking = blocking

    def __call__(self, example: Any, prediction: Any, trace: object = None) -> float:  # noqa: ANN401 - DSPy has no types
        """The score of a prediction.

        Args:
            example: An example of DSPy.
            prediction: A prediction of DSPy.
            trace: How it came about; no metric here looks at it.
        """
        del trace
        return self.judge(example, prediction).score


def metric(spec: specs.MetricSpec, *, judge_lm: Any = None) -> Metric:  # noqa: ANN401 - DSPy has no types
    """The metric that a caller describes.

    Args:
        spec: Its parameters, or its name.
        judge_lm: DSPy's language model for a judge that names one; the one that DSPy's settings
            hold at the time of a call if ``None``.

    Raises:
        NotFound: When no Python function of that name is registered.
        FailedPrecondition: When a package that it needs is not installed.
    """
    described: specs.Spec = _BY_NAME[spec]() if isinstance(spec, str) else spec
    name = str(described.__struct_config__.tag)
    if isinstance(described, specs.Registered):
        function = registered(described.name)
        return Metric(
            f"python:{described.name}", lambda e, p: verdict_of(function(e, p)), blocking=True
        )
    if isinstance(described, specs.Elixir):
        return Metric(f"elixir:{described.tool}", _elixir(described), blocking=True)
    if isinstance(described, specs.Judge):
        return Metric(name, _judged(described, judge_lm), blocking=True)
    return Metric(name, _compared(described), blocking=isinstance(described, specs.Similarity))


def verdict_of(value: Any) -> Verdict:  # noqa: ANN401 - whatever a metric returned
    """A metric's answer: a number, a boolean, or an object with ``score`` and ``feedback``.

    Args:
        value: The answer.

    Raises:
        TypeError: When it is something else.
        ValueError: When it is no finite number.
    """
    feedback = None
    if isinstance(value, dict | dspy.Prediction) and "score" in value:
        feedback = value.get("feedback")
        value = value["score"]
    if not isinstance(value, bool | int | float):
        raise TypeError(f"expected a number, a boolean or an object with score, got {value!r:.100}")
    score = float(value)
    if score - score != 0:  # NaN and the infinities
        raise ValueError(f"expected a finite score, got {score}")
    return Verdict(score, None if feedback is None else str(feedback))


def _compared(spec: specs.Spec) -> Callable[[Any, Any], Verdict]:
    compare = _comparison(spec)

    def judge(example: Any, prediction: Any) -> Verdict:  # noqa: ANN401 - DSPy has no types
        scores = []
        wrong = []
        for name in _fields(spec.fields, example, prediction):
            expected, actual = plain(example[name]), plain(prediction[name])
            score = compare(actual, expected)
            scores.append(score)
            if score < 1:
                wrong.append(f"{name}: expected {expected!r:.500}, got {actual!r:.500}")
        return Verdict(sum(scores) / len(scores), "; ".join(wrong) or "correct")

    return judge


def _fields(names: Sequence[str] | None, example: Any, prediction: Any) -> Sequence[str]:  # noqa: ANN401 - DSPy has no types
    if prediction is None:
        raise ValueError("there is no prediction to compare")
    if names is None:
        inputs = example._input_keys or ()  # noqa: SLF001 - its methods refuse examples without
        names = [name for name in example.keys() if name not in inputs and name in prediction]  # noqa: SIM118 - an example's iterator is not over its fields
        if not names:
            raise ValueError("the example has no expected value of any output")
    for side, values in (("example", example), ("prediction", prediction)):
        missing = [name for name in names if name not in values]
        if missing:
            raise ValueError(f"the {side} has no {', '.join(missing)}")
    return names


def _comparison(spec: specs.Spec) -> Callable[[Any, Any], float]:
    if isinstance(spec, specs.ExactMatch):
        normalize = spec.normalize
        return lambda actual, expected: _any(actual, expected, lambda a, e: _same(a, e, normalize))
    if isinstance(spec, specs.Contains):
        fold = (lambda text: text) if spec.case_sensitive else str.casefold
        return lambda actual, expected: _any(
            actual, expected, lambda a, e: fold(str(e)) in fold(str(a))
        )
    if isinstance(spec, specs.F1):
        limit = spec.threshold
        return lambda actual, expected: _limited(
            _any(actual, expected, lambda a, e: f1_score(str(a), str(e))), limit
        )
    if isinstance(spec, specs.Numeric):
        return lambda actual, expected: float(
            abs(_number(actual) - _number(expected))
            <= max(spec.absolute, spec.relative * abs(_number(expected)))
        )
    if isinstance(spec, specs.JsonEqual):
        order = not spec.ignore_order
        return lambda actual, expected: float(
            _canonical(_parsed(actual), order) == _canonical(_parsed(expected), order)
        )
    if isinstance(spec, specs.Similarity):
        limit = spec.threshold
        return lambda actual, expected: _limited(_any(actual, expected, _nearness), limit)
    raise TypeError(f"no comparison: {spec!r}")


def _any(actual: Any, expected: Any, score: Callable[[Any, Any], float]) -> float:  # noqa: ANN401 - JSON values
    """The best score, where several texts are as good as each other."""
    if isinstance(expected, list) and not isinstance(actual, list):
        return max((float(score(actual, one)) for one in expected), default=0.0)
    return float(score(actual, expected))


def _same(actual: object, expected: object, normalize: bool) -> bool:  # noqa: FBT001 - a spec's flag
    if normalize and isinstance(actual, str) and isinstance(expected, str):
        return bool(normalize_text(actual) == normalize_text(expected))
    return actual == expected


def _nearness(actual: object, expected: object) -> float:
    one, other = local_embeddings([str(actual), str(expected)])
    return min(1.0, max(0.0, float(one @ other)))


def _limited(score: float, threshold: float | None) -> float:
    return score if threshold is None else float(score >= threshold)


def _number(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    found = _NUMBER.findall(value) if isinstance(value, str) else []
    if len(found) != 1:
        raise ValueError(f"expected a number, got {value!r:.100}")
    return float(found[0].replace(",", ""))


def _parsed(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return value


def _canonical(value: object, order: bool) -> object:  # noqa: FBT001 - a spec's flag
    """A form of JSON values in which equal ones are equal: a truth is no number."""
    if isinstance(value, dict):
        return {key: _canonical(item, order) for key, item in value.items()}
    if isinstance(value, list):
        items = [_canonical(item, order) for item in value]
        return items if order else sorted(items, key=repr)
    return (type(value), value) if isinstance(value, bool) else value


def _judged(spec: specs.Judge, lm: Any) -> Callable[[Any, Any], Verdict]:  # noqa: ANN401 - DSPy has no types
    predict = dspy.Predict(_JUDGED)

    def judge(example: Any, prediction: Any) -> Verdict:  # noqa: ANN401 - DSPy has no types
        inputs = example._input_keys or ()  # noqa: SLF001 - its methods refuse examples without
        given = {name: value for name, value in example.items() if name in inputs}
        expected = {name: value for name, value in example.items() if name not in inputs}
        actual = _outputs(prediction)
        if spec.fields is not None:
            expected = {name: expected[name] for name in spec.fields if name in expected}
            actual = {name: actual[name] for name in spec.fields}
        more = {} if lm is None else {"lm": lm}
        # Without a trace of its own the judge's call would be taken for one of the program's.
        with dspy.context(trace=None, **more):
            opinion = predict(
                criteria=spec.criteria,
                given=_json(given),
                expected=_json(expected),
                actual=_json(actual),
            )
        score = min(1.0, max(0.0, verdict_of(opinion.score).score))
        return Verdict(_limited(score, spec.threshold), str(opinion.reason))

    return judge


def _elixir(spec: specs.Elixir) -> Callable[[Any, Any], Verdict]:
    room = threading.BoundedSemaphore(spec.concurrency)

    def judge(example: Any, prediction: Any) -> Verdict:  # noqa: ANN401 - DSPy has no types
        call = current_call.get()
        if call is None:
            raise FailedPrecondition(f"metric {spec.tool!r} is asked for outside of a call")
        expected, actual = plain(dict(example.items())), _outputs(prediction)
        if spec.fields is not None:
            actual = {name: actual[name] for name in spec.fields if name in actual}
        with room:
            call.checkpoint()
            arguments = {"example": expected, "prediction": actual}
            return verdict_of(call.elixir.call_blocking(spec.tool, arguments))

    return judge


def _outputs(prediction: Any) -> Mapping[str, Any]:  # noqa: ANN401 - DSPy has no types
    if prediction is None:
        raise ValueError("there is no prediction to compare")
    outputs: Mapping[str, Any] = plain(dict(prediction.items()))
    return outputs


def _json(value: object) -> str:
    return msgspec.json.encode(plain(value)).decode()
