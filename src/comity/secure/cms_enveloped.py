"""CMS EnvelopedData and AuthEnvelopedData (RFC 5652 section 6, RFC 5083), read: ``cms_open.py`` opens what is read here.

Place on the path: below ``cms_open.py``. Octets of a ContentInfo go in; ``Sealed`` comes out, with everything bounded. All of
it is what anybody can see from outside, so errors may say what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from comity.secure import ber, cms, cms_keys
from comity.secure.cms_keys import ContentCipher
from comity.secure.evidence import TooLarge, UnknownAlgorithm

MAX_OCTETS = 64 * 1024 * 1024
"""Of one encrypted object; far above what any network carries, for files."""
MAX_RECIPIENTS = 1_000
MAX_ELEMENTS = 16_000
"""A thousand recipients have about ten elements each that are looked at to find ours."""


@dataclass(frozen=True, slots=True)
class Recipient:
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
class Sealed:
    """A parsed EnvelopedData or AuthEnvelopedData."""

    recipients: list[Recipient]
    cipher: ContentCipher
    parameters: ber.Element
    content: ber.Element
    tag: bytes
    associated: bytes
    """DER of the authenticated attributes."""


def read_info(octets: bytes | memoryview | ber.Element) -> ber.Element:
    """Read the outermost element of an object of bounded size; given as one, it is that."""
    size = len(octets.raw if isinstance(octets, ber.Element) else octets)
    if size > MAX_OCTETS:
        raise TooLarge(f"it has {size} octets, over the limit of {MAX_OCTETS}")
    return octets if isinstance(octets, ber.Element) else ber.read(octets, max_elements=MAX_ELEMENTS)


def parse(octets: bytes | memoryview | ber.Element) -> Sealed:
    """Read a ContentInfo that holds one of the two.

    Raises:
        BerError: the octets are neither, or break a limit of the reader.
        TooLarge: more recipients or octets than we look at.
        UnknownAlgorithm: the content is encrypted, or made, in a way we do not know.
    """
    info = read_info(octets)
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
    return Sealed(recipients, cipher, parameters, content, tag, associated)


def _recipients(infos: ber.Element) -> list[Recipient]:
    found: list[Recipient] = []
    for info in infos.children:
        if info.tag == ber.SEQUENCE:
            found.append(_key_transport(ber.Cursor(info)))
        elif info.tag == 0xA1:
            found += _key_agreement(ber.Cursor(info))
        # [2] to [4] are shared keys, passwords and what may come: none of them is a certificate of ours.
        if len(found) > MAX_RECIPIENTS:
            raise TooLarge(f"it has more than {MAX_RECIPIENTS} recipients")
    return found


def _key_transport(fields: ber.Cursor) -> Recipient:
    fields.next(ber.INTEGER)
    name = _recipient_name(fields.next())
    recipient = Recipient(name, identifier=fields.next(), wrapped=fields.next())
    fields.end()
    return recipient


def _key_agreement(fields: ber.Cursor) -> Iterator[Recipient]:
    fields.next(ber.INTEGER)
    originator, ukm, identifier = fields.next(0xA0), fields.optional(0xA1), fields.next()
    for item in fields.next(ber.SEQUENCE).children:
        pair = ber.Cursor(item.expect(ber.SEQUENCE))
        yield Recipient(_recipient_name(pair.next()), identifier, pair.next(), originator, ukm)
        pair.end()
    fields.end()


def _recipient_name(rid: ber.Element) -> cms.Name:
    if rid.tag == ber.SEQUENCE:
        return cms.issuer_and_serial(rid)
    if rid.tag == 0xA0 and rid.children and rid.children[0].tag == ber.OCTET_STRING:
        # RecipientKeyIdentifier of key agreement; or the pieces of a key identifier, which come to the same.
        return cms.Name(b"", 0, rid.children[0].octets())
    return cms.Name(b"", 0, rid.octets(0x80))
