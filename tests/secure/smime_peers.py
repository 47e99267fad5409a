"""``openssl cms`` and ``gpgsm`` as peers that sign, verify, encrypt and decrypt; used by the tests with real programs."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from comity.cpim.operations import MimeObject
from comity.secure import Identity, LocalCa, TrustStore, new_identity
from comity.secure.identity import end_entity
from tests.peers import need_program
from tests.secure import kit

#: The peers judge certificates by the machine's clock.
NOW = datetime.now(UTC)


class PeerRefused(Exception):
    """The program ended with an error; its last words."""


@cache
def authority() -> LocalCa:
    return LocalCa.create("Comity CA of a.test", when=NOW)


@cache
def signer(kind: str) -> Identity:
    """An identity of that key, with a key identifier so that ``-keyid`` can be asked for."""
    if kind == "ed25519":
        return new_identity(kit.ALICE, when=NOW, ca=authority(), kind="ed25519")
    curves = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1()}
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    if kind in curves:
        key = ec.generate_private_key(curves[kind])
    else:
        key = rsa.generate_private_key(65537, int(kind.removeprefix("rsa")))
    ca = authority()
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    names = {"subject": kit.name("alice"), "issuer": ca.certificate.subject}
    builder = end_entity(kit.ALICE, key.public_key(), **names, when=NOW, days=1).add_extension(key_id, critical=False)
    return Identity(kit.ALICE, key, (builder.sign(ca.key, hashes.SHA256()),))


def entity(content: bytes = b"Watson, come here.\r\n") -> MimeObject:
    return kit.cpim(when=NOW, content=content)


def trust() -> TrustStore:
    return TrustStore(anchors=(authority().certificate,))


def run(*command: str, stdin: bytes = b"", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60, env=env, check=False)


def pem(thing: x509.Certificate | Identity) -> bytes:
    """A certificate, or the key that opens what is encrypted for an identity, as PEM."""
    if isinstance(thing, x509.Certificate):
        return thing.public_bytes(serialization.Encoding.PEM)
    key = thing.decryption_keys[0].key
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def must(done: subprocess.CompletedProcess[bytes]) -> bytes:
    if done.returncode != 0:
        raise PeerRefused(done.stderr.decode("utf-8", "replace").strip()[-400:])
    return done.stdout


class Openssl:
    """``openssl cms`` in a directory of its own; DER in and out."""

    def __init__(self, folder: Path) -> None:
        self.program = need_program("openssl")
        self.folder = folder
        (folder / "ca.pem").write_bytes(pem(authority().certificate))

    def file(self, name: str, data: bytes) -> str:
        (self.folder / name).write_bytes(data)
        return str(self.folder / name)

    def cms(self, *arguments: str) -> bytes:
        return must(run(self.program, "cms", "-binary", *arguments))

    def sign(self, octets: bytes, who: Identity, *options: str) -> bytes:
        key = self.file("key.pem", who.key.private_bytes(*_PLAIN))
        files = ["-in", self.file("in", octets), "-signer", self.file("cert.pem", pem(who.certificate)), "-inkey", key]
        return self.cms("-sign", "-nodetach", "-outform", "DER", *files, *options)

    def verify(self, signed: bytes) -> bytes:
        files = ["-in", self.file("in", signed), "-CAfile", str(self.folder / "ca.pem")]
        return self.cms("-verify", "-inform", "DER", *files)

    def encrypt(
        self, octets: bytes, *readers: Identity, options: tuple[str, ...] = (), key: tuple[str, ...] = ()
    ) -> bytes:
        """``key`` are options that belong to the last recipient."""
        recipients = [
            part
            for at, reader in enumerate(readers)
            for part in ("-recip", self.file(f"to{at}.pem", pem(reader.decryption_keys[0].certificate)))
        ]
        return self.cms("-encrypt", "-in", self.file("in", octets), "-outform", "DER", *options, *recipients, *key)

    def decrypt(self, sealed: bytes, who: Identity) -> bytes:
        files = ["-inkey", self.file("key.pem", pem(who))]
        files += ["-recip", self.file("cert.pem", pem(who.decryption_keys[0].certificate))]
        return self.cms("-decrypt", "-inform", "DER", "-in", self.file("in", sealed), *files)


_PLAIN = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


class Gpgsm:
    """gpgsm with a home directory of its own, which must have a short path for its sockets."""

    def __init__(self, program: str, home: Path) -> None:
        self.program = program
        self.home = home
        self.env = dict(os.environ, GNUPGHOME=str(home), LC_ALL="C.UTF-8")
        home.chmod(0o700)
        root = authority().certificate
        (home / "trustlist.txt").write_text(root.fingerprint(hashes.SHA1()).hex().upper() + " S relax\n")
        (home / "gpg-agent.conf").write_text("allow-loopback-pinentry\n")
        (home / "ca.pem").write_bytes(root.public_bytes(serialization.Encoding.PEM))
        self.run("--import", str(home / "ca.pem"))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        usual = ["--batch", "--yes", "--disable-crl-checks", "--pinentry-mode", "loopback", "--passphrase-fd", "0"]
        return run(self.program, *usual, *arguments, stdin=b"x\n", env=self.env)

    def import_key(self, identity: Identity) -> None:
        """Hand over a private key as PKCS #12.

        gpgsm 2.2 derives a wrong key from some salts, one in a hundred or so, where openssl reads the very file: then
        others are taken. Five failures in a row are not chance."""
        old = pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC  # all that gpgsm 2.2 reads
        builder = serialization.PrivateFormat.PKCS12.encryption_builder().kdf_rounds(2048)
        encryption = builder.key_cert_algorithm(old).hmac_hash(hashes.SHA1()).build(b"x")
        for _ in range(5):
            data = pkcs12.serialize_key_and_certificates(b"alice", identity.key, identity.certificate, None, encryption)
            (self.home / "key.p12").write_bytes(data)
            done = self.run("--import", str(self.home / "key.p12"))
            if b"decrypting the PKCS#12" not in done.stderr:
                break
        must(done)

    def _through(self, octets: bytes, *arguments: str) -> bytes:
        (self.home / "in").write_bytes(octets)
        (self.home / "out").unlink(missing_ok=True)
        must(self.run("--output", str(self.home / "out"), *arguments, str(self.home / "in")))
        return (self.home / "out").read_bytes()

    def sign(self, octets: bytes, who: Identity, *options: str) -> bytes:
        return self._through(octets, "-u", _sha1(who.certificate), *options, "--sign")

    def verify(self, signed: bytes) -> bytes:
        return self._through(signed, "--verify")

    def encrypt(self, octets: bytes, *readers: Identity, options: tuple[str, ...] = ()) -> bytes:
        recipients: list[str] = []
        for reader in readers:
            certificate = reader.decryption_keys[0].certificate
            (self.home / "to.pem").write_bytes(pem(certificate))
            must(self.run("--import", str(self.home / "to.pem")))
            recipients += ["-r", _sha1(certificate)]
        return self._through(octets, *recipients, *options, "--encrypt")

    def decrypt(self, sealed: bytes) -> bytes:
        return self._through(sealed, "--decrypt")

    def close(self) -> None:
        run(need_program("gpgconf"), "--kill", "all", env=self.env)


def _sha1(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA1()).hex().upper()
