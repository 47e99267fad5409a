"""OpenPGP both ways with the real ``gpg`` (GnuPG 2.2) and rpgp (SEC-39; RFC 3156, 4880, 9580).

What the peers cannot do is stated as a test too, so that a newer peer shows up as a failure here: gpg 2.2 knows no keys of
version 6 and no AEAD (SEIPD version 2), and writes neither.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pysequoia
import pytest

from comity.cpim.entity import multipart_parts, split_entity
from comity.cpim.operations import MimeObject
from comity.errors import SecurityError
from comity.secure import TrustStore, VerdictKind, decrypt, encrypt, openpgp, sign
from comity.secure import openpgp_packets as wire
from comity.secure.evidence import DecryptionFailed
from tests.secure import kit
from tests.secure.pgp_matrix import KINDS, UID, Peers, ours, rpgp, rpgp_key, rpgp_verifies, theirs
from tests.secure.pgpkit import Gpg, gpg_home, judged, message, multipart_signed, now

pytestmark = pytest.mark.peer

V4 = [name for name, kind in KINDS.items() if kind.suite is not None and not kind.is_v6]
V6 = [name for name, kind in KINDS.items() if kind.is_v6]
GPG_KINDS = [name for name in V4 if KINDS[name].gpg]
RPGP_KINDS = [name for name, kind in KINDS.items() if kind.rpgp]
#: gpg 2.2 makes no ECDSA signature with a hash that is shorter than the curve.
TOO_SHORT = {"P-384": [["SHA256"]], "P-521": [["SHA256"], ["SHA384"]]}


def trusting(certificate: bytes) -> TrustStore:
    return TrustStore(openpgp_pinned=(certificate,))


@pytest.fixture(scope="module")
def peers() -> Iterator[Peers]:
    """A gpg that knows the public part of our keys; its own keys are made when a test asks."""
    with gpg_home() as found:
        for kind in V4:
            found("--import", stdin=ours(kind).certificate)
        yield Peers(found)


@pytest.fixture(scope="module")
def gpg(peers: Peers) -> Gpg:
    return peers.gpg


def signed_parts(obj: MimeObject) -> tuple[bytes, bytes]:
    """What is signed, and the signature."""
    content, second = multipart_parts(obj)
    return content, split_entity(second).octets


class TestGpg:
    @pytest.mark.parametrize("kind", V4)
    def test_gpg_verifies_what_we_sign(self, gpg: Gpg, kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
        content, signature = signed_parts(sign(message(), ours(kind), when=now()))
        box = tmp_path_factory.mktemp("gpg")
        (box / "content").write_bytes(content)
        (box / "signature").write_bytes(signature)
        status = gpg.status("--verify", str(box / "signature"), str(box / "content"))
        assert "GOODSIG" in status
        assert "VALIDSIG" in status

    @pytest.mark.parametrize("kind", GPG_KINDS)
    @pytest.mark.parametrize("options", [[], ["--textmode"], ["--digest-algo", "SHA256"], ["--digest-algo", "SHA384"]])
    def test_what_gpg_signs_is_valid(self, peers: Peers, gpg: Gpg, kind: str, options: list[str]) -> None:
        """The text form and any good hash too, but for those that gpg finds too short for the curve."""
        fingerprint, certificate = peers.key(kind)
        obj = message()
        if options[-1:] in TOO_SHORT.get(kind, ()):
            gpg.run("--local-user", fingerprint, *options, "--detach-sign", stdin=obj.entity, is_bad=True)
            return
        signature = gpg("--armor", "--local-user", fingerprint, *options, "--detach-sign", stdin=obj.entity)
        digest = repr(pysequoia.Sig.from_bytes(signature).hash_algorithm).rpartition(".")[2].lower()
        verdict = judged(multipart_signed(obj.entity, signature, f"pgp-{digest}"), trusting(certificate))
        assert (verdict.verdict, verdict.signer) == (VerdictKind.VALID, UID), verdict.reason

    @pytest.mark.parametrize("kind", GPG_KINDS)
    @pytest.mark.parametrize("is_signed", [False, True])
    def test_gpg_opens_what_we_encrypt(self, peers: Peers, gpg: Gpg, kind: str, is_signed: bool) -> None:
        """SEIPD version 1, as gpg's certificates ask for."""
        _, certificate = peers.key(kind)
        signer = ours("Curve25519") if is_signed else None
        obj = message()
        sealed = encrypt(obj, openpgp.read_certificates(certificate), signer=signer, when=now())
        done = gpg.run("--status-fd", "2", "--decrypt", stdin=signed_parts(sealed)[1])
        assert done.stdout == obj.entity
        assert (b"GOODSIG" in done.stderr) == is_signed

    @pytest.mark.parametrize("kind", V4)
    @pytest.mark.parametrize(
        "options",
        [
            [],
            ["--sign"],
            ["--sign", "--compress-algo", "none"],
            ["--sign", "--compress-algo", "zlib"],
            ["--sign", "--compress-algo", "bzip2"],
            ["--cipher-algo", "AES128"],
            ["--cipher-algo", "AES192"],
            ["--throw-keyids"],
        ],
    )
    def test_we_open_what_gpg_encrypts(self, peers: Peers, gpg: Gpg, kind: str, options: list[str]) -> None:
        """RFC 3156 sections 4 and 6.2; gpg compresses by default."""
        signer, certificate = peers.key("Curve25519")
        obj = message()
        command = ["--armor", "--local-user", signer, "--recipient", ours(kind).fingerprint, *options, "--encrypt"]
        armored = gpg(*command, stdin=obj.entity)
        opened, signers = openpgp.open_message(armored, [ours(kind)], trusting(certificate), now())
        assert opened.entity == obj.entity
        assert opened.is_authenticated
        assert opened.recipient == ours(kind).fingerprint
        assert [one.distrust for one in signers] == ([""] if "--sign" in options else [])

    def test_gpg_reads_our_private_key(self, gpg: Gpg) -> None:
        """The key of ``new_identity`` in another program: RFC 4880 packets."""
        with gpg_home() as other:
            identity = openpgp.new_identity(kit.BOB, when=now())
            other("--import", stdin=identity.secret)
            signature = other("--armor", "--local-user", identity.fingerprint, "--detach-sign", stdin=b"x")
            (signer,) = openpgp.signers_of(b"x", signature, trusting(identity.certificate), now())
            assert signer.distrust == ""

    def test_we_read_a_private_key_of_gpg(self, peers: Peers, gpg: Gpg) -> None:
        fingerprint, certificate = peers.key("Curve25519")
        identity = openpgp.read_identity(gpg("--armor", "--export-secret-keys", fingerprint))
        assert identity.address == kit.ALICE
        assert judged(sign(message(), identity, when=now()), trusting(certificate)).verdict is VerdictKind.VALID
        armored = gpg("--armor", "--recipient", fingerprint, "--encrypt", stdin=b"x")
        assert openpgp.open_octets(armored, [identity]).entity == b"x"

    def test_gpg_knows_our_revocation(self, gpg: Gpg) -> None:
        identity = openpgp.new_identity(kit.EVE, when=now())
        with gpg_home() as other:
            other("--import", stdin=identity.certificate)
            other("--import", stdin=openpgp.revoke(identity))
            listed = other("--with-colons", "--list-keys", identity.fingerprint).decode()
            assert listed.split("pub:", 1)[1].startswith("r:")

    def test_gpg_2_2_has_no_version_6_and_no_aead(self, gpg: Gpg) -> None:
        """Its limits; a newer gpg fails here and gets a row in the matrix."""
        gpg.run("--import", stdin=ours("Ed25519 and X25519, version 6").certificate, is_bad=True)
        with gpg_home() as other:
            identity = ours("Curve25519")
            other("--import", stdin=identity.secret)
            sealed = openpgp.seal(b"x", [identity.certificate], when=now())
            other.run("--decrypt", stdin=sealed, is_bad=True)

    @pytest.mark.parametrize("cipher", ["3DES", "CAST5", "BLOWFISH", "TWOFISH", "CAMELLIA256", "IDEA"])
    def test_other_ciphers_than_aes_are_not_opened(self, gpg: Gpg, cipher: str) -> None:
        """M-33: with the one text."""
        command = ["--armor", "--recipient", ours("Curve25519").fingerprint, "--cipher-algo", cipher, "--encrypt"]
        with pytest.raises(DecryptionFailed):
            openpgp.open_octets(gpg(*command, stdin=b"x"), [ours("Curve25519")])


class TestRpgp:
    @pytest.mark.parametrize("kind", [*V4, *V6])
    def test_rpgp_verifies_what_we_sign(self, kind: str) -> None:
        content, signature = signed_parts(sign(message(), ours(kind), when=now()))
        assert rpgp_verifies(signature, content, ours(kind).certificate)

    @pytest.mark.parametrize("kind", RPGP_KINDS)
    @pytest.mark.parametrize("form", ["binary", "text"])
    def test_what_rpgp_signs_is_valid(self, kind: str, form: str) -> None:
        key = theirs(kind)
        obj = message()
        digest = "sha512" if kind in ("Ed448 and X448, version 6", "P-384", "P-521") else "sha256"
        make = rpgp.DetachedSignature.sign_binary_data if form == "binary" else rpgp.DetachedSignature.sign_text_data
        signature = make(random.SystemRandom(), key, None, digest, obj.entity).to_armored()
        verdict = judged(
            multipart_signed(obj.entity, signature.encode(), f"pgp-{digest}"), trusting(key.to_public_key().to_bytes())
        )
        assert (verdict.verdict, verdict.signer) == (VerdictKind.VALID, UID), verdict.reason

    @pytest.mark.parametrize("kind", RPGP_KINDS)
    @pytest.mark.parametrize("is_signed", [False, True])
    def test_rpgp_opens_what_we_encrypt(self, kind: str, is_signed: bool) -> None:
        certificates = openpgp.read_certificates(theirs(kind).to_public_key().to_bytes())
        signer = ours("Curve25519") if is_signed else None
        obj = message()
        sealed = encrypt(obj, certificates, signer=signer, when=now())
        parsed, _ = rpgp.Message.from_armor(signed_parts(sealed)[1].decode())
        opened = parsed.decrypt(None, theirs(kind))
        assert opened.as_data_vec() == obj.entity
        assert opened.is_signed == is_signed

    @pytest.mark.parametrize("kind", [*V4, *V6])
    @pytest.mark.parametrize(
        "form", ["v1-aes128", "v1-aes256", "v2-ocb", "v2-gcm", "v2-ocb-chunks", "anonymous", "compressed", "partial"]
    )
    @pytest.mark.parametrize("is_signed", [False, True])
    def test_we_open_what_rpgp_encrypts(self, kind: str, form: str, is_signed: bool) -> None:
        obj = message(b"A longer text. " * 2000)
        builder = rpgp.MessageBuilder.from_bytes("", obj.entity)
        cipher = "aes128" if form == "v1-aes128" else "aes256"
        if form.startswith("v2") or kind in V6:
            mode = "gcm" if form == "v2-gcm" else "ocb"
            builder = builder.seipd_v2(cipher, mode, 0 if form == "v2-ocb-chunks" else None)
        else:
            builder = builder.seipd_v1(cipher)
        if form == "compressed":
            builder = builder.compression("zlib")
        if form == "partial":
            builder = builder.partial_chunk_size(512)
        if is_signed:
            builder = builder.sign(theirs("Curve25519"))
        recipient = rpgp_key(ours(kind))
        add = builder.encrypt_to_key_anonymous if form == "anonymous" else builder.encrypt_to_key
        octets = add(recipient).to_vec()
        trust = trusting(theirs("Curve25519").to_public_key().to_bytes())
        opened, signers = openpgp.open_message(octets, [ours(kind)], trust, now())
        assert opened.entity == obj.entity
        assert [one.distrust for one in signers] == ([""] if is_signed else [])

    def test_eax_is_not_taken(self) -> None:
        """RFC 9580 section 9.6: OCB is the one everybody has."""
        builder = rpgp.MessageBuilder.from_bytes("", b"x").seipd_v2("aes256", "eax")
        octets = builder.encrypt_to_key(rpgp_key(ours("Curve25519"))).to_vec()
        with pytest.raises(DecryptionFailed):
            openpgp.open_octets(octets, [ours("Curve25519")])

    def test_rpgp_reads_our_private_key_and_we_its(self) -> None:
        key = rpgp.SignedSecretKey.from_bytes(openpgp.new_identity(kit.BOB, when=now()).secret)
        key.verify_bindings()
        identity = openpgp.read_identity(theirs("Ed25519 and X25519, version 6").to_bytes())
        assert identity.address == kit.ALICE
        assert wire.read_packets(identity.secret)[0].body[0] == 6


def test_both_forms_of_signing_and_encrypting_are_read() -> None:
    """RFC 3156 sections 6.1 and 6.2, both written by us."""
    obj = message()
    identity = ours("Curve25519")
    certificates = openpgp.read_certificates(identity.certificate)
    combined = decrypt(encrypt(obj, certificates, signer=identity, when=now()), [identity])
    assert combined.entity == obj.entity
    assert combined.signatures
    nested = decrypt(encrypt(obj, certificates, signer=identity, when=now(), is_combined=False), [identity])
    assert not nested.signatures
    assert judged(nested.entity, trusting(identity.certificate)).verdict is VerdictKind.VALID


def test_nothing_is_encrypted_for_a_subkey_that_has_ended(gpg: Gpg) -> None:
    """pysequoia takes an expired subkey where it finds no other; the certificate itself is good."""
    then = ["--faked-system-time", "20250101T000000!"]
    gpg(*then, "--quick-generate-key", f"ends <{UID}>", "ed25519", "sign,cert", "never")
    fingerprint = gpg.fingerprint(f"ends <{UID}>")
    gpg(*then, "--quick-add-key", fingerprint, "cv25519", "encr", "1d")
    with pytest.raises(SecurityError, match="expired on 2025-01-02"):
        openpgp.seal(b"x", [gpg("--export", fingerprint)], when=now())
    gpg("--quick-add-key", fingerprint, "cv25519", "encr", "1y")
    sealed = openpgp.seal(b"x", [gpg("--export", fingerprint)], when=now())
    assert gpg("--decrypt", stdin=sealed) == b"x"


def test_a_message_for_gpg_and_for_us_is_one_that_both_read(gpg: Gpg, peers: Peers) -> None:
    """Version 2 only if all take it: gpg does not."""
    mine = ours("Curve25519")
    _, certificate = peers.key("P-256")
    sealed = openpgp.seal(b"x", [mine.certificate, certificate], when=now())
    assert openpgp.open_octets(sealed, [mine]).algorithm == "aes-256-cfb-mdc"
    assert gpg("--decrypt", stdin=sealed) == b"x"
