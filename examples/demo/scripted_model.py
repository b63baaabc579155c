"""A language model with a script instead of weights, behind an OpenAI-compatible endpoint.

It stands in where the real model cannot be fetched, and in tests, where every answer has to be
known beforehand.  It speaks plain and streamed chat completions, and gives its answers the shape
that the request asks for: the JSON object of a schema, or one of the two layouts in which DSPy
asks for output fields.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from typing import Self

__all__ = ["ChatRequest", "Facts", "Refusal", "Script", "ScriptedModelServer", "shape"]

_MARKED_FIELD: Final = re.compile(r"`\[\[ ## (\w+) ## \]\]`")
_FIELD_ORDER: Final = re.compile(r"JSON object in the following order of fields: (.+)")
_QUOTED: Final = re.compile(r"`(\w+)`")
_SIMPLEST: Final = {"integer": 1, "number": 0.5, "boolean": True, "null": None}
_POLL_SECONDS: Final = 0.02
_WORD: Final = re.compile(r"\s*\S+\s*$|\s*\S+")


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request as the script sees it.

    Attributes:
        model: Model name that the client sent.
        messages: The conversation, each with ``role`` and ``content``.
        authorization: The header with the client's key, or an empty string.
        stream: Whether the answer goes out in pieces.
        schema: JSON Schema that the answer has to fit, where the client sent one.
    """

    model: str
    messages: Sequence[Mapping[str, Any]]
    authorization: str
    stream: bool
    schema: Mapping[str, Any] | None

    @property
    def question(self) -> str:
        """The text of the last message."""
        return str(self.messages[-1]["content"])


class Refusal(Exception):  # noqa: N818 - an answer of the script, not a fault of it
    """Raised by a script to answer as a provider does that refuses.

    Args:
        status: HTTP status.
        message: Text of the error object.
        code: Provider's code in the error object.
        headers: Further headers, such as ``Retry-After``.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})


Script: TypeAlias = Callable[[ChatRequest], str | Iterable[str]]
"""What the model says to a request: the whole text, or the pieces in which a stream sends it.

Called in the thread of the connection, so it may wait."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The script of a model that knows a few things by heart.

    Attributes:
        known: Answers by a phrase of the question.
        otherwise: What it says to everything else.
    """

    known: Mapping[str, str]
    otherwise: str = "I was given no answer to that."

    def __call__(self, request: ChatRequest) -> str:
        """The answer whose phrase stands in the question, in the shape that was asked for."""
        question = request.question.casefold()
        for phrase, answer in self.known.items():
            if phrase.casefold() in question:
                return shape(answer, request)
        return shape(self.otherwise, request)


def shape(answer: str, request: ChatRequest) -> str:
    """The answer as the request wants it laid out.

    Args:
        answer: Plain text; it becomes the value of every text field.
        request: What was asked for: a schema, marked fields, a JSON object, or nothing special.
    """
    if request.schema is not None:
        return json.dumps(_fitting(request.schema, answer))
    question = request.question
    fields = [name for name in _MARKED_FIELD.findall(question) if name != "completed"]
    if fields:
        parts = [f"[[ ## {name} ## ]]\n{answer}\n\n" for name in fields]
        return "".join([*parts, "[[ ## completed ## ]]"])
    if order := _FIELD_ORDER.search(question):
        return json.dumps(dict.fromkeys(_QUOTED.findall(order[1]), answer))
    return answer


def _fitting(schema: Mapping[str, Any], text: str) -> object:
    """The simplest value that the schema allows, with the text wherever text is allowed."""
    if "anyOf" in schema:
        return _fitting(schema["anyOf"][0], text)
    if "enum" in schema or "const" in schema:
        return schema["enum"][0] if "enum" in schema else schema["const"]
    kind = schema.get("type", "string")
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: _fitting(part, text) for name, part in properties.items()}
    if kind == "array":
        return [_fitting(schema["items"], text)]
    return _SIMPLEST.get(kind, text)


class ScriptedModelServer:
    """Serves a script at ``base_url`` until it is closed.

    Args:
        script: What the model says.
        model: The name that it goes by, with DSPy's provider prefix.
        api_keys: Keys that it lets in; any, and none, when omitted.

    Attributes:
        requests: What it was asked, oldest first.
    """

    scripted: Final = True

    def __init__(
        self,
        script: Script,
        *,
        model: str = "openai/scripted",
        api_keys: Sequence[str] | None = None,
    ) -> None:
        self.model = model
        self.requests: list[ChatRequest] = []
        self._script = script
        self._admitted = None if api_keys is None else {f"Bearer {key}" for key in api_keys}
        self._server = _Server(self)
        # The listener is bound and listening by now: nobody needs to wait for the thread.
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), daemon=True
        )
        self._thread.start()

    @property
    def base_url(self) -> str:
        """Where clients send requests, for instance ``http://127.0.0.1:40123/v1``."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def close(self) -> None:
        """Stop, cut the open connections, and wait for the threads."""
        self._server.shutdown()
        self._thread.join()
        self._server.hang_up()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def answer(self, request: ChatRequest) -> Iterable[str]:
        """The pieces of the answer to one request.

        Raises:
            Refusal: When the key is not admitted, or the script says so.
        """
        self.requests.append(request)
        if self._admitted is not None and request.authorization not in self._admitted:
            raise Refusal(HTTPStatus.UNAUTHORIZED, "Incorrect API key", code="invalid_api_key")
        answer = self._script(request)
        return _WORD.findall(answer) if isinstance(answer, str) else answer


_Request: TypeAlias = socket.socket | tuple[bytes, socket.socket]
"""What the base class calls a request; a TCP server's are sockets."""


class _Server(ThreadingHTTPServer):
    """The listener, with its conversations by thread.

    Clients keep idle connections open, which the base class would wait for without end.
    """

    def __init__(self, model: ScriptedModelServer) -> None:
        self.model = model
        self._conversations: dict[threading.Thread, _Request] = {}
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: _Request, client_address: object) -> None:
        """Serve a connection in a thread that does not keep the process alive."""
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), daemon=True
        )
        self._conversations[thread] = request
        thread.start()

    def shutdown_request(self, request: _Request) -> None:
        """Forget the connection, which is over."""
        self._conversations.pop(threading.current_thread(), None)
        super().shutdown_request(request)

    def handle_error(self, request: _Request, client_address: object) -> None:
        """Say nothing: clients that leave in the middle are a part of what is tried here."""

    def hang_up(self) -> None:
        """End the conversations, and wait for their threads."""
        conversations = dict(self._conversations)
        for connection in conversations.values():
            if isinstance(connection, socket.socket):
                with contextlib.suppress(OSError):  # the client was faster
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in conversations:
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for its header to be acknowledged
    server: _Server

    def do_GET(self) -> None:
        """List the one model."""
        if self.path != "/v1/models":
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        entry = {"id": _bare(self.server.model.model), "object": "model"}
        self._send_json(HTTPStatus.OK, {"object": "list", "data": [entry]})

    def do_POST(self) -> None:
        """Answer a chat completion."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        request = ChatRequest(
            model=body["model"],
            messages=body["messages"],
            authorization=self.headers.get("Authorization", ""),
            stream=bool(body.get("stream")),
            schema=_schema(body),
        )
        try:
            pieces = self.server.model.answer(request)
            if request.stream:
                self._send_stream(request, pieces)
            else:
                self._send_completion(request, "".join(pieces))
        except Refusal as refusal:
            error = {"message": str(refusal), "code": refusal.code, "type": "scripted"}
            self._send_json(refusal.status, {"error": error}, refusal.headers)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - name of the base class
        """Keep quiet: requests are recorded, not logged."""

    def _send_completion(self, request: ChatRequest, text: str) -> None:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        completion = _completion(request, "chat.completion", [choice])
        self._send_json(HTTPStatus.OK, completion | {"usage": _usage(request, text)})

    def _send_stream(self, request: ChatRequest, pieces: Iterable[str]) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        said = []
        for piece in pieces:
            said.append(piece)
            self._send_event(request, [_delta({"content": piece})])
        self._send_event(request, [_delta({}, finish_reason="stop")])
        self._send_event(request, [], usage=_usage(request, "".join(said)))
        self._send_chunk(b"data: [DONE]\n\n")
        self._send_chunk(b"")

    def _send_event(self, request: ChatRequest, choices: list[Any], **more: object) -> None:
        event = _completion(request, "chat.completion.chunk", choices) | more
        self._send_chunk(b"data: " + json.dumps(event).encode() + b"\n\n")

    def _send_chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _send_json(
        self, status: int, value: object, headers: Mapping[str, str] | None = None
    ) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)


def _schema(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    schema: Mapping[str, Any] | None = (
        body.get("response_format", {}).get("json_schema", {}).get("schema")
    )
    return schema


def _completion(request: ChatRequest, kind: str, choices: list[Any]) -> dict[str, object]:
    return {
        "id": "chatcmpl-scripted",
        "object": kind,
        "created": 0,
        "model": request.model,
        "choices": choices,
    }


def _delta(delta: Mapping[str, str], finish_reason: str | None = None) -> dict[str, object]:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason}


def _usage(request: ChatRequest, answer: str) -> dict[str, int]:
    prompt = sum(len(str(message["content"]).split()) for message in request.messages)
    said = len(answer.split())
    return {"prompt_tokens": prompt, "completion_tokens": said, "total_tokens": prompt + said}


def _bare(model: str) -> str:
    return model.partition("/")[2]
