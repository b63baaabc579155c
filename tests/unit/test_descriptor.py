import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from snakepit_worker.wire.generated import snakepit_bridge_pb2 as ours
from snakepit_worker.wire.generated import snakepit_bridge_pb2_grpc as ours_grpc

IMPORT_OURS = "from snakepit_worker.wire.generated import snakepit_bridge_pb2 as ours"
IMPORT_OTHER = "import snakepit_bridge_pb2 as other"
BOTH_WORK = """
assert other.__name__ == "snakepit_bridge_pb2" and other is not ours
sent = other.PingRequest(message="hello").SerializeToString()
assert ours.PingRequest.FromString(sent).message == "hello"
assert ours.DESCRIPTOR is other.DESCRIPTOR
"""


@pytest.mark.conforms(24)
def test_the_compiled_descriptor_is_the_one_that_snakepit_has() -> None:
    descriptor = ours.DESCRIPTOR.serialized_pb
    assert len(descriptor) == 5_865
    assert (
        hashlib.sha256(descriptor).hexdigest()
        == "082139a8646b6872b2b42000e47771b6193beef8bbd0eb6b97309a4d15cc7470"
    )


def test_the_service_stubs_use_the_messages_beside_them() -> None:
    assert vars(ours_grpc)["snakepit__bridge__pb2"] is ours


@pytest.mark.conforms(30)
@pytest.mark.parametrize(
    "imports",
    [
        pytest.param((IMPORT_OURS, IMPORT_OTHER), id="ours first"),
        pytest.param((IMPORT_OTHER, IMPORT_OURS), id="the other first"),
    ],
)
def test_a_second_copy_loads_in_the_same_process(imports: tuple[str, str], tmp_path: Path) -> None:
    shutil.copy(ours.__file__, tmp_path / "snakepit_bridge_pb2.py")
    script = tmp_path / "both.py"
    script.write_text("\n".join([*imports, BOTH_WORK]))
    # A script's own folder heads its import path, so the copy is found as a top-level module.
    done = subprocess.run(
        [sys.executable, "-W", "error", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
