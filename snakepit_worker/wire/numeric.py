"""Shape and memory errors of NumPy and PyTorch, in words that the host's parser knows.

Elixir applications may ask the host what a failure of a numeric library was; it looks for certain
words in the message and for lists of integers behind ``expected`` and ``got`` (interop 4.7).  The
libraries' own texts mostly lack these words, so a remark in brackets is added behind them.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["with_remark"]


# What a text says, with the expected sizes as `e` and those that came as `g`.  The texts are those
# of NumPy 2.4 and PyTorch 2.13.
_SHAPE_TEXTS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"mismatch in its core dimension .{0,200}\(size (?P<g>\d+) is different from (?P<e>\d+)\)",
        r"could not be broadcast together with shapes \((?P<e>[\d,]*)\) \((?P<g>[\d,]*)\)",
        r"shapes \((?P<e>[\d,]*)\) and \((?P<g>[\d,]*)\) not aligned",
        r"cannot reshape array of size (?P<g>\d+) into shape \((?P<e>[\d,]*)\)",
        r"at index 0 has size (?P<e>\d+) and the array at index \d+ has size (?P<g>\d+)",
        r"broadcast input array from shape \((?P<g>[\d,]*)\) into shape \((?P<e>[\d,]*)\)",
        r"all input arrays must have the same shape",
        r"mat1 and mat2 shapes cannot be multiplied \((?P<e>\d+x\d+) and (?P<g>\d+x\d+)\)",
        r"size of tensor a \((?P<e>\d+)\) must match the size of tensor b \((?P<g>\d+)\)",
        r"shape '\[(?P<e>[\d, -]*)\]' is invalid for input of size (?P<g>\d+)",
        r"Expected size (?P<e>\d+) but got size (?P<g>\d+) for tensor number",
        r"to be equal size, but got \[(?P<g>[\d, ]*)\] at entry 0 and \[(?P<e>[\d, ]*)\]",
        r"\(\[(?P<g>[\d, ]*)\]\) from checkpoint, the shape in .{0,50}\(\[(?P<e>[\d, ]*)\]\)",
        r"expected input\[[\d, ]*\] to have (?P<e>\d+) channels, but got (?P<g>\d+) channels",
        r"Expected input batch_size \((?P<g>\d+)\) to match target batch_size \((?P<e>\d+)\)",
    )
)
_MEMORY_TEXTS: Final = (
    re.compile(
        r"Unable to allocate (?P<number>\d+\.?\d*) (?P<unit>[KMGTPE]?i?[Bb]ytes|[KMGTPE]iB)"
    ),
    re.compile(r"you tried to allocate (?P<number>\d+) (?P<unit>bytes)"),
)
_GIB_PER: Final = {
    "KiB": 2**-20,
    "MiB": 2**-10,
    "GiB": 1.0,
    "TiB": 2.0**10,
    "PiB": 2.0**20,
    "EiB": 2.0**30,
    "bytes": 2**-30,
}


def with_remark(message: str) -> str:
    """The message, with a remark behind it where it is a numeric library's.

    Args:
        message: Text of an exception.
    """
    remark = _remark(message)
    return f"{message} [{remark}]" if remark else message


def _remark(message: str) -> str | None:
    for pattern in _MEMORY_TEXTS:
        if match := pattern.search(message):
            amount = float(match["number"]) * _GIB_PER.get(match["unit"], 2**-30)
            return f"out of memory on cpu: could not allocate {amount:.2f} GiB"
    for pattern in _SHAPE_TEXTS:
        if match := pattern.search(message):
            sizes = match.groupdict()
            if not sizes:
                return "shape mismatch"
            return f"shape mismatch: expected {_list(sizes['e'])}, got {_list(sizes['g'])}"
    return None


def _list(sizes: str) -> str:
    return f"[{', '.join(re.findall(r'-?[0-9]+', sizes))}]"
