"""The tools of the older adapter, under its names.

What they keep belongs to the caller's session, what fails is a failure, and results keep their
types; apart from that they do what they did.
"""

from __future__ import annotations

from snakepit_adapters.dspy.tools.older_calls import OlderCallTools
from snakepit_adapters.dspy.tools.older_programs import OlderProgramTools
from snakepit_adapters.dspy.tools.older_state import OlderStateTools

__all__ = ["OlderNameTools"]


class OlderNameTools(OlderProgramTools, OlderStateTools, OlderCallTools):
    """All of them but `configure_lm`, which is in its place and takes both forms."""
