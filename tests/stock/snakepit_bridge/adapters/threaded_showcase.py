from __future__ import annotations

import threading
from typing import Any, ClassVar

from snakepit_bridge.base_adapter_threaded import ThreadSafeAdapter, thread_safe_method, tool


class ThreadedShowcaseAdapter(ThreadSafeAdapter):
    _count: ClassVar[int] = 0
    _count_lock: ClassVar[threading.Lock] = threading.Lock()

    def execute_tool(self, tool_name: str, arguments: dict[str, Any], context: Any) -> Any:
        del context
        return self.call_tool(tool_name, **arguments)

    @thread_safe_method
    @tool("Counts the calls of all instances")
    def count(self) -> int:
        with self.acquire_lock(), self._count_lock:
            type(self)._count += 1
            return self._count

    @thread_safe_method
    @tool("The thread it runs on")
    def thread(self) -> str:
        self.set_thread_local("seen", value=True)
        assert self.get_thread_local("seen")
        return threading.current_thread().name
