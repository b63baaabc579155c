from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from snakepit_bridge.base_adapter import BaseAdapter, ToolMetadata, tool

__all__ = ["BaseAdapter", "ThreadSafeAdapter", "ToolMetadata", "thread_safe_method", "tool"]

F = TypeVar("F", bound=Callable[..., Any])


class ThreadSafeAdapter(BaseAdapter):
    __thread_safe__ = True

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()
        self._thread_local = threading.local()

    @contextmanager
    def acquire_lock(self) -> Iterator[None]:
        with self._lock:
            yield

    def get_thread_local(self, key: str, default: Any = None) -> Any:
        return getattr(self._thread_local, key, default)

    def set_thread_local(self, key: str, value: Any) -> None:
        setattr(self._thread_local, key, value)


def thread_safe_method(function: F) -> F:
    @functools.wraps(function)
    def wrapper(self: ThreadSafeAdapter, *args: Any, **kwargs: Any) -> Any:
        return function(self, *args, **kwargs)

    wrapper.__thread_safe__ = True  # type: ignore[attr-defined]
    return wrapper  # type: ignore[return-value]
