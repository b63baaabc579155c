from dataclasses import dataclass
from typing import Any


@dataclass
class StreamChunk:
    """Two fields, no metadata."""

    data: Any
    is_final: bool = False


class Tool: ...
