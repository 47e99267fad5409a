"""What a large encrypted OpenPGP entity costs, in a process of its own (issue 4: 10 MiB in at most 64 MiB above idle)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from comity.secure import encrypt, openpgp, openpgp_mime
from tests.secure.pgpkit import gpg_home, message, now, person

SIZE = 10 * 1024 * 1024
LIMIT_KIB = 64 * 1024
CPU_SECONDS = 2.0

#: Opens a small object first, so that what is loaded once counts as idle; then measures the peak of the large one.
CHILD = """
import gc, json, sys, time
from pathlib import Path
from comity.secure import decrypt, openpgp

def memory(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1])

me = [openpgp.read_identity(Path(sys.argv[1]).read_bytes())]
decrypt(Path(sys.argv[2]).read_bytes(), me)
gc.collect()
Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
idle, started = memory("VmRSS"), time.process_time()
opened = decrypt(Path(sys.argv[3]).read_bytes(), me)
spent, peak = time.process_time() - started, memory("VmHWM")
print(json.dumps({"size": len(opened.entity), "kib": peak - idle, "cpu": spent, "how": opened.algorithm}))
"""


def measure(folder: Path, large: bytes) -> dict[str, Any]:
    (folder / "key").write_bytes(person().secret)
    (folder / "small").write_bytes(
        encrypt(message(), openpgp.read_certificates(person().certificate), when=now()).entity
    )
    (folder / "large").write_bytes(large)
    files = [str(folder / name) for name in ("key", "small", "large")]
    done = subprocess.run([sys.executable, "-c", CHILD, *files], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def entity() -> bytes:
    return b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n" + os.urandom(SIZE)


def test_ten_mebibytes_of_ours_open_in_64_mib(tmp_path: Path, entity: bytes) -> None:
    obj = encrypt(entity, openpgp.read_certificates(person().certificate), when=now())
    found = measure(tmp_path, obj.entity)
    assert found["size"] == len(entity)
    assert found["kib"] <= LIMIT_KIB, found
    assert found["cpu"] <= CPU_SECONDS


@pytest.mark.peer
def test_ten_mebibytes_of_gpg_open_in_64_mib(tmp_path: Path, entity: bytes) -> None:
    """SEIPD version 1, in pieces of partial lengths."""
    with gpg_home() as gpg:
        gpg("--import", stdin=person().certificate)
        command = ["--armor", "--compress-algo", "none", "--recipient", person().fingerprint, "--encrypt"]
        found = measure(tmp_path, openpgp_mime.encrypted(gpg(*command, stdin=entity), b"b").entity)
    assert (found["size"], found["how"]) == (len(entity), "aes-256-cfb-mdc")
    assert found["kib"] <= LIMIT_KIB, found
    assert found["cpu"] <= CPU_SECONDS
