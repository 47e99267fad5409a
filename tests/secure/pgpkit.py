"""What the tests of OpenPGP build on: people with keys, objects of now, and a gpg with a home of its own."""

from __future__ import annotations

import bz2
import hashlib
import os
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from comity.cpim.address import Address
from comity.cpim.operations import MimeObject
from comity.secure import TrustStore, Verdict, openpgp, verify
from comity.secure import openpgp_packets as wire
from comity.secure.openpgp import PgpIdentity
from tests.peers import need_program
from tests.secure import kit


def now() -> datetime:
    """pysequoia and gpg judge by the machine's clock."""
    return datetime.now(UTC)


@cache
def person(address: Address = kit.ALICE) -> PgpIdentity:
    return openpgp.new_identity(address, when=now())


def trusting(*people: PgpIdentity) -> TrustStore:
    return TrustStore(openpgp_pinned=tuple(one.certificate for one in people))


def message(content: bytes = b"Watson, come here.\r\n", **more: object) -> MimeObject:
    return kit.cpim(when=now(), content=content, **more)  # type: ignore[arg-type]  # keyword table of a test helper


def judged(obj: MimeObject | bytes, trust: TrustStore | None = None, **more: object) -> Verdict:
    """The verdict of who pinned Alice's key."""
    return verify(obj, trust or trusting(person()), now=now(), **more)  # type: ignore[arg-type]  # as message()


def multipart_signed(entity: bytes, signature: bytes, micalg: str = "pgp-sha512") -> MimeObject:
    """A multipart/signed as another program would write it."""
    header = f'multipart/signed; protocol="application/pgp-signature"; micalg={micalg}; boundary=b'
    octets = b"--b\r\n" + entity + b"\r\n--b\r\nContent-Type: application/pgp-signature\r\n\r\n" + signature
    return MimeObject.of(header, octets + b"\r\n--b--")


class PeerRefused(AssertionError):
    """A peer did not do what it was asked to."""


class Gpg:
    """GnuPG with its own home and keyring."""

    def __init__(self, home: Path) -> None:
        self.program = need_program("gpg")
        self.home = home

    def run(self, *options: str, stdin: bytes = b"", is_bad: bool = False) -> subprocess.CompletedProcess[bytes]:
        """Run it; ``is_bad`` says that it must fail."""
        command = [self.program, "--homedir", str(self.home), "--batch", "--no-tty", "--yes", "--quiet"]
        command += ["--pinentry-mode", "loopback", "--passphrase", "", "--trust-model", "always", *options]
        environment = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False, env=environment)
        if (done.returncode != 0) != is_bad:
            raise PeerRefused(done.stderr.decode("utf-8", "replace"))
        return done

    def __call__(self, *options: str, stdin: bytes = b"") -> bytes:
        return self.run(*options, stdin=stdin).stdout

    def new_key(self, user_id: str, *, kind: str = "ed25519", subkey: str = "cv25519", expire: str = "1y") -> bytes:
        """Make a key with one encryption subkey; gives its certificate."""
        self("--quick-generate-key", user_id, kind, "sign,cert", expire)
        fingerprint = self.fingerprint(user_id)
        if subkey:
            self("--quick-add-key", fingerprint, subkey, "encr", expire)
        return self("--export", fingerprint)

    def fingerprint(self, user_id: str) -> str:
        lines = self("--with-colons", "--list-keys", f"={user_id}").decode().splitlines()
        return next(line.split(":")[9] for line in lines if line.startswith("fpr:"))

    def status(self, *options: str, stdin: bytes = b"") -> list[str]:
        """Keywords of its status lines."""
        done = self.run("--status-fd", "2", *options, stdin=stdin)
        return [
            line.split()[1]
            for line in done.stderr.decode("utf-8", "replace").splitlines()
            if line.startswith("[GNUPG:]")
        ]


@contextmanager
def gpg_home() -> Iterator[Gpg]:
    """A gpg of our own, its agent ended afterwards. The path is short: it holds a socket."""
    home = Path(tempfile.mkdtemp(prefix="pgp"))
    try:
        yield Gpg(home)
    finally:
        if (gpgconf := shutil.which("gpgconf")) is not None:
            subprocess.run([gpgconf, "--homedir", str(home), "--kill", "all"], check=False, timeout=30)
        shutil.rmtree(home, ignore_errors=True)


# --- made by hand -------------------------------------------------------------------------------------------------


def literal(content: bytes, *, name: bytes = b"", kind: bytes = b"b") -> bytes:
    """A literal packet."""
    return wire.packet(wire.LITERAL, kind + bytes((len(name),)) + name + bytes(4) + content)


def compressed(inside: bytes, *, method: int = 2) -> bytes:
    """A compressed packet: 1 is ZIP, 2 ZLIB, 3 BZip2."""
    if method == 3:
        return wire.packet(wire.COMPRESSED, b"\x03" + bz2.compress(inside))
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15 if method == 1 else 15)
    return wire.packet(wire.COMPRESSED, bytes((method,)) + deflater.compress(inside) + deflater.flush())


def recipient_packet(session: bytes, identity: PgpIdentity, *, key_id: bytes | None = None) -> bytes:
    """A PKESK of version 3 for the Curve25519 subkey of ``identity`` (RFC 9580 section 11.5)."""
    (certificate,) = openpgp.read_certificates(identity.certificate)
    key = certificate.keys[-1]
    fields = wire.Fields(key.packet.body)
    fields.take(6)
    oid, point = fields.take(fields.number(1)), fields.mpi()
    kdf = fields.take(fields.number(1))
    ephemeral = X25519PrivateKey.generate()
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(point[1:]))
    parameter = bytes((len(oid),)) + oid + b"\x12" + bytes((len(kdf),)) + kdf + b"Anonymous Sender    "
    hasher = hashes.Hash({8: hashes.SHA256(), 9: hashes.SHA384(), 10: hashes.SHA512()}[kdf[1]])
    hasher.update(b"\0\0\0\x01" + shared + parameter + bytes.fromhex(key.fingerprint))
    plain = b"\x09" + session + (sum(session) & 0xFFFF).to_bytes(2, "big")
    padding = 8 - len(plain) % 8
    wrapped = aes_key_wrap(hasher.finalize()[: {7: 16, 8: 24, 9: 32}[kdf[2]]], plain + bytes((padding,)) * padding)
    body = b"\x03" + (bytes.fromhex(key.key_id) if key_id is None else key_id) + b"\x12\x01\x07\x40"
    return wire.packet(wire.PKESK, body + ephemeral.public_key().public_bytes_raw() + bytes((len(wrapped),)) + wrapped)


def protected(inside: bytes, session: bytes) -> bytes:
    """A SEIPD packet of version 1: any packets, encrypted with their MDC."""
    prefix = os.urandom(16)
    plain = prefix + prefix[-2:] + inside + b"\xd3\x14"
    plain += hashlib.sha1(plain, usedforsecurity=False).digest()
    encryptor = Cipher(algorithms.AES(session), CFB(bytes(16))).encryptor()
    return wire.packet(wire.SEIPD, b"\x01" + encryptor.update(plain) + encryptor.finalize())


def encrypted(inside: bytes, identity: PgpIdentity) -> bytes:
    """Any packets, encrypted for ``identity`` as gpg 2.2 would."""
    session = os.urandom(32)
    return recipient_packet(session, identity) + protected(inside, session)


def adopted(thief: PgpIdentity, subkey: wire.Packet, flags: int) -> bytes:
    """The certificate of ``thief`` with a subkey of somebody else bound to it: true but for what only its owner can add."""
    fields = wire.Fields(wire.read_packets(thief.secret)[0].body)
    head = fields.take(6)
    oid, point = fields.take(fields.number(1)), fields.mpi()
    public = head + bytes((len(oid),)) + oid + (len(point) * 8 - 1).to_bytes(2, "big") + point
    fields.take(1)
    secret = Ed25519PrivateKey.from_private_bytes(fields.mpi().rjust(32, b"\0"))
    created = bytes((5, 2)) + int(now().timestamp()).to_bytes(4, "big")
    issuer = bytes((22, 33, 4)) + bytes.fromhex(thief.fingerprint)
    hashed = created + bytes((2, 27, flags)) + issuer
    body = bytes((4, 0x18, 22, 10)) + len(hashed).to_bytes(2, "big") + hashed
    digest = hashlib.sha512()
    for key in (public, subkey.body):
        digest.update(b"\x99" + len(key).to_bytes(2, "big") + key)
    digest.update(body + b"\x04\xff" + len(body).to_bytes(4, "big"))
    value = secret.sign(digest.digest())
    numbers = b"".join(
        int.from_bytes(half, "big").bit_length().to_bytes(2, "big") + half.lstrip(b"\0")
        for half in (value[:32], value[32:])
    )
    binding = wire.packet(wire.SIGNATURE, body + b"\0\0" + digest.digest()[:2] + numbers)
    own = wire.read_packets(thief.certificate)
    end = next(index for index, packet in enumerate(own) if packet.tag == wire.PUBLIC_SUBKEY)
    return b"".join(packet.raw for packet in own[:end]) + subkey.raw + binding
