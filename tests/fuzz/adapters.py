"""Tools that take every type of parameter and give back what they got."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, TypedDict
from uuid import UUID

import msgspec

from snakepit_worker import Adapter, CallContext, tool


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(TypedDict):
    x: int
    y: float


class Record(msgspec.Struct):
    name: str
    tags: list[str] = []
    inner: Record | None = None


Few = Annotated[int, msgspec.Meta(ge=0, le=20)]


class Echo(Adapter):
    """Well-behaved: whatever goes wrong is the caller's doing."""

    name = "echo"

    @tool
    def plain(  # noqa: PLR0917 - a parameter of each type
        self,
        ctx: CallContext,
        text: str = "",
        number: int = 0,
        share: float = 0.0,
        flag: bool = False,  # noqa: FBT001, FBT002
        data: bytes = b"",
        items: list[Any] | None = None,
        table: dict[str, int] | None = None,
        anything: Any = None,
    ) -> Any:
        ctx.checkpoint()
        return [text, number, share, flag, len(data), items, table, anything]

    @tool
    async def shapes(  # noqa: PLR0917
        self,
        record: Record | None = None,
        records: list[Record] | None = None,
        choice: Literal["a", "b", 1] = "a",
        colour: Colour = Colour.RED,
        when: datetime | None = None,
        day: date | None = None,
        time: timedelta | None = None,
        key: UUID | None = None,
        amount: Decimal | None = None,
        point: Point | None = None,
        pair: tuple[int, str] | None = None,
        either: int | str | list[int] = 0,
        names: set[str] | None = None,
        short: Annotated[str, msgspec.Meta(max_length=3, pattern="^[a-z]*$")] = "",
        api_key: str = "",
    ) -> Any:
        return [record, records, choice, colour, when, day, time, key, amount, point, pair, either,
                names, short, len(api_key)]  # fmt: skip

    @tool
    def anything(self, anything: Any) -> Any:
        return anything

    @tool
    async def elixir(self, ctx: CallContext) -> list[str]:
        return sorted(await ctx.elixir.list())

    @tool
    def items(self, anything: Any = None, count: Few = 1) -> Iterator[Any]:
        for _ in range(count):
            yield anything

    @tool
    async def items_async(self, anything: Any = None, count: Few = 1) -> AsyncIterator[Any]:
        for _ in range(count):
            yield anything


class Foreign:
    """Written for Snakepit's own worker: has every tool."""

    def execute_tool(self, tool_name: str, arguments: dict[str, Any], context: Any) -> Any:
        return [tool_name, arguments, context.session_id]
