from typing import Any


class TelemetryBackend:
    def emit(self, event_name: str, *rest: Any) -> None:
        raise NotImplementedError
