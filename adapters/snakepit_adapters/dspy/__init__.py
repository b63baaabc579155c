"""DSPy for Elixir: language models, programs and their answers, by handle.

Importing this package does not import DSPy; the adapter does so once the worker is ready.
"""

from snakepit_adapters.dspy.adapter import DspyAdapter

__all__ = ["DspyAdapter"]
