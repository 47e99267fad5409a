"""CMS CompressedData (RFC 3274, RFC 8551 section 3.6), both ways.

Place on the path: a layer that ``verifying.py`` looks through; written only on request. RFC 8551 section 2.4.5 has it as MAY;
the order is compress, then sign or encrypt (SEC-40).
"""

from __future__ import annotations

import zlib
from io import BytesIO

from comity.errors import SecurityError
from comity.secure import ber, cms, cms_keys
from comity.secure.cms_enveloped import read_info
from comity.secure.evidence import TooLarge, UnknownAlgorithm

MAX_INFLATION = 16
MAX_INFLATED = 4 * 1024 * 1024
"""Octets out of CompressedData, which may also be at most ``MAX_INFLATION`` times what went in (M-32)."""
ZLIB = "1.2.840.113549.1.9.16.3.8"


def decompress(octets: bytes | memoryview | ber.Element) -> bytes:
    """The MIME entity inside a CompressedData (RFC 3274).

    Raises:
        ber.BerError: the octets are not CompressedData, or what they hold is not zlib's (RFC 1950).
        TooLarge: it would grow beyond 16 times its size or 4 MiB.
        UnknownAlgorithm: another compression, or something other than a MIME entity inside.
    """
    outer = ber.Cursor(read_info(octets).expect(ber.SEQUENCE))
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
        for chunk in content.chunks():
            entity.write(inflater.decompress(chunk, limit + 1 - entity.tell()))
            if entity.tell() > limit:
                raise TooLarge(f"it grows beyond {MAX_INFLATION} times its size or {MAX_INFLATED} octets")
    except zlib.error as error:
        raise ber.BerError("the compressed content is damaged", content.offset) from error
    if not inflater.eof or inflater.unused_data:
        raise ber.BerError("the compressed content does not end where it should", content.offset)
    return entity.getvalue()


def compress(entity: bytes) -> bytes:
    """Write a CompressedData (DER) that holds ``entity``.

    Raises:
        SecurityError: it would be refused where it is read, being too large or too well compressed.
    """
    octets = zlib.compress(entity, 9)
    if len(entity) > min(MAX_INFLATED, MAX_INFLATION * len(octets)):
        raise SecurityError("This entity is not compressed: readers would take it for a bomb. Send it as it is.")
    content = ber.sequence(ber.oid(cms.ID_DATA), ber.tlv(0xA0, ber.octet_string(octets)))
    body = ber.sequence(ber.integer(0), ber.sequence(ber.oid(ZLIB)), content)
    return ber.sequence(ber.oid(cms_keys.ID_COMPRESSED_DATA), ber.tlv(0xA0, body))
