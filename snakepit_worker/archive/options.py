"""How a worker uses its archive."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from snakepit_worker.archive.owner import Owner

__all__ = ["ArchiveOptions", "Durability"]

Durability = Literal["commit", "delayed"]
"""When a write is answered: after its commit, or at once and written a moment later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveOptions:
    """How a worker uses its archive.

    Attributes:
        url: ``sqlite:///file`` or ``postgresql://user:password@host/database``.
        owner: This worker.
        namespace: Keeps applications apart that share a database.
        lease: Seconds for which sessions stay this worker's when it no longer answers.  It is
            renewed three times in that time.
        ttl: Seconds after the last use or write after which a session that no worker holds is
            deleted.
        durability: With ``commit`` what was answered survives a power cut.  With ``delayed`` it
            survives the end of the process once it is written, which is up to a tenth of a second
            later, and a power cut once the database has synchronised.
        max_recipe: Bytes of JSON that one recipe may take.
        max_waiting: Writes and questions that may wait for the database.
        max_waiting_bytes: Bytes of JSON that may wait for the database.
    """

    url: str = field(repr=False)
    owner: Owner
    namespace: str = "default"
    lease: float = 30.0
    ttl: float = 7 * 86_400.0
    durability: Durability = "commit"
    max_recipe: int = 64 << 20
    max_waiting: int = 10_000
    max_waiting_bytes: int = 256 << 20
