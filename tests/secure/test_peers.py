"""S/MIME both ways with the real ``openssl cms``, ``openssl smime`` and ``gpgsm`` (SEC-8, SEC-12).

What the peers in Debian 12 cannot do is stated as a test too, so that a newer peer shows up as a failure here:
OpenSSL 3.0 has no Ed25519 in CMS, gpgsm 2.2 neither, and gpgsm 2.2 imports no EC private key.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from comity.cpim.entity import decode_transfer, multipart_parts, split_entity
from comity.cpim.operations import MimeObject
from comity.secure import Identity, VerdictKind, cms, cms_seal, decrypt, encrypt, sign, smime, verify
from tests.peers import need_program
from tests.secure import kit
from tests.secure.smime_peers import NOW, Gpgsm, Openssl, authority, entity, pem, run, signer, trust

pytestmark = pytest.mark.peer

KINDS = ["p256", "p384", "rsa2048", "rsa3072"]


@pytest.fixture(scope="module")
def openssl() -> str:
    return need_program("openssl")


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """A directory with ca.pem."""
    (tmp_path / "ca.pem").write_bytes(authority().certificate.public_bytes(serialization.Encoding.PEM))
    return tmp_path


def write_signer(box: Path, kind: str) -> None:
    identity = signer(kind)
    plain = serialization.NoEncryption()
    pkcs8 = serialization.PrivateFormat.PKCS8
    (box / "key.pem").write_bytes(identity.key.private_bytes(serialization.Encoding.PEM, pkcs8, plain))
    (box / "cert.pem").write_bytes(identity.certificate.public_bytes(serialization.Encoding.PEM))


@pytest.mark.parametrize("content", [b"hi", b"line\r\n", b"", b"a\r\n\r\n"])
@pytest.mark.parametrize("program", ["cms", "smime"])
@pytest.mark.parametrize("kind", KINDS)
def test_openssl_verifies_our_multipart_signed(
    openssl: str, box: Path, kind: str, program: str, content: bytes
) -> None:
    (box / "in").write_bytes(sign(entity(content), signer(kind), when=NOW).entity)
    files = ["-in", str(box / "in"), "-CAfile", str(box / "ca.pem"), "-out", str(box / "out")]
    done = run(openssl, program, "-verify", *files)
    assert done.returncode == 0, done.stderr
    assert (box / "out").read_bytes() == entity(content).entity


@pytest.mark.parametrize("with_certificate", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_openssl_verifies_our_signed_data(openssl: str, box: Path, kind: str, with_certificate: bool) -> None:
    write_signer(box, kind)
    signed = sign(entity(), signer(kind), when=NOW, form="signed-data", with_certificate=with_certificate)
    (box / "in").write_bytes(signed.octets)
    files = ["-in", str(box / "in"), "-CAfile", str(box / "ca.pem"), "-out", str(box / "out")]
    certificate = [] if with_certificate else ["-certfile", str(box / "cert.pem")]
    done = run(openssl, "cms", "-verify", "-inform", "DER", "-binary", *files, *certificate)
    assert done.returncode == 0, done.stderr
    assert (box / "out").read_bytes() == entity().entity


def test_openssl_refuses_our_object_after_one_bit(openssl: str, box: Path) -> None:
    changed = sign(entity(), signer("p256"), when=NOW).entity.replace(b"Watson", b"Watsoo")
    (box / "in").write_bytes(changed)
    done = run(openssl, "cms", "-verify", "-in", str(box / "in"), "-CAfile", str(box / "ca.pem"))
    assert done.returncode != 0
    assert verify(changed, trust(), now=NOW).verdict is VerdictKind.BAD_SIGNATURE


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["-md", "sha512"],
        ["-md", "sha384"],
        ["-keyid"],
        ["-noattr"],
        ["-nosmimecap"],
        ["-nodetach"],
        ["-nodetach", "-stream"],
        ["-nodetach", "-noattr", "-keyid"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("kind", KINDS)
def test_we_verify_what_openssl_cms_signs(openssl: str, box: Path, kind: str, options: list[str]) -> None:
    write_signer(box, kind)
    (box / "in").write_bytes(entity().entity)
    files = ["-in", str(box / "in"), "-signer", str(box / "cert.pem"), "-inkey", str(box / "key.pem")]
    done = run(openssl, "cms", "-sign", "-binary", "-crlfeol", *files, *options)
    assert done.returncode == 0, done.stderr
    verdict = verify(done.stdout, trust(), now=NOW)
    assert verdict.verdict is VerdictKind.VALID, verdict.reason
    assert verdict.content == entity()


@pytest.mark.parametrize("options", [[], ["-nodetach"]], ids=" ".join)
def test_we_verify_what_openssl_smime_signs(openssl: str, box: Path, options: list[str]) -> None:
    write_signer(box, "rsa2048")
    (box / "in").write_bytes(entity().entity)
    files = ["-in", str(box / "in"), "-signer", str(box / "cert.pem"), "-inkey", str(box / "key.pem")]
    done = run(openssl, "smime", "-sign", "-binary", "-crlfeol", *files, *options)
    assert verify(done.stdout, trust(), now=NOW).is_valid


def test_we_verify_openssl_rsa_pss(openssl: str, box: Path) -> None:
    write_signer(box, "rsa2048")
    (box / "in").write_bytes(entity().entity)
    files = ["-in", str(box / "in"), "-signer", str(box / "cert.pem"), "-inkey", str(box / "key.pem")]
    pss = ["-keyopt", "rsa_padding_mode:pss"]
    done = run(openssl, "cms", "-sign", "-binary", "-nodetach", "-outform", "DER", *files, *pss)
    assert done.returncode == 0, done.stderr
    assert verify(kit.opaque(done.stdout), trust(), now=NOW).is_valid


def test_openssl_sha1_is_weak(openssl: str, box: Path) -> None:
    """SEC-11."""
    write_signer(box, "rsa2048")
    (box / "in").write_bytes(entity().entity)
    files = ["-in", str(box / "in"), "-signer", str(box / "cert.pem"), "-inkey", str(box / "key.pem")]
    done = run(openssl, "cms", "-sign", "-binary", "-crlfeol", "-md", "sha1", *files)
    assert verify(done.stdout, trust(), now=NOW).verdict is VerdictKind.VALID_WEAK


def test_a_certificate_that_openssl_signed_with_sha1_is_untrusted(openssl: str, box: Path) -> None:
    """SEC-11, SEC-21: the weakness is in the path, not in the signature."""
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    key = ec.generate_private_key(ec.SECP256R1())
    (box / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    (box / "ca.key").write_bytes(authority().key.private_bytes(serialization.Encoding.PEM, form, plain))
    (box / "ext").write_text("subjectAltName=URI:im:alice@a.test\n")
    request = ["-new", "-key", str(box / "key.pem"), "-subj", "/CN=a", "-out", str(box / "req")]
    assert run(openssl, "req", *request).returncode == 0
    issue = ["-req", "-sha1", "-in", str(box / "req"), "-CA", str(box / "ca.pem"), "-CAkey", str(box / "ca.key")]
    done = run(openssl, "x509", *issue, "-set_serial", "77", "-extfile", str(box / "ext"), "-days", "2")
    assert done.returncode == 0, done.stderr
    identity = Identity(kit.ALICE, key, (x509.load_pem_x509_certificate(done.stdout),))
    after = NOW + timedelta(minutes=2)  # openssl dates it by its own clock
    verdict = verify(sign(kit.cpim(when=after), identity, when=after), trust(), now=after)
    assert verdict.verdict is VerdictKind.UNTRUSTED
    assert "signed with SHA-1" in verdict.reason


def test_openssl_two_signers_are_checked_both(openssl: str, box: Path) -> None:
    """M-12."""
    write_signer(box, "p256")
    (box / "in").write_bytes(entity().entity)
    other = authority().issue(kit.EVE, signer("rsa2048").key.public_key(), when=NOW)
    (box / "eve.pem").write_bytes(
        other.public_bytes(serialization.Encoding.PEM)
        + signer("rsa2048").key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    (box / "alice.pem").write_bytes((box / "cert.pem").read_bytes() + (box / "key.pem").read_bytes())
    files = ["-in", str(box / "in"), "-signer", str(box / "alice.pem"), "-signer", str(box / "eve.pem")]
    done = run(openssl, "cms", "-sign", "-binary", "-nodetach", "-outform", "DER", *files)
    verdict = verify(kit.opaque(done.stdout), trust(), now=NOW)
    assert (verdict.verdict, verdict.signer) == (VerdictKind.SIGNED_BY_OTHER, "im:eve@e.test")


def test_openssl_proves_our_ed25519_signature_by_hand(openssl: str, box: Path) -> None:
    """RFC 8419: the pure signature over the DER of the signed attributes, digest SHA-512 (OpenSSL 3.0's CMS has none)."""
    signed = sign(entity(), signer("ed25519"), when=NOW)
    assert "micalg=sha-512" in signed.content_type
    raw = decode_transfer(split_entity(multipart_parts(signed)[1]))
    (box / "sig.der").write_bytes(raw)
    listing = run(openssl, "asn1parse", "-inform", "DER", "-in", str(box / "sig.der")).stdout.decode()
    lines = [re.match(r"\s*(\d+):d=(\d+)\s+hl=(\d)\s+l=\s*(\d+)\s+\w+:\s+(.*)", line) for line in listing.splitlines()]
    rows = [(int(m[1]), int(m[2]), int(m[3]), int(m[4]), m[5].strip()) for m in lines if m]
    start, _, head, size, _ = [row for row in rows if row[1] == 5 and row[4].startswith("cont [ 0 ]")][-1]
    at, _, signature_head, signature_size, _ = [row for row in rows if row[4].startswith("OCTET STRING")][-1]
    (box / "attributes").write_bytes(b"\x31" + raw[start + 1 : start + head + size])
    (box / "signature").write_bytes(raw[at + signature_head : at + signature_head + signature_size])
    write_signer(box, "ed25519")
    files = ["-in", str(box / "attributes"), "-sigfile", str(box / "signature")]
    done = run(openssl, "pkeyutl", "-verify", "-rawin", "-certin", "-inkey", str(box / "cert.pem"), *files)
    assert done.returncode == 0, done.stderr + done.stdout
    digest = run(openssl, "dgst", "-sha512", "-binary", stdin=entity().entity).stdout
    assert digest in (box / "attributes").read_bytes()


# --- gpgsm -------------------------------------------------------------------------------------------------------


def test_openssl_unwraps_our_x25519_key_by_hand(openssl: str, box: Path) -> None:
    """RFC 8418 section 2, by openssl's own Diffie-Hellman, HKDF, key unwrap and AES-CBC; its CMS has no X25519."""
    me = signer("ed25519")
    assert me.encryption is not None
    raw = cms_seal.seal(entity().entity, [me.encryption.certificate], cipher="aes-256-cbc")
    listing = run(openssl, "asn1parse", "-inform", "DER", stdin=raw).stdout.decode()
    rows = [re.match(r"\s*(\d+):d=\d+\s+hl=(\d)\s+l=\s*(\d+)\s+\w+:\s+([^:]*)", line) for line in listing.splitlines()]
    values = [(m[4].strip(), raw[int(m[1]) + int(m[2]) :][: int(m[3])]) for m in rows if m]
    public = next(value for kind, value in values if kind == "BIT STRING")[1:]
    wrapped, vector = [value for kind, value in values if kind.startswith("OCTET STRING")]
    content = next(value for kind, value in reversed(values) if kind == "cont [ 0 ]")
    # SubjectPublicKeyInfo of X25519, and ECC-CMS-SharedInfo for AES-256 key wrap and 256 bits, written out by hand.
    (box / "public.der").write_bytes(bytes.fromhex("302a300506032b656e032100") + public)
    shared_info = "3015300b060960864801650304012da206040400000100"
    (box / "key.pem").write_bytes(
        me.encryption.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    keys = ["-inkey", str(box / "key.pem"), "-peerform", "DER", "-peerkey", str(box / "public.der")]
    secret = run(openssl, "pkeyutl", "-derive", *keys).stdout
    options = ["digest:SHA256", f"hexkey:{secret.hex()}", f"hexinfo:{shared_info}"]
    derive = [part for option in options for part in ("-kdfopt", option)]
    wrapping = run(openssl, "kdf", "-binary", "-keylen", "32", *derive, "HKDF").stdout
    unwrap = ["-d", "-id-aes256-wrap", "-K", wrapping.hex(), "-iv", "a6" * 8]
    content_key = run(openssl, "enc", *unwrap, stdin=wrapped).stdout
    opened = run(openssl, "enc", "-d", "-aes-256-cbc", "-K", content_key.hex(), "-iv", vector.hex(), stdin=content)
    assert opened.stdout == entity().entity, opened.stderr


@pytest.mark.parametrize("cipher", ["aes-128-gcm", "aes-256-gcm", "aes-128-cbc", "aes-256-cbc"])
@pytest.mark.parametrize("kind", ["p256", "rsa2048"])
def test_signed_and_encrypted_both_ways_with_openssl(box: Path, kind: str, cipher: str) -> None:
    """SEC-9, SEC-10, SEC-16, as whole MIME entities: what each makes, the other opens and verifies."""
    peer, me, other = Openssl(box), signer(kind), signer("p384")
    ours = encrypt(entity(), [me.certificate], signer=other, when=NOW, cipher=cipher)
    inside = peer.decrypt(ours.octets, me)
    files = ["-in", peer.file("inside", inside), "-CAfile", str(box / "ca.pem")]
    # Without -binary: openssl makes line ends canonical itself where the signed entity stands in a multipart.
    assert run(peer.program, "cms", "-verify", *files).stdout == entity().entity
    signed = MimeObject.of("application/pkcs7-mime; smime-type=signed-data", peer.sign(entity().entity, other))
    theirs = peer.encrypt(signed.entity, me, options=(f"-{cipher}",))
    obj = MimeObject.of("application/pkcs7-mime", theirs)
    verdict = verify(obj, trust(), now=NOW, keys=[me])
    assert verdict.verdict is VerdictKind.VALID, verdict.reason
    assert verdict.content is not None
    assert verdict.content.entity == entity().entity


@pytest.mark.parametrize("cipher", ["-aes128", "-aes256", "-des3"])
def test_openssl_smime_of_old_both_ways(openssl: str, box: Path, cipher: str) -> None:
    """SEC-9: PKCS #7 as mail programs of twenty years ago write it; RSA and AES-CBC is all it has in common with today."""
    peer, me = Openssl(box), signer("rsa2048")
    files = ["-in", peer.file("in", entity().entity), peer.file("cert.pem", pem(me.certificate))]
    theirs = run(openssl, "smime", "-encrypt", "-binary", "-outform", "DER", cipher, *files).stdout
    opened = decrypt(MimeObject.of("application/x-pkcs7-mime", theirs), [me])
    assert (opened.entity, opened.is_authenticated) == (entity().entity, False)
    ours = cms_seal.seal(entity().entity, [me.certificate], cipher="aes-256-cbc", has_old_rsa=True)
    files = ["-in", peer.file("in", ours), "-inkey", peer.file("key.pem", pem(me)), "-recip", str(box / "cert.pem")]
    assert run(openssl, "smime", "-decrypt", "-binary", "-inform", "DER", *files).stdout == entity().entity


def test_the_capabilities_of_an_openssl_signer_steer_the_answer(box: Path) -> None:
    """SEC-20: OpenSSL 3.0 announces AES-CBC and no GCM, so the answer goes in AES-256-CBC, signed; OpenSSL opens it."""
    peer, me = Openssl(box), signer("p256")
    signed = cms.parse_signed_data(peer.sign(entity().entity, me))
    (found,) = smime.signers_of(signed, entity().entity, frozenset(), trust(), NOW)
    assert found.capabilities[:3] == ("aes-256-cbc", "aes-192-cbc", "aes-128-cbc")
    reader = x509.load_der_x509_certificate(found.encryption_certificate)
    answer = encrypt(entity(), [reader], signer=signer("p384"), when=NOW, capabilities=[found.capabilities])
    assert b"multipart/signed" in peer.decrypt(answer.octets, me)


@pytest.fixture(scope="module")
def gpgsm() -> Iterator[Gpgsm]:
    program = need_program("gpgsm")
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as name:  # a socket path must be short
        peer = Gpgsm(program, Path(name))
        peer.import_key(signer("rsa2048"))
        yield peer
        peer.close()


@pytest.mark.parametrize("kind", ["p256", "rsa2048"])
def test_gpgsm_verifies_our_detached_signature(gpgsm: Gpgsm, tmp_path: Path, kind: str) -> None:
    signed = sign(entity(), signer(kind), when=NOW)
    content, second = multipart_parts(signed)
    (tmp_path / "sig").write_bytes(decode_transfer(split_entity(second)))
    (tmp_path / "content").write_bytes(content)
    done = gpgsm.run("--verify", str(tmp_path / "sig"), str(tmp_path / "content"))
    assert done.returncode == 0, done.stderr
    assert b"Good signature" in done.stderr
    assert b"im:alice@a.test" in done.stderr
    (tmp_path / "content").write_bytes(content + b" ")
    assert gpgsm.run("--verify", str(tmp_path / "sig"), str(tmp_path / "content")).returncode != 0


@pytest.mark.parametrize("kind", ["p256", "rsa2048"])
def test_gpgsm_verifies_our_signed_data(gpgsm: Gpgsm, tmp_path: Path, kind: str) -> None:
    (tmp_path / "in").write_bytes(sign(entity(), signer(kind), when=NOW, form="signed-data").octets)
    done = gpgsm.run("--output", str(tmp_path / "out"), "--verify", str(tmp_path / "in"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_bytes() == entity().entity


def test_we_verify_what_gpgsm_signs_in_indefinite_lengths(gpgsm: Gpgsm, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(entity().entity)
    own = signer("rsa2048").certificate.fingerprint(hashes.SHA1()).hex().upper()
    done = gpgsm.run("-u", own, "--output", str(tmp_path / "sig"), "--detach-sign", str(tmp_path / "in"))
    assert done.returncode == 0, done.stderr
    assert verify(kit.multipart(entity().entity, (tmp_path / "sig").read_bytes()), trust(), now=NOW).is_valid
    done = gpgsm.run("-u", own, "--output", str(tmp_path / "signed"), "--sign", str(tmp_path / "in"))
    raw = (tmp_path / "signed").read_bytes()
    assert raw[:2] == b"\x30\x80", "gpgsm writes indefinite lengths"
    assert verify(kit.opaque(raw), trust(), now=NOW).is_valid
    changed = raw.replace(b"Watson", b"Watsoo")
    assert verify(kit.opaque(changed), trust(), now=NOW).verdict is VerdictKind.BAD_SIGNATURE
