"""OpenPGP keys, signatures and the MIME around them (SEC-39; RFC 3156, RFC 1847)."""

from __future__ import annotations

from datetime import timedelta
from functools import cache

import pysequoia
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.cpim.address import Address
from comity.cpim.entity import decode_transfer, multipart_parts, split_entity
from comity.cpim.operations import MimeObject
from comity.errors import SecurityError
from comity.secure import (
    Identity,
    LocalCa,
    TrustStore,
    VerdictKind,
    decrypt,
    encrypt,
    new_identity,
    openpgp,
    openpgp_mime,
    sign,
)
from comity.secure import openpgp_packets as wire
from comity.secure.evidence import SignatureFailed, TooLarge, UnknownSigner
from comity.secure.openpgp import PgpIdentity
from comity.secure.openpgp_certs import NOTATION
from tests.secure import kit
from tests.secure.pgpkit import judged, message, now, person, trusting


def certified(*user_ids: str, **more: object) -> PgpIdentity:
    """A key with exactly these User IDs."""
    tsk = pysequoia.Tsk.generate(user_ids=user_ids, **more)  # type: ignore[arg-type]  # keyword table
    return openpgp.read_identity(bytes(tsk), kit.ALICE)


class TestKeys:
    def test_a_new_key_proves_all_addresses_of_its_owner_and_ends_in_time(self) -> None:
        """SEC-17 for OpenPGP."""
        when = now()
        (certificate,) = openpgp.read_certificates(openpgp.new_identity(kit.ALICE, when=when, days=30).certificate)
        assert certificate.addresses == (
            "im:alice@a.test",
            "pres:alice@a.test",
            "sip:alice@a.test",
            "xmpp:alice@a.test",
        )
        assert certificate.title == "im:alice@a.test"
        assert certificate.expires is not None
        assert abs(certificate.expires - (when + timedelta(days=30))) < timedelta(seconds=5)
        assert not certificate.is_revoked

    def test_a_private_key_is_written_and_read_under_a_passphrase(self) -> None:
        alice = person()
        closed = alice.to_bytes("a long one")
        assert alice.secret not in closed
        assert closed.startswith(b"-----BEGIN PGP MESSAGE-----")
        assert PgpIdentity.from_bytes(closed, passphrase="a long one") == alice
        with pytest.raises(SecurityError, match="passphrase is wrong"):
            PgpIdentity.from_bytes(closed, passphrase="another")
        assert PgpIdentity.from_bytes(alice.to_bytes()) == alice

    def test_a_private_key_does_not_print_itself(self) -> None:
        assert person().secret.hex()[:40] not in repr(person())
        assert "secret" not in repr(person())

    def test_a_private_key_is_no_certificate(self) -> None:
        with pytest.raises(SecurityError, match="private OpenPGP key, not a certificate"):
            openpgp.read_certificates(person().secret)
        with pytest.raises(SecurityError, match="exactly one private"):
            openpgp.read_identity(person().certificate)

    @pytest.mark.parametrize(
        ("user_id", "expected"),
        [
            ("im:alice@a.test", ("im:alice@a.test",)),
            ("Alice <im:alice@a.test>", ("im:alice@a.test",)),
            ("<im:alice@a.test>", ("im:alice@a.test",)),
            ("Alice (phone) <IM:alice@A.test>", ("im:alice@a.test",)),
            ("pres:alice@a.test", ("pres:alice@a.test",)),
            ("xmpp:alice@a.test", ("xmpp:alice@a.test",)),
            ("alice@a.test", ()),
            ("Alice <alice@a.test>", ()),
            ("mailto:alice@a.test", ()),
            ("im:alice@a.test <mallory@e.test>", ()),
            ("<im:alice@a.test> <mallory@e.test>", ()),
            ("<im:eve@e.test> <im:alice@a.test>", ()),
            ("<im:alice@a.test> eve", ()),
            ("im:alice@a.test\x1b[2K", ()),
            ("im:alice@a.test\0", ()),
            ("im:alice@a.test\n", ()),
            ("im:ali\u202ece@a.test", ()),
        ],
    )
    def test_only_an_address_uri_in_a_user_id_proves_an_address(self, user_id: str, expected: tuple[str, ...]) -> None:
        """SEC-17, M-44: a mail address is not an im: address."""
        (certificate,) = openpgp.read_certificates(certified(user_id).certificate)
        assert certificate.addresses == expected
        assert certificate.title.isprintable()

    def test_a_notation_of_the_self_signature_proves_an_address(self) -> None:
        tsk = pysequoia.Tsk.generate(user_ids=["Alice <alice@mail.test>"])
        notes = [pysequoia.Notation(NOTATION, "im:alice@a.test"), pysequoia.Notation("x@y.test", "im:eve@e.test")]
        cert = tsk.extract_certificate().set_notations(tsk.certifier(), notes)
        (certificate,) = openpgp.read_certificates(bytes(cert))
        assert certificate.addresses == ("im:alice@a.test",)

    def test_a_user_id_without_a_self_signature_proves_nothing(self) -> None:
        """Anybody can put packets into a certificate on its way."""
        packets = wire.read_packets(person().certificate)
        forged = wire.packet(wire.USER_ID, b"im:boss@a.test")
        index = next(i for i, packet in enumerate(packets) if packet.tag == wire.USER_ID)
        for stolen in (b"", packets[index + 1].raw):
            octets = b"".join(packet.raw for packet in packets[:index]) + forged + stolen
            octets += b"".join(packet.raw for packet in packets[index:])
            (certificate,) = openpgp.read_certificates(octets)
            assert "im:boss@a.test" not in certificate.addresses
            assert "im:alice@a.test" in certificate.addresses

    def test_certificates_beyond_the_limits_are_refused(self) -> None:
        """M-35: 64 KiB and 100 packets."""
        packets = [packet.raw for packet in wire.read_packets(person().certificate)]
        with pytest.raises(TooLarge, match="100 packets"):
            openpgp.read_certificates(b"".join(packets) + packets[-1] * 100)
        user_id = wire.packet(wire.USER_ID, b"x" * 60_000)
        with pytest.raises(TooLarge, match="64 KiB"):
            openpgp.read_certificates(b"".join(packets) + user_id + user_id)
        with pytest.raises(TooLarge, match="larger than"):
            openpgp.read_certificates(b"\x99" * (1024 * 1024 + 1))

    @pytest.mark.parametrize(("modulus", "exponent"), [(8200, 17), (2048, 2048)])
    def test_keys_that_cost_too_much_are_refused(self, modulus: int, exponent: int) -> None:
        """M-26: before anything is computed with them."""
        numbers = b"".join(bits.to_bytes(2, "big") + b"\xff" * ((bits + 7) // 8) for bits in (modulus, exponent))
        key = wire.packet(wire.PUBLIC_KEY, b"\x04" + bytes(4) + b"\x01" + numbers)
        with pytest.raises(TooLarge, match="bits"):
            openpgp.read_certificates(key)

    def test_several_certificates_are_read_from_one_file(self) -> None:
        bob = person(kit.BOB)
        found = openpgp.read_certificates(person().certificate + bob.certificate)
        assert [certificate.fingerprint for certificate in found] == [person().fingerprint, bob.fingerprint]


class TestSignatures:
    def test_a_signature_holds_over_exactly_its_octets(self) -> None:
        signature = openpgp.sign_detached(b"one\r\n", person())
        (signer,) = openpgp.signers_of(b"one\r\n", signature, trusting(person()), now())
        assert (signer.technology, signer.distrust, signer.is_pinned) == ("openpgp", "", True)
        assert signer.fingerprint == person().fingerprint
        for other in (b"one\n", b"one", b"one\r\n ", b"", b"two\r\n"):
            with pytest.raises(SignatureFailed):
                openpgp.signers_of(other, signature, trusting(person()), now())

    def test_a_key_is_untrusted_until_it_is_pinned(self) -> None:
        """M-36: a User ID is a claim of whoever made the key."""
        trust = TrustStore(openpgp_known=(person().certificate,))
        (signer,) = openpgp.signers_of(b"x", openpgp.sign_detached(b"x", person()), trust, now())
        assert (signer.distrust_code, signer.is_pinned) == ("unknown-ca", False)
        assert "im:alice@a.test" in signer.distrust

    def test_an_unknown_key_is_said_to_be_unknown(self) -> None:
        with pytest.raises(UnknownSigner, match="not known here"):
            openpgp.signers_of(b"x", openpgp.sign_detached(b"x", person()), trusting(person(kit.BOB)), now())

    def test_a_revoked_key_is_not_trusted_even_where_an_older_version_is_pinned(self) -> None:
        signature = openpgp.sign_detached(b"x", person())
        revoked = openpgp.revoke(person())
        for trust in (
            TrustStore(openpgp_pinned=(revoked,)),
            TrustStore(openpgp_pinned=(person().certificate,), openpgp_known=(revoked,)),
        ):
            (signer,) = openpgp.signers_of(b"x", signature, trust, now())
            assert signer.distrust_code == "revoked"

    def test_a_key_that_has_expired_since_is_not_trusted(self) -> None:
        """Who keeps an expired key could write any time into a signature: what counts is now."""
        signature = openpgp.sign_detached(b"x", person())
        later = now() + timedelta(days=1000)
        (signer,) = openpgp.signers_of(b"x", signature, trusting(person()), later)
        assert signer.distrust_code == "expired"
        assert signer.not_after is not None
        assert signer.not_after < later

    def test_a_distrusted_key_stays_distrusted(self) -> None:
        trust = TrustStore(openpgp_pinned=(person().certificate,), distrusted=frozenset({person().fingerprint}))
        (signer,) = openpgp.signers_of(b"x", openpgp.sign_detached(b"x", person()), trust, now())
        assert signer.distrust_code == "distrusted"


class TestMultipartSigned:
    def test_a_signed_message_is_valid_for_who_pinned_the_key(self) -> None:
        """SEC-39, SEED-2."""
        obj = sign(message(), person(), when=now())
        verdict = judged(obj)
        assert (verdict.verdict, verdict.signer) == (VerdictKind.VALID, "im:alice@a.test")
        assert 'protocol="application/pgp-signature"; micalg=pgp-sha512' in obj.content_type
        assert judged(obj, TrustStore(openpgp_known=(person().certificate,))).verdict is VerdictKind.UNTRUSTED
        assert judged(obj, TrustStore()).verdict is VerdictKind.NOT_CHECKED

    def test_a_signature_by_another_is_not_the_senders(self) -> None:
        """SEED-52."""
        eve = person(kit.EVE)
        verdict = judged(sign(message(), eve, when=now()), trusting(eve))
        assert verdict.verdict is VerdictKind.SIGNED_BY_OTHER

    @pytest.mark.parametrize(
        "content",
        [
            "Grüße, Watson.\r\n".encode(),
            bytes(range(256)),
            b"From here on\r\n",
            b"white space \r\n",
            b"x" * 2000,
            b"\r\r\n",
        ],
    )
    def test_what_is_not_seven_bits_wide_is_put_under_a_transfer_encoding(self, content: bytes) -> None:
        """RFC 3156 section 3, X34: the encoding goes around the object, whose octets stay."""
        kind = "text/plain; charset=utf-8" if content[:2] == b"Gr" else "application/octet-stream"
        obj = message(content, content_type=kind)
        signed = sign(obj, person(), when=now())
        first = split_entity(multipart_parts(signed)[0])
        assert decode_transfer(first) == obj.octets
        assert max(first.entity) < 0x80
        assert not any(
            line.endswith((b" ", b"\t")) or line.startswith(b"From ") for line in first.octets.split(b"\r\n")
        )
        assert all(len(line) <= 998 for line in first.octets.split(b"\r\n"))
        assert judged(signed).verdict is VerdictKind.VALID

    def test_what_is_seven_bits_wide_stands_unchanged(self) -> None:
        obj = message()
        assert multipart_parts(sign(obj, person(), when=now()))[0] == obj.entity

    def test_line_ends_are_made_canonical_before_verifying(self) -> None:
        """RFC 3156 section 5: a mail transport may have changed them; what is shown is what the signature covers."""
        obj = message()
        signed = sign(obj, person(), when=now())
        changed = signed.octets.replace(obj.entity, obj.entity.replace(b"\r\n", b"\n"))
        verdict = judged(MimeObject(signed.header_block, changed))
        assert verdict.verdict is VerdictKind.VALID
        assert verdict.content == obj

    @pytest.mark.parametrize("micalg", ["pgp-sha256", "sha512", "pgp-sha1", "pgp-sha512,pgp-sha256"])
    def test_a_micalg_that_disagrees_with_the_signature_is_an_error(self, micalg: str) -> None:
        """SEC-4: exactly one hash symbol, and the right one."""
        signed = sign(message(), person(), when=now())
        header = signed.header_block.replace(b"micalg=pgp-sha512", f'micalg="{micalg}"'.encode())
        assert judged(MimeObject(header, signed.octets)).verdict is VerdictKind.BAD_SIGNATURE

    def test_one_changed_octet_breaks_it(self) -> None:
        signed = sign(message(), person(), when=now())
        changed = signed.octets.replace(b"Watson", b"watson")
        assert judged(MimeObject(signed.header_block, changed)).verdict is VerdictKind.BAD_SIGNATURE

    def test_parts_that_are_not_seven_bits_wide_are_refused(self) -> None:
        raw = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n\xe9\r\n--b--\r\n"
        with pytest.raises(SecurityError, match="not 7 bits wide"):
            sign(raw, person(), when=now())
        with pytest.raises(SecurityError, match="plain ASCII"):
            sign(b"Content-Type: text/plain; x=\xc3\xa9\r\n\r\nx", person(), when=now())

    def test_an_expired_key_does_not_sign(self) -> None:
        with pytest.raises(SecurityError, match="expired already"):
            openpgp.new_identity(Address.parse("im:old@a.test"), when=now() - timedelta(days=30), days=20)


class TestSealed:
    """RFC 3156 sections 4 and 6: what the recipient's verdict is."""

    def sealed(self, obj: MimeObject | None = None, **how: object) -> MimeObject:
        recipients = openpgp.read_certificates(person(kit.BOB).certificate)
        return encrypt(obj or message(), recipients, when=now(), **how)  # type: ignore[arg-type]  # keyword table

    @pytest.mark.parametrize("is_combined", [True, False])
    def test_signed_and_encrypted_is_valid_for_the_recipient(self, is_combined: bool) -> None:
        """SEC-16: both forms."""
        obj = message("Grüße.\r\n".encode())
        sealed = self.sealed(obj, signer=person(), is_combined=is_combined)
        assert "Grüße".encode() not in sealed.octets
        assert sealed.content_type.startswith('multipart/encrypted; protocol="application/pgp-encrypted"')
        verdict = judged(sealed, keys=[person(kit.BOB)])
        assert (verdict.verdict, verdict.signer) == (VerdictKind.VALID, "im:alice@a.test")
        assert verdict.content is not None
        assert decode_transfer(verdict.content) == obj.octets

    def test_encrypted_alone_proves_no_sender(self) -> None:
        verdict = judged(self.sealed(), keys=[person(kit.BOB)])
        assert (verdict.verdict, verdict.signer) == (VerdictKind.UNSIGNED, "")

    def test_signed_inside_by_another_is_not_the_senders(self) -> None:
        eve = person(kit.EVE)
        verdict = judged(self.sealed(signer=eve), trusting(person(), eve), keys=[person(kit.BOB)])
        assert verdict.verdict is VerdictKind.SIGNED_BY_OTHER

    def test_without_a_key_it_is_only_named(self) -> None:
        assert judged(self.sealed(signer=person())).verdict is VerdictKind.ENCRYPTED
        assert judged(self.sealed(signer=person()), keys=[person(kit.EVE)]).verdict is VerdictKind.NO_KEY

    def test_the_two_technologies_nest(self) -> None:
        """S/MIME signed inside OpenPGP, and the other way round."""
        obj = self.sealed(signer=kit_identity())
        verdict = judged(obj, both(), keys=[person(kit.BOB)])
        assert (verdict.verdict, verdict.technology) == (VerdictKind.VALID, "smime")
        bob = new_identity(kit.BOB, when=now())
        signed = sign(message(), person(), when=now())
        verdict = judged(encrypt(signed, [bob.certificate]), both(), keys=[bob])
        assert (verdict.verdict, verdict.technology) == (VerdictKind.VALID, "openpgp")

    def test_recipients_of_both_kinds_need_an_object_each(self) -> None:
        with pytest.raises(SecurityError, match="for each kind apart"):
            encrypt(
                message(),
                [*openpgp.read_certificates(person().certificate), kit.identity().certificate],  # type: ignore[arg-type]  # what a careless caller gives
                when=now(),
            )

    def test_several_recipients_each_open_it(self) -> None:
        people = [person(), person(kit.BOB), person(kit.EVE)]
        recipients = [openpgp.read_certificates(one.certificate)[0] for one in people]
        sealed = encrypt(message(), recipients, signer=person(), when=now())
        assert {decrypt(sealed, [one]).recipient for one in people} == {one.fingerprint for one in people}


@cache
def authority() -> LocalCa:
    return LocalCa.create("Comity CA of a.test", when=now())


@cache
def kit_identity() -> Identity:
    return new_identity(kit.ALICE, when=now(), ca=authority())


def both() -> TrustStore:
    return TrustStore(anchors=(authority().certificate,), openpgp_pinned=(person().certificate,))


@given(
    st.binary(max_size=3000)
    | st.lists(st.sampled_from([b"From ", b" ", b"\t", b"\r\n", b"=", b"x" * 500, b"\xc3\xbc", b"."])).map(b"".join)
)
def test_any_octets_come_back_from_under_seven_bits(content: bytes) -> None:
    """X34: the transfer encoding gives the object's octets again, and is what RFC 3156 section 3 asks for."""
    raw = b"Content-Type: message/cpim\r\n\r\n" + content
    wrapped = split_entity(openpgp_mime.seven_bit(raw))
    assert decode_transfer(wrapped) == content
    assert wrapped.entity.isascii()
    lines = wrapped.octets.split(b"\r\n")
    assert not any(b"\r" in line or b"\n" in line or len(line) > 998 for line in lines)
    assert not any(line.endswith((b" ", b"\t")) or line.startswith(b"From ") for line in lines)
