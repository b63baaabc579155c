"""The Elixir tools that the recorded application had, as Python functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snakepit_worker.testing.elixir_terms import Inspect
from snakepit_worker.testing.host_tools import Raises, Throws

if TYPE_CHECKING:
    from snakepit_worker.testing import StandInHost

DATA = b"\x00\xff\x01"


def expose_recorded_tools(host: StandInHost, session: str) -> None:
    host.expose(
        "echo",
        lambda **parameters: parameters,
        description="Echo everything",
        parameters=[
            {"name": "s_", "type": "string", "description": "a string", "required": True},
            {"name": "i", "type": "integer", "default": 3, "validation": {"min": 0}},
        ],
        metadata={"cost": 1.5, "tags": ["a", "b"]},
        session=session,
    )
    host.expose("binary", lambda: DATA, session=session)
    host.expose("binary_meta", lambda: (DATA, {"format": "raw"}), session=session)
    host.expose("tuple", lambda: (Inspect(":ok"), 3), session=session)
    host.expose("nothing", lambda: None, session=session)
    host.expose("raises", lambda: Raises("kaboom"), session=session)
    host.expose("throws", Throws, session=session)
    host.expose("exits", Throws, session=session)
