"""Starting and stopping adapters, on the main thread, in the background."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from snakepit_worker.calls import executors
from snakepit_worker.telemetry.logging import logger
from snakepit_worker.tools.registry import AdapterState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from contextlib import AbstractContextManager

    from snakepit_worker.calls.threads import Runner
    from snakepit_worker.tools.registry import LoadedAdapter

__all__ = ["Lifespans"]


class Lifespans:
    """The lifespans of all adapters, entered in order and left in reverse.

    Args:
        adapters: The adapters.
        main: Where lifespans run.
        changed: Told about each adapter whose state has changed.
    """

    def __init__(
        self,
        adapters: Iterable[LoadedAdapter],
        main: Runner,
        changed: Callable[[LoadedAdapter], Awaitable[None]],
    ) -> None:
        self._adapters = list(adapters)
        self._main = main
        self._changed = changed
        self._entered: list[tuple[LoadedAdapter, AbstractContextManager[None]]] = []

    async def enter(self) -> None:
        """Start every adapter; a failure is that adapter's own and is kept with it."""
        loop = asyncio.get_running_loop()
        for loaded in self._adapters:
            loaded.started = loop.create_future()
        # Those without anything to set up must not wait for the others.
        self._adapters.sort(key=lambda loaded: loaded.has_lifespan)
        for loaded in self._adapters:
            if not loaded.has_lifespan:
                await self._now(loaded, AdapterState.READY)
                continue
            await self._changed(loaded)
            try:
                lifespan = await executors.run(self._main, loaded.lifespan)
                await executors.run(self._main, lifespan.__enter__)
                self._entered.append((loaded, lifespan))
                await executors.run(self._main, loaded.learn_meanings)
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # noqa: BLE001 - what a framework's import may raise
                loaded.failure = error
                logger().error("adapter failed to start", adapter=loaded.name, exc_info=error)
                await self._now(loaded, AdapterState.FAILED)
            else:
                logger().info("adapter ready", adapter=loaded.name)
                await self._now(loaded, AdapterState.READY)

    async def leave(self) -> None:
        """Stop the adapters that started."""
        while self._entered:
            loaded, lifespan = self._entered.pop()
            loaded.state = AdapterState.STOPPED
            try:
                await executors.run(self._main, partial(lifespan.__exit__, None, None, None))
            except asyncio.CancelledError:
                raise
            except BaseException:  # noqa: BLE001 - the others are left too
                logger().exception("adapter failed to stop", adapter=loaded.name)

    async def _now(self, loaded: LoadedAdapter, state: AdapterState) -> None:
        loaded.state = state
        if loaded.started is not None and not loaded.started.done():
            loaded.started.set_result(None)
        await self._changed(loaded)
