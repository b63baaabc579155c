"""An adapter whose import waits for the test."""

from __future__ import annotations

import os
import time
from typing import ClassVar

from snakepit_worker import Adapter, tool
from tests.process.adapters import gate

_HOW = os.environ.get("IMPORT_WAITS", "")

if _HOW == "receiving":
    gate.wait("import", os.getpgid(0))
elif _HOW == "sleeping":
    gate.announce("import")
    time.sleep(3600)
elif _HOW == "spinning":
    gate.announce("import")
    while True:
        pass


class Importing(Adapter):
    name: ClassVar[str] = "importing"

    @tool
    def hello(self) -> str:
        return "hello"
