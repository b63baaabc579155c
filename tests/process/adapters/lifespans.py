"""Adapters whose lifespans wait, or fail."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from snakepit_worker import Adapter, tool
from tests.process.adapters import gate

if TYPE_CHECKING:
    from collections.abc import Iterator


class Slow(Adapter):
    """Waits for the test before it serves."""

    name: ClassVar[str] = "slow"

    @contextmanager
    def lifespan(self) -> Iterator[None]:
        gate.wait("starting")
        yield
        gate.announce("stopping")

    @tool
    def hello(self) -> str:
        return "hello"


class Failing(Adapter):
    name: ClassVar[str] = "failing"

    @contextmanager
    def lifespan(self) -> Iterator[None]:
        msg = "libfancy.so.7 is missing"
        raise OSError(msg)
        yield

    @tool
    def hello(self) -> str:
        return "hello"


class Leaving(Failing):
    """A framework that ends the process when it does not like it."""

    name: ClassVar[str] = "leaving"

    @contextmanager
    def lifespan(self) -> Iterator[None]:
        sys.exit("no licence found")
        yield


class NeverStopping(Adapter):
    name: ClassVar[str] = "endless"

    @contextmanager
    def lifespan(self) -> Iterator[None]:
        yield
        gate.wait("stopping")

    @tool
    def hello(self) -> str:
        return "hello"
