from __future__ import annotations

import logging
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from snakepit_adapters.dspy.loading import loaded

if TYPE_CHECKING:
    import pytest

SLOW = ("dspy", "pydantic", "numpy", "litellm", "anyio")


def test_the_package_imports_without_a_framework() -> None:
    code = (
        "import sys; import snakepit_adapters.dspy; "
        f"print([name for name in {SLOW!r} if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_first_calls_import_nothing() -> None:
    """In a process of its own, since any other test would have imported it all."""
    code = """
import asyncio, sys
from snakepit_adapters.dspy.arguments import LMSettings
from snakepit_adapters.dspy.loading import loaded
from snakepit_adapters.dspy.signatures import read_signature
from examples.demo.scripted_model import Facts, ScriptedModelServer

async def main():
    settings = LMSettings(model=server.model, api_base=server.base_url, num_retries=0)
    model = language_models.LanguageModel.configure(settings)
    signature = read_signature("question, n: int -> answer: list[str]")
    program = programs.Program("ChainOfThought", signature)
    for layout in ("text", "json", "json_schema"):
        inputs = {"question": "?", "n": 1}
        request = program.request(inputs, model, response_format=layout)
        if layout == "json_schema":
            await request.run(asyncio.to_thread)
        try:
            async for _ in streaming.stream(request):
                pass
        except Exception:  # the scripted answer does not fit each layout
            pass
    await model.lm.aclose()

with loaded(), ScriptedModelServer(Facts({})) as server:
    from snakepit_adapters.dspy import language_models, programs, streaming
    before = set(sys.modules)
    asyncio.run(main())
    print(sorted(set(sys.modules) - before))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.stdout.strip(), run.stderr) == ("[]", "")


def test_loading_leaves_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSPY_CACHEDIR", "/somewhere/else")
    monkeypatch.delenv("LITELLM_LOCAL_MODEL_COST_MAP", raising=False)
    before = dict(os.environ)
    with loaded():
        assert os.environ["DSPY_CACHEDIR"] == "/somewhere/else"
        assert os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
    assert dict(os.environ) == before


def test_dspy_logs_through_the_worker() -> None:
    with loaded():
        logger = logging.getLogger("dspy")
        assert logger.handlers == []
        assert logger.propagate
