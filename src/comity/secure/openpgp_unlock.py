"""Take private OpenPGP keys from under the passphrase that another program put on them (RFC 9580 sections 3.7 and 5.5.3).

Place on the path: below ``openpgp.read_identity``, when a user imports a key that gpg exported; the packets come out with the
private parts in the clear, and whoever keeps them puts them under a passphrase of ours. Taken is what gpg writes: AES in
CFB mode with a SHA-1 over the private part (usage 254), the passphrase salted and repeated. Not taken: AEAD (usage 253)
and Argon2, keys of version 6, and the older forms without a real check.
"""

from __future__ import annotations

import hashlib
import hmac

from comity.errors import MalformedMessage, SecurityError
from comity.secure import openpgp_packets as wire
from comity.secure.openpgp_crypto import KEY_SIZES, decrypt_cfb

_SHA1_CHECKED, _CLEAR = 254, 0
_HASHES = {2: "sha1", 8: "sha256", 9: "sha384", 10: "sha512"}
_SECRET = (wire.SECRET_KEY, wire.SECRET_SUBKEY)
MAX_KEYS = 10
"""Primary key and subkeys; each may ask for 65 MB to be hashed, twice."""
_PIECE = 64 * 1024
#: Public parts: numbers (MPI) or octets, after an optional curve name; RFC 9580 section 5.5.5.
_NUMBERS = {1: 2, 2: 2, 3: 2, 16: 3, 17: 4, 18: 1, 19: 1, 22: 1}
_OCTETS = {25: 32, 26: 56, 27: 32, 28: 57}
_CURVED = frozenset({18, 19, 22})


class WrongPassphrase(SecurityError):
    """The passphrase does not open the key, or there is none."""


def is_locked(octets: bytes) -> bool:
    """True if a private key among the packets is under a passphrase. Raises MalformedMessage."""
    return any(
        wire.Fields(packet.body[_public_size(packet.body) :]).number(1) != _CLEAR
        for packet in wire.read_packets(octets)
        if packet.tag in _SECRET
    )


def unlock(octets: bytes, passphrase: bytes) -> bytes:
    """The same packets with the private keys in the clear.

    Raises:
        WrongPassphrase: it does not open them.
        MalformedMessage: they are protected in a way that is not taken, or damaged.
    """
    packets = wire.read_packets(octets)
    if sum(packet.tag in _SECRET for packet in packets) > MAX_KEYS:
        raise MalformedMessage(f"there are more than {MAX_KEYS} OpenPGP keys under one passphrase")
    return b"".join(
        wire.packet(packet.tag, _unlocked(packet.body, passphrase)) if packet.tag in _SECRET else packet.raw
        for packet in packets
    )


def _public_size(body: bytes) -> int:
    """Where the private part of a key packet begins."""
    fields = wire.Fields(body)
    version = fields.number(1)
    fields.take(4)
    algorithm = fields.number(1)
    if version == 6:
        fields.take(fields.number(4))
        return fields.at
    if version != 4 or (algorithm not in _NUMBERS and algorithm not in _OCTETS):
        raise MalformedMessage("an OpenPGP key of this kind is not taken from under a passphrase")
    if algorithm in _CURVED:
        fields.take(fields.number(1))
    for _ in range(_NUMBERS.get(algorithm, 0)):
        fields.mpi()
    fields.take(_OCTETS.get(algorithm, 0))
    if algorithm == 18:
        fields.take(fields.number(1))  # the key derivation
    return fields.at


def _unlocked(body: bytes, passphrase: bytes) -> bytes:
    end = _public_size(body)
    fields = wire.Fields(body[end:])
    usage = fields.number(1)
    if usage == _CLEAR:
        return body
    if usage != _SHA1_CHECKED or body[:1] != b"\x04":
        raise MalformedMessage("the OpenPGP key is protected in a way that is not taken")
    size = KEY_SIZES.get(fields.number(1))
    if size is None:
        raise MalformedMessage("the OpenPGP key is protected by another cipher than AES")
    key = _derived(fields, passphrase, size)
    plain = decrypt_cfb(key, fields.take(16), fields.rest())
    secret, digest = plain[:-20], plain[-20:]
    if not hmac.compare_digest(hashlib.sha1(secret, usedforsecurity=False).digest(), digest):
        raise WrongPassphrase("The OpenPGP key cannot be opened: the passphrase is wrong, or the file is damaged.")
    return body[:end] + bytes((_CLEAR,)) + secret + (sum(secret) & 0xFFFF).to_bytes(2, "big")


def _derived(fields: wire.Fields, passphrase: bytes, size: int) -> bytes:
    """The passphrase as a key: salted, and hashed over and over (RFC 9580 section 3.7.1.3)."""
    kind, name = fields.number(1), _HASHES.get(fields.number(1))
    if kind not in (1, 3) or name is None:
        raise MalformedMessage("the OpenPGP key's passphrase is derived in a way that is not taken")
    data = fields.take(8) + passphrase
    coded = fields.number(1) if kind == 3 else 0
    count = max(len(data), (16 + (coded & 15)) << (coded >> 4) + 6) if kind == 3 else len(data)
    block = data * (_PIECE // len(data) + 1)
    key = b""
    zeros = 0
    while len(key) < size:
        hasher = hashlib.new(name, bytes(zeros), usedforsecurity=False)
        for _ in range(count // len(block)):
            hasher.update(block)
        hasher.update(block[: count % len(block)])
        key += hasher.digest()
        zeros += 1
    return key[:size]
