"""A build without XML: message/cpim is read, signed and verified all the same (SEED-7).

The imports are blocked in a child process, ours and Python's own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import comity

EXAMPLE = Path(__file__).parent.parent / "conformance" / "rfc3862" / "example-5.2.eml"
BLOCKED = "import sys; sys.modules.update(dict.fromkeys(['comity.xml', 'xml', 'pyexpat', '_elementtree', 'lxml']))\n"
READ = """
from comity.cpim.entity import cpim_view, multipart_parts, split_entity
whole = split_entity(sys.stdin.buffer.read())
message = split_entity(multipart_parts(whole)[0])
view = cpim_view(whole)
assert view.raw == message.octets
"""
VERIFY = """
from datetime import UTC, datetime, timedelta
from comity.cpim.address import Address
from comity.secure import LocalCa, TrustStore, new_identity, sign, verify
when = view.date_time
authority = LocalCa.create("Wood", when=when)
piglet = new_identity(Address.parse(view.from_.uri), when=when, ca=authority)
trust = TrustStore(anchors=(authority.certificate,))
for form in "multipart", "signed-data":
    twin = sign(message, piglet, when=when, form=form)
    assert message.octets in twin.octets
    for obj in twin, type(twin)(twin.header_block, twin.octets.replace(b"SANDERS", b"SANDIRS")):
        print(verify(obj, trust, now=when + timedelta(minutes=1)).verdict)
"""


def run(program: str) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(comity.__file__).parent.parent)}
    command = [sys.executable, "-c", BLOCKED + program]
    done = subprocess.run(
        command, input=EXAMPLE.read_bytes(), capture_output=True, timeout=60, check=False, env=environment
    )
    assert not done.stderr, done.stderr.decode()
    return done.stdout.decode().split()


def test_the_signed_example_is_read_and_a_signed_twin_of_it_verifies() -> None:
    """SEED-7: RFC 3862 section 5.2; changed on the way, it does not."""
    assert run(READ + "print(view.from_.uri)") == ["im:piglet@100akerwood.com"]
    assert run(READ + VERIFY) == ["valid", "bad-signature"] * 2


@pytest.mark.parametrize("module", ["comity.cpim.presence", "xml.etree.ElementTree"])
def test_the_build_has_no_xml(module: str) -> None:
    """So that the test above means something."""
    said = run(f"try:\n    import {module}\nexcept ModuleNotFoundError:\n    print('none')")
    assert said == ["none"]
