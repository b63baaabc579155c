from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_adapters.dspy import datasets
from snakepit_adapters.dspy.datasets import Dataset, Source, read_csv, read_jsonl
from snakepit_worker.errors import InvalidArgument, NotFound

ROWS = [{"n": number, "double": 2 * number} for number in range(10)]


def violation(raised: pytest.ExceptionInfo[InvalidArgument]) -> tuple[str, str]:
    (found,) = raised.value.violations
    return found.field, found.description


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    more=st.integers(0, 5),
    seed=st.integers(0, 1000),
)
def test_splits_share_no_row(sizes: list[int], more: int, seed: int) -> None:
    rows = [{"n": number} for number in range(sum(sizes) + more)]
    split = {f"s{index}": float(size) for index, size in enumerate(sizes) if size > 1}
    if not split:
        return
    dataset = Dataset(rows, Source(split=split, seed=seed))
    parts = [row["n"] for name in split for row in dataset.part(name)]
    assert len(parts) == len(set(parts)) == sum(split.values())
    again = Dataset.rebuild(json.loads(json.dumps(dataset.recipe())))
    assert [again.part(name) for name in split] == [dataset.part(name) for name in split]
    assert sorted(row["n"] for row in dataset.rows) == list(range(len(rows)))


def test_shares_that_are_all_use_all_rows() -> None:
    dataset = Dataset(ROWS, Source(split={"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}))
    assert dataset.describe()["splits"] == {"a": 3, "b": 3, "c": 4}


def test_without_a_split_the_order_is_kept() -> None:
    assert Dataset(ROWS, Source(seed=4)).part(None) == ROWS
    shuffled = Dataset(ROWS, Source(shuffle=True, seed=4)).part(None)
    assert shuffled != ROWS
    assert sorted(row["n"] for row in shuffled) == list(range(10))


@pytest.mark.parametrize(
    ("split", "field", "message"),
    [
        ({"a": 0.5, "b": 0.6}, "split.b", "6 rows from the 5 that are left of 10"),
        ({"a": 11.0}, "split.a", "11 rows from the 10"),
        ({"a": 2.5}, "split.a", "a share up to 1"),
        ({"a": 0.01}, "split.a", "0 rows"),
        ({"a": 5.0, "b": 0.5}, "split.b", "a share up to 1"),
    ],
)
def test_splits_that_do_not_fit_are_refused(
    split: dict[str, float], field: str, message: str
) -> None:
    with pytest.raises(InvalidArgument) as raised:
        Dataset(ROWS, Source(split=split))
    found = violation(raised)
    assert found[0] == field
    assert message in found[1]


def test_a_split_that_is_not_there_is_named() -> None:
    with pytest.raises(NotFound, match="no split 'test'; its splits: train"):
        Dataset(ROWS, Source(split={"train": 0.5})).part("test")


def test_examples_know_their_inputs() -> None:
    (example, *_) = Dataset(ROWS, Source(inputs=("n",))).examples(None, ["double"])
    assert dict(example.inputs().items()) == {"n": 0}
    (example, *_) = Dataset(ROWS, Source()).examples(None, ["double"])
    assert dict(example.inputs().items()) == {"double": 0}


def test_rows_without_an_input_are_named() -> None:
    with pytest.raises(InvalidArgument) as raised:
        Dataset([*ROWS, {"double": 1}], Source(inputs=("n",)))
    assert violation(raised) == ("rows[10]", "has no n")


def test_a_large_data_set_does_not_go_into_an_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset(ROWS, Source())
    assert dataset.archived
    monkeypatch.setattr(datasets, "LARGEST_RECIPE", dataset.size - 1)
    assert not dataset.archived
    assert dataset.describe()["can_be_rebuilt"] is False


@pytest.mark.parametrize("rows", [[], [{"n": 1}] * 11])
def test_there_are_rows_but_not_too_many(
    monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(datasets, "MAX_ROWS", 10)
    with pytest.raises(InvalidArgument, match="rows: expected at"):
        Dataset(rows, Source())


def test_bytes_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "MAX_BYTES", 20)
    with pytest.raises(InvalidArgument, match="at most 20 bytes"):
        Dataset(ROWS, Source())
    with pytest.raises(InvalidArgument, match="at most 20 bytes"):
        read_jsonl(b" " * 21)


# --- Formats --------------------------------------------------------------------------------------


@given(st.lists(st.dictionaries(st.text(), st.integers() | st.text() | st.none()), min_size=1))
def test_jsonl_comes_back(rows: list[dict[str, Any]]) -> None:
    data = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    assert read_jsonl(data) == rows


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1}\n{"a": }', "line 2: Expecting value"),
        (b"[1]", "line 1: expected an object, got list"),
        (b"\xff", "expected UTF-8"),
    ],
)
def test_lines_that_are_no_objects_are_named(data: bytes, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        read_jsonl(data)


def test_cells_have_types() -> None:
    data = b'\xef\xbb\xbfa,b,c,d\r\n"x\ny",3,,"{""k"": 1}"\r\n\r\n,-1,0.5,{}\r\n'
    types = {"b": "int", "c": "float | None", "d": "dict[str, int]"}
    assert read_csv(data, types) == [
        {"a": "x\ny", "b": 3, "c": None, "d": {"k": 1}},
        {"a": "", "b": -1, "c": 0.5, "d": {}},
    ]


@pytest.mark.parametrize(
    ("data", "types", "message"),
    [
        (b"", {}, "names of fields"),
        (b"a,a\n1,2", {}, "names of fields"),
        (b"a,b\n1", {}, "line 2: expected 2 cells, got 1"),
        (b"a\nx", {"a": "int"}, "line 2, a: expected int, got 'x'"),
        (b"a\nx", {"b": "int"}, "types.b: no such column; the columns: a"),
        (b"a\nx", {"a": "number"}, "types.a: "),
        (b'a\n"x', {}, "line 2: "),
    ],
)
def test_tables_that_cannot_be_read_are_refused(
    data: bytes, types: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        read_csv(data, types)
