"""OpenPGP both ways with the real ``gpg`` (GnuPG 2.2) and rpgp (SEC-39; RFC 3156, 4880, 9580).

What the peers cannot do is stated as a test too, so that a newer peer shows up as a failure here: gpg 2.2 knows no keys of
version 6 and no AEAD (SEIPD version 2), and writes neither.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from typing import Any

import pysequoia
import pytest
from openpgp import composed
from openpgp.errors import Error as RpgpError

from comity.cpim.entity import multipart_parts, split_entity
from comity.cpim.operations import MimeObject
from comity.secure import TrustStore, VerdictKind, decrypt, encrypt, openpgp, sign
from comity.secure import openpgp_packets as wire
from comity.secure.evidence import DecryptionFailed
from comity.secure.openpgp import PgpIdentity
from tests.secure import kit
from tests.secure.pgpkit import Gpg, gpg_home, judged, message, multipart_signed, now

pytestmark = pytest.mark.peer

rpgp: Any = composed
"""Its own types want the very strings of its tables, which a parametrized test does not have."""

UID = "im:alice@a.test"
V4 = {
    "ed25519": pysequoia.CipherSuite.Cv25519,
    "p256": pysequoia.CipherSuite.P256,
    "p384": pysequoia.CipherSuite.P384,
    "p521": pysequoia.CipherSuite.P521,
    "rsa2048": pysequoia.CipherSuite.RSA2k,
    "rsa3072": pysequoia.CipherSuite.RSA3k,
}
V6 = {
    "v6-ed25519": pysequoia.CipherSuite.Cv25519,
    "v6-ed448": pysequoia.CipherSuite.Cv448,
    "v6-p256": pysequoia.CipherSuite.P256,
    "v6-rsa3072": pysequoia.CipherSuite.RSA3k,
}
GPG_KINDS = {
    "ed25519": ("ed25519", "cv25519"),
    "p256": ("nistp256", "nistp256"),
    "p384": ("nistp384", "nistp384"),
    "p521": ("nistp521", "nistp521"),
    "rsa2048": ("rsa2048", "rsa2048"),
    "rsa3072": ("rsa3072", "rsa3072"),
}
#: gpg 2.2 makes no ECDSA signature with a hash that is shorter than the curve.
TOO_SHORT = {"p384": [["SHA256"]], "p521": [["SHA256"], ["SHA384"]]}
#: Signing key, subkey for encryption, version.
RPGP_KINDS = {
    "ed25519": (rpgp.KeyType.ed25519_legacy(), rpgp.KeyType.ecdh("curve25519"), 4),
    "p256": (rpgp.KeyType.ecdsa("p256"), rpgp.KeyType.ecdh("p256"), 4),
    "p384": (rpgp.KeyType.ecdsa("p384"), rpgp.KeyType.ecdh("p384"), 4),
    "rsa2048": (rpgp.KeyType.rsa(2048), rpgp.KeyType.rsa(2048), 4),
    "v4-ed25519": (rpgp.KeyType.ed25519(), rpgp.KeyType.x25519(), 4),
    "v6-ed25519": (rpgp.KeyType.ed25519(), rpgp.KeyType.x25519(), 6),
    "v6-ed448": (rpgp.KeyType.ed448(), rpgp.KeyType.x448(), 6),
}


@cache
def ours(kind: str) -> PgpIdentity:
    """A key as ``new_identity`` makes it, of that kind."""
    profile = pysequoia.Profile.RFC9580 if kind in V6 else pysequoia.Profile.RFC4880
    suite = {**V4, **V6}[kind]
    return openpgp.read_identity(bytes(pysequoia.Tsk.generate(user_ids=[UID], profile=profile, cipher_suite=suite)))


@cache
def theirs(kind: str) -> Any:
    """A key that rpgp made."""
    signing, encryption, version = RPGP_KINDS[kind]
    subkey = rpgp.SubkeyParamsBuilder().version(version).key_type(encryption).can_encrypt(rpgp.EncryptionCaps.all())
    key = rpgp.SecretKeyParamsBuilder().version(version).key_type(signing).can_sign(True).can_certify(True)
    return key.primary_user_id(UID).feature_seipd_v1(True).subkey(subkey.build()).generate()


def trusting(certificate: bytes) -> TrustStore:
    return TrustStore(openpgp_pinned=(certificate,))


@pytest.fixture(scope="module")
def gpg() -> Iterator[Gpg]:
    """A gpg that knows the public part of our keys; its own keys are made when a test asks."""
    with gpg_home() as found:
        for kind in V4:
            found("--import", stdin=ours(kind).certificate)
        yield found


@cache
def _gpg_key(gpg: Gpg, kind: str) -> tuple[str, bytes]:
    user_id = f"{kind} <{UID}>"
    certificate = gpg.new_key(user_id, kind=GPG_KINDS[kind][0], subkey=GPG_KINDS[kind][1])
    return gpg.fingerprint(user_id), certificate


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
    def test_what_gpg_signs_is_valid(self, gpg: Gpg, kind: str, options: list[str]) -> None:
        """The text form and any good hash too, but for those that gpg finds too short for the curve."""
        fingerprint, certificate = _gpg_key(gpg, kind)
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
    def test_gpg_opens_what_we_encrypt(self, gpg: Gpg, kind: str, is_signed: bool) -> None:
        """SEIPD version 1, as gpg's certificates ask for."""
        _, certificate = _gpg_key(gpg, kind)
        signer = ours("ed25519") if is_signed else None
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
    def test_we_open_what_gpg_encrypts(self, gpg: Gpg, kind: str, options: list[str]) -> None:
        """RFC 3156 sections 4 and 6.2; gpg compresses by default."""
        signer, certificate = _gpg_key(gpg, "ed25519")
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

    def test_we_read_a_private_key_of_gpg(self, gpg: Gpg) -> None:
        fingerprint, certificate = _gpg_key(gpg, "ed25519")
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
        gpg.run("--import", stdin=ours("v6-ed25519").certificate, is_bad=True)
        with gpg_home() as other:
            identity = ours("ed25519")
            other("--import", stdin=identity.secret)
            sealed = openpgp.seal(b"x", [identity.certificate], when=now())
            other.run("--decrypt", stdin=sealed, is_bad=True)

    @pytest.mark.parametrize("cipher", ["3DES", "CAST5", "BLOWFISH", "TWOFISH", "CAMELLIA256", "IDEA"])
    def test_other_ciphers_than_aes_are_not_opened(self, gpg: Gpg, cipher: str) -> None:
        """M-33: with the one text."""
        command = ["--armor", "--recipient", ours("ed25519").fingerprint, "--cipher-algo", cipher, "--encrypt"]
        with pytest.raises(DecryptionFailed):
            openpgp.open_octets(gpg(*command, stdin=b"x"), [ours("ed25519")])


class TestRpgp:
    @pytest.mark.parametrize("kind", [*V4, *V6])
    def test_rpgp_verifies_what_we_sign(self, kind: str) -> None:
        content, signature = signed_parts(sign(message(), ours(kind), when=now()))
        key = rpgp.SignedPublicKey.from_bytes(ours(kind).certificate)
        parsed, _ = rpgp.DetachedSignature.from_armor(signature.decode())
        assert any(holds(parsed, one, content) for one in (key, *key.public_subkeys))

    @pytest.mark.parametrize("kind", RPGP_KINDS)
    @pytest.mark.parametrize("form", ["binary", "text"])
    def test_what_rpgp_signs_is_valid(self, kind: str, form: str) -> None:
        key = theirs(kind)
        obj = message()
        digest = "sha512" if kind in ("v6-ed448", "p384") else "sha256"
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
        signer = ours("ed25519") if is_signed else None
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
            builder = builder.sign(theirs("ed25519"))
        recipient = encryption_key(ours(kind))
        add = builder.encrypt_to_key_anonymous if form == "anonymous" else builder.encrypt_to_key
        octets = add(recipient).to_vec()
        trust = trusting(theirs("ed25519").to_public_key().to_bytes())
        opened, signers = openpgp.open_message(octets, [ours(kind)], trust, now())
        assert opened.entity == obj.entity
        assert [one.distrust for one in signers] == ([""] if is_signed else [])

    def test_eax_is_not_taken(self) -> None:
        """RFC 9580 section 9.6: OCB is the one everybody has."""
        builder = rpgp.MessageBuilder.from_bytes("", b"x").seipd_v2("aes256", "eax")
        octets = builder.encrypt_to_key(encryption_key(ours("ed25519"))).to_vec()
        with pytest.raises(DecryptionFailed):
            openpgp.open_octets(octets, [ours("ed25519")])

    def test_rpgp_reads_our_private_key_and_we_its(self) -> None:
        key = rpgp.SignedSecretKey.from_bytes(openpgp.new_identity(kit.BOB, when=now()).secret)
        key.verify_bindings()
        identity = openpgp.read_identity(theirs("v6-ed25519").to_bytes())
        assert identity.address == kit.ALICE
        assert wire.read_packets(identity.secret)[0].body[0] == 6


def holds(signature: Any, key: Any, content: bytes) -> bool:
    try:
        signature.verify(key, content)
    except (RpgpError, TypeError):
        return False
    return True


def encryption_key(identity: PgpIdentity) -> Any:
    """The subkey of our certificate that rpgp encrypts to."""
    key = rpgp.SignedPublicKey.from_bytes(identity.certificate)
    return next(
        subkey
        for subkey in key.public_subkeys
        if subkey.key.public_params.kind.lower() in ("ecdh", "rsa", "x25519", "x448")
    )


def test_both_forms_of_signing_and_encrypting_are_read() -> None:
    """RFC 3156 sections 6.1 and 6.2, both written by us."""
    obj = message()
    identity = ours("ed25519")
    certificates = openpgp.read_certificates(identity.certificate)
    combined = decrypt(encrypt(obj, certificates, signer=identity, when=now()), [identity])
    assert combined.entity == obj.entity
    assert combined.signatures
    nested = decrypt(encrypt(obj, certificates, signer=identity, when=now(), is_combined=False), [identity])
    assert not nested.signatures
    assert judged(nested.entity, trusting(identity.certificate)).verdict is VerdictKind.VALID
