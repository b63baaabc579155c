"""`Worker`: the one place that knows every part and joins them together."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import threading
from typing import TYPE_CHECKING, Any, Final, Self

import grpc
from google import protobuf

from snakepit_worker import __version__
from snakepit_worker.bridge.health import Health
from snakepit_worker.bridge.server import BridgeServer
from snakepit_worker.bridge.service import BridgeService
from snakepit_worker.bridge.sessions import HostSessions, StandaloneSessions
from snakepit_worker.calls.admission import WaitingRules
from snakepit_worker.calls.call import Call
from snakepit_worker.calls.dispatcher import Dispatcher
from snakepit_worker.calls.foreign import ForeignServer
from snakepit_worker.calls.jobs import JobLimits, Jobs
from snakepit_worker.calls.lifespans import Lifespans
from snakepit_worker.calls.loop import LoopThread
from snakepit_worker.calls.places import Places
from snakepit_worker.calls.readiness import Readiness
from snakepit_worker.calls.threads import MainThread, ThreadPool
from snakepit_worker.errors import StartError, Unavailable
from snakepit_worker.host.client import HostClient
from snakepit_worker.host.keepalive import KeepAlive, Rhythm
from snakepit_worker.host.registration import Registration
from snakepit_worker.sessions import Closers, Ended, Limits, SessionStore
from snakepit_worker.telemetry.events import Events
from snakepit_worker.telemetry.logging import logger
from snakepit_worker.telemetry.tracing import Tracing
from snakepit_worker.tools.builtin import Inside, builtin_adapters
from snakepit_worker.tools.context import current_call
from snakepit_worker.tools.foreign import ForeignAdapter
from snakepit_worker.tools.foreign_telemetry import connect
from snakepit_worker.tools.loading import load
from snakepit_worker.tools.rebuilding import Rebuilder
from snakepit_worker.tools.registering import native_registrations
from snakepit_worker.tools.registry import AdapterState, LoadedAdapter, Registry
from snakepit_worker.wire.convention import CORRELATION_HEADER, LOOPBACK
from snakepit_worker.wire.markers import MarkerRules
from snakepit_worker.wire.values import Values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from snakepit_worker.archive.model import SavedResource
    from snakepit_worker.archive.thread import ArchiveThread
    from snakepit_worker.bridge.sessions import SessionAuthority
    from snakepit_worker.calls.archiving import Archiving
    from snakepit_worker.deadline import Deadline
    from snakepit_worker.errors import WorkerError
    from snakepit_worker.sessions import Session
    from snakepit_worker.settings import Settings
    from snakepit_worker.tools.api import Adapter
    from snakepit_worker.tools.jobs import Job
    from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb

__all__ = ["Worker"]

_SWEEP: Final = 60.0
"""Seconds between looks for idle sessions, as on the host."""
_MANY: Final = 1_000
"""Sessions that end in one sweep and leave enough memory to be given back."""
_REPLY_TIME: Final = 0.25
"""Seconds for the replies of calls that have just ended, or were just cancelled, to leave."""
_CLOSE_TIME: Final = 0.5
"""Seconds for adapters and for sessions to close what they hold."""


class Worker:
    """One worker: adapters behind a gRPC server, in this process.

    ``start`` and ``stop`` are for a program's own thread; they wait.  The server runs in a thread
    of its own.

    Args:
        settings: How to serve.
        adapters: Adapters beside those that the settings name.
        main_thread: Runs what needs the main thread; its owner calls ``run`` there.  Without one,
            a thread of the worker's own stands in.
        host_lost: Called when the host does not answer any more; stops the worker when omitted.
        many_ended: Called in a thread after many sessions have ended at once.
    """

    def __init__(
        self,
        settings: Settings,
        adapters: Sequence[Adapter] = (),
        *,
        main_thread: MainThread | None = None,
        host_lost: Callable[[], None] | None = None,
        many_ended: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings
        self.address = ""
        """``host:port`` where the worker serves, once started."""
        self._adapters = adapters
        self._main = main_thread or MainThread()
        self._owns_main = main_thread is None
        self._host_lost = host_lost or self.request_stop
        self._many_ended = many_ended
        self._loop = LoopThread("bridge")
        self._threads = ThreadPool(settings.threads)
        self._closers = Closers(self._loop.submit)
        self._store = SessionStore(
            Limits(
                settings.max_sessions,
                settings.max_resources,
                settings.max_session_bytes,
                settings.session_ttl_s,
            ),
            dispose=self._closers,
            ended=self._session_ended,
            changed=self._session_changed if settings.archive else None,
        )
        self._archive = self._make_archive(settings.archive) if settings.archive else None
        self._archiving: Archiving | None = None
        self._events = Events()
        self._host: HostClient | None = None
        self._foreign: ForeignServer | None = None
        self._registration: Registration | None = None
        self._stopped = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> int:
        """Wait for the host, load the adapters, listen.

        Returns:
            The port.

        Raises:
            StartError: With the cause.
        """
        self._loop.start()
        if self._archive is not None:
            from snakepit_worker.archive.thread import preload  # noqa: PLC0415 - as _make_archive

            self._loop.submit(asyncio.to_thread(preload))
        address = self.settings.elixir_address
        connecting = self._loop.submit(self._connect(address)) if address else None
        try:
            # Entry points import no framework, so that they need not wait for the host.
            found = {name: self._find(name) for name in self.settings.adapters if "." not in name}
            if connecting is not None:
                connecting.result()
            # Classes may, on the caller's thread: some frameworks insist on the main one.
            self._load(found)
            port = self._loop.run(self._serve())
        except BaseException:
            if connecting is not None:
                connecting.cancel()
            if self._host is not None:
                self._loop.run(self._host.close())
            self._loop.close(_CLOSE_TIME)
            raise
        if self._owns_main:
            logger()  # imported here, because the loop must import nothing once it serves
            threading.Thread(target=self._main.run, name="main-thread", daemon=True).start()
        self.address = f"{LOOPBACK}:{port}"
        return port

    def request_stop(self) -> None:
        """Begin to stop, and return; a second time: stop waiting for running calls."""
        self._loop.call_soon(self._begin_stop)

    def stop(self) -> None:
        """Stop, and wait until all is closed."""
        self.request_stop()
        self.join()

    def join(self) -> None:
        """Wait until the worker has stopped, and end its threads."""
        self._stopped.wait()
        if self._foreign is not None:
            self._foreign.close(_CLOSE_TIME)
        self._loop.close(_CLOSE_TIME)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _find(self, name: str) -> Adapter | ForeignAdapter:
        return load(name, thread_safe=self.settings.max_workers > 0)

    def _load(self, found: dict[str, Adapter | ForeignAdapter]) -> None:
        settings = self.settings
        loaded = [found.get(name) or self._find(name) for name in settings.adapters]
        own = builtin_adapters(
            Inside(
                store=self._store,
                info=self._info,
                stats=self._stats,
                tools=self._describe,
                serve=self._serve_one,
                enter=self._enter,
                rebuild=self._rebuild,
                start_job=self._start_job,
            )
        )
        native = [adapter for adapter in loaded if not isinstance(adapter, ForeignAdapter)]
        self._registry = Registry([*own, *self._adapters, *native])
        foreign = [adapter for adapter in loaded if isinstance(adapter, ForeignAdapter)]
        if len(foreign) > 1:
            paths = " and ".join(adapter.path for adapter in foreign)
            msg = f"{paths} each answer to any tool name; one worker serves one of them"
            raise StartError(msg)
        if foreign:
            set_correlation_id = connect(self._events)
            self._foreign = ForeignServer(foreign[0], settings.elixir_address, set_correlation_id)

    async def _connect(self, address: str) -> None:
        self._host = HostClient(address)
        try:
            await self._host.wait(self.settings.host_attempts)
        except Unavailable as error:
            raise StartError(str(error)) from None

    async def _serve(self) -> int:
        settings = self.settings
        rules = MarkerRules(
            settings.unserializable_detail,
            settings.unserializable_repr_maxlen,
            settings.tolist_max_elements,
        )
        self._hurry = asyncio.Event()
        self._tracing = Tracing(settings)  # now, since an adapter may have set up a tracer
        self._places = self._make_places()
        readiness = Readiness(settings.adapter_timeout_ms / 1000, settings.max_waiting)
        self._rebuilder = Rebuilder(self._registry, readiness.wait)
        if self._archive is not None:
            from snakepit_worker.calls.archiving import Archiving  # noqa: PLC0415 - as above

            self._archiving = Archiving(self._archive, self._store, self._rebuilder)
        self._dispatcher = Dispatcher(
            self._registry,
            self._store,
            Values(settings.values, rules),
            self._places,
            self._events,
            self._host,
            self._foreign,
            self._session_seen,
            self._tracing.spans,
            settings.tracebacks,
            readiness,
            self._archiving,
        )
        limits = JobLimits(
            settings.max_jobs, settings.max_session_jobs, settings.max_job_mb * 1024 * 1024
        )
        self._jobs = Jobs(self._dispatcher, self._store, limits)
        self._health = Health()
        service = BridgeService(
            self._dispatcher,
            self._authority(),
            self._events,
            compatible=settings.values == "compatible",
        )
        self._server = BridgeServer(service, self._health)
        self._lifespans = Lifespans(
            self._registry.adapters.values(), self._main, self._adapter_changed
        )
        self._own(self._lifespans.enter())
        self._own(self._sweep())
        port = await self._server.start(settings.port)
        if self._archive is not None:
            try:
                await asyncio.wrap_future(self._archive.start(f"{LOOPBACK}:{port}"))
            except BaseException:
                await self._server.stop(0)
                raise
        await self._health.serving()
        return port

    async def _serve_one(
        self,
        request: pb.ExecuteToolRequest,
        deadline: Deadline,
        correlation_id: str,
        wrong: WorkerError | None,
    ) -> pb.ExecuteToolResponse:
        """A call inside a call."""
        outer = current_call.get()
        depth = outer.depth if outer is not None else 0
        call = Call(request, deadline, {CORRELATION_HEADER: correlation_id}, depth=depth)
        if wrong is not None:
            return self._dispatcher.refuse(call, wrong)
        return await self._dispatcher.call_within(call)

    def _start_job(self, *arguments: Any, **options: Any) -> Job:  # noqa: ANN401 - as Jobs.start
        return self._jobs.start(*arguments, **options)

    def _enter(self, session_id: str, deadline: Deadline) -> AbstractAsyncContextManager[Session]:
        return self._dispatcher.session(session_id, deadline)

    async def _rebuild(
        self,
        session: Session,
        resources: Iterable[SavedResource],
        deadline: Deadline,
        *,
        replace: bool,
    ) -> None:
        await self._rebuilder.rebuild(session, resources, deadline, replace=replace)

    def _make_places(self) -> Places:
        settings = self.settings
        rules = WaitingRules(
            settings.max_waiting, settings.max_session_calls, settings.max_session_waiting
        )
        return Places(
            self._threads,
            self._main,
            settings.threads,
            settings.max_calls,
            rules,
            settings.thread_sensitive,
        )

    def _session_seen(self, session_id: str) -> None:
        if self._registration is not None:
            self._registration.seen(session_id)

    async def _registrations(self, session_id: str) -> list[pb.ToolRegistration]:
        """All tools of this worker, for the host's registry; described in a thread."""

        def describe() -> list[pb.ToolRegistration]:
            tools = native_registrations(self._registry.describe())
            if self._foreign is not None:
                tools += self._foreign.registrations(session_id)
            return tools

        # Not on the tools' threads: calls that come one at a time shall find the same one.
        return await asyncio.to_thread(describe)

    def _authority(self) -> SessionAuthority:
        settings = self.settings
        if self._host is None:
            return StandaloneSessions(self._store, self._archiving)
        rhythm = Rhythm(
            settings.heartbeat_interval_ms / 1000,
            settings.heartbeat_timeout_ms / 1000,
            settings.heartbeat_max_missed,
            settings.heartbeat_initial_delay_ms / 1000,
            settings.heartbeat_jitter_ms / 1000,
        )
        keep_alive = KeepAlive(self._host, rhythm, self._lost)
        if settings.heartbeat_enabled:
            self._own(keep_alive.run())
        if settings.worker_id is not None:
            self._registration = Registration(self._host, settings.worker_id, self._registrations)
        return HostSessions(
            self._host, keep_alive, self._store, self._archiving, self._session_seen
        )

    def _lost(self) -> bool:
        """The host is lost; whether that ends this worker."""
        if self.settings.heartbeat_dependent:
            logger().error("the host is lost; stopping")
            self._host_lost()
            return True
        logger().warning("the host is lost; serving on")
        return False

    async def _adapter_changed(self, loaded: LoadedAdapter) -> None:
        await self._health.adapter(loaded.name, ready=loaded.state is AdapterState.READY)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(_SWEEP, self._store.limits.ttl))
            await asyncio.to_thread(self._expire)

    def _expire(self) -> None:
        if len(self._store.expire()) >= _MANY:
            self._many_ended()

    def _make_archive(self, url: str) -> ArchiveThread:
        # Here, because most workers have none, and these take a tenth of a start.
        from snakepit_worker.archive.options import ArchiveOptions  # noqa: PLC0415
        from snakepit_worker.archive.owner import Owner  # noqa: PLC0415
        from snakepit_worker.archive.thread import ArchiveThread  # noqa: PLC0415

        settings = self.settings
        worker_id = settings.worker_id or f"{socket.gethostname()}-{os.getpid()}"
        options = ArchiveOptions(
            url=url,
            owner=Owner.here(worker_id),
            namespace=settings.archive_namespace,
            lease=settings.archive_lease_s,
            ttl=settings.archive_ttl_s,
            durability=settings.archive_durability,
        )
        return ArchiveThread(options, self._sessions_lost)

    def _sessions_lost(self, fences: Mapping[str, str]) -> None:
        if self._archiving is not None:
            self._archiving.lost(fences)

    def _session_changed(self, session: Session) -> None:
        if self._archiving is not None:
            self._archiving.changed(session)

    def _session_ended(self, ended: Ended) -> None:
        """Tell the log and the host, which has no event of its own for it (interop 7.6)."""
        if self._archiving is not None:
            self._archiving.ended(ended)
        released = ended.released.total()
        logger().info(
            "session ended", session_id=ended.session_id, reason=ended.reason, resources=released
        )
        self._events.emit(
            "python.gc.completed",
            {"count": 1, "collected": released, "bytes": ended.size},
            {"kind": "session", "session_id": ended.session_id, "reason": ended.reason},
        )

    def _own(self, work: Any) -> None:  # noqa: ANN401 - a coroutine without a result
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _begin_stop(self) -> None:
        if self._dispatcher.draining:
            self._hurry.set()
            return
        self._dispatcher.draining = True
        self._stopping = asyncio.ensure_future(self._shut_down())

    async def _shut_down(self) -> None:
        """Drain: refuse, wait, cancel, close; each step within its time."""
        try:
            await self._health.draining()
            waits = [
                asyncio.ensure_future(self._dispatcher.idle()),
                asyncio.ensure_future(self._hurry.wait()),
            ]
            await asyncio.wait(
                waits, timeout=self.settings.grace_ms / 1000, return_when=asyncio.FIRST_COMPLETED
            )
            for wait in waits:
                wait.cancel()
            jobs = self._jobs.cancel_all()
            cancelled = self._dispatcher.cancel_all()
            if cancelled:
                logger().warning("calls cancelled by the shutdown", calls=cancelled, jobs=jobs)
            self._events.close()
            await self._server.stop(_REPLY_TIME)
            self._jobs.give_up()
            await _within(_CLOSE_TIME, "jobs", self._jobs.idle())
            for task in list(self._tasks):
                task.cancel()
            if self._archiving is not None:
                await _within(_CLOSE_TIME, "what is being archived", self._archiving.close())
            await _within(_CLOSE_TIME, "sessions", self._close_sessions())
            if self._archive is not None:
                await asyncio.to_thread(self._archive.close, _CLOSE_TIME)
            await _within(_CLOSE_TIME, "adapters", self._lifespans.leave())
            if self._registration is not None:
                self._registration.close()
            if self._host is not None:
                await self._host.close()
            await asyncio.to_thread(self._tracing.close, _CLOSE_TIME)
        except Exception:  # noqa: BLE001 - whatever fails, the process still ends
            logger().exception("shutting down failed")
        finally:
            self._places.close()
            self._closers.shut_down()
            self._main.close()
            self._stopped.set()

    async def _close_sessions(self) -> None:
        ended = await asyncio.to_thread(self._store.close_all)
        await asyncio.gather(*(session.closed() for session in ended))

    def _describe(self) -> list[dict[str, Any]]:
        return self._registry.describe()

    def _info(self) -> dict[str, Any]:
        return {
            "version": __version__,
            "pid": os.getpid(),
            "worker_id": self.settings.worker_id,
            "values": self.settings.values,
            "host": self.settings.elixir_address,
            "python": platform.python_version(),
            "packages": {"grpcio": grpc.__version__, "protobuf": protobuf.__version__},
            "adapters": {
                name: {
                    "state": loaded.state.value,
                    "failure": str(loaded.failure) if loaded.failure else None,
                }
                for name, loaded in self._registry.adapters.items()
            },
        }

    def _stats(self) -> dict[str, Any]:
        return {
            "calls": self._dispatcher.counters(),
            "jobs": self._jobs.counters(),
            **self._places.describe(),
            "sessions": len(self._store),
            "resources": sum(len(session) for session in self._store.sessions()),
            "events_dropped": self._events.dropped,
        }


async def _within(seconds: float, what: str, work: Any) -> None:  # noqa: ANN401 - an awaitable
    try:
        await asyncio.wait_for(work, seconds)
    except TimeoutError:
        logger().warning("gave up waiting", what=what, seconds=seconds)
