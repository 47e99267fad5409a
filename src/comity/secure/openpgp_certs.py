"""OpenPGP certificates: read within limits, and the addresses one proves (RFC 9580 sections 10.1 and 5.2.3).

Place on the path: below ``openpgp.py``; a correspondent's certificate goes in, ``PgpCertificate`` comes out, with what
pysequoia found valid in it: self-signed User IDs, expiry, revocation. The rule its readers must keep: what stands in
``PgpKey.signatures`` is unchecked, and may only make a key less trusted.

Which address a certificate proves is our rule, for RFC 3156 has none: a User ID that is an im:, pres:, sip: or xmpp: URI, alone
or in angle brackets at its end, or a notation ``NOTATION`` with such a URI in the self-signature of a User ID. A mail
address proves nothing: mail and instant messages of one name may be two people's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache, partial

from comity.errors import MalformedMessage, SecurityError
from comity.secure import openpgp_packets as wire
from comity.secure.certificates import MAX_EXPONENT_BITS, MAX_RSA_BITS
from comity.secure.evidence import TooLarge
from comity.secure.identity import MAX_ALT_NAMES, Name, name_of
from comity.secure.openpgp_facts import Refused, SignatureFacts, ask, is_available, key_facts, signature_facts
from comity.secure.question import escaped

if is_available:
    import pysequoia

NOTATION = "im-address@comity.invalid"
"""Name of the notation whose value is an address URI; ``.invalid`` (RFC 2606) so that no domain's owner can define it."""
MAX_CERTIFICATE = 64 * 1024
"""Octets of one certificate (reliability.md M-35)."""
MAX_FILE = 1024 * 1024
"""Octets of a file of certificates."""
MAX_BINDINGS = 4
"""Binding signatures of one subkey that are tried, newest first."""

_URI = re.compile(r"(?:[^<>]* )?<([^<>]+)>|([^<>]+)")
_PRIMARY = frozenset({wire.PUBLIC_KEY, wire.SECRET_KEY})
_SUBKEYS = frozenset({wire.PUBLIC_SUBKEY, wire.SECRET_SUBKEY})
_PARTS = _PRIMARY | _SUBKEYS | {wire.USER_ID, wire.USER_ATTRIBUTE, wire.SIGNATURE}
_SKIPPED = wire.IGNORED | {wire.TRUST}
_RSA = frozenset({1, 2, 3})


@dataclass(frozen=True, slots=True)
class PgpKey:
    """The primary key or one subkey."""

    fingerprint: str
    key_id: str
    created: datetime
    algorithm: str
    """Lower case, as pysequoia calls it: "eddsa", "ed25519", "ecdsa", "rsaencryptsign" …"""
    rsa_bits: int
    """0 for other kinds."""
    packet: wire.Packet = field(repr=False)
    signatures: tuple[tuple[wire.Packet, SignatureFacts], ...] = field(repr=False)
    """Bindings and revocations after it, as received: unchecked. Those that cannot be read are left out."""

    def bindings(self) -> list[tuple[wire.Packet, SignatureFacts]]:
        """Its binding signatures, newest first."""
        found = [(packet, facts) for packet, facts in self.signatures if facts.kind == "SubkeyBinding"]
        return sorted(found, key=lambda pair: pair[1].created or self.created, reverse=True)

    @property
    def has_revocation(self) -> bool:
        """True if a revocation of the subkey stands after it, checked or not: who doubts a key does not trust it."""
        return any(facts.kind == "SubkeyRevocation" for _, facts in self.signatures)


@dataclass(frozen=True, slots=True)
class PgpCertificate:
    """What a correspondent's OpenPGP certificate says, as far as its own signatures hold."""

    fingerprint: str
    """Lower-case hex, of the primary key."""
    octets: bytes = field(repr=False)
    """Binary packets, without secrets."""
    user_ids: tuple[str, ...]
    """Those with a valid self-signature and without revocation; unescaped."""
    names: tuple[Name, ...]
    """The addresses it proves, if one trusts it."""
    created: datetime
    expires: datetime | None
    is_revoked: bool
    keys: tuple[PgpKey, ...] = field(repr=False)
    """Primary key first."""

    @property
    def title(self) -> str:
        """How to call it in a sentence, escaped (M-44)."""
        return escaped(self.user_ids[0] if self.user_ids else f"the OpenPGP key {self.fingerprint}")

    @property
    def addresses(self) -> tuple[str, ...]:
        """The proved addresses as URIs, for lists."""
        return tuple(map(str, self.names))


def read_certificates(data: bytes) -> list[PgpCertificate]:
    """Read a file of OpenPGP certificates, binary or one ASCII armor; at least one.

    Raises:
        TooLarge: one is over 64 KiB or 100 packets, or has a key that is too large (M-35).
        SecurityError: they cannot be read, or there is none, or a private key stands among them.
    """
    if len(data) > MAX_FILE:
        raise TooLarge(f"the file is larger than {MAX_FILE // 1024} KiB: it is no OpenPGP certificate")
    try:
        octets = wire.dearmor(data, (b"PUBLIC KEY BLOCK",))
        return [_checked(piece) for piece in split_keys(octets)]
    except (MalformedMessage, Refused) as error:
        raise SecurityError(f"This is no OpenPGP certificate that can be read: {error}.") from error


def merged(one: PgpCertificate, other: PgpCertificate) -> PgpCertificate:
    """Everything that either version of a certificate says: a revocation is not lost by importing an older version.

    Raises:
        TooLarge: the two together are over the limits of one certificate.
        SecurityError: they are not versions of one certificate.
    """
    cert, second = (ask(partial(pysequoia.Cert.from_bytes, each.octets)) for each in (one, other))
    try:
        return read_certificates(bytes(ask(lambda: cert.merge(second))))[0]
    except Refused as error:
        raise SecurityError(f"{other.title} is another certificate than {one.title}.") from error


def split_keys(octets: bytes) -> Iterator[bytes]:
    """Cut a keyring into certificates (or private keys), each within the limits; padding and the like is left out.

    Raises:
        TooLarge, MalformedMessage: as ``read_certificates``.
    """
    pieces: list[list[wire.Packet]] = []
    for packet in wire.read_packets(octets, MAX_FILE // 64):
        if packet.tag in _SKIPPED:
            continue
        if packet.tag not in _PARTS or (packet.tag not in _PRIMARY and not pieces):
            raise MalformedMessage(f"an OpenPGP packet of type {packet.tag} has no place in a certificate")
        if packet.tag in _PRIMARY:
            pieces.append([])
        pieces[-1].append(packet)
        if len(pieces[-1]) > wire.MAX_PACKETS:
            raise TooLarge(f"an OpenPGP certificate has more than {wire.MAX_PACKETS} packets")
    if not pieces:
        raise MalformedMessage("there is no OpenPGP key")
    for piece in pieces:
        whole = b"".join(packet.raw for packet in piece)
        if len(whole) > MAX_CERTIFICATE:
            raise TooLarge(f"an OpenPGP certificate is larger than {MAX_CERTIFICATE // 1024} KiB")
        for packet in piece:
            if packet.tag in _PRIMARY | _SUBKEYS:
                bits, exponent_bits = _rsa_sizes(packet)
                if bits > MAX_RSA_BITS or exponent_bits > MAX_EXPONENT_BITS:
                    raise TooLarge(f"an OpenPGP key has more than {MAX_RSA_BITS} bits, or an exponent of too many")
        yield whole


def _rsa_sizes(packet: wire.Packet) -> tuple[int, int]:
    """Bits of modulus and exponent of an RSA key, zeros for another kind (RFC 9580 section 5.5.2)."""
    fields = wire.Fields(packet.body)
    version = fields.number(1)
    fields.take(4)
    if fields.number(1) not in _RSA:
        return 0, 0
    if version == 6:
        fields.take(4)
    modulus, exponent = (int.from_bytes(fields.mpi(), "big") for _ in range(2))
    return modulus.bit_length(), exponent.bit_length()


def _checked(octets: bytes) -> PgpCertificate:
    if any(packet.tag in (wire.SECRET_KEY, wire.SECRET_SUBKEY) for packet in wire.read_packets(octets)):
        raise SecurityError("This is a private OpenPGP key, not a certificate: give what may be known to others.")
    return load(octets)


@lru_cache(maxsize=512)
def load(octets: bytes) -> PgpCertificate:
    """Read one certificate of a trust store (binary packets within the limits).

    Raises:
        Refused, MalformedMessage, TooLarge: it cannot be read.
    """
    packets = [packet for piece in split_keys(octets) for packet in wire.read_packets(piece)]
    cert = ask(lambda: pysequoia.Cert.from_bytes(octets))
    expires: datetime | None = None
    user_ids: list[tuple[str, list[str]]] = []
    try:
        expires = ask(lambda: cert.expiration)
        user_ids = ask(lambda: [(str(uid), _addresses_noted(uid)) for uid in cert.user_ids])
    except Refused:
        pass  # no self-signature that holds, or only with SHA-1: a certificate that proves nothing and signs nothing
    texts = [text for uid, noted in user_ids for text in (_address_text(uid), *noted)]
    names = dict.fromkeys(name for text in texts[:MAX_ALT_NAMES] if text and (name := name_of(text)) is not None)
    keys = _keys_of(packets)
    return PgpCertificate(
        fingerprint=keys[0].fingerprint,
        octets=ask(lambda: bytes(cert)),
        user_ids=tuple(uid for uid, _ in user_ids),
        names=tuple(names),
        created=keys[0].created,
        expires=expires,
        is_revoked=ask(lambda: cert.is_revoked),
        keys=keys,
    )


def _addresses_noted(uid: pysequoia.UserId) -> list[str]:
    return [note.value for note in uid.notations if note.key == NOTATION]


def _address_text(uid: str) -> str:
    """The URI that a User ID is, or has in angle brackets at its end; "" if there is none."""
    found = _URI.fullmatch(uid) if uid.isprintable() and "\ufffd" not in uid else None
    return "" if found is None else (found[1] or found[2])


def _keys_of(packets: list[wire.Packet]) -> tuple[PgpKey, ...]:
    keys: list[PgpKey] = []
    for index, packet in enumerate(packets):
        if packet.tag not in _PRIMARY | _SUBKEYS:
            continue
        following: list[wire.Packet] = []
        for later in packets[index + 1 :]:
            if later.tag != wire.SIGNATURE:
                break
            following.append(later)
        facts = key_facts(packet)
        keys.append(
            PgpKey(
                facts.fingerprint,
                facts.key_id,
                facts.created,
                facts.algorithm,
                _rsa_sizes(packet)[0],
                packet,
                tuple((later, found) for later in following if (found := _facts_of(later)) is not None),
            )
        )
    return tuple(keys)


def _facts_of(packet: wire.Packet) -> SignatureFacts | None:
    try:
        return signature_facts(packet)
    except Refused:
        return None


@dataclass(frozen=True, slots=True)
class View:
    """A certificate as one signature sees it: with one binding of the subkey that made it."""

    octets: bytes = field(repr=False)
    expires: datetime | None
    """When that key expires; None: not before the certificate."""


@lru_cache(maxsize=512)
def views_of(certificate_octets: bytes, fingerprint: str) -> tuple[View, ...]:
    """Certificates to check a signature of that key with, best first; revocations of the whole are left out.

    pysequoia asks whether the key was good when the signature says it was made; who has an old key can write any time
    into it. So we want to know whether the key is good *now*, and for a subkey nobody tells us: hence one view for each
    binding signature; the first one under which the signature holds is genuine, and says when the subkey expires. A
    certificate that is revoked as a whole is a matter of trust, not of arithmetic (SEC-21).
    """
    packets = [
        packet
        for packet in wire.read_packets(certificate_octets)
        if packet.tag != wire.SIGNATURE or not ((facts := _facts_of(packet)) and facts.kind == "KeyRevocation")
    ]
    keys = _keys_of(packets)
    key = next(key for key in keys if key.fingerprint == fingerprint)
    head = b"".join(p.raw for p in packets[: next(_subkey_indexes(packets), len(packets))])
    if key is keys[0]:
        return (View(head, None),)
    kept = b"".join(packet.raw for packet, facts in key.signatures if facts.kind == "SubkeyRevocation")
    found: list[View] = []
    for packet, facts in key.bindings()[:MAX_BINDINGS]:
        octets = head + key.packet.raw + packet.raw + kept
        found.append(View(octets, None if facts.period is None else key.created + facts.period))
    return tuple(found)


def _subkey_indexes(packets: list[wire.Packet]) -> Iterator[int]:
    return (index for index, packet in enumerate(packets) if packet.tag in _SUBKEYS)


@dataclass(frozen=True, slots=True)
class Known:
    """The OpenPGP certificates of a trust store, by key."""

    by_key: dict[str, list[tuple[PgpCertificate, PgpKey]]] = field(repr=False)
    """Under fingerprint and key ID of every key; pinned ones first."""
    revoked: frozenset[str]
    """Fingerprints of certificates of which any version kept is revoked."""
    pinned: frozenset[str]


@lru_cache(maxsize=8)
def known_of(pinned: tuple[bytes, ...], known: tuple[bytes, ...]) -> Known:
    """Read a trust store's certificates; one that cannot be read is as good as not there."""
    by_key: dict[str, list[tuple[PgpCertificate, PgpKey]]] = {}
    revoked: set[str] = set()
    pins: set[str] = set()
    for index, octets in enumerate((*pinned, *known)):
        try:
            certificate = load(octets)
        except (SecurityError, MalformedMessage):
            continue
        if index < len(pinned):
            pins.add(certificate.fingerprint)
        if certificate.is_revoked:
            revoked.add(certificate.fingerprint)
        for key in certificate.keys:
            for name in (key.fingerprint, key.key_id):
                by_key.setdefault(name, []).append((certificate, key))
    return Known(by_key, frozenset(revoked), frozenset(pins))


def encrypts_until(certificate: PgpCertificate) -> datetime | None:
    """When the last of its keys for encryption ends; None: not before the certificate.

    From the newest binding of each, checked or not: pysequoia looks itself for keys that are bound, but takes an
    expired one where it finds no other.
    """
    ends: list[datetime | None] = []
    for key in certificate.keys[1:]:
        newest = next((facts for _, facts in key.bindings()), None)
        if newest is not None and newest.is_for_encryption and not key.has_revocation:
            ends.append(None if newest.period is None else key.created + newest.period)
    known = [end for end in ends if end is not None]
    return max(known) if known and len(known) == len(ends) else None
