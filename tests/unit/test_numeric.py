"""Errors of NumPy and PyTorch, as the host's parser reads them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from snakepit_worker.wire.exceptions import TEXT_LIMIT
from snakepit_worker.wire.failures import CallSite, describe
from tests.conftest import name_of

if TYPE_CHECKING:
    from collections.abc import Callable

GIB = {"GB": 1.0, "GIB": 1.0, "MB": 2.0**-10, "MIB": 2.0**-10}


def as_the_host_reads(message: str) -> tuple[Any, ...]:
    """The rules of the host's parser (interop 4.7): the kind, and what belongs to it."""
    lower = message.lower()
    if "shape" in lower and any(word in message for word in ("mismatch", "expected", "got")):
        return ("shape", _sizes(message, "expected"), _sizes(message, "got"))
    if "out of memory" in lower or "oom" in lower or ("cuda" in lower and "allocate" in lower):
        device = re.search(r"cuda:\d+|mps|cpu", lower)
        return ("memory", device[0] if device else "cuda:0", _gib(message))
    if "device" in lower and any(word in lower for word in ("mismatch", "expected", "same device")):
        first = re.search(r"cuda:\d+|cuda|mps|cpu", lower)
        second = re.search(r"and (cuda:\d+|cuda|mps|cpu)", lower)
        return ("device", first and first[0], second and second[1])
    return ("none",)


def _sizes(message: str, word: str) -> list[int] | None:
    match = re.search(rf"{word}:?\s*[\[(]([\d,\s]*)[\])]", message)
    return [int(size) for size in re.findall(r"\d+", match[1])] if match else None


def _gib(message: str) -> float | None:
    match = re.search(r"allocate\s+([\d.]+)\s*(GB|MB|GiB|MiB)", message, re.IGNORECASE)
    return float(match[1]) * GIB[match[2].upper()] if match else None


def message_of(error: BaseException) -> str:
    return describe(error, CallSite("t", "s")).message


def ones(*shape: int) -> Any:
    return np.ones(shape)


SHAPES: list[tuple[Callable[[], object], list[int], list[int]]] = [
    (lambda: ones(2, 3) @ ones(4, 5), [3], [4]),
    (lambda: ones(2, 3) + ones(4, 5), [2, 3], [4, 5]),
    (lambda: ones(3) + ones(4), [3], [4]),
    (lambda: np.dot(ones(2, 3), ones(4, 5)), [2, 3], [4, 5]),
    (lambda: ones(6).reshape(4, 5), [4, 5], [6]),
    (lambda: np.concatenate([ones(2, 3), ones(2, 4)]), [3], [4]),
    (lambda: ones(2, 3).__setitem__(slice(None), ones(4, 5)), [2, 3], [4, 5]),
]


@pytest.mark.parametrize(("fails", "expected", "got"), SHAPES)
def test_shapes_that_numpy_refuses(
    fails: Callable[[], object], expected: list[int], got: list[int]
) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        fails()
    message = message_of(caught.value)
    assert message.startswith(str(caught.value))
    assert as_the_host_reads(message) == ("shape", expected, got)


def test_numpy_s_own_words_would_not_do() -> None:
    """Else the remarks could go."""
    with pytest.raises(ValueError, match="mismatch in its core dimension") as matmul:
        _ = ones(2, 3) @ ones(4, 5)
    with pytest.raises(ValueError, match="broadcast") as plus:
        _ = ones(2, 3) + ones(4, 5)
    assert as_the_host_reads(str(matmul.value)) == ("none",)
    assert as_the_host_reads(str(plus.value)) == ("none",)


def test_arrays_of_several_shapes_are_a_mismatch_without_sizes() -> None:
    with pytest.raises(ValueError, match="same shape") as caught:
        np.stack([ones(2), ones(3)])
    assert as_the_host_reads(message_of(caught.value)) == ("shape", None, None)


def test_memory_that_numpy_does_not_get() -> None:
    with pytest.raises(MemoryError) as caught:
        np.empty((2**40, 2**10), np.float64)
    kind, device, gib = as_the_host_reads(message_of(caught.value))
    assert (kind, device) == ("memory", "cpu")
    assert gib == pytest.approx(2**23)  # 8 PiB


# Texts as PyTorch 2.13 writes them.
TORCH: list[tuple[str, tuple[Any, ...]]] = [
    ("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)", ("shape", [2, 3], [4, 5])),
    (
        "The size of tensor a (3) must match the size of tensor b (4) at non-singleton dimension 1",
        ("shape", [3], [4]),
    ),
    ("shape '[4, 5]' is invalid for input of size 6", ("shape", [4, 5], [6])),
    (
        (
            "Sizes of tensors must match except in dimension 0. Expected size 3 but got size 4 for"
            " tensor number 1 in the list."
        ),
        ("shape", [3], [4]),
    ),
    (
        "stack expects each tensor to be equal size, but got [2] at entry 0 and [3] at entry 1",
        ("shape", [3], [2]),  # it has a "got" of its own
    ),
    (
        (
            "size mismatch for weight: copying a param with shape torch.Size([4, 5]) from"
            " checkpoint, the shape in current model is torch.Size([2, 3])."
        ),
        ("shape", [2, 3], [4, 5]),
    ),
    (
        (
            "Given groups=1, weight of size [8, 3, 3, 3], expected input[1, 4, 9, 9] to have 3"
            " channels, but got 4 channels instead"
        ),
        ("shape", [3], [4]),
    ),
    (
        "Expected input batch_size (2) to match target batch_size (3).",
        ("shape", [3], [2]),
    ),
    (
        (
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79"
            " GiB of which 1.50 GiB is free."
        ),
        ("memory", "cuda:0", 2.0),
    ),
    (
        (
            "MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 1.00 GB, max"
            " allowed: 9.07 GB). Tried to allocate 512.00 MB on private pool."
        ),
        ("memory", "mps", 0.5),
    ),
    (
        (
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate"
            " memory: you tried to allocate 4294967296 bytes. Error code 12 (Cannot allocate"
            " memory)"
        ),
        ("memory", "cpu", 4.0),
    ),
    (
        (
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0"
            " and cpu!"
        ),
        ("device", "cuda:0", "cpu"),
    ),
]


@pytest.mark.parametrize(("text", "seen"), TORCH, ids=name_of)
def test_texts_of_pytorch(text: str, seen: tuple[Any, ...]) -> None:
    message = message_of(RuntimeError(text))
    assert message.startswith(text)
    assert as_the_host_reads(message) == seen


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no such file",
        "the shape of things to come",
        "expected str, got int",
        "Unable to allocate a table in the restaurant",
        "Unable to allocate . GiB",
        "cannot reshape the organisation",
        "x" * TEXT_LIMIT,
    ],
    ids=name_of,
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert message_of(ValueError(text)) == text
    assert as_the_host_reads(text) == ("none",)


@pytest.mark.parametrize("amount", ["1.2.3 GiB", "." * 50 + " GiB", "9" * 500 + " GiB"])
def test_amounts_that_are_no_numbers_do_no_harm(amount: str) -> None:
    text = f"Unable to allocate {amount}"
    assert message_of(MemoryError(text)).startswith(text)


@pytest.mark.parametrize(
    ("amount", "gib"),
    [
        ("700 bytes", 0.0),
        ("931. GiB", 931.0),
        ("512.00 KiB", 0.0),
        ("7.00 MiB", 0.0),
        ("7.00 GiB", 7.0),
        ("7.00 TiB", 7_168.0),
        ("8.00 PiB", 2.0**23),
    ],
)
def test_units(amount: str, gib: float) -> None:
    text = f"Unable to allocate {amount} for an array with shape (7,) and data type int8"
    kind, device, found = as_the_host_reads(message_of(MemoryError(text)))
    assert (kind, device) == ("memory", "cpu")
    assert found == pytest.approx(gib, abs=0.01)
