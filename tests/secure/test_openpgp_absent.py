"""A build without the ``pgp`` extra: OpenPGP objects are *not checked*, and nothing else changes (issue 4, part 8).

The import of pysequoia is blocked in a child process, as on a base install.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import comity
from comity.cpim.operations import MimeObject
from comity.secure import encrypt, openpgp, sign
from tests.secure import kit
from tests.secure.pgpkit import message, now, person

BLOCKED = "import sys; sys.modules['pysequoia'] = None\n"  # what Python itself takes for "there is none"


def run(program: str, *arguments: str, stdin: bytes = b"", home: Path) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "COMITY_HOME": str(home), "PYTHONPATH": str(Path(comity.__file__).parent.parent)}
    command = [sys.executable, "-c", BLOCKED + program, *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False, env=environment)


def verified(obj: MimeObject, home: Path) -> tuple[int, dict[str, str]]:
    program = "from comity.cli import main; sys.argv[0] = 'comity'; main()"
    done = run(program, "verify", "--json", "-", stdin=obj.entity, home=home)
    assert not done.stderr, done.stderr.decode()
    found: dict[str, str] = json.loads(done.stdout)
    return done.returncode, found


def test_a_signed_object_is_not_checked_and_says_what_to_install(tmp_path: Path) -> None:
    code, found = verified(sign(message(), person(), when=now()), tmp_path)
    assert code != 0
    assert (found["verdict"], found["signer"]) == ("not-checked", "")
    assert "pip install comity[pgp]" in found["reason"]
    assert found["from"] == "im:alice@a.test"


def test_smime_is_verified_all_the_same(tmp_path: Path) -> None:
    signed = sign(message(), kit.identity(), when=now())
    assert verified(signed, tmp_path)[1]["verdict"] != "not-checked"


def test_an_encrypted_object_is_named_and_not_opened(tmp_path: Path) -> None:
    obj = encrypt(message(), openpgp.read_certificates(person().certificate), when=now())
    assert verified(obj, tmp_path)[1]["verdict"] == "encrypted"


@pytest.mark.parametrize(
    "call",
    [
        "openpgp.new_identity(Address.parse('im:a@a.test'), when=now)",
        "openpgp.read_certificates(data)",
        "openpgp.read_identity(data)",
        "openpgp.signers_of(b'x', data, TrustStore(openpgp_pinned=(data,)), now)",
        "openpgp.seal(b'x', [data], when=now)",
        "openpgp.sign_detached(b'x', key)",
        "openpgp.revoke(key)",
        "key.to_bytes('passphrase')",
        "openpgp.PgpIdentity.from_bytes(data, passphrase='passphrase')",
    ],
)
def test_everything_that_needs_it_says_so(tmp_path: Path, call: str) -> None:
    program = f"""
from datetime import UTC, datetime
from comity.cpim.address import Address
from comity.errors import SecurityError
from comity.secure import TrustStore, openpgp
assert not openpgp.is_available
now = datetime.now(UTC)
data = sys.stdin.buffer.read()
key = openpgp.PgpIdentity(Address.parse('im:a@a.test'), '00', data, data)
try:
    {call}
except SecurityError as error:
    print(error)
"""
    done = run(program, stdin=person().certificate, home=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert b"pip install comity[pgp]" in done.stdout


def test_the_server_runs_without_it(tmp_path: Path) -> None:
    """What it relays does not depend on it: tests/paths/test_secured.py sends OpenPGP objects over every pair (SEED-3)."""
    done = run("import comity.server; print('pysequoia' in str(sys.modules['pysequoia']))", home=tmp_path)
    assert (done.stdout.strip(), done.stderr) == (b"False", b"")
