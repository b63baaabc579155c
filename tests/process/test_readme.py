"""The README's code does what it says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

from snakepit_worker import launch
from snakepit_worker.testing import Connection

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_example_prints_what_is_shown() -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(blocks("python")[0], "README.md", "exec"), {})  # noqa: S102 - our own text
    after_the_example = README.partition("```python")[2]
    shown = after_the_example.partition("```text\n")[2].partition("```")[0]
    assert printed.getvalue() == shown


def test_the_example_adapter_serves(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(blocks("python")[1], encoding="utf-8")
    environment = {"PYTHONPATH": str(tmp_path)}
    with (
        launch.start(adapters=["shop.Shop"], environment=environment) as worker,
        Connection(worker.address) as connection,
    ):
        assert connection.call("shop.price", {"article": "tea", "quantity": 2}) == 5.0
        chunks = list(connection.stream("shop.count", {"to": 2}))
    assert [chunk.get("data") for chunk in chunks] == [0, 1, None]
