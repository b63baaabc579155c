"""Telling the host the port."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

import pytest

from snakepit_worker.process.readiness import RealStdout, announce

if TYPE_CHECKING:
    from pathlib import Path


class Line:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def write(self, text: str) -> None:
        self.texts.append(text)


def stdout(line: Line) -> RealStdout:
    return cast("RealStdout", line)


@pytest.mark.conforms(3)
def test_a_file_is_complete_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, line = tmp_path / "ready", Line()
    synced: list[str] = []
    sync = os.fsync

    def watched_sync(fd: int) -> None:
        assert not ready.exists()
        sync(fd)
        synced.append((tmp_path / "ready.tmp").read_text())

    monkeypatch.setattr(os, "fsync", watched_sync)
    announce(50_051, str(ready), stdout(line))
    assert synced == ["50051"]
    assert ready.read_text() == "50051"
    assert list(tmp_path.iterdir()) == [ready]
    assert line.texts == []


def test_a_stale_file_is_replaced(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    ready.write_text("1")
    announce(2, str(ready), stdout(Line()))
    assert ready.read_text() == "2"


def test_without_a_file_there_is_a_line() -> None:
    line = Line()
    announce(7, None, stdout(line))
    assert line.texts == ["GRPC_READY:7"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        announce(7, str(tmp_path / "missing" / "ready"), stdout(Line()))
