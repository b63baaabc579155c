"""Sessions: a caller's named scope, and the resources that it holds under handles."""

from snakepit_worker.sessions.resources import Resource
from snakepit_worker.sessions.session import Session
from snakepit_worker.sessions.store import Limits, SessionStore

__all__ = ["Limits", "Resource", "Session", "SessionStore"]
