"""Generates the Python stubs from the files in `proto/`.

Run through `make stubs`, which provides the pinned compiler and plug-ins. With `--check` nothing is
written: the exit code is 1, and the differences are shown, when the stubs in the tree are not what
the proto files give.
"""

import argparse
import difflib
import re
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "proto"
GENERATED = ROOT / "snakepit_worker" / "wire" / "generated"

INIT = '"""Generated from `proto/` by `make stubs`; do not edit."""\n'

# protoc imports a sibling as a top-level module, which would find the copy that Snakepit installs.
SIBLING_IMPORT = re.compile(r"^import (\w+_pb2) as ", re.MULTILINE)

# A compiled descriptor is one line of nine thousand characters.
DIFF_LINES = 12
DIFF_WIDTH = 100


def generate(target: Path) -> None:
    """Compile every proto file into `target`.

    Raises:
        subprocess.CalledProcessError: A proto file does not compile; protoc has said why on stderr.
    """
    plugins = Path(sys.executable).parent
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PROTOS}"]
    command += [
        f"--plugin=protoc-gen-{name}={plugins / f'protoc-gen-{name}'}"
        for name in ("mypy", "mypy_grpc")
    ]
    command += [f"--python_out={target}", f"--grpc_python_out={target}"]
    # A servicer may leave RPCs out, as the runtime class allows: no side serves all of them.
    command += [
        f"--mypy_out=quiet:{target}",
        f"--mypy_grpc_out=quiet,generate_concrete_servicer_stubs:{target}",
    ]
    command += sorted(proto.name for proto in PROTOS.glob("*.proto"))
    subprocess.run(command, check=True)
    for stub in target.glob("*_pb2_grpc.py*"):
        text = stub.read_text()
        stub.write_text(SIBLING_IMPORT.sub(r"from . import \1 as ", text))
    (target / "__init__.py").write_text(INIT)


def sources(folder: Path) -> dict[str, str]:
    """Return the texts of a folder's Python files by name."""
    return {path.name: path.read_text() for path in sorted(folder.glob("*.py*")) if path.is_file()}


def report(wanted: dict[str, str], found: dict[str, str]) -> bool:
    """Print how the tree differs from what was generated; return whether it does."""
    differs = False
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) == found.get(name):
            continue
        differs = True
        if name not in found:
            print(f"{name}: missing")
        elif name not in wanted:
            print(f"{name}: no proto file gives this")
        else:
            diff = difflib.unified_diff(
                found[name].splitlines(),
                wanted[name].splitlines(),
                "in the tree",
                "generated",
                n=0,
                lineterm="",
            )
            lines = (line[:DIFF_WIDTH] for line in islice(diff, DIFF_LINES))
            print(f"{name}: out of date", *lines, sep="\n    ")
    return differs


def main() -> int:
    """Generate, then write or compare."""
    parser = argparse.ArgumentParser(description="Generate the Python stubs from proto/.")
    parser.add_argument(
        "--check", action="store_true", help="compare with the tree instead of writing"
    )
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        wanted = sources(Path(folder))
    found = sources(GENERATED)
    if check:
        stale = report(wanted, found)
        if stale:
            print("run `make stubs` to bring them up to date")
        return int(stale)
    GENERATED.mkdir(parents=True, exist_ok=True)
    for name in found.keys() - wanted.keys():
        (GENERATED / name).unlink()
    for name, text in wanted.items():
        (GENERATED / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
