from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

import pytest

from snakepit_worker import doctor
from snakepit_worker.doctor import Check, check_adapters, check_all
from snakepit_worker.settings import Settings
from snakepit_worker.testing import StandInHost

if TYPE_CHECKING:
    from pathlib import Path

CHATTY = "tests.process.adapters.chatty.Chatty"


def checked(settings: Settings) -> dict[str, Check]:
    return {check.subject: check for check in check_all(settings)}


def test_a_verdict_reads_as_a_line() -> None:
    assert str(Check("python", passed=True, text="3.11")) == "ok    python             3.11"
    assert str(Check("host", passed=False, text="gone")) == "FAIL  host               gone"


def test_a_machine_that_is_well() -> None:
    with StandInHost() as host:
        checks = checked(Settings(elixir_address=host.address, adapters=(CHATTY,)))
    assert [check for check in checks.values() if not check.passed] == []
    assert host.address in checks["host"].text
    assert checks[f"adapter {CHATTY}"].text.endswith("tools")


def test_without_a_host_and_adapters_nothing_is_asked_of_them() -> None:
    checks = checked(Settings())
    assert "host" not in checks
    assert checks["adapters"].passed


def test_a_host_that_does_not_answer() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        found = checked(Settings(elixir_address=address))["host"]
    assert not found.passed
    assert address in found.text
    assert "UNAVAILABLE" in found.text


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert not checked(Settings(port=taken.getsockname()[1]))["loopback"].passed


def test_a_folder_for_the_readiness_file_that_is_not_there(tmp_path: Path) -> None:
    assert checked(Settings(ready_file=str(tmp_path / "ready")))["readiness"].passed
    assert list(tmp_path.iterdir()) == []
    found = checked(Settings(ready_file=str(tmp_path / "missing" / "ready")))["readiness"]
    assert not found.passed
    assert str(tmp_path / "missing") in found.text


def test_a_package_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_PACKAGES", ("grpcio", "no-such-package"))
    checks = checked(Settings())
    assert checks["grpcio"].passed
    assert not checks["no-such-package"].passed
    assert "no-such-package" in checks["no-such-package"].text


def test_stubs_of_another_protocol(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = tmp_path / "snakepit_bridge_pb2.py"
    module.write_text("class DESCRIPTOR: serialized_pb = b'another'")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "snakepit_bridge_pb2", raising=False)
    try:
        found = checked(Settings())["stubs"]
    finally:
        sys.modules.pop("snakepit_bridge_pb2", None)
    assert not found.passed
    assert "another version" in found.text


@pytest.mark.parametrize(
    ("adapter", "cause"),
    [
        ("nothing", "unknown adapter 'nothing'"),
        ("no_such_package.Adapter", "No module named 'no_such_package'"),
        ("tests.process.adapters.lifespans.Failing", "OSError: libfancy.so.7 is missing"),
        ("snakepit_worker.CallContext", "neither a subclass of snakepit_worker.Adapter"),
    ],
)
def test_an_adapter_that_cannot_be_served(adapter: str, cause: str) -> None:
    (found,) = check_adapters(Settings(adapters=(adapter,)))
    assert not found.passed
    assert cause in found.text
