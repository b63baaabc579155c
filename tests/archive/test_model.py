"""The archive against a simple model, in any order of claims, writes, ends of leases and deaths."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy import update

from snakepit_worker.archive.database import Archive
from snakepit_worker.archive.model import Change
from snakepit_worker.archive.records import pack
from snakepit_worker.archive.tables import workers as workers_table
from snakepit_worker.errors import Conflict, NotFound
from tests.archive.conftest import new_session, options_of, resource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snakepit_worker.archive.model import End

WORKERS = ("a", "b", "c")
SESSIONS = ("s", "t")
ENDS: list[End | None] = [None, None, None, "release", "delete"]
workers = st.sampled_from(WORKERS)
sessions = st.sampled_from(SESSIONS)
handles = st.sampled_from(("r1", "r2", "r3"))


@dataclass
class Saved:
    """A session in the model."""

    owner: str | None
    fence: str
    resources: dict[str, int] = field(default_factory=dict)


class Model(RuleBasedStateMachine):
    """Three workers in a namespace; leases end and processes die when the test says so."""

    url: str
    examples: Iterator[int]

    def __init__(self) -> None:
        super().__init__()
        self.namespace = f"example {next(self.examples)}"
        self.names = {worker: worker for worker in WORKERS}
        """What each worker's present process is called."""
        self.archives = {worker: self.open(worker) for worker in WORKERS}
        self.saved: dict[str, Saved] = {}
        self.ended: set[str] = set()
        """Names whose lease or process has ended."""
        self.fences: dict[str, list[tuple[str, str]]] = {name: [] for name in WORKERS}
        """All fences that a worker ever had, with their sessions."""
        self.count = 0

    def open(self, worker: str) -> Archive:
        # Without synchronising: nothing here survives a power cut, and it takes its time.
        archive = Archive(
            options_of(self.url, self.names[worker], namespace=self.namespace, durability="delayed")
        )
        archive.open()
        return archive

    def change_worker(self, worker: str, **change: object) -> None:
        """Change the row of a worker."""
        with self.archives["a"]._database.transaction() as connection:
            connection.execute(
                update(workers_table)
                .where(
                    workers_table.c.namespace == self.namespace,
                    workers_table.c.worker_id == self.names[worker],
                )
                .values(change)
            )

    def is_free(self, session: Saved, worker: str) -> bool:
        return session.owner in {None, self.names[worker]} or session.owner in self.ended

    @rule(worker=workers, session_id=sessions, handle=handles)
    def begin(self, worker: str, session_id: str, handle: str) -> None:
        self.count += 1
        fence = f"f{self.count}"
        change = new_session(session_id, resource(handle, {"n": self.count}), fence=fence)
        (outcome,) = self.archives[worker].write([pack(change, 100)])
        if session_id in self.saved:
            assert isinstance(outcome, Conflict)
        else:
            assert outcome == 1
            self.saved[session_id] = Saved(self.names[worker], fence, {handle: self.count})
            self.fences[worker].append((session_id, fence))

    @rule(worker=workers, session_id=sessions)
    def claim(self, worker: str, session_id: str) -> None:
        session = self.saved.get(session_id)
        if session is not None and not self.is_free(session, worker):
            with pytest.raises(Conflict, match=re.escape(f"lives on worker {session.owner!r}")):
                self.archives[worker].claim(session_id)
            return
        found = self.archives[worker].claim(session_id)
        if session is None:
            assert found is None
            return
        assert found is not None
        assert {r.handle: r.recipe for r in found.resources} == {
            handle: {"n": n} for handle, n in session.resources.items()
        }
        assert [r.handle for r in found.resources] == list(session.resources)
        assert (found.taken_from and found.taken_from.worker_id) == (
            None if session.owner == self.names[worker] else session.owner
        )
        session.owner, session.fence = self.names[worker], found.fence
        self.fences[worker].append((session_id, found.fence))

    @rule(data=st.data(), worker=workers)
    def write(self, data: st.DataObject, worker: str) -> None:
        """A group of changes under fences that may be long void."""
        if not self.fences[worker]:
            return
        changes = data.draw(
            st.lists(
                st.tuples(
                    st.sampled_from(self.fences[worker]),
                    st.none() | handles,
                    st.none() | handles,
                    st.sampled_from(ENDS),
                ),
                max_size=5,
            )
        )
        packed, expected = [], []
        for (session_id, fence), put, remove, end in changes:
            self.count += 1
            change = Change(
                session_id=session_id,
                fence=fence,
                put=(resource(put, {"n": self.count}),) if put else (),
                remove=(remove,) if remove else (),
                end=end,
            )
            packed.append(pack(change, 100))
            expected.append(self.expect(change))
        outcomes = self.archives[worker].write(packed)
        for outcome, wins in zip(outcomes, expected, strict=True):
            assert isinstance(outcome, int) == wins
            assert wins or isinstance(outcome, Conflict | NotFound)

    def expect(self, change: Change) -> bool:
        """Make a change in the model; whether it wins."""
        session = self.saved.get(change.session_id)
        if session is None:
            return change.end == "delete"
        if session.fence != change.fence:
            return False
        for put in change.put:
            session.resources[put.handle] = self.count
        for handle in change.remove:
            session.resources.pop(handle, None)
        if change.end == "release":
            session.owner, session.fence = None, ""
        elif change.end == "delete":
            del self.saved[change.session_id]
        return True

    @rule(worker=workers)
    def end_lease(self, worker: str) -> None:
        self.change_worker(worker, expires_at=0.0)
        self.ended.add(self.names[worker])

    @rule(worker=workers)
    def renew(self, worker: str) -> None:
        held = self.archives[worker].renew()
        name = self.names[worker]
        mine = {key: session.fence for key, session in self.saved.items() if session.owner == name}
        assert held == (mine if name in self.ended else None)
        self.ended.discard(name)

    @rule(worker=workers)
    def release_all(self, worker: str) -> None:
        self.archives[worker].release_all()
        for session in self.saved.values():
            if session.owner == self.names[worker]:
                session.owner, session.fence = None, ""
        self.archives[worker].renew()
        self.ended.discard(self.names[worker])

    @rule(worker=workers)
    def die_and_be_replaced(self, worker: str) -> None:
        """What the dead process held is free at once."""
        self.change_worker(worker, started=1)
        self.archives[worker].close()
        self.ended.add(self.names[worker])
        self.names[worker] += "'"
        self.archives[worker] = self.open(worker)
        self.fences[worker].clear()

    @invariant()
    def handles_are_found(self) -> None:
        for handle in ("r1", "r2", "r3"):
            holders: list[str | None] = [
                name for name, s in self.saved.items() if handle in s.resources
            ]
            assert self.archives["a"].find(handle) in (holders or [None])

    def teardown(self) -> None:
        for archive in self.archives.values():
            archive.close()


@pytest.mark.timeout(300)  # a thousand transactions, on a machine that others may be using
def test_the_archive_does_what_the_model_does(url: str) -> None:
    model: type[Model] = type("Model", (Model,), {"url": url, "examples": count()})
    case = model.TestCase
    case.settings = settings(
        max_examples=20,
        stateful_step_count=25,
        phases=[Phase.generate],  # shrinking would take minutes
    )
    case().runTest()
