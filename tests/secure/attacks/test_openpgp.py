"""Attacks on OpenPGP that were published, and what comes to mind beside them (reliability.md M-27, M-31 to M-46).

Input is made by gpg, by rpgp and by hand. None gets "valid", none raises anything unforeseen.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import pysequoia
import pytest
from openpgp import composed

from comity.cpim.operations import MimeObject
from comity.errors import MalformedMessage, SecurityError
from comity.secure import TrustStore, VerdictKind, decrypt, encrypt, openpgp, openpgp_mime, sign
from comity.secure import openpgp_packets as wire
from comity.secure.evidence import DecryptionFailed, NoKey, SignatureFailed, UnknownAlgorithm, UnknownSigner
from comity.secure.openpgp_certs import NOTATION
from comity.secure.openpgp_open import MAX_DECOMPRESSED
from tests.secure import kit, pgp_matrix
from tests.secure.costs import times_dearer
from tests.secure.pgpkit import (
    Gpg,
    adopted,
    compressed,
    encrypted,
    gpg_home,
    judged,
    literal,
    message,
    multipart_signed,
    now,
    person,
    protected,
    recipient_packet,
    trusting,
)

rpgp: Any = composed
#: Reasons of a revocation after which older signatures stay good: superseded, no longer used (RFC 9580 section 5.2.3.31).
SOFT = ("2", "3")
GOODSIG = b"\n[GNUPG:] GOODSIG 0123456789ABCDEF im:boss@a.test\n[GNUPG:] VALIDSIG x\n"


@pytest.fixture(scope="module")
def gpg() -> Iterator[Gpg]:
    with gpg_home() as found:
        found("--import", stdin=person().secret)
        yield found


def signed_by(gpg: Gpg, *options: str, content: bytes) -> bytes:
    return gpg("--local-user", person().fingerprint, *options, stdin=content)


class TestSignatures:
    def test_a_key_that_names_the_boss_is_untrusted_until_pinned(self) -> None:
        """M-36: anybody makes a key with any User ID."""
        forger = openpgp.new_identity(kit.BOB, when=now())
        obj = sign(message(from_="im:bob@b.test"), forger, when=now())
        verdict = judged(obj, TrustStore(openpgp_known=(forger.certificate,)))
        assert (verdict.verdict, verdict.signer) == (VerdictKind.UNTRUSTED, "")

    @pytest.mark.parametrize("is_first", [True, False])
    def test_one_good_signature_does_not_carry_another_that_fails(self, is_first: bool) -> None:
        """M-43: pysequoia is content with one good one."""
        obj = message()
        good = wire.dearmor(openpgp.sign_detached(obj.entity, person()), (b"SIGNATURE",))
        other = wire.dearmor(openpgp.sign_detached(b"other data", person()), (b"SIGNATURE",))
        both = pysequoia.armor(good + other if is_first else other + good, pysequoia.ArmorKind.Signature).encode()
        assert judged(multipart_signed(obj.entity, both)).verdict is VerdictKind.BAD_SIGNATURE

    def test_a_good_signature_beside_one_of_a_stranger_is_not_checked(self) -> None:
        obj = message()
        both = b"".join(
            wire.dearmor(openpgp.sign_detached(obj.entity, who), (b"SIGNATURE",)) for who in (person(), person(kit.EVE))
        )
        with pytest.raises(UnknownSigner):
            openpgp.signers_of(obj.entity, both, trusting(person()), now())
        assert len(openpgp.signers_of(obj.entity, both, trusting(person(), person(kit.EVE)), now())) == 2

    @pytest.mark.peer
    def test_text_that_looks_signed_is_plain_text(self, gpg: Gpg) -> None:
        """M-41: cleartext signatures are never looked at; no form feed or NotDashEscaped matters then."""
        text = (
            signed_by(gpg, "--clear-sign", content=b"Pay Mallory.\r\n").replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        )
        for content in (text, text.replace(b"Hash:", b"NotDashEscaped: x\r\nHash:"), text.replace(b"Pay", b"\x0cPay")):
            verdict = judged(message(content))
            assert (verdict.verdict, verdict.signer) == (VerdictKind.UNSIGNED, "")
            obj = message()
            assert judged(multipart_signed(obj.entity, content)).verdict is VerdictKind.BAD_SIGNATURE

    @pytest.mark.parametrize(
        "options", [["--sign"], ["--sign", "--armor"], ["--sign", "--compress-algo", "none"], ["--store"]]
    )
    @pytest.mark.peer
    def test_an_inline_signed_message_is_no_detached_signature(self, gpg: Gpg, options: list[str]) -> None:
        """M-42: it would be good, over a content of its own."""
        obj = message()
        inline = signed_by(gpg, *options, content=obj.entity)
        with pytest.raises(SignatureFailed, match=r"something else stands|cannot be read"):
            openpgp.signers_of(obj.entity, inline, trusting(person()), now())

    def test_a_certificate_is_no_signature(self) -> None:
        with pytest.raises(SignatureFailed, match="something else stands"):
            openpgp.signers_of(b"x", person().certificate, trusting(person()), now())

    def test_a_signature_over_a_key_or_name_is_none_over_a_document(self) -> None:
        """The self-signatures of a certificate are known to everybody."""
        for packet in wire.read_packets(person().certificate):
            if packet.tag == wire.SIGNATURE:
                with pytest.raises(SignatureFailed):
                    openpgp.signers_of(b"", packet.raw, trusting(person()), now())

    def test_nobody_adopts_the_signing_key_of_another(self) -> None:
        """Eve binds Alice's subkey to her own certificate: without Alice's consent in it (RFC 9580 section 5.2.1.9)."""
        (alice,) = openpgp.read_certificates(person().certificate)
        signing, encryption = (wire.read_packets(key.packet.raw)[0] for key in alice.keys[1:])
        eve = person(kit.EVE)
        signature = openpgp.sign_detached(b"x", person())
        assert openpgp.seal(b"x", [adopted(eve, encryption, 0x0C)], when=now()), "the forger is able"
        with pytest.raises(SignatureFailed):
            openpgp.signers_of(b"x", signature, TrustStore(openpgp_pinned=(adopted(eve, signing, 0x02),)), now())
        both = TrustStore(openpgp_pinned=(adopted(eve, signing, 0x02), person().certificate))
        (signer,) = openpgp.signers_of(b"x", signature, both, now())
        assert signer.fingerprint == person().fingerprint

    @pytest.mark.parametrize("digest", ["SHA1", "RIPEMD160"])
    @pytest.mark.peer
    def test_weak_hashes_are_not_checked(self, gpg: Gpg, digest: str) -> None:
        """SEC-11: nothing can be concluded from them."""
        signature = signed_by(gpg, "--digest-algo", digest, "--detach-sign", content=b"x")
        with pytest.raises(UnknownAlgorithm, match="proves nothing"):
            openpgp.signers_of(b"x", signature, trusting(person()), now())

    @pytest.mark.parametrize(("kind", "text"), [("rsa1024", "1024 bits"), ("dsa1024", "DSA")])
    @pytest.mark.peer
    def test_weak_keys_are_not_checked(self, gpg: Gpg, kind: str, text: str) -> None:
        certificate = gpg.new_key(f"{kind} <im:{kind}@a.test>", kind=kind, subkey="")
        sign_as = ["--local-user", f"{kind} <im:{kind}@a.test>", "--digest-algo", "SHA256"]
        signature = gpg(*sign_as, "--detach-sign", stdin=b"x")
        with pytest.raises(UnknownAlgorithm, match=text):
            openpgp.signers_of(b"x", signature, TrustStore(openpgp_pinned=(certificate,)), now())

    @pytest.mark.peer
    def test_a_text_signature_covers_canonical_text_only(self, gpg: Gpg) -> None:
        """Its hash is the same over LF and CR LF: octets that differ from what the signer wrote are not taken."""
        signature = signed_by(gpg, "--textmode", "--detach-sign", content=b"one\r\ntwo\r\n")
        assert openpgp.signers_of(b"one\r\ntwo\r\n", signature, trusting(person()), now())
        for other in (b"one\ntwo\n", b"one\r\ntwo\n", b"one\rtwo\r\n"):
            with pytest.raises(SignatureFailed):
                openpgp.signers_of(other, signature, trusting(person()), now())

    @pytest.mark.parametrize(
        "user_id", ["im:alice@a.test\x1b[2K\x1b[1A", "\x1b]0;im:boss@a.test\x07", GOODSIG.decode()]
    )
    def test_control_characters_in_names_reach_no_terminal(self, user_id: str) -> None:
        """M-39, M-40, M-44."""
        tsk = pysequoia.Tsk.generate(user_ids=[user_id])
        cert = tsk.extract_certificate().set_notations(
            tsk.certifier(), [pysequoia.Notation(NOTATION, "im:boss@a.test" + GOODSIG.decode())]
        )
        signature = pysequoia.sign(tsk.signer(), message().entity, mode=pysequoia.SignatureMode.DETACHED)
        trust = TrustStore(openpgp_pinned=(bytes(cert),))
        obj = message()
        (signer,) = openpgp.signers_of(
            obj.entity, pysequoia.sign(tsk.signer(), obj.entity, mode=pysequoia.SignatureMode.DETACHED), trust, now()
        )
        assert signer.names == ()
        assert signer.title.isprintable()
        assert judged(multipart_signed(message().entity, signature), trust).reason.isprintable()

    @pytest.mark.peer
    def test_what_a_signature_says_of_its_signer_proves_nothing(self, gpg: Gpg) -> None:
        """M-40: notations and the signer's User ID in a signature are put there by whoever signs."""
        options = ["--sig-notation", f"{NOTATION}=im:boss@a.test", "--digest-algo", "SHA512"]
        obj = message(from_="im:boss@a.test")
        signature = signed_by(gpg, "--armor", *options, "--detach-sign", content=obj.entity)
        (signer,) = openpgp.signers_of(obj.entity, signature, trusting(person()), now())
        assert [str(name) for name in signer.names if name.scheme == "im"] == ["im:alice@a.test"]
        verdict = judged(multipart_signed(obj.entity, signature))
        assert (verdict.verdict, verdict.signer) == (VerdictKind.SIGNED_BY_OTHER, "im:alice@a.test")

    def test_two_threads_with_different_keyrings_do_not_mix(self) -> None:
        """M-46."""
        alice, eve = person(), person(kit.EVE)
        wrong: list[str] = []

        def run(mine: openpgp.PgpIdentity, other: openpgp.PgpIdentity) -> None:
            signature, foreign = openpgp.sign_detached(b"x", mine), openpgp.sign_detached(b"x", other)
            for _ in range(50):
                (signer,) = openpgp.signers_of(b"x", signature, trusting(mine), now())
                if signer.fingerprint != mine.fingerprint:
                    wrong.append("another signer")
                try:
                    openpgp.signers_of(b"x", foreign, trusting(mine), now())
                    wrong.append("a key of the other keyring")
                except UnknownSigner:
                    pass

        threads = [threading.Thread(target=run, args=pair) for pair in ((alice, eve), (eve, alice)) * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert wrong == []
        assert not any(thread.is_alive() for thread in threads)


@pytest.mark.peer
class TestSubkeys:
    """M-37, in keys of gpg with its clock moved."""

    def key(self, gpg: Gpg) -> tuple[str, str]:
        """A key of last year with a subkey that signs; fingerprints of both."""
        then = ["--faked-system-time", "20250101T000000!"]
        user_id = f"subkeys {time.monotonic_ns()} <im:alice@a.test>"
        gpg(*then, "--quick-generate-key", user_id, "ed25519", "cert", "never")
        primary = gpg.fingerprint(user_id)
        gpg(*then, "--quick-add-key", primary, "ed25519", "sign", "never")
        lines = gpg("--with-colons", "--list-keys", primary).decode().splitlines()
        return primary, [line.split(":")[9] for line in lines if line.startswith("fpr:")][1]

    def sign(self, gpg: Gpg, subkey: str, *options: str) -> bytes:
        return gpg(*options, "--local-user", f"{subkey}!", "--detach-sign", stdin=b"x")

    def check(self, gpg: Gpg, primary: str, signature: bytes) -> Any:
        trust = TrustStore(openpgp_pinned=(gpg("--export", primary),))
        return openpgp.signers_of(b"x", signature, trust, now())[0]

    def test_a_good_subkey_signs(self, gpg: Gpg) -> None:
        primary, subkey = self.key(gpg)
        assert self.check(gpg, primary, self.sign(gpg, subkey)).distrust == ""

    def test_a_signature_made_after_its_subkey_expired_does_not_hold(self, gpg: Gpg) -> None:
        primary, subkey = self.key(gpg)
        signature = self.sign(gpg, subkey)
        gpg("--faked-system-time", "20250102T000000!", "--quick-set-expire", primary, "1d", subkey)
        with pytest.raises(SignatureFailed):
            self.check(gpg, primary, signature)

    def test_who_keeps_an_expired_subkey_cannot_date_back(self, gpg: Gpg) -> None:
        """pysequoia takes it: the key was good when the signature says it was made."""
        primary, subkey = self.key(gpg)
        signature = self.sign(gpg, subkey, "--faked-system-time", "20250103T000000!")
        gpg("--faked-system-time", "20250102T000000!", "--quick-set-expire", primary, "5d", subkey)
        assert self.check(gpg, primary, signature).distrust_code == "expired"

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            (["--faked-system-time", "20990101T000000!"], "not over this content"),
            (["--faked-system-time", "20250103T000000!", "--default-sig-expire", "1d"], "expired on 2025-01-04"),
        ],
    )
    def test_a_signature_holds_in_its_time_only(self, gpg: Gpg, options: list[str], text: str) -> None:
        """Not made in the future, and not after the day it was made for."""
        primary, subkey = self.key(gpg)
        signature = self.sign(gpg, subkey, *options)
        with pytest.raises(SignatureFailed, match=text):
            self.check(gpg, primary, signature)

    @pytest.mark.parametrize("reason", ["0", "1", "2", "3"])
    @pytest.mark.parametrize("is_dated_back", [True, False])
    def test_a_revoked_subkey_does_not_sign(self, gpg: Gpg, reason: str, is_dated_back: bool) -> None:
        """Whatever the reason: compromised (hard), superseded or retired (soft); before or after."""
        primary, subkey = self.key(gpg)
        options = ["--faked-system-time", "20250103T000000!"] if is_dated_back else []
        signature = self.sign(gpg, subkey, *options)
        commands = f"key 1\nrevkey\ny\n{reason}\n\ny\nsave\n".encode()
        then = ["--faked-system-time", "20250104T000000!"]
        gpg(*then, "--no-batch", "--command-fd", "0", "--edit-key", primary, stdin=commands)
        if reason in SOFT and is_dated_back:
            assert self.check(gpg, primary, signature).distrust_code == "revoked"
        else:
            with pytest.raises(SignatureFailed, match="revoked"):
                self.check(gpg, primary, signature)


ARMOR_TRICKS: dict[str, Callable[[bytes], bytes]] = {
    "text before": lambda armor: b"Good signature from im:boss@a.test\r\n" + armor,
    "text after": lambda armor: armor + b"Good signature\r\n",
    "two blocks": lambda armor: armor + armor,
    "form feed": lambda armor: armor.replace(b"\r\n\r\n", b"\r\n\x0c\r\n", 1),
    "form feed inside": lambda armor: armor[:120] + b"\x0c" + armor[120:],
    "NUL inside": lambda armor: armor[:120] + b"\0" + armor[120:],
    "another end": lambda armor: armor.replace(b"END PGP SIGNATURE", b"END PGP MESSAGE"),
    "another kind": lambda armor: armor.replace(b"PGP SIGNATURE", b"PGP PUBLIC KEY BLOCK"),
    "no end": lambda armor: armor.partition(b"-----END")[0],
    "no empty line": lambda armor: armor.replace(b"\r\n\r\n", b"\r\n", 1),
    "dashes": lambda armor: armor.replace(b"-----BEGIN", b"- -----BEGIN"),
    "Unicode dashes": lambda armor: armor.replace(b"-----BEGIN", "\u2010----BEGIN".encode()),
    "nothing": lambda armor: b"",
    "only armor": lambda armor: b"-----BEGIN PGP SIGNATURE-----\r\n\r\n-----END PGP SIGNATURE-----\r\n",
    "padding inside": lambda armor: armor[:120] + b"====" + armor[120:],
}


class TestArmor:
    @pytest.mark.parametrize("trick", ARMOR_TRICKS)
    def test_armor_is_one_block_and_nothing_else(self, trick: str) -> None:
        obj = message()
        armor = openpgp.sign_detached(obj.entity, person()).replace(b"\n", b"\r\n")
        assert judged(multipart_signed(obj.entity, armor)).verdict is VerdictKind.VALID
        changed = ARMOR_TRICKS[trick](armor)
        assert changed != armor
        assert judged(multipart_signed(obj.entity, changed)).verdict is VerdictKind.BAD_SIGNATURE

    def test_a_wrong_checksum_changes_nothing(self) -> None:
        """RFC 9580 section 6.1: it MUST NOT be a reason to reject; the signature protects itself."""
        obj = message()
        armor = openpgp.sign_detached(obj.entity, person())
        before, _, after = armor.rpartition(b"\n=")
        for changed in (before + b"\n=AAAA" + after[4:], before + after[4:]):
            assert judged(multipart_signed(obj.entity, changed)).verdict is VerdictKind.VALID

    def test_armor_headers_mean_nothing(self) -> None:
        obj = message()
        armor = openpgp.sign_detached(obj.entity, person()).replace(
            b"SIGNATURE-----\n\n", b"SIGNATURE-----\nComment: im:boss@a.test\nHash: SHA1\n\n"
        )
        verdict = judged(multipart_signed(obj.entity, armor))
        assert (verdict.verdict, verdict.signer) == (VerdictKind.VALID, "im:alice@a.test")


def failure(octets: bytes) -> BaseException:
    with pytest.raises(Exception) as caught:  # which one it is, is what the tests ask
        openpgp.open_octets(octets, [person()])
    return caught.value


class TestEncrypted:
    def test_what_is_made_by_hand_opens(self) -> None:
        """The forger is able: else the tests below would prove nothing."""
        assert openpgp.open_octets(encrypted(literal(b"x"), person()), [person()]).entity == b"x"
        inside = compressed(literal(b"x"), method=1)
        assert openpgp.open_octets(encrypted(inside, person()), [person()]).entity == b"x"

    def test_every_failure_has_one_text(self) -> None:
        """M-27, M-33: wrong session key, padding, MDC, structure, compression: nobody learns which."""
        session, other = b"s" * 32, b"o" * 32
        key = recipient_packet(session, person())
        data = protected(literal(b"x" * 100), session)
        v2 = wire.dearmor(openpgp.seal(b"x" * 200_000, [person().certificate], when=now()), (b"MESSAGE",))
        attacks = [
            recipient_packet(other, person()) + data,
            key[:-1] + bytes((key[-1] ^ 1,)) + data,
            *(key + data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :] for at in range(4, len(data), 7)),
            key + wire.packet(wire.SEIPD, wire.read_packets(data)[0].body[:-22]),
            key + wire.packet(wire.SEIPD, b"\x01" + bytes(10)),
            key + wire.packet(wire.SEIPD, b"\x03" + wire.read_packets(data)[0].body[1:]),
            key + wire.packet(wire.SEIPD, b"\x02" + wire.read_packets(data)[0].body[1:]),
            key + wire.packet(wire.SED, wire.read_packets(data)[0].body[1:]),
            key + wire.packet(20, wire.read_packets(data)[0].body),
            encrypted(b"", person()),
            encrypted(b"\xff" * 40, person()),
            encrypted(literal(b"x") * 2, person()),
            encrypted(compressed(literal(b"x"))[:-2], person()),
            encrypted(wire.packet(wire.COMPRESSED, b"\x09abc"), person()),
            encrypted(data, person()),
            v2[:-1] + bytes((v2[-1] ^ 1,)),
            v2[:-40] + bytes((v2[-40] ^ 1,)) + v2[-39:],
        ]
        texts = {(type(error), str(error)) for error in map(failure, attacks)}
        assert texts == {(DecryptionFailed, "The object cannot be decrypted.")}

    @pytest.mark.parametrize("kind", ["Curve25519", "P-256", "RSA 2048", "Ed25519 and X25519, version 6"])
    def test_a_thousand_failures_say_one_thing_and_none_is_quicker(self, kind: str) -> None:
        """M-33: a session key that does not come out is replaced; so the work is the same whatever is wrong."""
        reader = pgp_matrix.ours(kind)
        raw = wire.dearmor(openpgp.seal(bytes(200_000), [reader.certificate], when=now()), (b"MESSAGE",))
        key, data = wire.read_packets(raw)
        wrapped = len(key.raw)
        places = {"wrapped key": wrapped - 3, "data": wrapped + 100, "middle": wrapped + 100_000, "tag": len(raw) - 1}
        said: set[tuple[object, ...]] = set()

        def attempt(at: int) -> None:
            damaged = raw[:at] + bytes((raw[at] ^ 1,)) + raw[at + 1 :]
            try:
                openpgp.open_octets(damaged, [reader])
            except DecryptionFailed as error:
                said.add((str(error), error.__cause__, error.__context__))

        ratio, costs = times_dearer({where: partial(attempt, at) for where, at in places.items()}, limit=1.5)
        assert ratio < 1.5, costs
        assert said == {("The object cannot be decrypted.", None, None)}
        assert data.tag == wire.SEIPD

    def test_chunks_cannot_be_left_out_or_exchanged(self) -> None:
        """RFC 9580 section 5.13.2: number and total are authenticated."""
        builder = rpgp.MessageBuilder.from_bytes("", b"abcdefgh" * 100).seipd_v2("aes256", "ocb", 0)
        key = rpgp.SignedPublicKey.from_bytes(person().certificate).public_subkeys[-1]
        packets = wire.read_packets(builder.encrypt_to_key(key).to_vec())
        head, body = packets[0].raw, packets[-1].body
        start, size = 36, 64 + 16
        whole = head + wire.packet(wire.SEIPD, body)
        assert openpgp.open_octets(whole, [person()]).entity == b"abcdefgh" * 100
        chunks = [body[at : at + size] for at in range(start, len(body) - 16, size)]
        for changed in (chunks[:-1], chunks[1:], [chunks[1], chunks[0], *chunks[2:]], chunks + chunks[-1:]):
            octets = head + wire.packet(wire.SEIPD, body[:start] + b"".join(changed) + body[-16:])
            assert isinstance(failure(octets), DecryptionFailed)

    def test_who_is_not_a_recipient_is_told_so(self) -> None:
        """M-31."""
        assert isinstance(failure(encrypted(literal(b"x"), person(kit.BOB))), NoKey)

    def test_recipients_may_be_named_twice_and_anonymously_but_not_without_end(self) -> None:
        """M-31: ten tries; a thousand are not even read."""
        session = b"s" * 32
        mine, data = recipient_packet(session, person()), protected(literal(b"x"), session)
        assert openpgp.open_octets(mine + mine + data, [person()]).entity == b"x"
        nobody = recipient_packet(session, person(kit.BOB), key_id=bytes(8))
        anonymous = recipient_packet(session, person(), key_id=bytes(8))
        assert openpgp.open_octets(nobody * 9 + anonymous + data, [person()]).entity == b"x"
        assert openpgp.open_octets(nobody * 50 + mine + data, [person()]).entity == b"x"
        begin = time.process_time()
        assert isinstance(failure(nobody * 10 + anonymous + data), DecryptionFailed)
        assert isinstance(failure(nobody * 98 + data), DecryptionFailed)
        assert isinstance(failure(nobody * 1000 + data), MalformedMessage)
        assert time.process_time() - begin < 0.5

    @pytest.mark.parametrize("method", [1, 2, 3])
    def test_a_bomb_is_not_unpacked(self, method: int) -> None:
        """M-32: 16 times and 4 MiB."""
        begin = time.process_time()
        for size in (300_000, MAX_DECOMPRESSED + 1, 100_000_000):
            bomb = encrypted(compressed(literal(bytes(size)), method=method), person())
            start = time.process_time()
            assert isinstance(failure(bomb), DecryptionFailed)
            assert time.process_time() - start < 0.5
        assert time.process_time() - begin < 30

    def test_what_unpacks_to_itself_is_not_followed(self) -> None:
        """M-32: packets of compressed packets, such as the quine, end at the second."""
        inside = literal(b"x")
        for _ in range(2):
            inside = compressed(inside)
        assert isinstance(failure(encrypted(inside, person())), DecryptionFailed)
        # A stored deflate block may hold a copy of the whole; it stays one level all the same.
        assert isinstance(failure(encrypted(compressed(compressed(b"")), person())), DecryptionFailed)

    def test_signatures_inside_must_be_in_order(self) -> None:
        """One content, one-pass headers and signatures in equal number, all over that content."""
        signature = wire.dearmor(openpgp.sign_detached(b"x", person()), (b"SIGNATURE",))
        head = wire.packet(wire.ONE_PASS, b"\x03\x00\x0a\x16" + bytes(8) + b"\x01")
        first = wire.packet(wire.ONE_PASS, b"\x03\x00\x0a\x16" + bytes(8) + b"\x00")
        good = head + literal(b"x") + signature
        opened, signers = openpgp.open_message(encrypted(good, person()), [person()], trusting(person()), now())
        assert (opened.entity, [one.distrust for one in signers]) == (b"x", [""])
        for wrong in (
            head + literal(b"x"),
            literal(b"x") + signature,
            head + literal(b"x") + signature * 2,
            head + head + literal(b"x") + signature * 2,
            first + literal(b"x") + signature,
            head + compressed(literal(b"x")) + signature,
            head + literal(b"x") + literal(b"y"),
            head + signature + literal(b"x"),
            signature + head + literal(b"x") + signature,
            good + literal(b"y"),
            literal(b"y") + good,
        ):
            assert isinstance(failure(encrypted(wrong, person())), DecryptionFailed), wrong
        older = signature + literal(b"x")
        assert openpgp.open_message(encrypted(older, person()), [person()], trusting(person()), now())[1]

    def test_a_signature_inside_over_other_data_does_not_hold(self) -> None:
        signature = wire.dearmor(openpgp.sign_detached(b"other", person()), (b"SIGNATURE",))
        octets = encrypted(signature + literal(message().entity), person())
        obj = openpgp_mime.encrypted(pysequoia.armor(octets, pysequoia.ArmorKind.Message).encode(), b"b")
        verdict = judged(obj, keys=[person()])
        assert verdict.verdict is VerdictKind.BAD_SIGNATURE

    def test_a_file_name_says_nothing(self) -> None:
        """M-39 (SigSpoof)."""
        obj = message()
        octets = encrypted(literal(obj.entity, name=GOODSIG), person())
        sealed = openpgp_mime.encrypted(pysequoia.armor(octets, pysequoia.ArmorKind.Message).encode(), b"b")
        verdict = judged(sealed, keys=[person()])
        assert verdict.verdict not in (VerdictKind.VALID, VerdictKind.VALID_WEAK)
        assert verdict.signer == ""
        assert verdict.reason.isprintable()

    def test_a_signed_message_that_somebody_encrypted_again_for_another_is_not_for_him(self) -> None:
        """Surreptitious forwarding: Bob takes the signature off Alice's message and encrypts it for Eve."""
        bob, eve = person(kit.BOB), person(kit.EVE)
        opened = decrypt(
            encrypt(message(), openpgp.read_certificates(bob.certificate), signer=person(), when=now()), [bob]
        )
        octets = encrypted(opened.signatures + literal(opened.entity), eve)
        sealed = openpgp_mime.encrypted(pysequoia.armor(octets, pysequoia.ArmorKind.Message).encode(), b"b")
        assert judged(sealed, keys=[eve]).verdict is VerdictKind.NOT_ADDRESSED

    def test_a_message_under_a_password_is_not_for_us(self) -> None:
        octets = pysequoia.encrypt(b"x", passwords=["secret"], armor=False)
        assert isinstance(failure(octets), NoKey)

    @pytest.mark.parametrize("octets", [b"", b"x", b"\xff", literal(b"x"), compressed(literal(b"x"))])
    def test_what_is_not_encrypted_is_said_to_be_malformed(self, octets: bytes) -> None:
        assert isinstance(failure(octets), MalformedMessage)


class TestMultipartEncrypted:
    def parts(self) -> MimeObject:
        return encrypt(message(), openpgp.read_certificates(person().certificate), when=now())

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (b"Version: 1\r\n", b"Version: 2\r\n"),
            (b"Version: 1\r\n", b""),
            (b"Version: 1\r\n", b"Version: 1\r\nVersion: 1\r\n"),
            (b"application/octet-stream", b"text/plain"),
            (b"Content-Type: application/pgp-encrypted", b"Content-Type: application/pgp-signature"),
            (b"-----BEGIN PGP MESSAGE-----", b"-----BEGIN PGP PUBLIC KEY BLOCK-----"),
        ],
    )
    def test_only_the_two_parts_of_the_rfc_are_taken(self, old: bytes, new: bytes) -> None:
        """SEC-6; RFC 3156 section 4."""
        obj = self.parts()
        assert decrypt(obj, [person()]).entity
        changed = MimeObject(obj.header_block, obj.octets.replace(old, new))
        assert changed != obj
        with pytest.raises(MalformedMessage):
            decrypt(changed, [person()])
        assert judged(changed, keys=[person()]).verdict is VerdictKind.MALFORMED

    def test_what_is_inside_must_be_an_entity(self) -> None:
        octets = pysequoia.armor(encrypted(literal(b"no entity"), person()), pysequoia.ArmorKind.Message).encode()
        with pytest.raises(DecryptionFailed):
            decrypt(openpgp_mime.encrypted(octets, b"b"), [person()])

    def test_nothing_is_encrypted_for_a_key_that_has_ended(self) -> None:
        """pysequoia would take it."""
        bob = openpgp.new_identity(kit.BOB, when=now(), days=2)
        (certificate,) = openpgp.read_certificates(bob.certificate)
        with pytest.raises(SecurityError, match="expired on"):
            encrypt(message(), [certificate], when=now() + timedelta(days=3))
        (revoked,) = openpgp.read_certificates(openpgp.revoke(bob))
        with pytest.raises(SecurityError, match="was revoked"):
            encrypt(message(), [revoked], when=now())
