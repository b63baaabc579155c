"""Tools by their full names; adapters that cannot be served do not start."""

from __future__ import annotations

import inspect
from collections.abc import (
    AsyncIterator,
    Iterator,
)
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from snakepit_worker import Adapter, CallContext, tool
from snakepit_worker.doctor import check_adapters
from snakepit_worker.errors import StartError
from snakepit_worker.settings import Settings
from snakepit_worker.tools.api import INTERFACE_VERSION
from snakepit_worker.tools.registry import AdapterState, Registry, Tool


class Shop(Adapter):
    """Sells tea."""

    name = "shop"

    @tool
    def price(self, article: str, quantity: int = 1) -> float:
        """What an article costs.

        Nothing is
        free.

        Args:
            article: Its
                name.
            quantity: How many.
        """
        return len(article) * quantity

    @tool
    async def order(self, article: str, ctx: CallContext) -> str:
        return article + ctx.tool

    @tool(name="watch")
    def _stream(self) -> Iterator[int]:
        yield 1

    @tool
    async def follow(self) -> AsyncIterator[int]:
        yield 1

    @tool(main_thread=True)
    def draw(self) -> None: ...

    def helper(self) -> None:
        """Not a tool."""


class Market(Shop):
    name = "market"

    @tool
    def close(self) -> None: ...

    def draw(self) -> None:
        """No tool any more."""


def registry(*adapters: Adapter) -> Registry:
    return Registry(adapters)


def find(tools: Registry, name: str) -> Tool:
    found = tools.find(name)
    assert found is not None
    return found


def named(name: object, **more: Any) -> Adapter:
    """An adapter of that name."""

    @tool
    def go(_: Adapter) -> None: ...

    adapter: Adapter = type("Named", (Adapter,), {"name": name, "go": go, **more})()
    return adapter


def test_a_tool_is_found_by_adapter_and_name() -> None:
    shop = Shop()
    found = find(registry(shop), "shop.price")
    assert found.name == "shop.price"
    assert found.function(article="tea", quantity=2) == 6
    assert found.owner.adapter is shop
    assert found.owner.name == "shop"
    assert found.owner.state is AdapterState.STARTING


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("shop.price", (False, False, False)),
        ("shop.order", (False, True, False)),
        ("shop.watch", (False, False, True)),
        ("shop.follow", (False, True, True)),
        ("shop.draw", (True, False, False)),
    ],
)
def test_where_and_how_a_tool_runs_follows_from_its_form(
    name: str, form: tuple[bool, bool, bool]
) -> None:
    found = find(registry(Shop()), name)
    assert (found.main_thread, found.is_async, found.streams) == form


def test_only_marked_methods_are_tools() -> None:
    tools = registry(Shop())
    assert len(tools) == 5
    for name in ("shop.helper", "shop._stream", "shop.lifespan", "shop.classify", "price", "shop."):
        assert tools.find(name) is None


def test_several_adapters_in_one_worker() -> None:
    tools = registry(Shop(), Market())
    assert set(tools.adapters) == {"shop", "market"}
    assert find(tools, "shop.price").owner is not find(tools, "market.price").owner


def test_a_subclass_inherits_tools_and_may_take_one_back() -> None:
    tools = registry(Market())
    assert tools.find("market.close")
    assert tools.find("market.price")
    assert tools.find("market.draw") is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("shop.prise", "did you mean shop.price"),
        ("price", "did you mean shop.price"),
        ("Shop.Price", "did you mean shop.price"),
        ("zzzzzzzz", "worker.tools lists them"),
        ("", "worker.tools lists them"),
        ("x" * 100_000, "worker.tools lists them"),
    ],
    ids=lambda text: text[:20],
)
def test_an_unknown_name_is_told_its_neighbours(name: str, words: str) -> None:
    failure = registry(Shop()).unknown(name)
    assert words in str(failure)
    assert failure.code == "NOT_FOUND"
    assert failure.details["tool"] == name[:200]


def test_tools_describe_themselves() -> None:
    described = registry(Shop()).describe()
    names = ["shop.draw", "shop.follow", "shop.order", "shop.price", "shop.watch"]
    assert [entry["name"] for entry in described] == names
    assert described[3] == {
        "name": "shop.price",
        "description": "What an article costs.\n\nNothing is free.",
        "streams": False,
        "parameters": {
            "type": "object",
            "properties": {
                "article": {"type": "string", "description": "Its name."},
                "quantity": {"type": "integer", "default": 1, "description": "How many."},
            },
            "required": ["article"],
            "additionalProperties": False,
        },
        "returns": {"type": "number"},
    }
    assert [entry["streams"] for entry in described] == [False, True, False, False, True]
    assert described[1]["returns"] == {"type": "integer"}
    assert described[0]["description"] == ""


def test_a_description_without_sections_is_the_docstring() -> None:
    class Plain(Adapter):
        name = "plain"

        @tool
        def bare(self) -> None:
            "One line."

    assert registry(Plain()).describe()[0]["description"] == "One line."


# --- Adapters that cannot be served ---------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [None, 5, "", "Shop", "my-shop", "my shop", "9a", "a.b", "ž", "a\n"]
)
def test_a_name_must_be_plain(name: object) -> None:
    with pytest.raises(StartError, match="Named needs a class attribute `name`"):
        registry(named(name))


def test_a_name_must_be_given() -> None:
    with pytest.raises(StartError, match=r"needs a class attribute `name`.*got None"):
        registry(Adapter())


@pytest.mark.parametrize("name", ["a", "a1", "with_underscore", "x" * 40])
def test_plain_names_are_served(name: str) -> None:
    assert name in registry(named(name)).adapters


@pytest.mark.parametrize("name", ["session", "job", "worker"])
def test_some_names_are_the_workers_own(name: str) -> None:
    with pytest.raises(StartError, match=f"may not be named '{name}'"):
        registry(named(name))


def test_a_name_can_be_served_once() -> None:
    with pytest.raises(StartError, match="two adapters are named 'shop'"):
        registry(Shop(), Shop())


@pytest.mark.parametrize("version", [0, INTERFACE_VERSION + 1, "1", None])
def test_an_adapter_for_another_interface_is_refused(version: object) -> None:
    with pytest.raises(StartError, match=f"written for version {version} .* has version 1"):
        registry(named("shop", interface=version))


def test_two_methods_cannot_answer_to_one_name() -> None:
    class Twice(Adapter):
        name = "twice"

        @tool
        def one(self) -> None: ...

        @tool(name="one")
        def two(self) -> None: ...

    with pytest.raises(StartError, match=r"two methods answer to twice\.one"):
        registry(Twice())


def test_a_coroutine_cannot_have_the_main_thread() -> None:
    class Wrong(Adapter):
        name = "wrong"

        @tool(main_thread=True)
        async def go(self) -> None: ...

    with pytest.raises(StartError, match=r"wrong\.go: .* event loop"):
        registry(Wrong())


def test_a_parameter_without_a_hint_is_refused() -> None:
    class Wrong(Adapter):
        name = "wrong"

        @tool
        def go(self, text) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - under test
            del text

    with pytest.raises(StartError, match=r"wrong\.go: parameter text has no type hint"):
        registry(Wrong())


# --- What authors import --------------------------------------------------------------------------


def test_the_decorator_leaves_the_method_as_it_is() -> None:
    def method() -> int:
        return 1

    assert tool(method) is method
    assert tool()(method) is method
    assert tool(name="x", main_thread=True)(method) is method
    assert method() == 1


def test_an_adapter_without_a_lifespan_has_an_empty_one() -> None:
    with Adapter().lifespan():
        pass
    assert Adapter().meanings() == ()


def test_a_lifespan_is_a_context_manager() -> None:
    class Timed(Adapter):
        @contextmanager
        def lifespan(self) -> Iterator[None]:
            self.open = True
            yield
            self.open = False

    adapter = Timed()
    with adapter.lifespan():
        assert adapter.open
    assert not adapter.open
    assert not inspect.isabstract(Timed)


# --- Slips of authors -----------------------------------------------------------------------------


class Useful(Adapter):
    name = "useful"

    @tool
    def go(self) -> None: ...


class Idle(Adapter):
    name = "useful"


class Reading(Adapter):
    name = "useful"

    @property
    @tool
    def go(self) -> int:
        return 1


class Generating(Useful):
    def lifespan(self) -> Iterator[None]:  # type: ignore[override]
        yield


class Waiting(Useful):
    async def lifespan(self) -> AsyncIterator[None]:  # type: ignore[override]
        yield


class WaitingToo(Useful):
    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:  # type: ignore[override]
        yield


class Returning(Useful):
    def lifespan(self) -> None:  # type: ignore[override]
        """Is no context manager either."""


class Meaningless(Useful):
    @contextmanager
    def lifespan(self) -> Iterator[None]:
        yield

    def meanings(self) -> Any:
        return None


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        (Idle, "has no tool; put @tool above its methods"),
        (Reading, r"\.go: a property cannot be called; make it a method"),
        (Generating, "lifespan needs @contextmanager above it"),
        (Waiting, "lifespan has to be a plain function with @contextmanager above it"),
        (WaitingToo, "lifespan has to be a plain function with @contextmanager above it"),
    ],
)
def test_a_slip_is_told_at_the_start(adapter: type[Adapter], words: str) -> None:
    with pytest.raises(StartError, match=f"(adapter|tool) useful.*{words}"):
        registry(adapter())


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        (Idle, "adapter useful (Idle) has no tool"),
        (Generating, "adapter useful: lifespan needs @contextmanager"),
        (Returning, "adapter useful: lifespan() has to return a context manager, got NoneType"),
        (Meaningless, "adapter useful: meanings() has to return a list of Meaning rows"),
    ],
)
def test_the_doctor_sees_it_too(adapter: type[Adapter], words: str) -> None:
    (found,) = check_adapters(Settings(adapters=(f"{__name__}.{adapter.__name__}",)))
    assert not found.passed
    assert words in found.text
