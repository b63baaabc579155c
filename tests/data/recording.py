"""The recording of a real host, as bytes.

`host-recording.jsonl` holds what a running host (Snakepit 0.13.0) and a recorder in the place of
its worker said to each other.  ``worker->host`` are calls of the recorder with the host's exact
answers, ``host->worker`` calls of the host with headers and remaining deadlines.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from snakepit_worker.wire.generated import snakepit_bridge_pb2 as pb

if TYPE_CHECKING:
    from google.protobuf.message import Message

SERVICE: Final = pb.DESCRIPTOR.services_by_name["BridgeService"]
SESSION: Final = "session_2_1795334162543942"
"""Of the recorded worker."""


@dataclass(frozen=True, slots=True)
class Record:
    line: int
    direction: str
    label: str
    method: str
    headers: tuple[tuple[str, str], ...]
    deadline: float
    request: bytes | None
    response: bytes | None
    status: str
    details: str

    @property
    def path(self) -> str:
        return f"/{SERVICE.full_name}/{self.method}"

    @property
    def streams(self) -> bool:
        return SERVICE.methods_by_name[self.method].server_streaming

    def parse_request(self) -> Any:
        return parse(SERVICE.methods_by_name[self.method].input_type.name, self.request or b"")

    def parse_response(self, data: bytes) -> Any:
        return parse(SERVICE.methods_by_name[self.method].output_type.name, data)


def parse(message_type: str, data: bytes) -> Any:
    message: Message = getattr(pb, message_type)()
    assert message.ParseFromString(data) == len(data)
    return message


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


_LINES: Final = [
    json.loads(line)
    for line in Path(__file__).with_name("host-recording.jsonl").read_text("utf-8").splitlines()
]


def _read() -> list[Record]:
    return [
        Record(
            number,
            line["dir"],
            line.get("label", ""),
            line.get("method", ""),
            tuple((key, value) for key, value in line.get("headers", ())),
            line.get("deadline_s", 0.0),
            _bytes(line.get("request_b64")),
            _bytes(line.get("response_b64")),
            line.get("status", "OK"),
            line.get("details", ""),
        )
        for number, line in enumerate(_LINES)
    ]


RECORDS: Final = _read()
START: Final[dict[str, Any]] = _LINES[0]
"""Command line and environment of the recorded worker."""
