"""What a large encrypted entity costs, measured in a process of its own (issue 4: 10 MiB in at most 64 MiB above idle)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, pkcs12

from comity.cpim.operations import MimeObject
from comity.secure import encrypt
from tests.peers import need_program
from tests.secure import kit

SIZE = 10 * 1024 * 1024
LIMIT_KIB = 64 * 1024
CPU_SECONDS = 2.0

#: Opens a small object first, so that what is loaded once counts as idle; then measures the peak of the large one.
CHILD = """
import gc, json, sys, time
from pathlib import Path
from cryptography.hazmat.primitives.serialization import pkcs12
from comity.cpim.address import Address
from comity.secure import Identity, decrypt

def memory(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1])

key, certificate, _ = pkcs12.load_key_and_certificates(Path(sys.argv[1]).read_bytes(), None)
me = [Identity(Address.parse("im:alice@a.test"), key, (certificate,))]
decrypt(Path(sys.argv[2]).read_bytes(), me)
gc.collect()
Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
idle, started = memory("VmRSS"), time.process_time()
opened = decrypt(Path(sys.argv[3]).read_bytes(), me)
spent, peak = time.process_time() - started, memory("VmHWM")
print(json.dumps({"size": len(opened.entity), "kib": peak - idle, "cpu": spent}))
"""

#: Signs and encrypts, small first.
SEALING_CHILD = """
import gc, json, sys, time
from datetime import UTC, datetime
from pathlib import Path
from cryptography.hazmat.primitives.serialization import pkcs12
from comity.cpim.address import Address
from comity.secure import Identity, encrypt

def memory(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1])

key, certificate, _ = pkcs12.load_key_and_certificates(Path(sys.argv[1]).read_bytes(), None)
me = Identity(Address.parse("im:alice@a.test"), key, (certificate,))
how = {"signer": me, "when": datetime(2026, 3, 1, tzinfo=UTC), "encoding": sys.argv[4]}
encrypt(Path(sys.argv[2]).read_bytes(), [certificate], **how)
gc.collect()
Path("/proc/self/clear_refs").write_text("5")
idle, started = memory("VmRSS"), time.process_time()
sealed = encrypt(Path(sys.argv[3]).read_bytes(), [certificate], **how)
spent, peak = time.process_time() - started, memory("VmHWM")
print(json.dumps({"size": len(sealed.octets), "kib": peak - idle, "cpu": spent}))
"""


@pytest.fixture(scope="module")
def entity() -> bytes:
    return b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n" + os.urandom(SIZE)


def measure(folder: Path, large: bytes, child: str = CHILD, *more: str) -> dict[str, float]:
    me = kit.identity()
    store = pkcs12.serialize_key_and_certificates(b"a", me.key, me.certificate, None, NoEncryption())
    (folder / "key").write_bytes(store)
    (folder / "small").write_bytes((encrypt(kit.cpim(), [me.certificate]) if child == CHILD else kit.cpim()).entity)
    (folder / "large").write_bytes(large)
    files = [str(folder / name) for name in ("key", "small", "large")]
    done = subprocess.run([sys.executable, "-c", child, *files, *more], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, float] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("cipher", ["aes-256-gcm", "aes-128-cbc"])
@pytest.mark.parametrize("encoding", ["binary", "base64"])
def test_ten_mebibytes_of_ours_open_in_64_mib(tmp_path: Path, entity: bytes, encoding: str, cipher: str) -> None:
    me = kit.identity()
    signer = me if cipher.endswith("cbc") else None
    how = {"cipher": cipher, "encoding": encoding, "signer": signer, "when": kit.NOW}
    found = measure(tmp_path, encrypt(entity, [me.certificate], **how).entity)  # type: ignore[arg-type]  # keyword table
    assert found["size"] >= SIZE
    assert found["kib"] <= LIMIT_KIB
    assert found["cpu"] <= CPU_SECONDS


@pytest.mark.parametrize("encoding", ["binary", "base64"])
def test_ten_mebibytes_are_signed_and_encrypted_in_64_mib(tmp_path: Path, entity: bytes, encoding: str) -> None:
    found = measure(tmp_path, entity, SEALING_CHILD, encoding)
    assert found["size"] >= SIZE
    assert found["kib"] <= LIMIT_KIB
    assert found["cpu"] <= CPU_SECONDS


@pytest.mark.peer
@pytest.mark.parametrize("cipher", ["-aes-128-gcm", "-aes-256-cbc"])
def test_ten_mebibytes_streamed_by_openssl_open_in_64_mib(tmp_path: Path, entity: bytes, cipher: str) -> None:
    """Indefinite lengths, and the content in thousands of pieces."""
    (tmp_path / "in").write_bytes(entity)
    (tmp_path / "cert.pem").write_bytes(kit.identity().certificate.public_bytes(Encoding.PEM))
    files = ["-in", str(tmp_path / "in"), "-out", str(tmp_path / "out"), str(tmp_path / "cert.pem")]
    command = [need_program("openssl"), "cms", "-encrypt", "-binary", "-stream", "-outform", "DER", cipher, *files]
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    raw = (tmp_path / "out").read_bytes()
    assert raw.count(b"\x04\x82\x10\x00") > 2000, "in pieces of 4096 octets"
    found = measure(tmp_path, MimeObject.of("application/pkcs7-mime", raw).entity)
    assert found["size"] == len(entity)
    assert found["kib"] <= LIMIT_KIB


def peak_of(home: Path, *arguments: str) -> int:
    """KiB that a run of ``comity`` took at most; it must succeed."""
    env = dict(os.environ, COMITY_HOME=str(home))
    with subprocess.Popen([sys.executable, "-m", "comity", *arguments], env=env, stderr=subprocess.PIPE) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, process.stderr and process.stderr.read().decode()
    return usage.ru_maxrss


def test_the_command_opens_ten_mebibytes_in_64_mib_more_than_a_small_one(tmp_path: Path, entity: bytes) -> None:
    """``comity encrypt`` and ``comity decrypt``, whole processes."""
    peak_of(tmp_path, "keys", "new", "im:alice@a.test", "--no-passphrase")
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(kit.cpim().entity)
    large.write_bytes(entity)
    peaks: dict[str, list[int]] = {"encrypt": [], "decrypt": []}
    for file in (small, large):
        sealed, opened = f"{file}.sealed", f"{file}.opened"
        peaks["encrypt"].append(peak_of(tmp_path, "encrypt", str(file), "--to", "im:alice@a.test", "-o", sealed))
        peaks["decrypt"].append(peak_of(tmp_path, "decrypt", sealed, "-o", opened))
        assert Path(opened).read_bytes() == file.read_bytes()
    for command, (idle, peak) in peaks.items():
        assert peak - idle <= LIMIT_KIB, (command, idle, peak)
