"""A worker of the archive's tests: holds a session until it is killed.

Arguments: the archive's URL, the worker's id, what to do.
"""

from __future__ import annotations

import sys

from snakepit_worker.archive.model import Change, SavedResource
from snakepit_worker.archive.options import ArchiveOptions
from snakepit_worker.archive.owner import Owner
from snakepit_worker.archive.thread import ArchiveThread
from snakepit_worker.errors import Conflict, WorkerError

LIMIT = 25.0


def hold(archive: ArchiveThread) -> None:
    """Begin a session and change it for ever, saying how far it is saved."""
    number = 0
    while True:
        change = Change(
            session_id="s",
            fence="held",
            created_at=1.0,
            put=tuple(
                SavedResource(
                    handle=f"{half}-{number}", kind="x", created_at=1.0, recipe={"n": number}
                )
                for half in ("left", "right")
            ),
        )
        archive.write(change).result(LIMIT)
        print(number, flush=True)  # noqa: T201 - what the test reads
        number += 1


def race(archive: ArchiveThread) -> None:
    """For each line of the input claim the session that it names, and say how that went."""
    print("here", flush=True)  # noqa: T201 - what the test reads
    for line in sys.stdin:
        try:
            session = archive.claim(line.strip()).result(LIMIT)
        except Conflict:
            answer = "lost"
        except WorkerError as error:
            answer = str(error)
        else:
            answer = "won" if session else "unknown"
        print(answer, flush=True)  # noqa: T201 - what the test reads


if __name__ == "__main__":
    url, worker_id, action = sys.argv[1:]
    thread = ArchiveThread(ArchiveOptions(url=url, owner=Owner.here(worker_id)))
    thread.start().result(LIMIT)
    {"hold": hold, "race": race}[action](thread)
    thread.close(LIMIT)
