"""The archive: what sessions hold, in a database from which another worker rebuilds them.

A session is a row with its resources, each described by a recipe.  It belongs to one worker at a
time: ``claim`` takes it, every write names the fence that the claim gave, and a writer whose fence
is no longer the current one loses with a conflict.  A worker keeps what it owns by renewing one
lease; when the lease has ended, or the worker's process on the same machine has, others may claim.

Only `ArchiveThread` is meant to be used by the rest of the worker.  Nothing here imports SQLAlchemy
but the thread, when it starts.
"""

from snakepit_worker.archive.model import (
    ArchivedSession,
    Change,
    SavedResource,
    SavedSession,
    Totals,
    Written,
    new_fence,
)
from snakepit_worker.archive.options import ArchiveOptions
from snakepit_worker.archive.owner import Owner
from snakepit_worker.archive.screening import find_secret
from snakepit_worker.archive.thread import ArchiveThread, preload

__all__ = [
    "ArchiveOptions",
    "ArchiveThread",
    "ArchivedSession",
    "Change",
    "Owner",
    "SavedResource",
    "SavedSession",
    "Totals",
    "Written",
    "find_secret",
    "new_fence",
    "preload",
]
