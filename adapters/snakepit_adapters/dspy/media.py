"""Images, audio and conversations as inputs.

Bytes come as binary parameters and go to the provider inside of the request.  An address goes to
the provider as it is: the worker never fetches anything that a caller names.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import dspy

if TYPE_CHECKING:
    from collections.abc import Callable

    from snakepit_adapters.dspy.type_grammar import Media

__all__ = ["MediaError", "from_json", "has_address"]

_IMAGES: Final = (
    (0, b"\x89PNG\r\n\x1a\n", "png"),
    (0, b"\xff\xd8\xff", "jpeg"),
    (0, b"GIF8", "gif"),
    (8, b"WEBP", "webp"),
)
_AUDIO: Final = (
    (8, b"WAVE", "wav"),
    (0, b"ID3", "mp3"),
    (0, b"\xff\xfb", "mp3"),
    (0, b"\xff\xf3", "mp3"),
    (0, b"\xff\xf2", "mp3"),
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (4, b"ftyp", "m4a"),
    (0, b"\x1aE\xdf\xa3", "webm"),
)
"""Where in a file of a format which bytes stand."""


class MediaError(Exception):
    """A value that is no such medium; the message says what was expected."""


def from_json(value: object, kind: Media) -> Any:  # noqa: ANN401 - DSPy has no types
    """A value with DSPy's objects where the caller's media stand, in lists and dicts too.

    Args:
        value: Bytes, ``{"url": "https://..."}`` for an image, messages for a conversation.
        kind: What is expected.

    Raises:
        MediaError: When a medium is none.
    """
    make = _MAKERS[kind]
    if value is None or isinstance(value, (dspy.Image, dspy.Audio, dspy.History)):
        return value
    if kind == "History":
        return make(value)
    if isinstance(value, list):
        return [from_json(item, kind) for item in value]
    if isinstance(value, dict) and set(value) != {"url"}:
        return {name: from_json(item, kind) for name, item in value.items()}
    return make(value)


def has_address(value: object) -> bool:
    """Whether the provider would have to fetch an image.

    Args:
        value: What ``from_json`` gave.
    """
    if isinstance(value, dspy.Image):
        return not value.url.startswith("data:")
    if isinstance(value, list):
        return any(map(has_address, value))
    return isinstance(value, dict) and any(map(has_address, value.values()))


def _image(value: object) -> Any:  # noqa: ANN401 - DSPy has no types
    if isinstance(value, bytes):
        form = _form(value, _IMAGES)
        if form is None:
            raise MediaError("expected the bytes of a PNG, JPEG, GIF or WebP image")
        return dspy.Image(url=f"data:image/{form};base64,{base64.b64encode(value).decode()}")
    if isinstance(value, dict) and isinstance(url := value["url"], str) and _is_address(url):
        return dspy.Image(url=url)
    raise MediaError('expected a binary parameter, or {"url": "https://..."}')


def _audio(value: object) -> Any:  # noqa: ANN401 - DSPy has no types
    if not isinstance(value, bytes):
        raise MediaError("expected a binary parameter")
    form = _form(value, _AUDIO)
    if form is None:
        raise MediaError("expected the bytes of a WAV, MP3, FLAC, Ogg, M4A or WebM recording")
    return dspy.Audio(data=base64.b64encode(value).decode(), audio_format=form)


def _history(value: object) -> Any:  # noqa: ANN401 - DSPy has no types
    if isinstance(value, list) and all(isinstance(message, dict) for message in value):
        return dspy.History(messages=value)
    raise MediaError("expected a list of messages, each with values of fields by name")


def _form(data: bytes, forms: tuple[tuple[int, bytes, str], ...]) -> str | None:
    return next((form for at, mark, form in forms if data.startswith(mark, at)), None)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc


_MAKERS: Final[dict[Media, Callable[[object], Any]]] = {
    "Image": _image,
    "Audio": _audio,
    "History": _history,
}
