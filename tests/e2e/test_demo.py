"""The demo runs from start to end, with a script in place of the model."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(120)
def test_every_step_shows_what_it_should() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "examples.demo", "--scripted"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    output = shown.stdout
    assert "SCRIPTED" in output
    assert re.search(r"pid \d+ serves on 127\.0\.0\.1:\d+, ready after", output)
    assert "dspy.chain_of_thought" in output
    assert re.search(r"handle module-[0-9a-f]{24}", output)
    for city in ("Paris", "Tokyo", "Rome"):
        assert re.search(rf"capital of \w+\?\s+The capital of \w+ is {city}\.", output)
    assert re.search(r"\w+\| \w+\|", output), "the streamed answer came in one piece"
    assert "INVALID_ARGUMENT" in output
    assert "did you mean" in output
    assert "exit status 0" in output
