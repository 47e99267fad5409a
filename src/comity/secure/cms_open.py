"""Opening CMS EnvelopedData and AuthEnvelopedData (RFC 5652 section 6, RFC 5083), and CompressedData (RFC 3274).

Place on the path: below ``opening.decrypt``, which takes the MIME layer off. Octets of a ContentInfo and our identities go
in; ``Opened`` comes out. Two rules its readers must keep. What anybody can see from outside (which recipients, which
algorithms, broken ASN.1) may be said; from the first secret on there is one answer to every failure, ``DecryptionFailed``:
a key that does not unwrap is replaced by a random one and the content decrypted all the same, so that text and time tell
an attacker nothing (RFC 3218, reliability.md M-33). And nothing is handed out before the tag was checked (M-30).
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from comity.secure.cms_keys import ContentCipher
from comity.secure.evidence import DecryptionFailed, NoKey, Opened, TooLarge, UnknownAlgorithm
from comity.secure.identity import DecryptionKey, Identity

MAX_OCTETS = 64 * 1024 * 1024
"""Of one encrypted object; far above what any network carries, for files."""
MAX_RECIPIENTS = 1_000
MAX_TRIES = 10
"""Keys tried on one object, each once (M-31)."""
MAX_ELEMENTS = 16_000
"""A thousand recipients have about ten elements each that are looked at to find ours."""
MAX_INFLATION = 16
MAX_INFLATED = 4 * 1024 * 1024
"""Octets out of CompressedData, which may also be at most ``MAX_INFLATION`` times what went in (M-32)."""
CHUNK = 64 * 1024
ZLIB = "1.2.840.113549.1.9.16.3.8"


@dataclass(frozen=True, slots=True)
class _Recipient:
    """One recipient: who, and what is needed to get the content key back, which is read only if it is one of us."""

    name: cms.Name
    identifier: ber.Element
    """AlgorithmIdentifier."""
    wrapped: ber.Element
    agreement: ber.Element | None = None
    """For key agreement: the originator's [0]."""
    user_material: ber.Element | None = None

    @property
    def algorithm(self) -> str:
        return cms.algorithm_of(self.identifier)[0]

    @property
    def parameters(self) -> ber.Element | None:
        return cms.algorithm_of(self.identifier)[1]

    @property
    def encrypted_key(self) -> bytes:
        return self.wrapped.octets()

    @property
    def ukm(self) -> bytes:
        return b"" if self.user_material is None else ber.Cursor(self.user_material).next().octets()

    @property
    def originator(self) -> tuple[str, bytes]:
        """Algorithm and octets of the sender's ephemeral key; ("", b"") if the key is a static one, named by certificate,
        which S/MIME does not use (RFC 8551 section 2.3)."""
        named = None if self.agreement is None else ber.Cursor(self.agreement).next()
        if named is None or named.tag != 0xA1:
            return "", b""
        fields = ber.Cursor(named)
        kind, _ = cms.algorithm_of(fields.next())
        bits = fields.next(ber.BIT_STRING)
        fields.end()
        if bytes(bits.body[:1]) != b"\0":
            raise ber.BerError("a key is not a whole number of octets", bits.offset)
        return kind, bytes(bits.body[1:])


@dataclass(frozen=True, slots=True)
class _Sealed:
    """A parsed EnvelopedData or AuthEnvelopedData."""

    recipients: list[_Recipient]
    cipher: ContentCipher
    parameters: ber.Element
    content: ber.Element
    tag: bytes
    associated: bytes
    """DER of the authenticated attributes."""


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
    sealed = _parse(_read(octets))
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


# --- reading -----------------------------------------------------------------------------------------------------


def _read(octets: bytes | memoryview | ber.Element) -> ber.Element:
    size = len(octets.raw if isinstance(octets, ber.Element) else octets)
    if size > MAX_OCTETS:
        raise TooLarge(f"it has {size} octets, over the limit of {MAX_OCTETS}")
    return octets if isinstance(octets, ber.Element) else ber.read(octets, max_elements=MAX_ELEMENTS)


def _parse(info: ber.Element) -> _Sealed:
    outer = ber.Cursor(info.expect(ber.SEQUENCE))
    kind = outer.next().oid()
    if kind not in (cms_keys.ID_ENVELOPED_DATA, cms_keys.ID_AUTH_ENVELOPED_DATA):
        raise ber.BerError("this is neither EnvelopedData nor AuthEnvelopedData", 0)
    wrapped = ber.Cursor(outer.next(0xA0))
    outer.end()
    fields = ber.Cursor(wrapped.next(ber.SEQUENCE))
    wrapped.end()
    if fields.next().integer() not in (0, 2, 3, 4):
        raise ber.BerError("enveloped data of this version does not exist", info.offset)
    fields.optional(0xA0)  # certificates of the originator, which prove nothing here
    recipients = _recipients(fields.next(ber.SET))
    encrypted = ber.Cursor(fields.next(ber.SEQUENCE))
    content_type = encrypted.next().oid()
    algorithm, parameters = cms.algorithm_of(encrypted.next())
    content = encrypted.optional(0x80, 0xA0)
    encrypted.end()
    cipher = cms_keys.CIPHERS_BY_OID.get(algorithm)
    if content_type != cms.ID_DATA:
        raise UnknownAlgorithm(f"it holds CMS content {content_type} instead of a MIME entity")
    if cipher is None:
        raise UnknownAlgorithm(f"its content is encrypted by the algorithm {algorithm}")
    if content is None or parameters is None:
        raise ber.BerError("the encrypted content or its parameters are missing", info.offset)
    tag, associated = b"", b""
    is_authenticated = kind == cms_keys.ID_AUTH_ENVELOPED_DATA
    if is_authenticated is not cipher.is_authenticated:
        # RFC 5083 section 1: an AEAD key must never be tried without its tag, which would make it malleable.
        raise ber.BerError("the content encryption does not go with this kind of CMS content", info.offset)
    if is_authenticated:
        attributes = fields.optional(0xA1)
        if attributes is not None:
            associated = ber.set_of(child.der() for child in attributes.children)
        tag = fields.next().octets()
        fields.optional(0xA2)
    else:
        fields.optional(0xA1)
    fields.end()
    return _Sealed(recipients, cipher, parameters, content, tag, associated)


def _recipients(infos: ber.Element) -> list[_Recipient]:
    found: list[_Recipient] = []
    for info in infos.children:
        if info.tag == ber.SEQUENCE:
            found.append(_key_transport(ber.Cursor(info)))
        elif info.tag == 0xA1:
            found += _key_agreement(ber.Cursor(info))
        # [2] to [4] are shared keys, passwords and what may come: none of them is a certificate of ours.
        if len(found) > MAX_RECIPIENTS:
            raise TooLarge(f"it has more than {MAX_RECIPIENTS} recipients")
    return found


def _key_transport(fields: ber.Cursor) -> _Recipient:
    fields.next(ber.INTEGER)
    name = _recipient_name(fields.next())
    recipient = _Recipient(name, identifier=fields.next(), wrapped=fields.next())
    fields.end()
    return recipient


def _key_agreement(fields: ber.Cursor) -> Iterator[_Recipient]:
    fields.next(ber.INTEGER)
    originator, ukm, identifier = fields.next(0xA0), fields.optional(0xA1), fields.next()
    for item in fields.next(ber.SEQUENCE).children:
        pair = ber.Cursor(item.expect(ber.SEQUENCE))
        yield _Recipient(_recipient_name(pair.next()), identifier, pair.next(), originator, ukm)
        pair.end()
    fields.end()


def _recipient_name(rid: ber.Element) -> cms.Name:
    if rid.tag == ber.SEQUENCE:
        return cms.issuer_and_serial(rid)
    if rid.tag == 0xA0 and rid.children and rid.children[0].tag == ber.OCTET_STRING:
        # RecipientKeyIdentifier of key agreement; or the pieces of a key identifier, which come to the same.
        return cms.Name(b"", 0, rid.children[0].octets())
    return cms.Name(b"", 0, rid.octets(0x80))


# --- whose -------------------------------------------------------------------------------------------------------


def _matches(
    recipients: Sequence[_Recipient], identities: Sequence[Identity]
) -> list[tuple[_Recipient, DecryptionKey]]:
    """The recipients that are ours, each key at most once, in the order of the object."""
    by_serial: dict[tuple[bytes, int], DecryptionKey] = {}
    by_key_id: dict[bytes, DecryptionKey] = {}
    for identity in identities:
        for key in identity.decryption_keys:
            certificate = key.certificate
            by_serial.setdefault((certificate.issuer.public_bytes(), certificate.serial_number), key)
            for key_id in _key_ids(certificate):
                by_key_id.setdefault(key_id, key)
    found: dict[str, tuple[_Recipient, DecryptionKey]] = {}
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


def _is_supported(recipient: _Recipient) -> bool:
    """True if the algorithms are ours to use; asks nothing secret."""
    if recipient.algorithm == cms_keys.RSA_ENCRYPTION:
        return True
    if recipient.algorithm == cms_keys.RSA_OAEP:
        return _oaep(recipient.parameters) is not None
    return recipient.algorithm in cms_keys.AGREEMENTS and bool(_wrap_size(recipient)) and bool(recipient.originator[0])


def _wrap_size(recipient: _Recipient) -> int:
    if recipient.parameters is None:
        return 0
    return cms_keys.WRAPS.get(cms.algorithm_of(recipient.parameters)[0], 0)


def _content_key(recipient: _Recipient, key: DecryptionKey, size: int) -> bytes:
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


def _transported(recipient: _Recipient, key: DecryptionKey) -> bytes:
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


def _agreed(recipient: _Recipient, key: DecryptionKey) -> bytes:
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


def _decrypt(sealed: _Sealed, content_key: bytes, is_padding_judged: bool) -> bytes | None:
    """The content, or None if it does not open with this key."""
    if sealed.cipher.mode == "gcm":
        return _decrypt_gcm(sealed, content_key)
    if sealed.cipher.mode == "chacha":
        return _decrypt_chacha(sealed, content_key)
    return _decrypt_cbc(sealed, content_key, is_padding_judged)


def _chunks(content: ber.Element, tag: int = 0x80) -> Iterator[memoryview]:
    for piece in content.pieces(tag):
        for at in range(0, len(piece), CHUNK):
            yield piece[at : at + CHUNK]


def _decrypt_gcm(sealed: _Sealed, content_key: bytes) -> bytes | None:
    fields = ber.Cursor(sealed.parameters.expect(ber.SEQUENCE))
    nonce = fields.next().octets()
    length = fields.optional(ber.INTEGER)
    tag_size = 12 if length is None else length.integer()  # RFC 5084 section 3.2: DEFAULT 12
    if not 8 <= len(nonce) <= 64 or not 12 <= tag_size <= 16 or len(sealed.tag) != tag_size:
        raise ber.BerError("the nonce or the tag is not of a size that is taken", sealed.parameters.offset)
    decryptor = Cipher(algorithms.AES(content_key), modes.GCM(nonce, sealed.tag, tag_size)).decryptor()
    decryptor.authenticate_additional_data(sealed.associated)
    content = BytesIO()
    for chunk in _chunks(sealed.content):
        content.write(decryptor.update(chunk))
    try:
        content.write(decryptor.finalize())
    except InvalidTag:
        return None
    return content.getvalue()


def _decrypt_chacha(sealed: _Sealed, content_key: bytes) -> bytes | None:
    """RFC 8103."""
    nonce = sealed.parameters.octets()
    if len(nonce) != 12 or len(sealed.tag) != 16:
        raise ber.BerError("the nonce or the tag is not of a size that is taken", sealed.parameters.offset)
    content = b"".join((*sealed.content.pieces(0x80), sealed.tag))
    try:
        return ChaCha20Poly1305(content_key).decrypt(nonce, content, sealed.associated)
    except InvalidTag:
        return None


def _decrypt_cbc(sealed: _Sealed, content_key: bytes, is_padding_judged: bool) -> bytes | None:
    """AES or triple DES in CBC; all of the content is decrypted before its padding is looked at."""
    vector = sealed.parameters.octets()
    block = 8 if sealed.cipher.mode == "3des" else cms_keys.AES_BLOCK
    size = sum(map(len, sealed.content.pieces(0x80)))
    if len(vector) != block or size % block or not size:
        raise ber.BerError("the content is not a number of whole blocks", sealed.content.offset)
    algorithm = TripleDES(content_key) if sealed.cipher.mode == "3des" else algorithms.AES(content_key)
    decryptor = Cipher(algorithm, modes.CBC(vector)).decryptor()
    content = BytesIO()
    for chunk in _chunks(sealed.content):
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


# --- compression -------------------------------------------------------------------------------------------------


def decompress(octets: bytes | memoryview | ber.Element) -> bytes:
    """The MIME entity inside a CompressedData (RFC 3274).

    Raises:
        ber.BerError: the octets are not CompressedData, or what they hold is not zlib's (RFC 1950).
        TooLarge: it would grow beyond 16 times its size or 4 MiB.
        UnknownAlgorithm: another compression, or something other than a MIME entity inside.
    """
    outer = ber.Cursor(_read(octets).expect(ber.SEQUENCE))
    if outer.next().oid() != cms_keys.ID_COMPRESSED_DATA:
        raise ber.BerError("this is not CompressedData", 0)
    fields = ber.Cursor(ber.Cursor(outer.next(0xA0)).next(ber.SEQUENCE))
    fields.next(ber.INTEGER)
    algorithm, _ = cms.algorithm_of(fields.next())
    encapsulated = ber.Cursor(fields.next(ber.SEQUENCE))
    fields.end()
    content_type = encapsulated.next().oid()
    if algorithm != ZLIB or content_type != cms.ID_DATA:
        raise UnknownAlgorithm(f"it is compressed by {algorithm} and holds CMS content {content_type}")
    content = ber.Cursor(encapsulated.next(0xA0)).next()
    return _inflate(content)


def _inflate(content: ber.Element) -> bytes:
    limit = min(MAX_INFLATED, MAX_INFLATION * sum(map(len, content.pieces())))
    inflater, entity = zlib.decompressobj(), BytesIO()
    try:
        for chunk in _chunks(content, ber.OCTET_STRING):
            entity.write(inflater.decompress(chunk, limit + 1 - entity.tell()))
            if entity.tell() > limit:
                raise TooLarge(f"it grows beyond {MAX_INFLATION} times its size or {MAX_INFLATED} octets")
    except zlib.error as error:
        raise ber.BerError("the compressed content is damaged", content.offset) from error
    if not inflater.eof or inflater.unused_data:
        raise ber.BerError("the compressed content does not end where it should", content.offset)
    return entity.getvalue()
