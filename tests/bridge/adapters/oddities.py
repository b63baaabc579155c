"""What tools can do wrong: exceptions and values that break every promise."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NoReturn

from snakepit_worker import Binary, Chunk
from snakepit_worker.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MEBIBYTE: Final = 1 << 20


# --- What is raised -------------------------------------------------------------------------------


class AbruptError(BaseException):
    """Not even an Exception."""


class MuteError(Exception):
    """Has no text: what should tell it does something else."""

    def __init__(self, instead: Callable[[], Any]) -> None:
        super().__init__()
        self.instead = instead

    def __str__(self) -> str:
        text: str = self.instead()
        return text

    __repr__ = __str__


class SealedError(Exception):
    """Refuses to be looked at."""

    def __getattribute__(self, name: str) -> NoReturn:
        raise AbruptError(name)


class SlipperyText(str):
    """Text of which nothing can be had."""

    __slots__ = ()

    def refuse(self, *_: object, **__: object) -> NoReturn:
        raise AbruptError("no text after all")

    __str__ = __repr__ = __getitem__ = __iter__ = __len__ = refuse
    encode = strip = split = replace = __add__ = __mod__ = __contains__ = refuse


class SlipperyMap(dict[Any, Any]):
    """A mapping that does not let its entries out."""

    def refuse(self, *_: object) -> NoReturn:
        raise AbruptError("no entries after all")

    keys = values = items = get = refuse
    __iter__ = __len__ = __getitem__ = __contains__ = refuse


def throw(error: BaseException) -> Callable[[], NoReturn]:
    """A function that raises, each time with a traceback of its own."""

    def thrower() -> NoReturn:
        raise error.with_traceback(None)

    return thrower


def sealed() -> NoReturn:
    raise SealedError


def recurse() -> Any:
    return recurse()


def noted() -> NoReturn:
    error = ValueError("with notes")
    notes: list[Any] = [SlipperyText("a"), 7, "x" * MEBIBYTE, *(str(n) for n in range(10_000))]
    error.__notes__ = notes
    raise error


def circular() -> NoReturn:
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    raise first


def grouped(depth: int = 1_000) -> NoReturn:
    error: BaseException = AbruptError("deep inside")
    for number in range(depth):
        error = BaseExceptionGroup(f"level {number}", [error, *map(ValueError, "abc")])
    raise error


RAISED: Final[Mapping[str, Callable[[], Any]]] = {
    "StopIteration": throw(StopIteration("early")),
    "StopAsyncIteration": throw(StopAsyncIteration("early")),
    "SystemExit": throw(SystemExit(3)),
    "KeyboardInterrupt": throw(KeyboardInterrupt("not from a keyboard")),
    "GeneratorExit": throw(GeneratorExit("nobody closed it")),
    "CancelledError": throw(asyncio.CancelledError("not by the caller")),
    "AbruptError": throw(AbruptError("abrupt")),
    "RecursionError": recurse,
    "SealedError": sealed,
    "MuteError, str() raises": throw(MuteError(throw(ValueError("no")))),
    "MuteError, str() exits": throw(MuteError(throw(SystemExit()))),
    "MuteError, str() recurses": throw(MuteError(recurse)),
    "MuteError, str() gives a number": throw(MuteError(lambda: 7)),
    "MuteError, str() gives odd text": throw(MuteError(lambda: SlipperyText("odd"))),
    "MuteError, str() gives surrogates": throw(MuteError(lambda: "\ud800" * 10_000)),
    "MuteError, str() gives megabytes": throw(MuteError(lambda: "é" * 8 * MEBIBYTE)),
    "ValueError, notes": noted,
    "ValueError, circle of causes": circular,
    "ExceptionGroup": throw(ExceptionGroup("many", [ValueError(n) for n in range(10_000)])),
    "BaseExceptionGroup, nested": grouped,
    "RuntimeError, odd delay": throw(Conflict("odd", retry_after="5")),  # type: ignore[arg-type]
    "RuntimeError, odd details": throw(Conflict("odd", details={"a": SlipperyMap(a=1)})),
    "RuntimeError, odd keys": throw(Conflict("odd", details={SlipperyText("a"): 1})),
    "RuntimeError, huge details": throw(Conflict("odd", details={"a": ["x" * 9_000] * 9_000})),
}
"""By the name of the class as the caller sees it, and what is special about it."""


# --- What is returned or yielded ------------------------------------------------------------------


class Model:
    """Converted to JSON by a method that does as it is told."""

    def __init__(self, dump: Callable[[], Any]) -> None:
        self.dump = dump

    def model_dump(self) -> Any:
        return self.dump()


class Dict(Model):
    """The same with another method."""

    model_dump = None  # type: ignore[assignment]

    def to_dict(self) -> Any:
        return self.dump()


class Sealed:
    """Refuses to be looked at."""

    def __getattribute__(self, name: str) -> NoReturn:
        raise AbruptError(name)


class Key:
    """A key whose text is what it is told."""

    def __init__(self, text: Callable[[], Any]) -> None:
        self.text = text

    def __str__(self) -> str:
        text: str = self.text()
        return text


class SlipperyNumber(int):
    """A number of which nothing can be had."""

    def refuse(self, *_: object) -> NoReturn:
        raise AbruptError("no number after all")

    __int__ = __index__ = __float__ = __str__ = __repr__ = __bool__ = refuse
    __lt__ = __le__ = __gt__ = __ge__ = refuse


class SlipperyBytes(bytes):
    """Bytes that cannot be copied."""

    def __bytes__(self) -> NoReturn:
        raise AbruptError("no bytes after all")


class Item:
    """A chunk as an adapter written for Snakepit brings it."""

    def __init__(self, data: Any, *, is_final: Any = False, metadata: Any = None) -> None:
        self.data = data
        self.is_final = is_final
        self.metadata = metadata


def nested(levels: int = 100_000) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


def itself() -> Any:
    value: dict[str, Any] = {}
    value["itself"] = value
    return value


def models() -> Any:
    return Model(models)


def lists() -> Any:
    return Dict(lambda: [lists()])


NOT_JSON: Final[Mapping[str, Callable[[], Any]]] = {
    "surrogates": lambda: {"a": ["\ud800"]},
    "nesting": nested,
    "itself": itself,
    "a model of models": models,
    "a model of lists of models": lists,
    "a key that raises": lambda: {Key(throw(ValueError("no"))): 1},
    "a key that stops": lambda: {Key(throw(StopIteration())): 1},
    "a key that recurses": lambda: {Key(recurse): 1},
    "a key that is no text": lambda: {Key(lambda: 7): 1},
    "a number of too many digits": lambda: 10**5_000,
    "a binary of text": lambda: Binary("text"),  # type: ignore[arg-type]
}
"""Values that no JSON can be made of."""

ABRUPT: Final[Mapping[str, Callable[[], Any]]] = {
    "a model": lambda: Model(throw(AbruptError("no"))),
    "a dict": lambda: [Dict(throw(AbruptError("no")))],
    "a key": lambda: {Key(throw(AbruptError("no"))): 1},
    "anything at all": Sealed,
    "a text beside a big number": lambda: [SlipperyText("odd"), 2**70],
    "a number beside a big one": lambda: [SlipperyNumber(7), 2**70],
    "a map beside a big number": lambda: [SlipperyMap(a=1), 2**70],
    "bytes": lambda: SlipperyBytes(b"odd"),
}
"""Values whose methods raise what is no Exception."""

JSON: Final[Mapping[str, tuple[Callable[[], Any], Any]]] = {
    "a text": (lambda: SlipperyText("odd"), "odd"),
    "a number": (lambda: SlipperyNumber(7), 7),
    "a map": (lambda: SlipperyMap(a=1), {"a": 1}),
    "a key": (lambda: {Key(lambda: SlipperyText("odd")): 1}, {"odd": 1}),
    "a model that raises": (
        lambda: Model(throw(ValueError("no"))),
        {"__ffi_unserializable__": True, "__type__": f"{__name__}.Model"},
    ),
    "a model that recurses": (
        lambda: Dict(recurse),
        {"__ffi_unserializable__": True, "__type__": f"{__name__}.Dict"},
    ),
}
"""Odd values that are JSON all the same, and which."""

ITEMS: Final[Mapping[str, Callable[[], Any]]] = {
    "metadata of surrogates": lambda: Item(1, metadata={"\ud800": 1}),
    "metadata without text": lambda: Item(1, metadata={"key": Key(throw(ValueError()))}),
    "metadata of odd text": lambda: Item(1, metadata={"key": Key(throw(AbruptError()))}),
    "an end that is neither": lambda: Chunk(1, is_final=SlipperyNumber(7)),  # type: ignore[arg-type]
    "data that is not there": lambda: Item(Sealed()),
}
"""Items of streams that cannot be sent."""
