"""Sessions: a caller's named scope, and the resources that it holds under handles."""

from snakepit_worker.sessions.closing import Closers
from snakepit_worker.sessions.leases import Lease, exclusively_held
from snakepit_worker.sessions.resources import Recipe, Resource
from snakepit_worker.sessions.session import Session
from snakepit_worker.sessions.store import Ended, Limits, SessionStore

__all__ = [
    "Closers",
    "Ended",
    "Lease",
    "Limits",
    "Recipe",
    "Resource",
    "Session",
    "SessionStore",
    "exclusively_held",
]
