"""Open CMS EnvelopedData and AuthEnvelopedData (RFC 5652 section 6, RFC 5083).

Place on the path: between ``cms_enveloped.py``, which reads, and ``opening.decrypt``, which takes the MIME layer off. Octets
of a ContentInfo and our identities go in; ``Opened`` comes out. Two rules its readers must keep. What anybody can see from outside (which recipients, which
algorithms, broken ASN.1) may be said; from the first secret on there is one answer to every failure, ``DecryptionFailed``:
a key that does not unwrap is replaced by a random one and the content decrypted all the same, so that text and time tell
an attacker nothing (RFC 3218, reliability.md M-33). And nothing is handed out before the tag was checked (M-30).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from io import BytesIO

from cryptography import x509
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import padding as block_padding
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, x25519
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

from comity.secure import ber, chain, cms, cms_keys
from comity.secure.cms_enveloped import Recipient, Sealed, parse
from comity.secure.evidence import DecryptionFailed, NoKey, Opened, UnknownAlgorithm
from comity.secure.identity import DecryptionKey, Identity

MAX_TRIES = 10
"""Keys tried on one object, each once (M-31)."""


def open_enveloped(
    octets: bytes | memoryview | ber.Element, identities: Sequence[Identity], *, is_padding_judged: bool = True
) -> Opened:
    """Decrypt a ContentInfo for the first of our keys that it is for and that opens it.

    ``is_padding_judged``: False gives out what CBC left with bad padding as it is. Padding proves nothing, and a caller who
    shows only what an inner signature covers then does the same work whether it is good or bad: no padding oracle (M-33).

    Raises:
        NoKey: it is for none of ``identities``.
        DecryptionFailed: it is for us and does not open, whatever the cause.
        UnknownAlgorithm: it is for us by algorithms that are not supported.
        TooLarge: more recipients or octets than we look at.
        ber.BerError: it is not EnvelopedData or AuthEnvelopedData.
    """
    sealed = parse(octets)
    tries = _matches(sealed.recipients, identities)
    if not tries:
        raise NoKey("it is encrypted for others: none of our keys is among its recipients")
    usable = [(recipient, key) for recipient, key in tries if _is_supported(recipient)]
    if not usable:
        raise UnknownAlgorithm(f"its key is encrypted by the algorithm {tries[0][0].algorithm}")
    for recipient, key in usable[:MAX_TRIES]:
        content = _decrypt(sealed, _content_key(recipient, key, sealed.cipher.key_size), is_padding_judged)
        if content is not None:
            cipher = sealed.cipher
            return Opened(content, cipher.name, cipher.is_authenticated, chain.fingerprint(key.certificate))
    raise DecryptionFailed


# --- whose -------------------------------------------------------------------------------------------------------


def _matches(recipients: Sequence[Recipient], identities: Sequence[Identity]) -> list[tuple[Recipient, DecryptionKey]]:
    """The recipients that are ours, each key at most once, in the order of the object."""
    by_serial: dict[tuple[bytes, int], DecryptionKey] = {}
    by_key_id: dict[bytes, DecryptionKey] = {}
    for identity in identities:
        for key in identity.decryption_keys:
            certificate = key.certificate
            by_serial.setdefault((certificate.issuer.public_bytes(), certificate.serial_number), key)
            for key_id in _key_ids(certificate):
                by_key_id.setdefault(key_id, key)
    found: dict[str, tuple[Recipient, DecryptionKey]] = {}
    for recipient in recipients:
        name = recipient.name
        ours = by_key_id.get(name.key_id) if name.key_id else by_serial.get((name.issuer, name.serial))
        if ours is not None:
            found.setdefault(chain.fingerprint(ours.certificate), (recipient, ours))
    return list(found.values())


def _key_ids(certificate: x509.Certificate) -> tuple[bytes, ...]:
    """The key identifier in the certificate, and the one most senders would make for lack of it (RFC 5280 section 4.2.1.2)."""
    made = x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest, made
    except x509.ExtensionNotFound:
        return (made,)


# --- the content key ---------------------------------------------------------------------------------------------


def _is_supported(recipient: Recipient) -> bool:
    """True if the algorithms are ours to use; asks nothing secret."""
    if recipient.algorithm == cms_keys.RSA_ENCRYPTION:
        return True
    if recipient.algorithm == cms_keys.RSA_OAEP:
        return _oaep(recipient.parameters) is not None
    return recipient.algorithm in cms_keys.AGREEMENTS and bool(_wrap_size(recipient)) and bool(recipient.originator[0])


def _wrap_size(recipient: Recipient) -> int:
    if recipient.parameters is None:
        return 0
    return cms_keys.WRAPS.get(cms.algorithm_of(recipient.parameters)[0], 0)


def _content_key(recipient: Recipient, key: DecryptionKey, size: int) -> bytes:
    """The content key, or a random one if it cannot be had: the caller must not learn which."""
    instead = os.urandom(size)
    try:
        if recipient.algorithm in (cms_keys.RSA_ENCRYPTION, cms_keys.RSA_OAEP):
            found = _transported(recipient, key)
        else:
            found = _agreed(recipient, key)
    except (ValueError, InvalidUnwrap, UnsupportedAlgorithm):
        found = b""
    return found if len(found) == size else instead


def _transported(recipient: Recipient, key: DecryptionKey) -> bytes:
    if not isinstance(key.key, rsa.RSAPrivateKey):
        return b""
    if recipient.algorithm == cms_keys.RSA_ENCRYPTION:
        # OpenSSL gives random octets for bad padding itself (implicit rejection): neither length nor time tell.
        return key.key.decrypt(recipient.encrypted_key, padding.PKCS1v15())
    scheme = _oaep(recipient.parameters)
    return b"" if scheme is None else key.key.decrypt(recipient.encrypted_key, scheme)


def _oaep(parameters: ber.Element | None) -> padding.OAEP | None:
    """Read RSAES-OAEP-params (RFC 3560, RFC 4055 section 4.1); None for a hash we lack or a label."""
    if parameters is None:
        return cms_keys.oaep(*[cms_keys.OAEP_HASHES[_SHA1]] * 2)
    fields = ber.Cursor(parameters.expect(ber.SEQUENCE))
    hash_field, mask_field, source = fields.optional(0xA0), fields.optional(0xA1), fields.optional(0xA2)
    fields.end()
    digest = _SHA1 if hash_field is None else cms.algorithm_of(ber.Cursor(hash_field).next())[0]
    mask = _SHA1
    if mask_field is not None:
        name, inner = cms.algorithm_of(ber.Cursor(mask_field).next())
        mask = "" if name != cms_keys.MGF1 or inner is None else cms.algorithm_of(inner)[0]
    if source is not None:
        name, label = cms.algorithm_of(ber.Cursor(source).next())
        if name != cms_keys.P_SPECIFIED or label is None or label.octets():
            return None
    if digest not in cms_keys.OAEP_HASHES or mask not in cms_keys.OAEP_HASHES:
        return None
    return cms_keys.oaep(cms_keys.OAEP_HASHES[digest], cms_keys.OAEP_HASHES[mask])


_SHA1 = "1.3.14.3.2.26"


def _agreed(recipient: Recipient, key: DecryptionKey) -> bytes:
    kind, public = recipient.originator
    own = key.key
    derivation = cms_keys.AGREEMENTS[recipient.algorithm][0]
    if isinstance(own, x25519.X25519PrivateKey) and kind == cms_keys.X25519 and derivation == "hkdf":
        secret = own.exchange(x25519.X25519PublicKey.from_public_bytes(public))
    elif isinstance(own, ec.EllipticCurvePrivateKey) and kind == cms_keys.EC_PUBLIC_KEY and derivation == "x963":
        # Reading the point checks that it lies on our curve: a foreign one would give our key away bit by bit.
        secret = own.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(own.curve, public))
    else:
        return b""
    if recipient.parameters is None:
        return b""
    identifier, size = recipient.parameters.der(), _wrap_size(recipient)
    kek = cms_keys.wrapping_key(secret, recipient.algorithm, identifier, size, recipient.ukm)
    return aes_key_unwrap(kek, recipient.encrypted_key)


# --- the content -------------------------------------------------------------------------------------------------


def _decrypt(sealed: Sealed, content_key: bytes, is_padding_judged: bool) -> bytes | None:
    """The content, or None if it does not open with this key."""
    if sealed.cipher.mode == "gcm":
        return _decrypt_gcm(sealed, content_key)
    if sealed.cipher.mode == "chacha":
        return _decrypt_chacha(sealed, content_key)
    return _decrypt_cbc(sealed, content_key, is_padding_judged)


def _decrypt_gcm(sealed: Sealed, content_key: bytes) -> bytes | None:
    fields = ber.Cursor(sealed.parameters.expect(ber.SEQUENCE))
    nonce = fields.next().octets()
    length = fields.optional(ber.INTEGER)
    tag_size = 12 if length is None else length.integer()  # RFC 5084 section 3.2: DEFAULT 12
    if not 8 <= len(nonce) <= 64 or not 12 <= tag_size <= 16 or len(sealed.tag) != tag_size:
        raise ber.BerError("the nonce or the tag is not of a size that is taken", sealed.parameters.offset)
    decryptor = Cipher(algorithms.AES(content_key), modes.GCM(nonce, sealed.tag, tag_size)).decryptor()
    decryptor.authenticate_additional_data(sealed.associated)
    content = BytesIO()
    for chunk in sealed.content.chunks(0x80):
        content.write(decryptor.update(chunk))
    try:
        content.write(decryptor.finalize())
    except InvalidTag:
        return None
    return content.getvalue()


def _decrypt_chacha(sealed: Sealed, content_key: bytes) -> bytes | None:
    """RFC 8103."""
    nonce = sealed.parameters.octets()
    if len(nonce) != 12 or len(sealed.tag) != 16:
        raise ber.BerError("the nonce or the tag is not of a size that is taken", sealed.parameters.offset)
    content = b"".join((*sealed.content.pieces(0x80), sealed.tag))
    try:
        return ChaCha20Poly1305(content_key).decrypt(nonce, content, sealed.associated)
    except InvalidTag:
        return None


def _decrypt_cbc(sealed: Sealed, content_key: bytes, is_padding_judged: bool) -> bytes | None:
    """AES or triple DES in CBC; all of the content is decrypted before its padding is looked at."""
    vector = sealed.parameters.octets()
    block = 8 if sealed.cipher.mode == "3des" else cms_keys.AES_BLOCK
    size = sum(map(len, sealed.content.pieces(0x80)))
    if len(vector) != block or size % block or not size:
        raise ber.BerError("the content is not a number of whole blocks", sealed.content.offset)
    algorithm = TripleDES(content_key) if sealed.cipher.mode == "3des" else algorithms.AES(content_key)
    decryptor = Cipher(algorithm, modes.CBC(vector)).decryptor()
    content = BytesIO()
    for chunk in sealed.content.chunks(0x80):
        content.write(decryptor.update(chunk))
    content.write(decryptor.finalize())
    content.seek(-block, os.SEEK_END)
    unpadder = block_padding.PKCS7(block * 8).unpadder()
    try:
        last = unpadder.update(content.read()) + unpadder.finalize()
    except ValueError:
        return None if is_padding_judged else content.getvalue()
    content.truncate(size - block + len(last))
    return content.getvalue()
