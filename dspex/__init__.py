"""The SDK for Python programs that use a running Elixir node.

Version 0.1 reserves the name and holds nothing yet.
"""

__all__: list[str] = []
