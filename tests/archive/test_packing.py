"""What may be stored: JSON, of a bounded size, without secrets."""

from __future__ import annotations

import logging
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_worker.archive.model import Change, SavedResource
from snakepit_worker.archive.records import PackedChange, pack, unpack_resource
from snakepit_worker.archive.screening import find_secret
from snakepit_worker.errors import InvalidArgument, ResourceExhausted, SerializationError
from tests.archive.conftest import new_session, resource

KEY = "sk-" + "a1b2c3d4e5f6g7h8"


def packed(recipe: Any, **fields: Any) -> PackedChange:
    return pack(new_session("s", resource("basket-1", recipe, **fields)), 1_000)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(
            st.text(st.characters(categories=["Lu"]), max_size=5), children, max_size=4
        )
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text(st.characters(categories=["Lu"]), max_size=5), json_values))
def test_recipes_come_back_as_they_were(recipe: dict[str, object]) -> None:
    change = pack(new_session("s", resource("basket-1", recipe)), 1 << 20)
    (row,) = change.put.values()
    if not change.lost:  # names and texts that look like a secret are rare here, but there are some
        assert unpack_resource(row, "s").recipe == recipe


def test_what_counts_as_json() -> None:
    recipe = {
        "tuple": (1, 2),
        "proxy": MappingProxyType({"a": MappingProxyType({})}),
        "float": np.float64(1.5),
    }
    (row,) = packed(recipe).put.values()
    assert unpack_resource(row, "s").recipe == {
        "tuple": [1, 2],
        "proxy": {"a": {}},
        "float": 1.5,
    }


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (float("nan"), r"^x\[0\]\.y is nan, which JSON does not have"),
        (float("-inf"), r"^x\[0\]\.y is -inf"),
        (b"bytes", r"^x\[0\]\.y is bytes, which is not JSON"),
        ({1, 2}, r"^x\[0\]\.y is set"),
        (object(), r"^x\[0\]\.y is object"),
        ({1: 2}, r"^a key of x\[0\]\.y is int"),
        ("\ud800", "'basket-1' cannot be archived"),
        (np.int64(5), r"^x\[0\]\.y is int64"),
    ],
)
def test_what_is_not_json_is_refused(value: object, says: str) -> None:
    with pytest.raises(SerializationError, match=says):
        packed({"x": [{"y": value}]})


def test_nesting_is_bounded() -> None:
    value: object = []
    for _ in range(10_000):
        value = {"deep": value}
    with pytest.raises(SerializationError, match="nested too deeply to be archived"):
        packed({"x": value})


def test_a_recipe_that_is_too_large_is_refused() -> None:
    assert packed({"x": "y" * 992}).bytes == 1_000 + len("{}")
    with pytest.raises(ResourceExhausted) as caught:
        packed({"x": "y" * 993})
    assert str(caught.value) == (
        "the recipe of 'basket-1' takes 1,001 bytes, more than the archive's limit of 1,000"
    )
    assert caught.value.details == {"bytes": 1_001, "max_bytes": 1_000}
    assert not caught.value.retryable


def test_metadata_that_is_too_large_is_refused() -> None:
    change = Change(session_id="s", fence="f", metadata={"x": ["y" * 1000] * 1100})
    with pytest.raises(ResourceExhausted, match="the metadata of session 's' takes 1,103,"):
        pack(change, 10)


@pytest.mark.parametrize(
    ("recipe", "place"),
    [
        ({"lm": {"api_key": "any text"}}, "lm.api_key"),
        ({"lms": [{"kwargs": {"api_key": ["x"]}}]}, "lms[0].kwargs.api_key"),
        ({"credentials": {"user": "u", "value": "v"}}, "credentials"),
        ({"password": {"env": "X", "default": "y"}}, "password"),
        ({"text": f"use {KEY} for it"}, "text"),
        ({"url": "https://user:pass@example.com"}, "url"),
        ({"headers": {"x": ["Bearer abcdefghijklmnop"]}}, "headers.x[0]"),
    ],
)
def test_a_resource_with_a_secret_is_stored_without_its_recipe(
    recipe: dict[str, object], place: str, caplog: pytest.LogCaptureFixture
) -> None:
    change = packed(recipe)
    reason = f"its recipe holds what looks like a secret, at {place}"
    assert change.lost == {"basket-1": reason}
    (row,) = change.put.values()
    assert (row["recipe"], row["lost"]) == (None, reason)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert (vars(record)["handle"], vars(record)["place"]) == ("basket-1", place)


@pytest.mark.parametrize(
    "recipe",
    [
        {"api_key": {"env": "OPENAI_API_KEY"}},
        {"api_key": {"file": "/run/secrets/openai"}},
        {"api_key": None},
        {"api_key": ""},
        {"api_key": {}},
        {"token": 5, "password": False},
        {"max_tokens": 100, "keys": ["a", "b"], "question": "What is a secret?"},
    ],
)
def test_what_names_a_secret_is_none(recipe: dict[str, object]) -> None:
    assert find_secret(recipe) is None
    assert packed(recipe).lost == {}


def test_a_secret_in_metadata_is_taken_out() -> None:
    change = pack(
        Change(
            session_id="s",
            fence="f",
            metadata={"token": "t", "text": KEY, "n": 1},
            put=(resource("r", metadata={"url": "https://u:p@host/", "api_key": "x"}),),
        ),
        1_000,
    )
    assert change.metadata == '{"token":"[REDACTED]","text":"[REDACTED]","n":1}'
    assert change.put["r"]["metadata"] == (
        '{"url":"https://u:[REDACTED]@host/","api_key":"[REDACTED]"}'
    )
    assert change.lost == {}


def test_what_has_no_recipe_says_why() -> None:
    change = pack(
        Change(
            session_id="s",
            fence="f",
            put=(
                SavedResource(handle="a", kind="k", created_at=1.0, lost="sockets stay"),
                SavedResource(handle="b", kind="k", created_at=1.0),
            ),
        ),
        10,
    )
    assert [row["lost"] for row in change.put.values()] == ["sockets stay", "it has no recipe"]
    assert change.lost == {}, "the caller knows"


@pytest.mark.parametrize("bad", ["", "x" * 1_001, "\u00e4" * 501, "a\0b", "\ud800"])
@pytest.mark.parametrize("field", ["session_id", "fence", "handle", "remove"])
def test_keys_that_no_database_takes(field: str, bad: str) -> None:
    change = {"session_id": "s", "fence": "f"}
    with pytest.raises(InvalidArgument, match="so it cannot be archived") as caught:
        pack(
            Change(
                **{**change, **({field: bad} if field in change else {})},  # type: ignore[arg-type]
                put=(resource(bad),) if field == "handle" else (),
                remove=(bad,) if field == "remove" else (),
            ),
            100,
        )
    assert [v.field for v in caught.value.violations] == ["handle" if field == "remove" else field]


@pytest.mark.parametrize("bad", ["x" * 10_001, "a\0b", "\ud800"])
@pytest.mark.parametrize("field", ["kind", "name", "lost"])
def test_texts_that_no_database_takes(field: str, bad: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^{field} "):
        packed(None, **{field: bad})
