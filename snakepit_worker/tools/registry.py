"""The tools of a worker by their full names, and the state of the adapters behind them."""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from snakepit_worker.errors import NotFound, StartError
from snakepit_worker.tools.api import (
    INTERFACE_VERSION,
    MARK_ATTRIBUTE,
    RESERVED_NAMES,
    Adapter,
    ToolMark,
)
from snakepit_worker.tools.binding import Signature
from snakepit_worker.tools.describing import describe
from snakepit_worker.tools.meanings import Meanings

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

__all__ = ["AdapterState", "LoadedAdapter", "Registry", "Tool"]

_LONGEST_NAME: Final = 200
_ADAPTER_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")


class AdapterState(Enum):
    """Where an adapter stands."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    STOPPED = "stopped"


class LoadedAdapter:
    """One adapter of this process.

    Attributes:
        adapter: The instance.
        state: Where it stands.
        failure: What its lifespan raised, once it has failed.
        started: Done when the state is no longer ``STARTING``; set by the runtime.
        awaited: Calls that wait until it has started.
        meanings: Its table of exceptions, once it has started.
        folder: Where its code lies, if that can be told.
    """

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self.state = AdapterState.STARTING
        self.failure: BaseException | None = None
        self.started: asyncio.Future[None] | None = None
        self.awaited = 0
        self.meanings: Meanings | None = None
        self.folder = _folder(adapter)

    @property
    def name(self) -> str:
        """First part of its tools' names."""
        return self.adapter.name

    @property
    def has_lifespan(self) -> bool:
        """Whether it has anything to set up before it can be called."""
        return type(self.adapter).lifespan is not Adapter.lifespan

    def lifespan(self) -> AbstractContextManager[None]:
        """What the adapter sets up.

        Raises:
            StartError: When it is no context manager.
        """
        lifespan: object = self.adapter.lifespan()
        if not isinstance(lifespan, AbstractContextManager):  # adapters are not always type-checked
            kind = type(lifespan).__name__
            msg = f"adapter {self.name}: lifespan() has to return a context manager, got {kind}"
            raise StartError(msg)
        return lifespan

    def learn_meanings(self) -> None:
        """Ask the adapter, which has started, for its table of exceptions.

        Raises:
            StartError: When the table cannot be used.
        """
        self.meanings = Meanings(self.adapter)


@dataclass(frozen=True, slots=True)
class Tool:
    """One callable.

    Attributes:
        name: Full name, ``<adapter>.<tool>``.
        function: The method, bound to its adapter.
        signature: How it is called.
        main_thread: Whether a plain function or generator runs on the main thread.
        is_async: Whether it is a coroutine function or an async generator.
        streams: Whether it is a generator of either kind.
        owner: Its adapter.
    """

    name: str
    function: Callable[..., Any]
    signature: Signature
    main_thread: bool
    is_async: bool
    streams: bool
    owner: LoadedAdapter


class Registry:
    """All tools of a worker.

    Args:
        adapters: The adapters, the worker's own ones among them.

    Raises:
        StartError: For an adapter that cannot be served; the message says which and why.
    """

    def __init__(self, adapters: Iterable[Adapter]) -> None:
        self.adapters: dict[str, LoadedAdapter] = {}
        self._tools: dict[str, Tool] = {}
        self._described: list[dict[str, Any]] | None = None
        for adapter in adapters:
            self._add(adapter)

    def __len__(self) -> int:
        return len(self._tools)

    def find(self, name: str) -> Tool | None:
        """The tool with this full name, or ``None``."""
        return self._tools.get(name)

    def unknown(self, name: str) -> NotFound:
        """The failure of a call whose tool nobody has; the message names near matches.

        Args:
            name: What the caller asked for.
        """
        name = name[:_LONGEST_NAME]
        near = difflib.get_close_matches(name, self._tools, n=3, cutoff=0.7)
        if not near:  # the caller may have left out the adapter's name
            near = [full for full in self._tools if full.endswith(f".{name}")][:3]
        msg = f"unknown tool {name!r}"
        msg += f"; did you mean {' or '.join(near)}?" if near else "; worker.tools lists them"
        return NotFound(msg, details={"tool": name, "near": near})

    def describe(self) -> list[dict[str, Any]]:
        """All tools as JSON values, by name."""
        if self._described is None:
            self._described = [describe(self._tools[name]) for name in sorted(self._tools)]
        return self._described

    def _add(self, adapter: Adapter) -> None:
        owner = type(adapter).__name__
        name = getattr(adapter, "name", None)
        if not isinstance(name, str) or not _ADAPTER_NAME.fullmatch(name):
            msg = (
                f"adapter {owner} needs a class attribute `name` of lower-case letters, digits and "
                f"underscores, got {name!r}"
            )
            raise StartError(msg)
        if adapter.interface != INTERFACE_VERSION:
            msg = (
                f"adapter {name} ({owner}) is written for version {adapter.interface} of the "
                f"adapter interface; this worker has version {INTERFACE_VERSION}"
            )
            raise StartError(msg)
        if name in self.adapters:
            msg = f"two adapters are named {name!r}; a name can be served once"
            raise StartError(msg)
        if name in RESERVED_NAMES and not type(adapter).__module__.startswith(_BUILTIN):
            msg = f"adapter {owner} may not be named {name!r}: the name is the worker's own"
            raise StartError(msg)
        loaded = LoadedAdapter(adapter)
        if loaded.has_lifespan:
            _check_lifespan(adapter)
        else:
            loaded.learn_meanings()
        self.adapters[name] = loaded
        marked = list(_marked(adapter))
        if not marked:
            raise StartError(f"adapter {name} ({owner}) has no tool; put @tool above its methods")
        for function, mark in marked:
            built = _tool(loaded, function, mark)
            if built.name in self._tools:
                msg = f"adapter {name}: two methods answer to {built.name}"
                raise StartError(msg)
            self._tools[built.name] = built


def _check_lifespan(adapter: Adapter) -> None:
    """Find what the type checker would have found.

    Raises:
        StartError: When the adapter's lifespan is no context manager.
    """
    lifespan = type(adapter).lifespan
    inner = inspect.unwrap(lifespan)
    if inspect.isasyncgenfunction(inner) or inspect.iscoroutinefunction(inner):
        msg = (
            f"adapter {adapter.name}: lifespan has to be a plain function with @contextmanager "
            "above it, since it runs on the main thread"
        )
        raise StartError(msg)
    if inspect.isgeneratorfunction(lifespan):
        msg = f"adapter {adapter.name}: lifespan needs @contextmanager above it, of contextlib"
        raise StartError(msg)


def _folder(adapter: Adapter) -> str | None:
    """The folder of the adapter's top-level package, or its file."""
    package = sys.modules.get(type(adapter).__module__.partition(".")[0])
    file: str | None = getattr(package, "__file__", None)
    return file.removesuffix("__init__.py") if file is not None else None


_BUILTIN: Final = "snakepit_worker.tools.builtin"


def _marked(adapter: Adapter) -> Iterable[tuple[Callable[..., Any], ToolMark]]:
    for attribute in dir(type(adapter)):
        static = inspect.getattr_static(adapter, attribute)
        if isinstance(static, property) and hasattr(static.fget, MARK_ATTRIBUTE):
            msg = f"tool {adapter.name}.{attribute}: a property cannot be called; make it a method"
            raise StartError(msg)
        mark = getattr(static, MARK_ATTRIBUTE, None)
        if isinstance(mark, ToolMark):
            yield getattr(adapter, attribute), mark


def _tool(owner: LoadedAdapter, function: Callable[..., Any], mark: ToolMark) -> Tool:
    name = f"{owner.name}.{mark.name or function.__name__}"
    is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    if is_async and mark.main_thread:
        msg = f"tool {name}: a coroutine function runs on the event loop, not on the main thread"
        raise StartError(msg)
    return Tool(
        name=name,
        function=function,
        signature=Signature(function, name),
        main_thread=mark.main_thread,
        is_async=is_async,
        streams=inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function),
        owner=owner,
    )
