"""Whether a process is known to have ended."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from snakepit_worker.archive import owner
from snakepit_worker.archive.owner import Owner
from tests.archive.conftest import LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    """A process that ends when its input is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", "print('here', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        yield process
        process.kill()


def owner_of(pid: int) -> Owner:
    found = owner._look_up(pid)
    assert found is not None
    return replace(Owner.here("a"), pid=pid, started=found[1])


def test_this_process_lives() -> None:
    here = Owner.here("a", "127.0.0.1:1")
    assert (here.worker_id, here.pid, here.address) == ("a", os.getpid(), "127.0.0.1:1")
    assert here.machine
    assert here.started > 0
    assert not here.has_ended()


def test_another_process_lives_until_it_ends(child: subprocess.Popen[str]) -> None:
    other = owner_of(child.pid)
    assert not other.has_ended()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert other.has_ended(), "though its parent has not asked about it yet"
    child.wait(LIMIT)
    assert other.has_ended()


def test_a_number_that_was_used_again() -> None:
    here = Owner.here("a")
    assert replace(here, started=here.started + 1).has_ended()


@pytest.mark.parametrize("machine", ["", "another"])
def test_other_machines_are_not_judged(machine: str) -> None:
    here = Owner.here("a")
    assert not replace(here, machine=machine, started=here.started + 1).has_ended()


def test_a_process_of_somebody_else_that_cannot_be_looked_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = Owner.here("a")
    monkeypatch.setattr(owner, "_PROC", tmp_path)

    def deny(_pid: int, _signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", deny)
    assert not replace(here, started=here.started + 1).has_ended()
