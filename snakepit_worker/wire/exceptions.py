"""What exceptions say of themselves, read with care: theirs is anybody's code.

Nothing here raises, and every text is without secrets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from snakepit_worker.wire.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MOST_NOTES", "NOTE_LIMIT", "TEXT_LIMIT", "links", "notes_of", "text_of"]

TEXT_LIMIT: Final = 16_384
"""Characters of what an exception says."""
NOTE_LIMIT: Final = 4_096
"""Characters of a note."""
MOST_NOTES: Final = 10
"""Notes of one exception."""


def text_of(error: BaseException) -> str:
    """What ``str()`` gives, cut.

    Args:
        error: The exception.
    """
    try:
        return redact(str(error), TEXT_LIMIT)
    except BaseException:  # noqa: BLE001 - an exception without a readable text is still a failure
        return f"<{type(error).__name__} whose text cannot be read>"


def notes_of(error: BaseException) -> tuple[str, ...]:
    """What was added to the exception on its way, as much of it as is told.

    Args:
        error: The exception.
    """
    try:
        notes: object = error.__notes__
        if not isinstance(notes, list):
            return ()
        texts = [note for note in notes[:MOST_NOTES] if isinstance(note, str)]
        return tuple(redact(text, NOTE_LIMIT) for text in texts)
    except BaseException:  # noqa: BLE001 - mostly there are none; what is there may do anything
        return ()


def links(error: BaseException) -> Iterator[BaseException]:
    """The exception and its causes, nearest first, as a printed traceback shows them.

    Args:
        error: The exception.
    """
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        if link.__cause__ is not None or link.__suppress_context__:
            link = link.__cause__
        else:
            link = link.__context__
