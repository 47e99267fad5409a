"""OpenPGP framing: armor and packets within limits (RFC 9580 sections 4.2 and 6)."""

from __future__ import annotations

from functools import cache

import pysequoia
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.errors import MalformedMessage, SecurityError
from comity.secure import openpgp
from comity.secure import openpgp_packets as wire
from comity.secure.evidence import SignatureFailed, UnknownAlgorithm, UnknownSigner
from comity.secure.openpgp_crypto import FAILURES
from comity.secure.openpgp_open import inside
from tests.secure.pgpkit import encrypted, literal, now, person, trusting

TAGS = st.integers(1, 63)


def partial(tag: int, pieces: list[bytes]) -> bytes:
    """A packet in pieces of partial lengths; all but the last are powers of two."""
    octets = bytes((0xC0 | tag,))
    for piece in pieces[:-1]:
        octets += bytes((0xE0 | (len(piece).bit_length() - 1),)) + piece
    last = pieces[-1]
    return octets + wire.packet(tag, last)[1:]


class TestPackets:
    @given(st.lists(st.tuples(TAGS, st.binary(max_size=9000)), max_size=5))
    def test_what_is_written_is_read(self, packets: list[tuple[int, bytes]]) -> None:
        octets = b"".join(wire.packet(tag, body) for tag, body in packets)
        found = wire.read_packets(octets)
        assert [(packet.tag, packet.body) for packet in found] == packets
        assert b"".join(packet.raw for packet in found) == octets

    @given(st.binary(max_size=400))
    def test_any_octets_are_packets_or_malformed(self, octets: bytes) -> None:
        try:
            found = wire.read_packets(octets)
        except MalformedMessage:
            return
        assert b"".join(packet.raw for packet in found) == octets

    def test_partial_lengths_are_joined(self) -> None:
        body = bytes(range(256)) * 6
        pieces = [body[:512], body[512:1024], body[1024:]]
        (packet,) = wire.read_packets(partial(wire.LITERAL, pieces))
        assert packet.body == body

    @pytest.mark.parametrize(
        "octets",
        [
            partial(wire.SIGNATURE, [bytes(512), b""]),
            partial(wire.LITERAL, [bytes(256), b""]),
            b"\xcb\xfe" + bytes(20),
            b"\xcb\xff\xff\xff\xff\xff" + bytes(20),
            b"\xcb",
            b"\xcb\xc0",
            b"\x9b" + bytes(20),
            b"\xc0\x00",
            b"\x80\x00",
            b"\x00",
            b"\x8b",
        ],
    )
    def test_what_is_no_packet_is_malformed(self, octets: bytes) -> None:
        with pytest.raises(MalformedMessage):
            wire.read_packets(octets)

    def test_the_older_format_is_read(self) -> None:
        for octets in (b"\x88\x01x", b"\x89\x00\x01x", b"\x8a\x00\x00\x00\x01x"):
            assert [(p.tag, p.body, p.raw) for p in wire.read_packets(octets)] == [(wire.SIGNATURE, b"x", octets)]
        assert wire.read_packets(b"\xafxyz")[0].body == b"xyz"

    def test_packets_are_counted_before_they_are_kept(self) -> None:
        with pytest.raises(MalformedMessage, match="more than 100") as caught:
            wire.read_packets(b"\xca\x03PGP" * 101)
        assert caught.value.hint == "size"

    def test_pieces_without_end_are_refused(self) -> None:
        with pytest.raises(MalformedMessage, match="pieces"):
            wire.read_packets(partial(wire.LITERAL, [bytes(512), *[b"x"] * wire.MAX_PARTS, b""]))

    def test_fields_end_where_the_packet_ends(self) -> None:
        fields = wire.Fields(b"\x00\x09\x01\xff\x07")
        assert (fields.mpi(), fields.number(1)) == (b"\x01\xff", 7)
        with pytest.raises(MalformedMessage, match="ends inside"):
            fields.take(1)


class TestArmor:
    @given(st.binary(min_size=1, max_size=3000).map(lambda data: b"\xc2" + data))
    def test_what_pysequoia_armors_is_read(self, octets: bytes) -> None:
        armor = pysequoia.armor(octets, pysequoia.ArmorKind.Signature).encode()
        for text in (armor, armor.replace(b"\n", b"\r\n"), b"\r\n" + armor + b" \r\n\r\n"):
            assert wire.dearmor(text, (b"SIGNATURE",)) == octets
        assert wire.dearmor(octets, ()) == octets

    @given(st.binary(max_size=300).map(lambda data: b"-----BEGIN PGP SIGNATURE-----\n" + data))
    def test_any_octets_are_armor_or_malformed(self, text: bytes) -> None:
        try:
            wire.dearmor(text, (b"SIGNATURE",))
        except MalformedMessage:
            return
        assert text.rstrip(b" \t\r\n").endswith(b"-----END PGP SIGNATURE-----")


@cache
def objects() -> list[bytes]:
    """One of each kind, the same for a whole run."""
    signature = wire.dearmor(openpgp.sign_detached(b"x", person()), (b"SIGNATURE",))
    return [signature, person().certificate, person().secret, encrypted(literal(b"x"), person())]


@given(st.integers(0, 3), st.integers(0, 4095), st.integers(0, 40), st.binary(max_size=20))
def test_a_changed_object_never_raises_anything_unforeseen(number: int, place: int, cut: int, other: bytes) -> None:
    """Signatures, certificates, keys and messages with one piece put elsewhere (issue 4: malformed packets of any kind).

    What is drawn does not depend on the objects: their lengths differ from run to run."""
    whole = objects()[number]
    at = place % len(whole)
    octets = whole[:at] + other + whole[at + cut :]
    try:
        openpgp.signers_of(b"x", octets, trusting(person()), now())
    except (SignatureFailed, UnknownSigner, UnknownAlgorithm):
        pass
    for read in (openpgp.read_certificates, openpgp.read_identity):
        try:
            read(octets)
        except SecurityError:
            pass
    try:
        openpgp.open_message(octets, [person()], trusting(person()), now())
    except (SecurityError, MalformedMessage):
        pass
    try:
        inside(octets)
    except FAILURES:
        pass


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_a_signature_holds_over_its_own_octets_only(content: bytes, other: bytes) -> None:
    signature = openpgp.sign_detached(content, person())
    assert openpgp.signers_of(content, signature, trusting(person()), now())
    if other != content:
        with pytest.raises(SignatureFailed):
            openpgp.signers_of(other, signature, trusting(person()), now())


@given(st.binary(max_size=5000))
def test_what_is_sealed_opens_to_the_same_octets(content: bytes) -> None:
    """SEED-2: no octet is made anew."""
    for signer in (None, person()):
        sealed = openpgp.seal(content, [person().certificate], signer, when=now())
        opened, signers = openpgp.open_message(sealed, [person()], trusting(person()), now())
        assert opened.entity == content
        assert len(signers) == (signer is not None)
