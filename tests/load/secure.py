"""Measure what signing and verifying cost: ``python -m tests.load.secure [ROUNDS]``.

CPU time of this process, not wall time, so that a busy machine changes little. Each certification path is of three
certificates (signer, intermediate, root), as the issue asks; the object is a message/cpim with 4 KiB of text. "verify,
stranger" takes another signer each round, with certificates that were never read before; "verify" one correspondent's
many messages. Encrypting is for one recipient, an unsigned object with an authenticated cipher.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import cycle

from cryptography import x509
from cryptography.x509.oid import NameOID

from comity.cpim.address import Address
from comity.cpim.message import CpimMessage
from comity.cpim.operations import MimeObject
from comity.secure import Identity, LocalCa, TrustStore, decrypt, encrypt, new_identity, openpgp, sign, verify
from comity.secure.identity import KeyKind, hash_for, new_key

ALICE, BOB = Address.im("alice", "a.test"), Address.im("bob", "b.test")
SIZE = 4096
WARM_UP = 20
STRANGERS = 100


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU time of one call, in milliseconds."""

    what: str
    kind: str
    """Algorithm and kind of key."""
    rounds: int
    low: float
    """Tenth percentile."""
    middle: float
    high: float
    """Ninetieth percentile."""

    def __str__(self) -> str:
        return f"{self.what:18} {self.kind:24} {self.low:8.3f} {self.middle:8.3f} {self.high:8.3f}"


def cost(what: str, kind: str, call: Callable[[], object], rounds: int) -> Cost:
    """Call it ``rounds`` times, each timed by itself."""
    for _ in range(WARM_UP):
        call()
    spent = []
    for _ in range(rounds):
        began = time.process_time_ns()
        call()
        spent.append((time.process_time_ns() - began) / 1e6)
    spent.sort()
    return Cost(what, kind, rounds, *(spent[int(part * (rounds - 1))] for part in (0.1, 0.5, 0.9)))


def text_entity(when: datetime, size: int = SIZE) -> MimeObject:
    """A message/cpim with ``size`` octets of text."""
    message = CpimMessage.build(
        from_=ALICE.uri,
        to=BOB.uri,
        date_time=when,
        content=b"All work and no play. " * (size // 22) + b"." * (size % 22),
        content_type="text/plain; charset=utf-8",
    )
    return MimeObject.of("message/cpim", message.raw)


def intermediate(root: LocalCa, kind: KeyKind, when: datetime) -> LocalCa:
    """An authority below ``root``."""
    key = new_key(kind)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Staff of a.test")]))
        .issuer_name(root.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(when - timedelta(days=1))
        .not_valid_after(when + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    )
    return LocalCa(key, builder.sign(root.key, hash_for(root.key)))


def root(kind: KeyKind, when: datetime) -> LocalCa:
    """A root that may have an authority below it."""
    key = new_key(kind)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Root of a.test")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(when - timedelta(days=1))
        .not_valid_after(when + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    return LocalCa(key, builder.sign(key, hash_for(key)))


def signer(below: LocalCa, kind: KeyKind, when: datetime) -> Identity:
    """Alice with a new certificate, which brings the intermediate one along."""
    key = new_key(kind)
    return Identity(ALICE, key, (below.issue(ALICE, key.public_key(), when=when), below.certificate))


def signing(kind: KeyKind, rounds: int, when: datetime) -> Iterator[Cost]:
    """Sign and verify with keys of ``kind`` throughout the path."""
    top = root(kind, when)
    middle = intermediate(top, kind, when)
    alice = signer(middle, kind, when)
    trust = TrustStore(anchors=(top.certificate,))
    entity = text_entity(when)
    yield cost("sign", kind, lambda: sign(entity, alice, when=when), rounds)
    signed = sign(entity, alice, when=when)
    verdict = verify(signed, trust, now=when)
    assert verdict.is_valid, verdict.reason
    yield cost("verify", kind, lambda: verify(signed, trust, now=when), rounds)
    if kind == "rsa":
        return  # making a hundred RSA keys would take longer than everything else together
    others = [sign(entity, signer(middle, kind, when), when=when) for _ in range(WARM_UP + STRANGERS)]
    following = cycle(others)
    yield cost("verify, stranger", kind, lambda: verify(next(following), trust, now=when), STRANGERS)


def sealing(kind: KeyKind, rounds: int, when: datetime) -> Iterator[Cost]:
    """Encrypt for a key of ``kind`` (of an Ed25519 identity its X25519 one) and decrypt."""
    bob = new_identity(BOB, when=when, kind=kind)
    entity = text_entity(when)
    recipient = bob.certificate if bob.encryption is None else bob.encryption.certificate
    yield cost("encrypt", kind, lambda: encrypt(entity, [recipient]), rounds)
    sealed = encrypt(entity, [recipient])
    assert decrypt(sealed, [bob]).entity == entity.entity
    yield cost("decrypt", kind, lambda: decrypt(sealed, [bob]), rounds)


def pgp_sealing(rounds: int, when: datetime) -> Iterator[Cost]:
    """The same with OpenPGP (X25519)."""
    bob = openpgp.new_identity(BOB, when=when)
    recipients = openpgp.read_certificates(bob.certificate)
    entity = text_entity(when)
    yield cost("encrypt", "openpgp", lambda: encrypt(entity, recipients, when=when), rounds)
    sealed = encrypt(entity, recipients, when=when)
    assert decrypt(sealed, [bob]).entity == entity.entity
    yield cost("decrypt", "openpgp", lambda: decrypt(sealed, [bob]), rounds)


def pgp_signing(rounds: int, when: datetime) -> Iterator[Cost]:
    """Sign and verify with OpenPGP (Ed25519), the key pinned."""
    alice = openpgp.new_identity(ALICE, when=when)
    trust = TrustStore(openpgp_pinned=(alice.certificate,))
    entity = text_entity(when)
    yield cost("sign", "openpgp", lambda: sign(entity, alice, when=when), rounds)
    signed = sign(entity, alice, when=when)
    now = datetime.now(UTC)
    verdict = verify(signed, trust, now=now)
    assert verdict.is_valid, verdict.reason
    yield cost("verify", "openpgp", lambda: verify(signed, trust, now=now), rounds)


def all_costs(rounds: int, when: datetime) -> Iterator[Cost]:
    """Everything there is."""
    kinds: Sequence[KeyKind] = ("p256", "ed25519", "rsa")
    for kind in kinds:
        yield from signing(kind, rounds, when)
    yield from pgp_signing(rounds, when)
    for kind in kinds:
        yield from sealing(kind, rounds, when)
    yield from pgp_sealing(rounds, when)


def main(rounds: int) -> None:
    """Print a table."""
    sys.stdout.write(f"{'milliseconds of CPU':43} {'10 %':>8} {'50 %':>8} {'90 %':>8}\n")
    for found in all_costs(rounds, datetime.now(UTC)):
        sys.stdout.write(f"{found}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
