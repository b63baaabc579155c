from dataclasses import dataclass


@dataclass
class HeartbeatConfig:
    enabled: bool = True
    interval_ms: int = 2_000


class HeartbeatClient:
    def __init__(self, stub: object, session_id: str, config: HeartbeatConfig) -> None:
        self.stub, self.session_id, self.config = stub, session_id, config
