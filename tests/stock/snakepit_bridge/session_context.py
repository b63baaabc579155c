from __future__ import annotations

from typing import Any, Self


class SessionContext:
    """Only for `isinstance`: workers hand out contexts of their own making."""

    def __init__(self, stub: Any, session_id: str) -> None:
        self.stub, self.session_id = stub, session_id

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...
