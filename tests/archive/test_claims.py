"""Who holds a session: claims, leases, and what ends them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from snakepit_worker.archive import database
from snakepit_worker.archive.model import Change, SavedResource, SavedSession
from snakepit_worker.archive.owner import Owner
from snakepit_worker.errors import Conflict, Unavailable, WorkerError
from tests.archive.conftest import LEASE, new_session, resource, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from snakepit_worker.archive.database import Archive


def ended_owner(**fields: Any) -> Owner:
    """A process of this machine that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return replace(Owner.here("dead"), pid=process.pid, **fields)


def claim(archive: Archive, session_id: str = "s") -> SavedSession:
    session = archive.claim(session_id)
    assert session is not None
    return session


def test_what_nobody_saved_is_not_known(open_archive: Callable[..., Archive]) -> None:
    archive = open_archive()
    assert archive.claim("s") is None
    assert archive.find("basket-1") is None
    assert archive.sessions(10) == []


def test_a_released_session_is_claimed_with_all_that_it_holds(
    open_archive: Callable[..., Archive],
) -> None:
    first, second = open_archive("a"), open_archive("b")
    basket = resource("basket-1", name="mine", metadata={"of": "Ann"}, size=12)
    lost = SavedResource(handle="socket-1", kind="shop.socket", created_at=6.0, lost="sockets stay")
    big = resource("big-1", {"number": 2**80, "text": "ä\0", "list": [1, 2.5, None, True]})
    assert write(
        first, new_session("s", basket, lost, big, metadata={"user": "u1"}, end="release")
    ) == [1]
    session = claim(second)
    assert session.fence not in {"first", ""}
    assert session == SavedSession(
        session_id="s",
        fence=session.fence,
        version=2,
        created_at=4.0,
        metadata={"user": "u1"},
        resources=(basket, lost, big),
        taken_from=None,
    )


def test_a_session_lives_on_one_worker(open_archive: Callable[..., Archive]) -> None:
    first, second = open_archive("a"), open_archive("b")
    write(first, new_session("s"))
    with pytest.raises(Conflict, match="session 's' lives on worker 'a'") as caught:
        second.claim("s")
    assert caught.value.retryable
    assert caught.value.retry_after == pytest.approx(LEASE, rel=0.1)
    details = caught.value.details
    assert details["worker_id"] == "a"
    assert details["address"] == "127.0.0.1:a"
    assert details["host"] == Owner.here("a").host
    assert details["expires_in_s"] == pytest.approx(LEASE, rel=0.1)


def test_a_worker_may_claim_what_is_its_own_under_a_new_fence(
    open_archive: Callable[..., Archive],
) -> None:
    archive = open_archive()
    write(archive, new_session("s"))
    session = claim(archive)
    assert session.taken_from is None
    assert write(archive, Change(session_id="s", fence="first")) != [3]
    assert write(archive, Change(session_id="s", fence=session.fence)) == [3]


def test_a_lease_that_has_ended_protects_nothing(
    open_archive: Callable[..., Archive], end_lease: Callable[[str], None]
) -> None:
    first, second, third = open_archive("a"), open_archive("b"), open_archive("c")
    write(first, new_session("s", resource("basket-1")))
    end_lease("a")
    session = claim(second)
    assert session.taken_from == Owner.here("a", "127.0.0.1:a")
    assert [r.handle for r in session.resources] == ["basket-1"]
    with pytest.raises(Conflict, match="worker 'b'"):
        third.claim("s")
    with pytest.raises(Conflict, match="worker 'b'"):
        first.claim("s")


def test_renewing_keeps_what_nobody_has_taken(
    open_archive: Callable[..., Archive], end_lease: Callable[[str], None]
) -> None:
    first, second = open_archive("a"), open_archive("b")
    write(first, new_session("s"), new_session("t"), new_session("u", fence="other"))
    assert first.renew() is None, "the lease was still running"
    end_lease("a")
    claim(second, "t")
    assert first.renew() == {"s": "first", "u": "other"}
    assert first.renew() is None
    with pytest.raises(Conflict):
        second.claim("s")


def test_a_claim_and_a_renewal_do_not_overtake_each_other(
    open_archive: Callable[..., Archive],
    end_lease: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A renewal that begins during a claim has to wait, or it would not see what was taken."""
    first, second = open_archive("a", lease=0.3), open_archive("b")
    write(first, new_session("s"))
    end_lease("a")
    during: list[WorkerError] = []

    def fence() -> str:
        with pytest.raises(Unavailable, match="lock") as caught:  # it waits a third of the lease
            first.renew()
        during.append(caught.value)
        return "second"

    monkeypatch.setattr(database, "new_fence", fence)
    assert claim(second).fence == "second"
    assert len(during) == 1
    assert first.renew() == {}


def test_a_dead_owner_on_this_machine_is_noticed_at_once(
    open_archive: Callable[..., Archive],
) -> None:
    owner = ended_owner()
    write(open_archive(owner=owner), new_session("s"))
    assert claim(open_archive("b")).taken_from == owner


@pytest.mark.parametrize(
    "owner",
    [
        pytest.param({"machine": "another boot"}, id="another machine"),
        pytest.param({"machine": ""}, id="a platform that does not tell"),
    ],
)
def test_an_owner_elsewhere_is_trusted_until_its_lease_ends(
    open_archive: Callable[..., Archive], owner: dict[str, str]
) -> None:
    write(open_archive(owner=ended_owner(**owner)), new_session("s"))
    with pytest.raises(Conflict, match="worker 'dead'"):
        open_archive("b").claim("s")


def test_a_process_id_that_was_used_again_is_another_process(
    open_archive: Callable[..., Archive],
) -> None:
    here = Owner.here("a")
    write(open_archive(owner=replace(here, started=here.started - 1)), new_session("s"))
    claim(open_archive("b"))


def test_giving_up_everything(open_archive: Callable[..., Archive]) -> None:
    first, second = open_archive("a"), open_archive("b")
    write(first, new_session("s"), new_session("t"))
    write(second, new_session("u"))
    first.release_all()
    assert claim(second, "s").taken_from is None
    claim(second, "t")
    assert write(first, Change(session_id="s", fence="first")) != [2]
    assert first.renew() == {}, "the worker begins anew"
    with pytest.raises(Conflict):
        first.claim("u")


def test_namespaces_do_not_see_each_other(open_archive: Callable[..., Archive]) -> None:
    shop, bank = open_archive("a", namespace="shop"), open_archive("b", namespace="bank")
    write(shop, new_session("s", resource("basket-1")))
    assert bank.claim("s") is None
    assert bank.find("basket-1") is None
    assert write(bank, new_session("s", resource("basket-1"))) == [1]
    assert write(bank, Change(session_id="s", fence="first", end="delete")) == [2]
    assert shop.find("basket-1") == "s"
    assert shop.totals().sessions == 1
    assert bank.totals().sessions == 0


def test_a_handle_leads_to_its_session(open_archive: Callable[..., Archive]) -> None:
    first, second = open_archive("a"), open_archive("b")
    write(first, new_session("s", resource("basket-1")), new_session("t", resource("basket-2")))
    assert second.find("basket-2") == "t"
    write(first, Change(session_id="t", fence="first", remove=("basket-2",)))
    assert second.find("basket-2") is None


def test_what_the_archive_holds(
    open_archive: Callable[..., Archive], end_lease: Callable[[str], None]
) -> None:
    first, second = open_archive("a"), open_archive("b")
    write(first, new_session("s", resource("basket-1", {"x": 1}), resource("basket-2", {"x": 22})))
    write(second, new_session("t"), new_session("u", end="release"))
    end_lease("b")
    everything = first.sessions(10)
    assert [(s.session_id, s.resources, s.bytes) for s in everything] == [
        ("s", 2, len('{"x":1}{"x":22}')),
        ("t", 0, 0),
        ("u", 0, 0),
    ]
    s, t, u = everything
    assert s.owner == Owner.here("a", "127.0.0.1:a")
    assert s.expires_in == pytest.approx(LEASE, rel=0.1)
    assert t.owner is not None
    assert t.expires_in is not None
    assert t.expires_in < 0
    assert (u.owner, u.expires_in) == (None, None)
    assert (s.version, s.created_at) == (1, 4.0)
    assert s.used_at == pytest.approx(t.used_at, abs=LEASE)
    assert [x.session_id for x in first.sessions(1, after="s")] == ["t"]
    totals = second.totals()
    assert (totals.sessions, totals.owned, totals.resources, totals.bytes) == (3, 1, 2, s.bytes)


def test_what_nobody_uses_expires(
    open_archive: Callable[..., Archive],
    sql: Callable[..., list[Any]],
    end_lease: Callable[[str], None],
) -> None:
    archive = open_archive("a", ttl=100.0)
    other = open_archive("b")
    write(archive, new_session("held"), new_session("new", end="release"))
    write(archive, new_session("old", resource("basket-1"), end="release"))
    write(other, new_session("left"))
    assert archive.expire() == []
    sql("UPDATE snakepit_sessions SET used_at = used_at - 101 WHERE session_id <> 'new'")
    assert archive.expire() == ["old"], "what is only read is in use while its owner lives"
    end_lease("b")
    assert archive.expire() == ["left"]
    assert archive.find("basket-1") is None
    assert sql("SELECT count(*) FROM snakepit_resources") == [(0,)]
    assert [row.worker_id for row in sql("SELECT worker_id FROM snakepit_workers")] == ["a"]


def test_a_session_stays_for_its_time_after_the_death_of_its_reader(
    open_archive: Callable[..., Archive], sql: Callable[..., list[Any]]
) -> None:
    archive = open_archive("a", ttl=100.0)
    write(open_archive("b"), new_session("s"))
    sql("UPDATE snakepit_sessions SET used_at = used_at - 101")
    sql("UPDATE snakepit_workers SET expires_at = expires_at - :by", by=LEASE + 50)
    assert archive.expire() == []
    sql("UPDATE snakepit_workers SET expires_at = expires_at - 50")
    assert archive.expire() == ["s"]


def test_a_worker_that_was_forgotten_begins_anew(
    open_archive: Callable[..., Archive], end_lease: Callable[[str], None]
) -> None:
    first, second = open_archive("a"), open_archive("b")
    end_lease("a")
    second.expire()
    assert first.renew() == {}
    write(first, new_session("s"))
    with pytest.raises(Conflict, match="worker 'a'"):
        second.claim("s")
