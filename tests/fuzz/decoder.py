"""Coverage-guided fuzzing of the decoder of parameters, with atheris.

Run as ``python -m tests.fuzz.decoder``, with flags of libFuzzer such as ``-runs=100000``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

try:
    import atheris
except ImportError:
    sys.exit("fuzz: atheris is missing; there are builds for Linux on x86-64 only")

with atheris.instrument_imports(include=["snakepit_worker.wire"]):
    from tests.fuzz.decoding import LABELS, check

_FOLDER: Final = Path(".cache", "fuzz")
_SEEDS: Final = (
    b"null",
    b"-12.5e3",
    b'{"a": [1, null, {"b": true}]}',
    b'"\\ud83d\\udc0d \\u00e9"',
    b'{"data": [[1, 2], [3, 4]], "shape": [4]}',
    b'{"__snakepit_zero_copy__": true, "ref": "x", "shape": [2]}',
    b'"-Infinity"',
    b"18446744073709551616",
    b'{"api_key": "abc", "url": "https://user:pass@host/?token=1a2b3c"}',
    b'"Authorization: Bearer abc.def-123 sk-abcdefghijklmno"',
    b'"-----BEGIN PRIVATE KEY----- x -----END PRIVATE KEY-----"',
)
_WORDS: Final = (
    *("true", "false", "null", "NaN", "Infinity", "{", "}", "[", "]", ":", ",", '\\"', "\\\\u"),
    *("data", "shape", "__snakepit_zero_copy__", "1e308", "[[[[[[[[", '{\\"a\\":'),
    *("token=", "secret", "password: ", "bearer ", "sk-", "://", "@", "ghp_", "eyJ", "AKIA"),
)  # fmt: skip


def one(data: bytes) -> None:
    """One input: the first byte chooses the label."""
    check(LABELS[data[0] % len(LABELS)] if data else "", data[1:])


def main() -> None:
    """Fuzz, with inputs that reach something new kept for the next run."""
    inputs = _FOLDER / "inputs"
    inputs.mkdir(parents=True, exist_ok=True)
    for label in range(len(LABELS)):
        for number, seed in enumerate(_SEEDS):
            (inputs / f"{label}-{number}").write_bytes(bytes([label]) + seed)
    words = _FOLDER / "words"
    words.write_text("".join(f'"{word}"\n' for word in _WORDS), encoding="ascii")
    atheris.Setup([*sys.argv, f"-dict={words}", f"-artifact_prefix={_FOLDER}/", str(inputs)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
