from __future__ import annotations

import json
from typing import Any

import numpy as np


class GracefulJSONEncoder(json.JSONEncoder):
    def default(self, o: Any) -> Any:
        return o.tolist() if isinstance(o, np.ndarray) else str(o)


class TypeSerializer:
    @staticmethod
    def decode_any(any_message: Any, binary: bytes | None = None) -> Any:
        return binary or json.loads(any_message.value)
