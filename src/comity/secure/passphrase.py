"""Secrets under a passphrase: PBES2 with scrypt (RFC 8018, RFC 7914 section 7), so that a stolen disk gives no key.

Place on the path: beside it; ``keystore.py`` writes private keys with it. A PKCS#8 key made here is an ordinary "ENCRYPTED
PRIVATE KEY" that OpenSSL opens. ``cryptography`` reads such files but writes only PBKDF2 with 2,048 rounds, which a
graphics card tries by the million in a second; hence these few lines. What is no PKCS#8 key (an OpenPGP secret) lies in
the same structure with AES-256-GCM, which tells damage from a wrong key.
"""

from __future__ import annotations

import base64
import os
import re

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from comity.errors import SecurityError
from comity.secure import ber

PBES2 = "1.2.840.113549.1.5.13"
SCRYPT = "1.3.6.1.4.1.11591.4.11"
AES_256_CBC = "2.16.840.1.101.3.4.1.42"
AES_256_GCM = "2.16.840.1.101.3.4.1.46"

#: 16 MiB and about 0.15 s here for one try. OpenSSL refuses more than 32 MiB, hence the parallelisation instead.
COST, BLOCK, LANES = 2**14, 8, 5
MAX_COST, MAX_BLOCK, MAX_LANES = 2**17, 8, 16
"""What a damaged file may ask of us: 128 MiB."""

KEY_LABEL = "ENCRYPTED PRIVATE KEY"


def protect_key(pkcs8: bytes, passphrase: bytes) -> bytes:
    """Put a PKCS#8 private key (DER) under a passphrase: PEM that every PKCS#8 reader opens."""
    salt, vector = os.urandom(16), os.urandom(16)
    pad = padding.PKCS7(128).padder()
    padded = pad.update(pkcs8) + pad.finalize()
    encryptor = Cipher(algorithms.AES(_derive(passphrase, salt)), modes.CBC(vector)).encryptor()
    ciphertext = encryptor.update(padded) + encryptor.finalize()
    cipher = ber.sequence(ber.oid(AES_256_CBC), ber.octet_string(vector))
    return pem(KEY_LABEL, _structure(salt, cipher, ciphertext))


def protect_octets(secret: bytes, passphrase: bytes) -> bytes:
    """Put any octets under a passphrase (DER)."""
    salt, nonce = os.urandom(16), os.urandom(12)
    ciphertext = AESGCM(_derive(passphrase, salt)).encrypt(nonce, secret, None)
    cipher = ber.sequence(ber.oid(AES_256_GCM), ber.sequence(ber.octet_string(nonce), ber.integer(16)))
    return _structure(salt, cipher, ciphertext)


def open_octets(data: bytes, passphrase: bytes, what: str) -> bytes:
    """Open what ``protect_octets`` made; ``what`` is its name in the sentence of an error.

    Raises:
        SecurityError: it is damaged, or under another passphrase.
    """
    try:
        salt, cost, nonce, ciphertext = _parse(data)
        return AESGCM(Scrypt(salt, 32, *cost).derive(passphrase)).decrypt(nonce, ciphertext, None)
    except (ber.BerError, InvalidTag, ValueError) as error:
        text = f"The private key of {what} cannot be read: the passphrase is wrong, or the file is damaged."
        raise SecurityError(text) from error


def pem(label: str, der: bytes) -> bytes:
    """A PEM block."""
    text = base64.b64encode(der)
    lines = b"".join(text[at : at + 64] + b"\n" for at in range(0, len(text), 64))
    return b"-----BEGIN %s-----\n%s-----END %s-----\n" % (label.encode(), lines, label.encode())


def pem_blocks(data: bytes) -> list[tuple[str, bytes]]:
    """The PEM blocks of a file, label and text each."""
    pattern = rb"-----BEGIN ([A-Z0-9 ]{1,40})-----.*?-----END \1-----\n?"
    return [(found[1].decode(), found[0]) for found in re.finditer(pattern, data, re.DOTALL)]


def pem_octets(block: bytes) -> bytes:
    """What one PEM block holds.

    Raises:
        SecurityError: its base64 is broken.
    """
    try:
        return base64.b64decode(b"".join(block.split(b"\n")[1:]).partition(b"-")[0], validate=True)
    except ValueError as error:
        raise SecurityError("The file is damaged: its base64 cannot be read.") from error


def _derive(passphrase: bytes, salt: bytes) -> bytes:
    return Scrypt(salt, 32, COST, BLOCK, LANES).derive(passphrase)


def _structure(salt: bytes, cipher: bytes, ciphertext: bytes) -> bytes:
    """EncryptedPrivateKeyInfo (RFC 5958 section 3)."""
    cost = (ber.octet_string(salt), ber.integer(COST), ber.integer(BLOCK), ber.integer(LANES))
    derivation = ber.sequence(ber.oid(SCRYPT), ber.sequence(*cost))
    algorithm = ber.sequence(ber.oid(PBES2), ber.sequence(derivation, cipher))
    return ber.sequence(algorithm, ber.octet_string(ciphertext))


def _parse(data: bytes) -> tuple[bytes, tuple[int, int, int], bytes, bytes]:
    """Salt, cost, nonce and ciphertext of what ``protect_octets`` made."""
    whole = ber.Cursor(ber.read(data).expect(ber.SEQUENCE))
    algorithm = ber.Cursor(whole.next(ber.SEQUENCE))
    if algorithm.next().oid() != PBES2:
        raise ValueError("not PBES2")
    parameters = ber.Cursor(algorithm.next(ber.SEQUENCE))
    derivation, cipher = ber.Cursor(parameters.next(ber.SEQUENCE)), ber.Cursor(parameters.next(ber.SEQUENCE))
    if derivation.next().oid() != SCRYPT or cipher.next().oid() != AES_256_GCM:
        raise ValueError("not scrypt with AES-256-GCM")
    fields = ber.Cursor(derivation.next(ber.SEQUENCE))
    salt = fields.next().octets()
    cost, block, lanes = (fields.next(ber.INTEGER).integer() for _ in range(3))
    if not (0 < cost <= MAX_COST and 0 < block <= MAX_BLOCK and 0 < lanes <= MAX_LANES):
        raise ValueError("scrypt asks for too much")
    nonce = ber.Cursor(cipher.next(ber.SEQUENCE)).next().octets()
    return salt, (cost, block, lanes), nonce, whole.next().octets()
