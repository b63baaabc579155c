"""Workers that are sent everything, and a watch over what they say of it."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, settings

from snakepit_worker.runtime import Worker
from snakepit_worker.settings import Settings
from snakepit_worker.testing import Connection, StandInHost
from tests.fuzz.adapters import Echo, Foreign

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snakepit_worker.wire.generated.snakepit_bridge_pb2_grpc import BridgeServiceStub

LIMIT: Final = 25.0
"""Seconds after which a request counts as one that never ends."""
_EXAMPLES: Final = os.environ.get("FUZZ_EXAMPLES")
fuzz: Final = settings(
    max_examples=int(_EXAMPLES or 40),
    derandomize=_EXAMPLES is None,
    print_blob=_EXAMPLES is not None,
    suppress_health_check=list(HealthCheck),
)
"""The same examples in every run of the tests; other ones, and more, in `make fuzz`."""


class Target(logging.Handler):
    """A worker under fire.

    Args:
        connection: To it.
        hosted: Whether it passes on to a host what is the host's.
    """

    def __init__(self, connection: Connection, *, hosted: bool) -> None:
        super().__init__(logging.ERROR)
        self.connection = connection
        self.hosted = hosted
        self.stub: BridgeServiceStub = connection.stub
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.errors.append(record.getMessage())

    def is_well(self, *expected: str) -> None:
        """Check that it answers, and has logged no error but the expected."""
        assert self.connection.call("worker.stats", timeout=LIMIT)["calls"]["in_flight"] >= 1
        errors, self.errors = self.errors, []
        assert [error for error in errors if not error.startswith(expected or ("\0",))] == []


@pytest.fixture(scope="module", params=["standalone", "with a host and a foreign class"])
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    hosted = request.param != "standalone"
    with StandInHost() as host:
        adapters = (f"{Foreign.__module__}.Foreign",) if hosted else ()
        address = host.address if hosted else None
        # The heartbeat draws random numbers, which Hypothesis takes for its own.
        chosen = Settings(
            grace_ms=50, adapters=adapters, elixir_address=address, heartbeat_enabled=False
        )
        with Worker(chosen, [Echo()]) as worker, Connection(worker.address) as connection:
            connection.greet()
            target = Target(connection, hosted=hosted)
            logging.getLogger().addHandler(target)
            try:
                yield target
            finally:
                logging.getLogger().removeHandler(target)
