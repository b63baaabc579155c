from dataclasses import dataclass, field
from typing import Any


@dataclass
class ZeroCopyRef:
    kind: str
    payload: dict[str, Any] = field(default_factory=dict)
