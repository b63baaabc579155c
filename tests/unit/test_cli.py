from __future__ import annotations

import json
import sys

import pytest

from snakepit_worker import __version__
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


def test_the_health_check_says_what_it_ignores(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--health-check", "--mode", "threaded"]) == 0
    written = capfd.readouterr()
    assert written.err == "snakepit-worker: ignored unknown arguments: --mode threaded\n"
    assert written.out


@pytest.mark.parametrize("command", ["doctor", "tools"])
def test_commands_of_people_refuse_what_they_do_not_know(
    command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--adaptor", "dspy"]) == 2
    assert "did you mean --adapter?" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("word", "said"), [("doctro", "did you mean doctor?"), ("run", "known are serve")]
)
def test_a_word_that_is_no_command_is_refused(
    word: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([word]) == 2
    assert said in capfd.readouterr().err


def test_the_version_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capfd.readouterr().out == f"snakepit-worker {__version__}\n"


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
