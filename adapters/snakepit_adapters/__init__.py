"""The adapters that come with the worker, one folder per framework, found through entry points."""

__all__: list[str] = []
