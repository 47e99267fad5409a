"""Secured objects for stories, made and opened by ``openssl cms`` and ``gpg``: whatever the far end gets, a stranger reads.

A ``Safe`` holds the keys of Alice and Bob in a directory of its own; the server of the story never sees it.
"""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import Encoding

from comity.client import text_object
from comity.cpim.entity import decode_transfer, multipart_parts, signed_part, split_entity
from comity.cpim.operations import MimeObject, Reason
from comity.secure import Identity, LocalCa, TrustStore, new_identity, sign
from comity.secure.opening import decrypt
from comity.secure.sealing import encrypt
from tests.paths.kit import ALICE, BOB, Via
from tests.peers import need_program

SECRET = "The password of the day is xyzzy-7431."
"""Stands in every encrypted object, and nowhere else."""


def told(reason: Reason, *ends: Via) -> Reason:
    """What a sender hears: APEX has one code for all that a policy refuses, 554 (T8), and says the rest in its text."""
    return Reason.DENIED if "apex" in ends else reason


class Safe:
    """Keys of Alice and Bob, one authority, and the peers that use them.

    Args:
        directory: an empty one, short enough a name for the socket of gpg's agent.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.chmod(0o700)
        now = datetime.now(UTC)
        self.authority = LocalCa.create("Test authority", when=now)
        self.alice = new_identity(ALICE, ca=self.authority, when=now)
        self.bob = new_identity(BOB, ca=self.authority, when=now)
        self.trust = TrustStore(anchors=(self.authority.certificate,))
        for name, identity in (("alice", self.alice), ("bob", self.bob)):
            self._write(name, identity)
        self.put("ca.pem", self.authority.certificate.public_bytes(Encoding.PEM))
        self._has_gpg_keys = False

    def _write(self, name: str, identity: Identity) -> None:
        self.put(f"{name}.pem", b"".join(each.public_bytes(Encoding.PEM) for each in identity.certificates))
        pkcs8 = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        self.put(f"{name}.key", identity.key.private_bytes(Encoding.PEM, *pkcs8))

    def put(self, name: str, octets: bytes) -> str:
        """A file in the directory."""
        path = self.directory / name
        path.write_bytes(octets)
        return str(path)

    def path(self, name: str) -> str:
        return str(self.directory / name)

    # --- peers -----------------------------------------------------------------------------------------------

    def openssl(self, *words: str, stdin: bytes) -> bytes:
        """Run ``openssl cms``."""
        command = [need_program("openssl"), "cms", *words]
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def gpg(self, *words: str, stdin: bytes = b"") -> bytes:
        """Run ``gpg`` with the keys of Alice and Bob."""
        command = [need_program("gpg"), "--homedir", str(self.directory), "--batch", "--quiet", "--no-tty", *words]
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def need_gpg_keys(self) -> None:
        """Make OpenPGP keys, once."""
        if not self._has_gpg_keys:
            for address in (ALICE, BOB):
                words = ("--pinentry-mode", "loopback", "--passphrase", "", "--quick-generate-key")
                self.gpg(*words, address.uri, "future-default", "default", "1d")
            self._has_gpg_keys = True

    def close(self) -> None:
        """End gpg's agent."""
        if self._has_gpg_keys:
            command = ["gpgconf", "--homedir", str(self.directory), "--kill", "gpg-agent"]
            subprocess.run(command, capture_output=True, timeout=60, check=False)

    # --- S/MIME ------------------------------------------------------------------------------------------------

    def multipart_signed(self, thing: MimeObject) -> MimeObject:
        return sign(thing, self.alice, when=datetime.now(UTC))

    def signed_data(self, thing: MimeObject) -> MimeObject:
        return sign(thing, self.alice, form="signed-data", when=datetime.now(UTC))

    def enveloped(self, thing: MimeObject) -> MimeObject:
        """EnvelopedData, as RFC 3860 names it; octets as they are."""
        return pkcs7("enveloped-data", self._encrypt(thing, "-aes-128-cbc"))

    def auth_enveloped(self, thing: MimeObject) -> MimeObject:
        """AuthEnvelopedData (RFC 8591 section 4.2)."""
        return pkcs7("authEnveloped-data", self._encrypt(thing, "-aes-128-gcm"))

    def auth_enveloped_base64(self, thing: MimeObject) -> MimeObject:
        """The same in base64, which fits an ``e2e`` element."""
        return pkcs7("authEnveloped-data", self._encrypt(thing, "-aes-128-gcm"), is_base64=True)

    def signed_then_encrypted(self, thing: MimeObject) -> MimeObject:
        return self.auth_enveloped(self.multipart_signed(thing))

    def ours(self, thing: MimeObject) -> MimeObject:
        """Signed, then encrypted by our own program, in base64."""
        return encrypt(thing, self.bob.certificates[:1], signer=self.alice, when=datetime.now(UTC), encoding="base64")

    def open_ours(self, received: MimeObject) -> bytes:
        """By openssl and by our own program, which have to agree."""
        by_peer = self.open_smime(received)
        assert decrypt(received, [self.bob]).entity == by_peer
        return unsigned(by_peer)

    def _encrypt(self, thing: MimeObject, cipher: str) -> bytes:
        words = ("-encrypt", "-binary", "-outform", "DER", cipher, self.path("bob.pem"))
        return self.openssl(*words, stdin=thing.entity)

    def open_smime(self, received: MimeObject) -> bytes:
        """The entity inside, by Bob's key."""
        words = ("-decrypt", "-inform", "DER", "-recip", self.path("bob.pem"), "-inkey", self.path("bob.key"))
        return self.openssl(*words, stdin=decode_transfer(received))

    def read_signed_data(self, received: MimeObject) -> bytes:
        """The entity inside, by a stranger who trusts the authority."""
        words = ("-verify", "-inform", "DER", "-binary", "-CAfile", self.path("ca.pem"), "-purpose", "any")
        return self.openssl(*words, stdin=decode_transfer(received))

    def read_multipart_signed(self, received: MimeObject) -> bytes:
        content, signature = multipart_parts(received)
        name = self.put("p7s", decode_transfer(split_entity(signature)))
        words = ("-verify", "-inform", "DER", "-in", name, "-binary", "-CAfile", self.path("ca.pem"))
        return self.openssl(*words, "-purpose", "any", "-content", self.put("content", content), stdin=b"")

    # --- OpenPGP (RFC 3156) ------------------------------------------------------------------------------------

    def pgp_signed(self, thing: MimeObject) -> MimeObject:
        self.need_gpg_keys()
        words = ("--local-user", ALICE.uri, "--digest-algo", "SHA256", "--armor", "--detach-sign")
        signature = lines(self.gpg(*words, stdin=thing.entity))
        part = b"Content-Type: application/pgp-signature\r\n\r\n" + signature
        kind = 'multipart/signed; protocol="application/pgp-signature"; micalg=pgp-sha256; boundary="pgp-next"'
        return MimeObject.of(kind, multipart(thing.entity, part))

    def pgp_encrypted(self, thing: MimeObject) -> MimeObject:
        """Signed and encrypted in one (RFC 3156 section 6.2)."""
        self.need_gpg_keys()
        words = ("--trust-model", "always", "--local-user", ALICE.uri, "--recipient", BOB.uri, "--armor", "--sign")
        message = lines(self.gpg(*words, "--encrypt", stdin=thing.entity))
        control = b"Content-Type: application/pgp-encrypted\r\n\r\nVersion: 1\r\n"
        part = b"Content-Type: application/octet-stream\r\n\r\n" + message
        kind = 'multipart/encrypted; protocol="application/pgp-encrypted"; boundary="pgp-next"'
        return MimeObject.of(kind, multipart(control, part))

    def open_pgp(self, received: MimeObject) -> bytes:
        message = split_entity(multipart_parts(received)[1])
        return self.gpg("--trust-model", "always", "--decrypt", stdin=message.octets)

    def read_pgp_signed(self, received: MimeObject) -> bytes:
        content, signature = multipart_parts(received)
        asc = self.put("asc", split_entity(signature).octets)
        self.gpg("--trust-model", "always", "--verify", asc, self.put("content", content))
        return content


def pkcs7(kind: str, der: bytes, *, is_base64: bool = False) -> MimeObject:
    """An application/pkcs7-mime entity."""
    encoding, octets = b"binary", der
    if is_base64:
        encoding, octets = b"base64", lines(base64.encodebytes(der))
    headers = (
        b"Content-Type: application/pkcs7-mime; smime-type=" + kind.encode() + b"; name=smime.p7m\r\n"
        b"Content-Transfer-Encoding: " + encoding + b"\r\n"
        b"Content-Disposition: attachment; handling=required; filename=smime.p7m\r\n"
    )
    return MimeObject(headers, octets)


def multipart(*parts: bytes) -> bytes:
    return b"".join(b"--pgp-next\r\n" + part + b"\r\n" for part in parts) + b"--pgp-next--\r\n"


def lines(text: bytes) -> bytes:
    """Text of a Unix program with the line ends of MIME."""
    return text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def secret_object() -> MimeObject:
    """What is put into every form."""
    return text_object(ALICE, BOB, SECRET)


def unsigned(entity: bytes) -> bytes:
    """The signed part of a multipart/signed entity."""
    return signed_part(split_entity(entity)).entity


Make = Callable[[Safe, MimeObject], MimeObject]
Read = Callable[[Safe, MimeObject], bytes]
FORMS: dict[str, tuple[Make, Read]] = {
    "multipart-signed": (Safe.multipart_signed, Safe.read_multipart_signed),
    "signed-data": (Safe.signed_data, Safe.read_signed_data),
    "enveloped": (Safe.enveloped, Safe.open_smime),
    "auth-enveloped": (Safe.auth_enveloped, Safe.open_smime),
    "auth-enveloped-base64": (Safe.auth_enveloped_base64, Safe.open_smime),
    "signed-then-encrypted": (Safe.signed_then_encrypted, lambda safe, got: unsigned(safe.open_smime(got))),
    "ours": (Safe.ours, Safe.open_ours),
    "pgp-signed": (Safe.pgp_signed, Safe.read_pgp_signed),
    "pgp-encrypted": (Safe.pgp_encrypted, Safe.open_pgp),
}
"""By name: how it is made, and how a peer reads the entity inside again."""
ENCRYPTED = frozenset(FORMS) - {"multipart-signed", "signed-data", "pgp-signed"}
