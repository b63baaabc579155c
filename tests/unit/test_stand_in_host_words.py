"""JSON, terms and time limits as the host writes them."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_worker.testing import elixir_json
from snakepit_worker.testing.deadlines import truncated
from snakepit_worker.testing.elixir_terms import Inspect, float_text, inspect

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"[1,]", 'unexpected byte at position 3: 0x5D ("]")'),
        (b'{"a":1,}', 'unexpected byte at position 7: 0x7D ("}")'),
        (b'{"a" 1}', 'unexpected byte at position 5: 0x31 ("1")'),
        (b"[1 2]", 'unexpected byte at position 3: 0x32 ("2")'),
        (b"[]]", 'unexpected byte at position 2: 0x5D ("]")'),
        (b"[" * 9000, "unexpected end of input at position 9000"),
        (b"nul", 'unexpected byte at position 0: 0x6E ("n")'),
        (b"-", "unexpected end of input at position 1"),
        (b"01", 'unexpected byte at position 1: 0x31 ("1")'),
        (b"1.e5", 'unexpected byte at position 2: 0x65 ("e")'),
        (b" 1e999", 'unexpected sequence at position 1: "1e999"'),
        (b'"abc', "unexpected end of input at position 4"),
        (b'"a\n"', 'unexpected byte at position 2: 0xA ("\\n")'),
        (b'"a\xff"', "unexpected byte at position 2: 0xFF"),
        (b'"\\x"', 'unexpected byte at position 2: 0x78 ("x")'),
        (b'"\\', 'unexpected byte at position 1: 0x5C ("\\\\")'),
        (b'"\\u12', 'unexpected byte at position 1: 0x5C ("\\\\")'),
        (b'"\\u12xy"', 'unexpected sequence at position 1: "\\\\u12xy"'),
        (b'"\\udc00"', 'unexpected sequence at position 1: "\\\\udc00"'),
        (b'"\\ud800!"', 'unexpected byte at position 7: 0x21 ("!")'),
        (b'"\\ud800\\u0041"', 'unexpected sequence at position 1: "\\\\ud800\\\\u0041"'),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_what_is_wrong_with_json(data: bytes, text: str) -> None:
    with pytest.raises(elixir_json.JasonError) as caught:
        elixir_json.decode(data)
    assert str(caught.value) == text


@given(JSON)
def test_json_comes_back_as_it_was_written(value: Any) -> None:
    text = elixir_json.encode(value)
    assert elixir_json.decode(text.encode()) == value
    assert json.loads(text) == value


@given(st.binary(max_size=8), JSON, st.integers(0, 30))
def test_what_cannot_be_read_is_always_explained(noise: bytes, value: Any, at: int) -> None:
    text = json.dumps(value).encode()
    data = text[:at] + noise + text[at + len(noise) :]
    with contextlib.suppress(elixir_json.JasonError):  # and no other error
        elixir_json.decode(data)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (100.0, "100.0"),
        (1000.0, "1.0e3"),
        (0.0001, "0.0001"),
        (0.00001, "1.0e-5"),
        (-12.5, "-12.5"),
        (123456789.0, "123456789.0"),
        (2.0**53 - 1, "9007199254740991.0"),
        (2.0**53, "9.007199254740992e15"),
        (5e-324, "5.0e-324"),
    ],
)
def test_floats_are_written_as_erlang_does(value: float, text: str) -> None:
    assert float_text(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_lose_nothing(value: float) -> None:
    assert float(float_text(value)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ('a#{b}"\\\n\x1b\u200b', r'"a\#{b}\"\\\n\e\x{200B}"'),
        ([7, 8, 9], r"~c\"\a\b\t\"".replace('\\"', '"')),
        ([1, 2], "[1, 2]"),
        ([True], "[true]"),
        (b"text", '"text"'),
        (b"\x00\xff", "<<0, 255>>"),
        ({"b": 1, "a": []}, '%{"a" => [], "b" => 1}'),
        ((Inspect(":ok"), 3), "{:ok, 3}"),
    ],
    ids=lambda value: ascii(value)[:24],
)
def test_terms_are_written_as_inspect_does(value: Any, text: str) -> None:
    assert inspect(value) == text


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, {1}, object()], ids=["nan", "inf", "set", "object"]
)
def test_what_is_no_term_is_refused(value: Any) -> None:
    with pytest.raises(elixir_json.NotJson):
        elixir_json.encode(value)
    with pytest.raises(TypeError, match="term"):
        inspect(value)


@pytest.mark.parametrize(
    ("seconds", "sent"),
    [
        (None, None),
        (0.5, 0.5),
        (0.0007, 0.001),
        (0.999, 0.999),
        (1.5, 1),
        (59.999, 59),
        (60, 60),
        (119, 60),
        (298.8, 240),
        (300, 300),
        (900, 900),
        (3599, 3540),
        (3600, 3600),
        (9000, 7200),
    ],
)
def test_deadlines_are_whole_numbers_of_one_unit(seconds: float | None, sent: float | None) -> None:
    assert truncated(seconds) == sent
