from __future__ import annotations

from typing import Any

import pytest

from snakepit_worker.errors import InvalidArgument
from snakepit_worker.tools.binding import Signature
from snakepit_worker.tools.nested_binary import (  # noqa: TC001 - hints are read
    ObjectsWithBinary,
    ObjectWithBinary,
)


def show(photo: ObjectWithBinary, plain: dict[str, Any] | None = None) -> None:
    """A tool."""


def several(many: ObjectsWithBinary, plain: dict[str, Any] | None = None) -> None:
    """A tool."""


def bind(arguments: dict[str, Any], tool: Any = show) -> dict[str, Any]:
    return Signature(tool, "a.tool").bind(arguments)


def test_binary_parameters_go_to_their_places() -> None:
    given = {"photo": {"a": {"b": 1}}, "photo.c": b"c", "photo.a.d": b"d"}
    assert bind(given) == {"photo": {"a": {"b": 1, "d": b"d"}, "c": b"c"}}
    assert given["photo"] == {"a": {"b": 1}}


def test_an_argument_may_be_all_binary() -> None:
    assert bind({"photo.c": b"c"}) == {"photo": {"c": b"c"}}


def test_items_of_lists_come_in_order() -> None:
    given = {"photo": {"has": [None]}} | {f"photo.a[{n}]": b"%d" % n for n in reversed(range(12))}
    placed = bind({**given, "photo.has[0]": b"x", "photo.has[1]": b"y"})["photo"]
    assert placed == {"a": [b"%d" % n for n in range(12)], "has": [b"x", b"y"]}


def test_items_of_a_list_of_objects_are_places() -> None:
    given = {"many": [{"a": 1}], "many[0].b": b"b", "many[1].b": b"c"}
    assert bind(given, several) == {"many": [{"a": 1, "b": b"b"}, {"b": b"c"}]}


@pytest.mark.parametrize(
    "given",
    [
        {"photo": {"a": 1}, "photo.a.b": b""},
        {"photo": {"a": []}, "photo.a[1]": b""},
        {"photo": {"a": []}, "photo.a.b": b""},
        {"photo": {}, "photo[0]": b""},
        {"photo": 7, "photo.a": b""},
        {"photo": {}, "photo.a": "text"},
        {"photo": {}, "plain.a": b""},
        {"photo": {}, "photo.": b""},
        {"photo": {}, "photo.a[x]": b""},
        {"photo": {}, "other.a": b""},
    ],
)
def test_a_place_that_there_is_not_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as raised:
        bind(given)
    assert raised.value.violations[0].field in given


def test_places_do_not_show_in_the_schema() -> None:
    schema = Signature(several, "a.tool").schema()
    assert schema["properties"]["many"] == {"type": "array", "items": {"type": "object"}}
