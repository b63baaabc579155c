"""The Elixir side in Python, for tests, demos and benchmarks.

`StandInHost` answers what a worker asks of its host; `Connection` does to a worker what the host
does.  Both are synchronous: tests read top to bottom, and the worker's event loop stays the only
one in the process.

What a host exposes may use `elixir_terms.Inspect` and `host_tools.Raises` and `Throws`, for what
Elixir functions do and Python ones do not; how it looks after its workers is said with
`supervision.Supervision`.  The recording of a real host is the judge of all this (tests/data).
"""

from snakepit_worker.testing.connection import Connection, ToolFailure
from snakepit_worker.testing.host import StandInHost

__all__ = ["Connection", "StandInHost", "ToolFailure"]
