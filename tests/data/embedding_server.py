"""An OpenAI-compatible server of embeddings whose numbers are known."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EmbeddingServer", "letters"]

_POLL_SECONDS: Final = 0.01


def letters(text: str) -> list[float]:
    """How often each letter of a text occurs: texts of the same letters are near each other."""
    return [float(text.casefold().count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz"]


@dataclass
class EmbeddingServer:
    """Serves embeddings at ``base_url`` until it is closed.

    Attributes:
        embed: Gives the numbers of a text.
        refusal: Status and message of the answers, where all are refused; ``KEY`` in it stands for
            the key that was sent.
        requests: What it was asked, with the header ``Authorization``.
    """

    embed: Callable[[str], list[float]] = letters
    refusal: tuple[int, str] | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), daemon=True
        )
        self._thread.start()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def answer(self, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.requests.append(request)
        if self.refusal is not None:
            status, message = self.refusal
            message = message.replace("KEY", request["authorization"])
            return status, {"error": {"message": message, "type": "scripted"}}
        data = [
            {"object": "embedding", "index": index, "embedding": self.embed(text)}
            for index, text in enumerate(request["input"])
        ]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return 200, {"object": "list", "model": request["model"], "data": data, "usage": usage}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                body["path"] = self.path
                body["authorization"] = self.headers.get("Authorization", "")
                status, answer = owner.answer(body)
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - name of the base class
                pass

        return Handler
