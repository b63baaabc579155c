"""A stand-in for the Python package that Snakepit ships (interop 8): its interface, in our words.

Tests put the folder above on PYTHONPATH, where the host would put the real one.
"""

from snakepit_bridge.heartbeat import HeartbeatClient, HeartbeatConfig
from snakepit_bridge.logging_config import configure_logging, get_logger
from snakepit_bridge.session_context import SessionContext
from snakepit_bridge.zero_copy import ZeroCopyRef

__all__ = [
    "HeartbeatClient",
    "HeartbeatConfig",
    "SessionContext",
    "ZeroCopyRef",
    "configure_logging",
    "get_logger",
]
__version__ = "2.0.0"
