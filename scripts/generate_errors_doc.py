"""Fill in the generated parts of ``docs/errors.md``.  ``--check`` only compares.

The tables come from the classes, and each example is what a real worker answers.  What differs from
run to run (ids) is replaced.  The text around is written by hand.  Run with the project's
environment: ``make docs``.
"""

from __future__ import annotations

import inspect
import json
import linecache
import logging
import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status as RpcStatus

from snakepit_adapters.dspy.failures import MEANINGS
from snakepit_worker import errors
from snakepit_worker.errors import WorkerError
from snakepit_worker.runtime import Worker
from snakepit_worker.settings import Settings
from snakepit_worker.testing import Connection, StandInHost
from snakepit_worker.testing.host_forwarding import OWN_STRUCTS
from snakepit_worker.wire import exceptions, failures, status, tracebacks
from snakepit_worker.wire.convention import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TARGET: Final = Path(__file__).parents[1] / "docs" / "errors.md"
SECTION: Final = re.compile(
    r"(?P<begin><!-- generated: (?P<name>[\w-]+) -->\n).*?(?P<end><!-- end -->\n)", re.DOTALL
)

_ERROR_ID: Final = "6f1d2c3b4a5968778695a4b3c2d1e0f9"
_CORRELATION_ID: Final = "sp-0123456789abcdef01234567"
_SESSION: Final = "session_1_1700000000000000"
_TIMEOUT: Final = 30.0
_PATH: Final = "/app/shop.py"
_SHOP: Final = """\
from snakepit_worker import Adapter, CallContext, tool
from snakepit_worker.errors import NotFound, ProviderError


class CouponError(Exception):
    pass


class Shop(Adapter):
    name = "shop"

    @tool
    def price(self, article: str, quantity: int = 1) -> float:
        if quantity > 100:
            raise ProviderError("the supplier is busy", code="RESOURCE_EXHAUSTED", retry_after=2.5)
        return PRICES[article] * quantity

    @tool
    def discount(self, coupon: str) -> int:
        try:
            return int(coupon.removeprefix("SAVE"))
        except ValueError as error:
            raise CouponError(coupon) from error

    @tool
    async def order(self, article: str, ctx: CallContext) -> None:
        await ctx.elixir.call("reserve", {"article": article})

    @tool
    def offers(self, customer: str):
        yield {"article": "tea", "price": 2.5}
        raise NotFound(
            f"no customer {customer!r}", details={"customer": customer}, help="create one first"
        )


PRICES = {"tea": 2.5}
"""


def page(text: str) -> str:
    """The document with its generated parts.

    Args:
        text: The document.
    """
    parts = {
        "classes": _classes(),
        "structs": _structs(),
        "dspy": _meanings(),
        "limits": _limits(),
        "cutting": " → ".join(f"`{key}`" for key in status.CUTTING_ORDER) + "\n",
        **dict(_examples()),
    }
    return SECTION.sub(lambda match: f"{match['begin']}{parts[match['name']]}{match['end']}", text)


def _classes() -> str:
    found = [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, WorkerError)
    ]
    rows = sorted(found, key=lambda kind: [parent.__name__ for parent in kind.__mro__[-3::-1]])
    head = ("exception", "raised for", "code", "category", "retryable", "type", "Elixir struct")
    return _table(head, [_class(kind) for kind in rows])


def _class(kind: type[WorkerError]) -> tuple[str, ...]:
    ancestors = [parent for parent in kind.__mro__[1:] if issubclass(parent, WorkerError)]
    name = f"{'· ' * len(ancestors[:-1])}`{kind.__name__}`"
    said = (kind.__doc__ or "").partition("\n")[0].rstrip(".")
    facts = (f"`{kind.code}`", kind.category, "yes" if kind.retryable else "no")
    return (name, said, *facts, f"`{kind.elixir_name}`", f"`{_struct(kind.elixir_name)}`")


def _struct(name: str) -> str:
    return name if name in OWN_STRUCTS else "PythonException"


def _structs() -> str:
    return textwrap.fill(", ".join(f"`{name}`" for name in sorted(OWN_STRUCTS)) + ".", 100) + "\n"


def _meanings() -> str:
    head = ("exception of DSPy", "as", "code", "retryable", "help")
    rows = []
    for row in MEANINGS:
        retryable = row.failure.retryable if row.retryable is None else row.retryable
        facts = (f"`{row.code or row.failure.code}`", "yes" if retryable else "no")
        rows.append(
            (f"`{row.exception.__name__}`", f"`{row.failure.__name__}`", *facts, row.help or "")
        )
    return _table(head, rows)


def _limits() -> str:
    limits = (
        ("`message`, and that of each cause", exceptions.TEXT_LIMIT, "characters"),
        ("`cause`", failures.MOST_CAUSES, "entries"),
        ("`exceptions`", failures.MOST_EXCEPTIONS, "entries"),
        ("`violations`", failures.MOST_VIOLATIONS, "entries"),
        ("`notes`", exceptions.MOST_NOTES, "entries"),
        ("each note", exceptions.NOTE_LIMIT, "characters"),
        ("`stacktrace`", tracebacks.MOST_LINES, "entries"),
        ("frames of one exception, the innermost", tracebacks.MOST_FRAMES, "frames"),
        ("chained exceptions in `stacktrace`", tracebacks.MOST_LINKS, "exceptions"),
        ("a frame with its source line", tracebacks.LINE_LIMIT, "characters"),
        ("status message of a stream", status.STATUS_MESSAGE_LIMIT, "bytes, percent-encoded"),
        ("status message and details together", status.STATUS_LIMIT, "bytes, encoded"),
        ("request, reply or chunk", MAX_MESSAGE_BYTES, "bytes"),
    )
    rows = [(what, f"{most:,} {unit}") for what, most, unit in limits]
    return _table(("what", "at most"), rows)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _examples() -> Iterator[tuple[str, str]]:
    """What a worker with the shop answers."""
    logging.disable()
    source = _SHOP.splitlines(keepends=True)
    linecache.cache[_PATH] = (len(_SHOP), None, source, _PATH)  # tracebacks quote it
    shop: dict[str, Any] = {"__name__": "shop"}
    exec(compile(_SHOP, _PATH, "exec"), shop)  # noqa: S102 - our own text
    yield "shop", _block("python", _SHOP)
    with StandInHost() as host:

        def reserve(article: str) -> None:
            message = f"{article} is sold out"
            raise ValueError(message)

        host.expose("reserve", reserve)
        settings = Settings(elixir_address=host.address, heartbeat_enabled=False, tracebacks="own")
        with (
            Worker(settings, (shop["Shop"](),)) as worker,
            Connection(worker.address, _SESSION) as connection,
        ):
            connection.greet()
            calls: dict[str, tuple[str, dict[str, Any]]] = {
                "arguments": ("shop.price", {"article": 7, "quantty": 1}),
                "unknown": ("shop.prise", {"article": "tea"}),
                "retry": ("shop.price", {"article": "tea", "quantity": 500}),
                "python": ("shop.discount", {"coupon": "SAVEten"}),
                "elixir": ("shop.order", {"article": "tea"}),
            }
            for name, (tool, arguments) in calls.items():
                yield name, _block("json", _reply(connection, tool, arguments))
            yield "stream", _block("json", _stream(connection))


def _reply(connection: Connection, tool: str, arguments: Mapping[str, Any]) -> str:
    request = connection.request(tool, arguments, metadata={"correlation_id": _CORRELATION_ID})
    return _stable(json.loads(connection.execute(request).error_message))


def _stream(connection: Connection) -> str:
    """How a stream ends, as JSON."""
    metadata = {"correlation_id": _CORRELATION_ID}
    request = connection.request("shop.offers", {"customer": "ann"}, metadata=metadata)
    call = connection.stub.ExecuteStreamingTool(request, timeout=_TIMEOUT)
    try:
        list(call)
    except grpc.RpcError:
        message = json.loads(call.details())
    trailer = dict(call.trailing_metadata())[status.DETAILS_TRAILER]
    details = {
        kind: _fields(getattr(error_details_pb2, kind).FromString(detail.value))
        for detail in RpcStatus.FromString(trailer).details
        for kind in [detail.type_url.rpartition(".")[2]]
    }
    ended = {"grpc-status": call.code().name, "grpc-message": message, "google.rpc": details}
    return _stable(ended, message["error_id"])


def _fields(message: Any) -> dict[str, Any]:  # noqa: ANN401 - of google.rpc, which has no types
    """The fields of a detail that are set, as plain values."""
    return {
        field.name: dict(sorted(value.items()))
        if field.name == "metadata"
        else list(value)
        if field.is_repeated
        else value
        for field, value in message.ListFields()
    }


def _stable(found: dict[str, Any], error_id: str = "") -> str:
    """JSON text with the same id in every run, and each text in a line of its own."""
    text = json.dumps(found, indent=2, ensure_ascii=False)
    return text.replace(error_id or found["error_id"], _ERROR_ID) + "\n"


def _block(language: str, text: str) -> str:
    return f"```{language}\n{text}```\n"


def main() -> int:
    """Write or compare; the exit status."""
    text = TARGET.read_text(encoding="utf-8")
    wanted = page(text)
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(wanted, encoding="utf-8")
        return 0
    if text == wanted:
        return 0
    print(f"{TARGET.name} is not current; run `make docs`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
