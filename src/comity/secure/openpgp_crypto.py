"""Open what OpenPGP encrypted: session keys and integrity-protected data (RFC 9580 sections 5.1, 5.13 and 11.5).

Place on the path: below ``openpgp_open.py``, on the primitives of ``cryptography``. pysequoia opens messages too, and is not
used for it, because it decompresses without a bound, drops the signatures inside or takes one good one for all, and
refuses what gpg writes by default (a compressed signed message). The rules its readers must keep: no octet of plaintext
leaves before the whole is authenticated; a session key that does not come out is replaced by a random one, so that every
failure costs and looks the same (M-33).

Not taken: EAX, 3DES, CAST5, Blowfish, Twofish, Camellia and IDEA; ElGamal recipients.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.x448 import X448PrivateKey, X448PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESOCB3
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

from comity.errors import MalformedMessage
from comity.secure import openpgp_packets as wire
from comity.secure.openpgp_facts import Refused, key_facts

try:
    from cryptography.hazmat.decrepit.ciphers.modes import CFB
except ImportError:  # before cryptography 47
    from cryptography.hazmat.primitives.ciphers.modes import CFB

KEY_SIZES = {7: 16, 8: 24, 9: 32}
"""AES by its OpenPGP number."""
AEADS = {2: ("ocb", 15), 3: ("gcm", 12)}
"""Name and length of the nonce."""
MAX_CHUNK_BITS = 16
"""RFC 9580 section 5.13.2: chunks of 4 MiB at most."""
MDC_SIZE = 22
_TAG = 16
_HASHES: dict[int, hashes.HashAlgorithm] = {8: hashes.SHA256(), 9: hashes.SHA384(), 10: hashes.SHA512()}
_CURVES: dict[bytes, ec.EllipticCurve] = {
    bytes.fromhex("2a8648ce3d030107"): ec.SECP256R1(),
    bytes.fromhex("2b81040022"): ec.SECP384R1(),
    bytes.fromhex("2b81040023"): ec.SECP521R1(),
}
_CURVE25519 = bytes.fromhex("2b060104019755010501")
FAILURES = (ValueError, InvalidUnwrap, InvalidTag, MalformedMessage, TypeError, UnsupportedAlgorithm)
"""What opening may raise over hostile octets; the last where the system's OpenSSL was built without OCB or X448."""

Unwrap = Callable[[wire.Fields, int], bytes]
"""From the fields of an encrypted session key and its version to what was encrypted; raises one of ``FAILURES``."""


@dataclass(frozen=True, slots=True)
class SecretKey:
    """One private key that decrypts."""

    key_id: bytes
    fingerprint: bytes
    algorithm: int
    unwrap: Unwrap = field(repr=False)


@dataclass(frozen=True, slots=True)
class Recipient:
    """One encrypted session key (PKESK): for whom, and how."""

    version: int
    name: bytes
    """Key ID (version 3) or fingerprint (version 6); empty or zero: for anybody who tries."""
    algorithm: int
    encrypted: bytes = field(repr=False)

    @property
    def is_anonymous(self) -> bool:
        return not any(self.name)

    def is_for(self, key: SecretKey) -> bool:
        return self.algorithm == key.algorithm and (
            self.is_anonymous or self.name == (key.key_id if self.version == 3 else key.fingerprint)
        )


@dataclass(frozen=True, slots=True)
class SessionKey:
    """What opens the data."""

    cipher: int
    """OpenPGP's number; 0 where the data says it."""
    key: bytes = field(repr=False)


def read_recipient(packet: wire.Packet) -> Recipient | None:
    """Read a PKESK packet, None if its version is another. Raises MalformedMessage."""
    fields = wire.Fields(packet.body)
    version = fields.number(1)
    if version == 3:
        name = fields.take(8)
    elif version == 6:
        name = fields.take(fields.number(1))[1:]  # without the version of the key
    else:
        return None
    return Recipient(version, name, fields.number(1), fields.rest())


# --- private keys ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def secret_keys(octets: bytes) -> tuple[SecretKey, ...]:
    """The keys of a transferable secret key that decrypt and that we can use; revoked and expired ones too."""
    found: list[SecretKey] = []
    for packet in wire.read_packets(octets):
        if packet.tag not in (wire.SECRET_KEY, wire.SECRET_SUBKEY):
            continue
        try:
            facts = key_facts(packet)
            fingerprint, key_id = bytes.fromhex(facts.fingerprint), bytes.fromhex(facts.key_id)
            key = _secret_key(wire.Fields(packet.body), fingerprint, key_id)
        except (Refused, *FAILURES):
            continue  # a kind that we cannot use, or under a passphrase of its own
        if key is not None:
            found.append(key)
    return tuple(found)


def _secret_key(fields: wire.Fields, fingerprint: bytes, key_id: bytes) -> SecretKey | None:
    """RFC 9580 sections 5.5.2 and 5.5.3."""
    version = fields.number(1)
    fields.take(4)
    algorithm = fields.number(1)
    if version == 6:
        fields.take(4)
    unwrap: Unwrap
    if algorithm in (1, 2):
        numbers = [_number(fields) for _ in range(2)]
        _check_clear(fields)
        unwrap = _rsa(*numbers, *(_number(fields) for _ in range(3)))
    elif algorithm == 18:
        oid, point = fields.take(fields.number(1)), fields.mpi()
        kdf = wire.Fields(fields.take(fields.number(1)))
        _check_clear(fields)
        unwrap = _ecdh(oid, point, kdf, fields.mpi(), fingerprint)
    elif algorithm in (25, 26):
        size = 32 if algorithm == 25 else 56
        public = fields.take(size)
        _check_clear(fields)
        unwrap = _x25519(public, fields.take(size)) if algorithm == 25 else _x448(public, fields.take(size))
    else:
        return None
    return SecretKey(key_id, fingerprint, algorithm, unwrap)


def _number(fields: wire.Fields) -> int:
    return int.from_bytes(fields.mpi(), "big")


def _check_clear(fields: wire.Fields) -> None:
    if fields.number(1) != 0:
        raise MalformedMessage("the OpenPGP key is under a passphrase of its own")


def _rsa(n: int, e: int, d: int, p: int, q: int) -> Unwrap:
    public = rsa.RSAPublicNumbers(e, n)
    key = rsa.RSAPrivateNumbers(
        p, q, d, rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q), public
    ).private_key()
    size = (n.bit_length() + 7) // 8

    def unwrap(fields: wire.Fields, _version: int) -> bytes:
        # PKCS #1 1.5: OpenSSL gives random octets where the padding is wrong (implicit rejection).
        return key.decrypt(fields.mpi().rjust(size, b"\0"), padding.PKCS1v15())

    return unwrap


def _ecdh(oid: bytes, point: bytes, kdf: wire.Fields, secret: bytes, fingerprint: bytes) -> Unwrap:
    """RFC 9580 section 11.5; Curve25519 in its older form has the scalar the other way round."""
    kdf.take(1)
    digest, cipher = kdf.number(1), kdf.number(1)
    size = KEY_SIZES.get(cipher, 0)
    if digest not in _HASHES or not size:
        raise MalformedMessage("the key derivation of this OpenPGP key is not known")
    exchange = _exchange_25519(secret) if oid == _CURVE25519 else _exchange_nist(oid, secret)
    parameter = bytes((len(oid),)) + oid + b"\x12\x03\x01" + bytes((digest, cipher))
    parameter += b"Anonymous Sender    " + fingerprint

    def unwrap(fields: wire.Fields, _version: int) -> bytes:
        shared = exchange(fields.mpi())
        hasher = hashes.Hash(_HASHES[digest])
        hasher.update(b"\0\0\0\x01" + shared + parameter)
        padded = aes_key_unwrap(hasher.finalize()[:size], fields.take(fields.number(1)))
        count = padded[-1]
        if not 1 <= count <= 8 or padded[-count:] != bytes((count,)) * count:
            raise ValueError("padding")
        return padded[:-count]

    return unwrap


def _exchange_25519(secret: bytes) -> Callable[[bytes], bytes]:
    key = X25519PrivateKey.from_private_bytes(secret.rjust(32, b"\0")[::-1])

    def exchange(point: bytes) -> bytes:
        if len(point) != 33 or point[0] != 0x40:
            raise ValueError("point")
        return key.exchange(X25519PublicKey.from_public_bytes(point[1:]))

    return exchange


def _exchange_nist(oid: bytes, secret: bytes) -> Callable[[bytes], bytes]:
    curve = _CURVES.get(oid)
    if curve is None:
        raise MalformedMessage("the curve of this OpenPGP key is not known")
    key = ec.derive_private_key(int.from_bytes(secret, "big"), curve)

    def exchange(point: bytes) -> bytes:
        return key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(curve, point))

    return exchange


def _x25519(public: bytes, secret: bytes) -> Unwrap:
    key = X25519PrivateKey.from_private_bytes(secret)
    return _unwrap_montgomery(
        public,
        lambda point: key.exchange(X25519PublicKey.from_public_bytes(point)),
        lambda seed: HKDF(hashes.SHA256(), 16, None, b"OpenPGP X25519").derive(seed),
    )


def _x448(public: bytes, secret: bytes) -> Unwrap:
    key = X448PrivateKey.from_private_bytes(secret)
    return _unwrap_montgomery(
        public,
        lambda point: key.exchange(X448PublicKey.from_public_bytes(point)),
        lambda seed: HKDF(hashes.SHA512(), 32, None, b"OpenPGP X448").derive(seed),
    )


def _unwrap_montgomery(public: bytes, exchange: Callable[[bytes], bytes], derive: Callable[[bytes], bytes]) -> Unwrap:
    """RFC 9580 sections 5.1.6 and 5.1.7; the number of the cipher stands in the clear in version 3."""

    def unwrap(fields: wire.Fields, version: int) -> bytes:
        ephemeral = fields.take(len(public))
        wrapped = wire.Fields(fields.take(fields.number(1)))
        cipher = wrapped.take(1) if version == 3 else b""
        session = aes_key_unwrap(derive(ephemeral + public + exchange(ephemeral)), wrapped.rest())
        return cipher + session + _checksum(session)

    return unwrap


def _checksum(key: bytes) -> bytes:
    return (sum(key) & 0xFFFF).to_bytes(2, "big")


# --- session keys and data -----------------------------------------------------------------------------------------


def session_key(recipient: Recipient, key: SecretKey) -> SessionKey:
    """Decrypt a session key; a random one if it does not come out."""
    try:
        plain = key.unwrap(wire.Fields(recipient.encrypted), recipient.version)
    except FAILURES:
        plain = b""
    cipher, session = (plain[0] if plain else 0, plain[1:-2]) if recipient.version == 3 else (0, plain[:-2])
    is_good = hmac.compare_digest(_checksum(session), plain[-2:])
    if recipient.version == 3:
        is_good = is_good and KEY_SIZES.get(cipher) == len(session)
    return SessionKey(cipher, session) if is_good else SessionKey(9 if recipient.version == 3 else 0, os.urandom(32))


def open_data(body: bytes | memoryview, session: SessionKey) -> tuple[memoryview, str]:
    """Decrypt the body of an integrity-protected packet (SEIPD); give the packets inside and the algorithm's name.

    Raises:
        ValueError, InvalidTag, MalformedMessage: it does not open, or not as a whole.
    """
    body = memoryview(body)
    version = bytes(body[:1])
    if version == b"\x01" and session.cipher:
        return _open_with_mdc(body, session), f"aes-{len(session.key) * 8}-cfb-mdc"
    if version == b"\x02" and not session.cipher:
        return _open_with_aead(body, session)
    raise ValueError("the session key is not one for this packet")


def _open_with_mdc(body: memoryview, session: SessionKey) -> memoryview:
    """RFC 9580 section 5.13.1: AES in CFB mode, and at the end a SHA-1 over all of it."""
    view = memoryview(decrypt_cfb(session.key, bytes(16), body[1:]))
    if len(view) < 18 + MDC_SIZE:
        raise ValueError("too short")
    digest = hashlib.sha1(view[:-20], usedforsecurity=False).digest()
    if not hmac.compare_digest(b"\xd3\x14" + digest, view[-MDC_SIZE:]):
        raise ValueError("it was changed")
    return view[18:-MDC_SIZE]


def decrypt_cfb(key: bytes, iv: bytes, data: bytes | memoryview) -> bytes:
    """AES in CFB mode; a stream cipher, so that ``finalize`` has nothing to add."""
    decryptor = Cipher(algorithms.AES(key), CFB(iv)).decryptor()
    plain = decryptor.update(data)
    decryptor.finalize()
    return plain


def _open_with_aead(body: memoryview, session: SessionKey) -> tuple[memoryview, str]:
    """RFC 9580 section 5.13.2."""
    fields = wire.Fields(body)
    fields.take(1)
    cipher, mode, chunk_bits = fields.number(1), fields.number(1), fields.number(1)
    salt = fields.take(32)
    if cipher not in KEY_SIZES or mode not in AEADS or chunk_bits > MAX_CHUNK_BITS:
        raise ValueError("an algorithm that is not taken")
    name, nonce_size = AEADS[mode]
    size = KEY_SIZES[cipher]
    if len(session.key) != size:
        session = SessionKey(0, os.urandom(size))
    info = b"\xd2\x02" + bytes((cipher, mode, chunk_bits))
    derived = HKDF(hashes.SHA256(), size + nonce_size - 8, salt, info).derive(session.key)
    aead: AESOCB3 | AESGCM = AESOCB3(derived[:size]) if name == "ocb" else AESGCM(derived[:size])
    data, chunk = body[fields.at : -_TAG], (1 << chunk_bits + 6) + _TAG
    plain = bytearray(len(data))
    total = count = 0
    is_good = True
    for count, at in enumerate(range(0, len(data), chunk), 1):
        nonce = derived[size:] + (count - 1).to_bytes(8, "big")
        try:
            part = aead.decrypt(nonce, data[at : at + chunk], info)
        except InvalidTag:
            is_good = False  # go on: how long it took says nothing of where it failed
            continue
        plain[total : total + len(part)] = part
        total += len(part)
    nonce = derived[size:] + count.to_bytes(8, "big")
    aead.decrypt(nonce, body[-_TAG:], info + total.to_bytes(8, "big"))
    if not is_good:
        raise InvalidTag
    return memoryview(plain)[:total], f"aes-{size * 8}-{name}"
