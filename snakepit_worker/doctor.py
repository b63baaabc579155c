"""Checks of the machine and of the adapters, a verdict for each."""

from __future__ import annotations

import hashlib
import importlib
import platform
import socket
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Final

from snakepit_worker.errors import StartError
from snakepit_worker.tools.foreign import ForeignAdapter
from snakepit_worker.tools.loading import load
from snakepit_worker.tools.registry import Registry
from snakepit_worker.wire.convention import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from snakepit_worker.settings import Settings

__all__ = ["Check", "check_adapters", "check_all"]

_OLDEST_PYTHON: Final = (3, 11)
_PACKAGES: Final = ("grpcio", "protobuf", "uvloop", "orjson", "msgspec", "structlog")
_HOST_TIMEOUT: Final = 2.0


@dataclass(frozen=True, slots=True)
class Check:
    """A verdict.

    Attributes:
        subject: What was looked at.
        passed: Whether it is good.
        text: What was found, or what is wrong and what to do.
    """

    subject: str
    passed: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.passed else 'FAIL'}  {self.subject:<18} {self.text}"


def check_all(settings: Settings) -> Iterator[Check]:
    """Everything that a worker needs on this machine, cheap checks first.

    Args:
        settings: The settings that the worker would get.
    """
    yield _check("python", _python)
    for package in _PACKAGES:
        if package == "uvloop" and sys.platform == "win32":
            continue
        yield _check(package, partial(metadata.version, package))
    yield _check("stubs", _stubs)
    yield _check("loopback", lambda: _loopback(settings.port))
    yield _check("readiness", lambda: _readiness(settings.ready_file))
    if settings.elixir_address:
        address = settings.elixir_address
        yield _check("host", lambda: _host(address))
    yield from check_adapters(settings)


def check_adapters(settings: Settings) -> Iterator[Check]:
    """Each adapter: imported, built, its tools described, its lifespan entered and left.

    Args:
        settings: Names the adapters.
    """
    if not settings.adapters:
        yield Check("adapters", passed=True, text="none asked for; built-in tools are served")
    for name in settings.adapters:
        yield _check(
            f"adapter {name}", partial(_adapter, name, thread_safe=settings.max_workers > 0)
        )


def _check(subject: str, find: Callable[[], str]) -> Check:
    try:
        return Check(subject, passed=True, text=find())
    except StartError as error:
        text = str(error)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a check that raises has failed
        text = f"{type(error).__name__}: {error}"
    return Check(subject, passed=False, text=" ".join(text.split()))


def _python() -> str:
    if sys.version_info < _OLDEST_PYTHON:
        msg = f"{platform.python_version()} is too old; 3.11 is the oldest that works"
        raise StartError(msg)
    if "python" not in Path(sys.executable).resolve().name:
        msg = f"{sys.executable}: the host finds its workers by the text 'python' in their name"
        raise StartError(msg)
    return f"{platform.python_version()} at {sys.executable}"


def _stubs() -> str:
    from snakepit_worker.wire.generated import snakepit_bridge_pb2 as ours  # noqa: PLC0415

    digest = hashlib.sha256(ours.DESCRIPTOR.serialized_pb).hexdigest()[:12]
    if util.find_spec("snakepit_bridge_pb2") is None:
        return f"descriptor {digest}; Snakepit's own copy is not on the path"
    theirs = importlib.import_module("snakepit_bridge_pb2")
    if theirs.DESCRIPTOR.serialized_pb != ours.DESCRIPTOR.serialized_pb:
        msg = "snakepit_bridge_pb2 on the path is of another version of the protocol"
        raise StartError(msg)
    return f"descriptor {digest}, the same as Snakepit's own copy"


def _loopback(port: int) -> str:
    with socket.socket() as listener:
        try:
            listener.bind((LOOPBACK, port))
        except OSError as error:
            raise StartError(f"{LOOPBACK}:{port}: {error.strerror}") from None
        return f"{LOOPBACK}:{listener.getsockname()[1]} is free"


def _readiness(ready_file: str | None) -> str:
    folder = Path(ready_file).parent if ready_file else Path(tempfile.gettempdir())
    with tempfile.NamedTemporaryFile(dir=folder):
        return f"{folder} is writable"


def _host(address: str) -> str:
    import grpc  # noqa: PLC0415 - see _stubs

    from snakepit_worker.wire.convention import CHANNEL_OPTIONS  # noqa: PLC0415
    from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb  # noqa: PLC0415
    from snakepit_worker.wire.generated.snakepit_bridge_pb2_grpc import (  # noqa: PLC0415
        BridgeServiceStub,
    )

    with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        try:
            stub = BridgeServiceStub(channel)
            response = stub.Ping(pb.PingRequest(message="doctor"), timeout=_HOST_TIMEOUT)
        except grpc.RpcError as error:
            msg = f"{address} does not answer: {error.code().name}: {error.details()}"
            raise StartError(msg) from None
    return f"{address} answered {response.message!r}"


def _adapter(name: str, *, thread_safe: bool) -> str:
    adapter = load(name, thread_safe=thread_safe)
    if isinstance(adapter, ForeignAdapter):
        adapter.kind()
        return "built; a class written for Snakepit's own worker"
    registry = Registry([adapter])
    loaded = registry.adapters[adapter.name]
    with loaded.lifespan():
        loaded.learn_meanings()
        return f"{len(registry)} tools"
