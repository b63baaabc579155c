from __future__ import annotations

import keyword
import sys
from types import GenericAlias
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_adapters.dspy.arguments import FieldSpec, SignatureSpec
from snakepit_adapters.dspy.signatures import read_signature
from snakepit_adapters.dspy.type_grammar import GrammarError, read_type
from snakepit_worker.errors import InvalidArgument

RESERVED = (
    *("signature", "demos", "config", "lm", "fields", "instructions", "input_fields"),
    *("output_fields", "copy", "model_config", "model_name", "prediction", "self", "instance"),
    *("completions", "new_signature"),
)


def names() -> st.SearchStrategy[str]:
    return st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(
        lambda name: not (keyword.iskeyword(name) or name in RESERVED or name.startswith("model_"))
    )


def types() -> st.SearchStrategy[tuple[str, Any]]:
    """Texts of types, and what they mean."""
    plain = st.sampled_from(
        [("str", str), ("int", int), ("float", float), ("bool", bool), ("Any", Any)]
    )
    constants = st.text(st.characters(exclude_characters="'\"\\\n", codec="utf-8"), max_size=5)
    literals = st.lists(
        st.one_of(constants, st.integers(-(10**17), 10**17), st.booleans()), min_size=1, max_size=3
    ).map(lambda values: (f"Literal[{', '.join(map(repr, values))}]", Literal[tuple(values)]))
    literals = literals.filter(lambda pair: "\\" not in pair[0])  # what repr() would escape

    def wider(inner: st.SearchStrategy[tuple[str, Any]]) -> st.SearchStrategy[tuple[str, Any]]:
        return st.one_of(
            inner.map(lambda pair: (f"list[{pair[0]}]", GenericAlias(list, (pair[1],)))),
            inner.map(lambda pair: (f"dict[str, {pair[0]}]", GenericAlias(dict, (str, pair[1])))),
            inner.map(lambda pair: (f"Optional[{pair[0]}]", pair[1] | None)),
            inner.map(lambda pair: (f"{pair[0]} | None", pair[1] | None)),
        )

    return st.recursive(st.one_of(plain, literals), wider, max_leaves=4)


@given(types())
def test_a_type_means_what_python_means_by_it(pair: tuple[str, Any]) -> None:
    text, annotation = pair
    assert read_type(text).annotation == annotation


@given(types())
def test_the_canonical_text_reads_back_as_the_same_type(pair: tuple[str, Any]) -> None:
    once = read_type(pair[0])
    assert read_type(once.text) == once


@given(st.data())
def test_a_signature_keeps_names_types_and_order(data: st.DataObject) -> None:
    fields = data.draw(
        st.lists(st.tuples(names(), types()), min_size=2, max_size=6, unique_by=lambda f: f[0])
    )
    split = data.draw(st.integers(1, len(fields) - 1))
    written = [f"{name}: {text}" for name, (text, _) in fields]
    signature = read_signature(f"{', '.join(written[:split])} -> {', '.join(written[split:])}")
    read = (*signature.inputs, *signature.outputs)
    assert [field.name for field in read] == [name for name, _ in fields]
    assert [field.type.annotation for field in read] == [meant for _, (_, meant) in fields]
    assert len(signature.inputs) == split


@given(st.text(alphabet="ab,:->[]| '\"1\\.()\nlistdcOponaUniLrey", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    modules = set(sys.modules)
    try:
        read_signature(text)
    except InvalidArgument as error:
        assert error.violations[0].field == "signature"  # noqa: PT017 - both ways are right
    assert set(sys.modules) == modules


def test_a_field_without_a_type_is_text() -> None:
    signature = read_signature("question -> answer", "Be brief.")
    assert signature.describe() == {
        "inputs": [{"name": "question", "type": "str"}],
        "outputs": [{"name": "answer", "type": "str"}],
        "instructions": "Be brief.",
    }


def test_bare_containers_hold_anything() -> None:
    assert read_type("list").annotation == list[Any]
    assert read_type("dict").annotation == dict[str, Any]


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("Union[int, Optional[str], int]", "int | str | None"),
        ("Union[int, int]", "int"),
        (" list [ dict[str ,int] ] ", "list[dict[str, int]]"),
        ('Literal["it\'s", -3, None]', 'Literal["it\'s", -3, None]'),
        ("Literal['a, b', '->']", "Literal['a, b', '->']"),
    ],
)
def test_types_are_written_in_one_way(text: str, canonical: str) -> None:
    assert read_type(text).text == canonical


@pytest.mark.parametrize(
    ("text", "optional"),
    [
        ("int", False),
        ("int | None", True),
        ("Optional[list]", True),
        ("Any", True),
        ("Literal['None']", False),
        ("Literal['a | None']", False),
        ("list[int | None]", False),
    ],
)
def test_an_optional_type_allows_none(text: str, optional: bool) -> None:  # noqa: FBT001
    assert read_type(text).optional is optional


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the name of a field, got the end at character 1"),
        ("question ->", "expected the name of a field, got the end at character 12"),
        ("-> answer", "expected the name of a field, got '->' at character 1"),
        ("a -> b -> c", "expected ',' or the end, got '->' at character 8"),
        ("a, -> b", "expected the name of a field, got '->' at character 4"),
        ("a b -> c", "expected ',' or '->', got 'b' at character 3"),
        ("a: list[int -> b", "expected ']', got '->' at character 13"),
        ("a: dict[int, str] -> b", "expected 'str', as keys are in JSON, got 'int' at character 9"),
        ("a: os.path -> b", "got '.' at character 6"),
        ("a: __import__('os') -> b", "got '(' at character 14"),
        ("a: Picture -> b", "expected one of str, int,"),
        ("a: Literal[] -> b", "expected a string, a whole number, True, False or None, got ']'"),
        ("a: Literal['\\x41'] -> b", "at character 12"),
        ("a: Literal[1234567890123456789] -> b", "got '1' at character 12"),
        (f"a: {'list[' * 20} -> b", "expected at most 16 levels of types"),
        (f"a{' ' * 10_000} -> b", "expected at most 10000 characters"),
        ("é -> b", "got 'é' at character 1"),
        ("a: None -> b", "field 'a': None is a type only within a union"),
        ("a, b -> a", "field 'a': the name is taken by a field before it"),
        ("_a -> b", "field '_a': expected a name such as"),
        ("a -> class", "field 'class': expected a name such as"),
    ],
)
def test_a_wrong_signature_is_refused_at_its_place(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        read_signature(text)
    assert message in str(raised.value)
    assert raised.value.violations[0].field == "signature"


@pytest.mark.parametrize("name", RESERVED)
def test_names_that_dspy_uses_are_refused(name: str) -> None:
    for text in (f"{name} -> answer", f"question -> {name}"):
        with pytest.raises(InvalidArgument, match="the name is DSPy's own"):
            read_signature(text)


def test_fields_as_data() -> None:
    spec = SignatureSpec(
        inputs=[
            FieldSpec("question", description="what to find out"),
            FieldSpec("n", "int | None"),
        ],
        outputs=[FieldSpec("answers", "list[str]")],
    )
    assert read_signature(spec).describe() == {
        "inputs": [
            {"name": "question", "type": "str", "description": "what to find out"},
            {"name": "n", "type": "int | None"},
        ],
        "outputs": [{"name": "answers", "type": "list[str]"}],
        "instructions": None,
    }


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        (SignatureSpec([], [FieldSpec("a")]), "signature.inputs", "at least one field"),
        (SignatureSpec([FieldSpec("a")], []), "signature.outputs", "at least one field"),
        (
            SignatureSpec([FieldSpec("a")], [FieldSpec("b"), FieldSpec("c", "list[os]")]),
            "signature.outputs[1].type",
            "field 'c': expected one of",
        ),
        (
            SignatureSpec([FieldSpec("a", "int] -> x")], [FieldSpec("b")]),
            "signature.inputs[0].type",
            "expected the end, got ']'",
        ),
        (SignatureSpec([FieldSpec("a b")], [FieldSpec("b")]), "signature", "field 'a b'"),
        (SignatureSpec([FieldSpec("a\n")], [FieldSpec("b")]), "signature", "field 'a\\n'"),
    ],
)
def test_wrong_data_is_refused_at_its_path(spec: SignatureSpec, field: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        read_signature(spec)
    assert raised.value.violations[0].field == field
    assert message in str(raised.value)


def test_reading_looks_at_no_frame_of_the_caller() -> None:
    class Secret:  # DSPy would find it by its name
        pass

    with pytest.raises(GrammarError):
        read_type(Secret.__name__)
