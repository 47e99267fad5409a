"""The door to pysequoia: whatever it raises becomes one exception of ours."""

from __future__ import annotations

import subprocess
import sys

import pysequoia
import pytest

from comity.secure import openpgp
from comity.secure import openpgp_packets as wire
from comity.secure.openpgp_facts import Refused, ask, key_facts, signature_facts
from tests.secure.pgpkit import person

#: pysequoia 0.1.35 takes the first User ID where there is none: a real panic, which prints to stderr.
PANIC = """
import pysequoia
from comity.secure.openpgp_facts import Refused, ask
tsk = pysequoia.Tsk.generate()
cert = tsk.extract_certificate()
try:
    ask(lambda: cert.set_notations(tsk.certifier(), [pysequoia.Notation("a@b.test", "c")]))
except Refused as error:
    print(type(error.__cause__).__mro__[1].__name__)
"""


def test_a_panic_of_rust_is_refused_like_anything_else() -> None:
    """It is a BaseException: ``except Exception`` would let it end the program."""
    done = subprocess.run([sys.executable, "-c", PANIC], capture_output=True, timeout=60, check=True)
    assert done.stdout == b"BaseException\n"


def test_an_error_says_nothing_of_what_is_inside() -> None:
    """pysequoia's text is a page of backtrace with addresses."""
    with pytest.raises(Refused) as caught:
        ask(lambda: pysequoia.Cert.from_bytes(b"x"))
    assert str(caught.value) == "OpenPGP data that cannot be used"


def test_an_interrupt_goes_through() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(interrupted)


def test_a_hash_without_a_name_is_read_and_not_known() -> None:
    """pysequoia raises when asked for it."""
    signature = wire.dearmor(openpgp.sign_detached(b"x", person()), (b"SIGNATURE",))
    (packet,) = wire.read_packets(signature)
    changed = bytearray(packet.body)
    changed[3] = 99
    facts = signature_facts(wire.read_packets(wire.packet(wire.SIGNATURE, bytes(changed)))[0])
    assert (facts.digest, facts.kind, facts.version) == ("", "Binary", 4)


def test_one_kind_of_packet_is_not_read_as_another() -> None:
    packets = wire.read_packets(person().certificate)
    with pytest.raises(Refused):
        signature_facts(packets[0])
    with pytest.raises(Refused):
        key_facts(packets[1])
    assert key_facts(packets[0]).fingerprint == person().fingerprint
