"""A database that goes away and comes back."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from snakepit_worker.archive.database import Archive
from snakepit_worker.archive.model import Change
from snakepit_worker.archive.thread import ArchiveThread
from snakepit_worker.errors import Unavailable
from tests.archive.conftest import LIMIT, new_session, options_of, resource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Future

    from tests.databases import PostgresServer


@pytest.fixture
def stopped(postgres: PostgresServer) -> Iterator[Callable[[bool], None]]:
    """Stops the server, or starts it again; at the end it runs."""
    runs = True

    def stop(stop_it: bool) -> None:  # noqa: FBT001 - what else could it be
        nonlocal runs
        if stop_it == runs:
            (postgres.stop if stop_it else postgres.start)()
            runs = not stop_it

    yield stop
    stop(False)  # noqa: FBT003 - see above


def noted(method: Callable[..., object], done: list[str]) -> Callable[..., object]:
    """A method of the archive that notes when it has succeeded."""

    def call(*arguments: object) -> object:
        result = method(*arguments)
        done.append(method.__name__)
        return result

    return call


class Retries(threading.Event):
    """Set when the thread's log says that it tries again."""

    def __call__(self, event: str, **_: object) -> None:
        if event == "the archive is tried again":
            self.set()


@pytest.fixture
def retries(monkeypatch: pytest.MonkeyPatch) -> Retries:
    event = Retries()

    class Logger:
        warning = staticmethod(event)
        info = error = exception = staticmethod(lambda *_, **__: None)

    monkeypatch.setattr("snakepit_worker.archive.thread.logger", Logger)
    return event


def test_writes_and_claims_wait_for_the_server(
    postgres: PostgresServer, stopped: Callable[[bool], None], retries: Retries
) -> None:
    lost: list[Mapping[str, str]] = []
    thread = ArchiveThread(options_of(postgres.url()), lost.append)
    thread.start().result(LIMIT)
    thread.write(new_session("s")).result(LIMIT)
    stopped(True)  # noqa: FBT003 - see the fixture
    write = thread.write(Change(session_id="s", fence="first", put=(resource("basket-1"),)))
    claim, find = thread.claim("s"), thread.find("basket-1")
    assert retries.wait(LIMIT)
    assert not write.done()
    assert thread.is_owner, "the lease still runs"
    stopped(False)  # noqa: FBT003 - see the fixture
    assert write.result(LIMIT).version == 2
    session = claim.result(LIMIT)
    assert session is not None
    assert session.version == 3
    assert find.result(LIMIT) == "s"
    assert lost == []
    assert thread.close(LIMIT)


def test_they_fail_when_the_lease_has_ended(
    postgres: PostgresServer, stopped: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    for name in ("renew", "claim"):
        monkeypatch.setattr(Archive, name, noted(getattr(Archive, name), done))
    thread = ArchiveThread(options_of(postgres.url(), lease=1.0))
    thread.start().result(LIMIT)
    thread.write(new_session("s")).result(LIMIT)
    stopped(True)  # noqa: FBT003 - see the fixture
    futures: list[Future[Any]] = [
        thread.write(Change(session_id="s", fence="first")),
        thread.claim("t"),
    ]
    for future in futures:
        with pytest.raises(
            Unavailable, match=r"^the archive postgresql://postgres@.* is not available"
        ):
            future.result(LIMIT)
    assert not thread.is_owner
    with pytest.raises(Unavailable):
        thread.claim("t").result(LIMIT)
    stopped(False)  # noqa: FBT003 - see the fixture
    while True:  # it looks again in a moment
        try:
            assert thread.claim("t").result(LIMIT) is None
        except Unavailable:
            continue
        break
    assert done[done.index("claim") - 1] == "renew", "the lease comes first"
    assert thread.write(Change(session_id="s", fence="first")).result(LIMIT).version == 2
    assert thread.close(LIMIT)


def test_closing_while_the_server_is_away(
    postgres: PostgresServer, stopped: Callable[[bool], None], retries: Retries
) -> None:
    thread = ArchiveThread(options_of(postgres.url()))
    thread.start().result(LIMIT)
    stopped(True)  # noqa: FBT003 - see the fixture
    write = thread.write(new_session("s"))
    assert retries.wait(LIMIT)
    thread.close(0.3)
    with pytest.raises(Unavailable):
        write.result(LIMIT)
