from __future__ import annotations

import json
import sys

import pytest

from snakepit_worker.cli import main

CHATTY = "tests.process.adapters.chatty.Chatty"
FAILING = "tests.process.adapters.lifespans.Failing"


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SNAKEPIT_GRPC_ADDRESS", "SNAKEPIT_ELIXIR_ADDRESS", "SNAKEPIT_READY_FILE"):
        monkeypatch.delenv(name, raising=False)


def test_wrong_usage_is_status_2(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", "many"]) == 2
    written = capfd.readouterr()
    assert written.out == ""
    assert "--port" in written.err


@pytest.mark.parametrize("command", [["--health-check"], ["doctor"], ["tools"]])
def test_commands_say_what_they_ignore(
    command: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--mode", "threaded"]) == 0
    written = capfd.readouterr()
    assert written.err == "snakepit-worker: ignored unknown arguments: --mode threaded\n"
    assert written.out


def test_a_command_is_the_first_argument_only(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--health-check", "doctor"]) == 0
    assert "ignored unknown arguments: doctor" in capfd.readouterr().err


def test_the_arguments_are_those_of_the_process(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["snakepit-worker", "tools", "--adapter", CHATTY])
    assert main() == 0
    names = [tool["name"] for tool in json.loads(capfd.readouterr().out)]
    assert names == sorted(names)
    assert "chatty.log" in names


def test_the_status_is_1_when_anything_fails(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--health-check", "--adapter", FAILING, "--adapter", CHATTY]) == 1
    written = capfd.readouterr()
    assert "libfancy.so.7 is missing" in written.err
    assert written.out.startswith(f"ok    adapter {CHATTY} ")


def test_tools_of_two_adapters_of_one_name(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["tools", "--adapter", f"{CHATTY},{CHATTY}"]) == 1
    written = capfd.readouterr()
    assert written.out == ""
    assert "two adapters are named 'chatty'" in written.err
