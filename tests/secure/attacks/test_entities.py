"""Two readers, two messages: headers, boundaries, prefixes and structures that one of them reads in another way (T5, T8).

Each row is a real object with real signatures, of Alice's message or of Eve's attempt to pass as Alice. A row that is
valid is valid for what it is: the signer and the content that the verdict names.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from comity.cpim.entity import multipart_parts, split_entity
from comity.cpim.operations import MimeObject
from comity.secure import ReplayCache, Verdict, VerdictKind, ber, cms, new_identity, sign
from tests.secure import kit
from tests.secure.kit import (
    ALICE,
    EVE,
    NOW,
    cpim,
    forged,
    identity,
    judged,
    multipart,
    opaque,
    signed_data,
    signer_info,
)

VALID, BAD, OTHER = VerdictKind.VALID, VerdictKind.MALFORMED, VerdictKind.SIGNED_BY_OTHER
BROKEN, PLAIN = VerdictKind.BAD_SIGNATURE, VerdictKind.UNSIGNED
TWO, BARE = VerdictKind.AMBIGUOUS_SENDER, VerdictKind.HEADERS_UNPROTECTED
CORE = b"urn:ietf:params:cpim-headers:"


def alices(entity: bytes) -> MimeObject:
    return forged(entity, identity())


def eves(entity: bytes) -> MimeObject:
    return forged(entity, identity(EVE))


def changed(old: bytes, new: bytes, entity: bytes | None = None) -> bytes:
    """Alice's message with one thing in it another way."""
    entity = cpim().entity if entity is None else entity
    assert entity.count(old) == 1, old
    return entity.replace(old, new)


def outer(old: bytes, new: bytes) -> MimeObject:
    """Alice's multipart/signed with one thing around the signed part another way."""
    return split_entity(changed(old, new, multipart(cpim().entity, detached()).entity))


def detached(entity: bytes | None = None, **how: object) -> bytes:
    entity = cpim().entity if entity is None else entity
    info = signer_info(identity(), entity, **how)  # type: ignore[arg-type]  # keyword table of a test helper
    return signed_data([info], [identity().certificate])


TYPE, FROM = b"Content-Type: message/cpim\r\n", b"From: <im:alice@a.test>\r\n"
SIGNED_TYPE = b"Content-Type: multipart/signed;"

#: What stands in the signed entity itself; signed by Alice unless said otherwise.
INSIDE: dict[str, tuple[Callable[[], MimeObject], VerdictKind]] = {
    "as it should be": (lambda: alices(cpim().entity), VALID),
    "two types": (lambda: alices(changed(TYPE, TYPE + b"Content-Type: text/plain\r\n")), BAD),
    "two types, one with space before the colon": (
        lambda: alices(changed(TYPE, TYPE + b"Content-Type : text/plain\r\n")),
        BAD,
    ),
    "two types in other case": (lambda: alices(changed(TYPE, b"CONTENT-TYPE: text/plain\r\n" + TYPE)), BAD),
    "a folded type": (lambda: alices(changed(TYPE, b"Content-Type:\r\n message/cpim\r\n")), VALID),
    "a type in capitals": (lambda: alices(changed(TYPE, b"Content-Type: Message/CPIM\r\n")), VALID),
    "a comment in the type": (lambda: alices(changed(TYPE, b"Content-Type: message/cpim (text/plain)\r\n")), BARE),
    "a comment before the type": (lambda: alices(changed(TYPE, b"Content-Type: (x) message/cpim\r\n")), BARE),
    "no type": (lambda: alices(changed(TYPE, b"Subject: x\r\n")), BARE),
    "two encodings": (
        lambda: alices(
            changed(TYPE, TYPE + b"Content-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: base64\r\n")
        ),
        BAD,
    ),
    "an unknown encoding": (
        lambda: alices(changed(TYPE, TYPE + b"Content-Transfer-Encoding: x-uuencode\r\n")),
        BAD,
    ),
    "an encoding that is a lie": (
        lambda: alices(changed(TYPE, TYPE + b"Content-Transfer-Encoding: base64\r\n")),
        BAD,
    ),
    "bare line feeds in the headers": (lambda: alices(cpim().entity.replace(b"\r\n", b"\n", 2)), BAD),
    "bare line feeds in the message": (lambda: alices(changed(FROM, FROM.replace(b"\r\n", b"\n"))), BAD),
    "a NUL in a header": (lambda: alices(changed(FROM, b"From: <im:alice@a.test\0>\r\n")), BAD),
    "two From": (lambda: alices(changed(FROM, FROM + b"From: <im:eve@e.test>\r\n")), TWO),
    "two From, one behind a prefix": (
        lambda: eves(changed(FROM, b"NS: x <" + CORE + b">\r\nx.From: <im:eve@e.test>\r\n" + FROM)),
        TWO,
    ),
    "From behind a prefix only": (
        lambda: eves(changed(FROM, b"NS: x <" + CORE + b">\r\nx.From: <im:alice@a.test>\r\n")),
        OTHER,
    ),
    "From in a namespace of Eve's, hers in the core": (
        lambda: eves(changed(FROM, b"NS: <urn:e>\r\n" + FROM + b"NS: <" + CORE + b">\r\nFrom: <im:eve@e.test>\r\n")),
        BAD,
    ),
    "From of an undeclared prefix": (lambda: eves(changed(FROM, b"x.From: <im:alice@a.test>\r\n")), BAD),
    "a prefix declared twice": (
        lambda: eves(
            changed(
                FROM,
                b"NS: x <urn:e>\r\nNS: x <" + CORE + b">\r\nx.From: <im:alice@a.test>\r\nFrom: <im:eve@e.test>\r\n",
            )
        ),
        TWO,
    ),
    "from in small letters beside From": (
        lambda: eves(changed(FROM, b"From: <im:eve@e.test>\r\nfrom: <im:alice@a.test>\r\n")),
        BAD,
    ),
    "an empty From": (lambda: alices(changed(FROM, b"From: <>\r\n")), BAD),
    "a From without a URI": (lambda: alices(changed(FROM, b"From: Alice\r\n")), BAD),
    "two addresses in one From": (
        lambda: eves(changed(FROM, b"From: <im:eve@e.test> <im:alice@a.test>\r\n")),
        BAD,
    ),
    "an address in the address": (lambda: eves(changed(FROM, b"From: <im:alice%40a.test@e.test>\r\n")), OTHER),
    "an address with headers": (lambda: eves(changed(FROM, b"From: <im:alice@a.test?From=im:eve@e.test>\r\n")), OTHER),
    "a folded From": (lambda: eves(changed(FROM, b"From: <im:eve@e.test>\r\n <im:alice@a.test>\r\n")), BAD),
    "a From in the content's headers": (
        lambda: eves(changed(b"Content-Type: text/plain", b"From: <im:eve@e.test>\r\nContent-Type: text/plain")),
        OTHER,
    ),
    "two DateTime": (
        lambda: alices(changed(b"DateTime:", b"DateTime: 2026-03-01T12:00:00Z\r\nDateTime:")),
        BAD,
    ),
    "a DateTime that is none": (lambda: alices(changed(b"DateTime: 2026", b"DateTime: x2026")), BAD),
    "two types of the content": (
        lambda: alices(changed(b"Content-Type: text/plain", b"Content-Type: text/html\r\nContent-Type: text/plain")),
        BAD,
    ),
    "a message inside a message": (
        lambda: eves(cpim("im:eve@e.test", content=cpim().octets, content_type="message/cpim").entity),
        VALID,
    ),
    "Alice's message inside Eve's unsigned one": (
        lambda: cpim("im:eve@e.test", content=cpim().octets, content_type="message/cpim"),
        PLAIN,
    ),
}


@pytest.mark.parametrize("name", INSIDE)
def test_what_is_signed_in_another_shape(name: str) -> None:
    """T5, T8, M-09, M-10, FMT-38, C-01 to C-19."""
    build, expected = INSIDE[name]
    verdict = judged(build())
    assert verdict.verdict is expected, verdict.reason
    by_eve = verdict.fingerprint == identity(EVE).fingerprint
    assert not (verdict.is_valid and by_eve and (verdict.signer, verdict.from_) != ("im:eve@e.test",) * 2)
    assert verdict.content is None or expected is not BAD


#: What stands around the signed part; the part itself is Alice's, untouched.
AROUND: dict[str, tuple[Callable[[], MimeObject], VerdictKind]] = {
    "as it should be": (lambda: multipart(cpim().entity, detached()), VALID),
    "two types": (lambda: outer(SIGNED_TYPE, b"Content-Type: text/plain\r\n" + SIGNED_TYPE), BAD),
    "folded parameters": (lambda: outer(b"; micalg", b";\r\n\tmicalg"), VALID),
    "a comment in the type": (lambda: outer(SIGNED_TYPE, b"Content-Type: multipart/signed (x);"), PLAIN),
    "a comment in a parameter": (lambda: outer(b"boundary=b", b"boundary=b (x)"), BAD),
    "two boundaries": (lambda: outer(b"; boundary=b", b"; boundary=b; boundary=c"), BAD),
    "a boundary with a space at its end": (lambda: outer(b"boundary=b", b'boundary="b "'), BAD),
    "no boundary": (lambda: outer(b"; boundary=b", b""), BAD),
    "an empty boundary": (lambda: outer(b"boundary=b", b'boundary=""'), BAD),
    "a boundary of 71 characters": (lambda: outer(b"boundary=b", b"boundary=" + b"b" * 71), BAD),
    "an encoded multipart": (lambda: outer(SIGNED_TYPE, b"Content-Transfer-Encoding: base64\r\n" + SIGNED_TYPE), BAD),
    "white space after a boundary": (lambda: outer(b"\r\n--b--", b"\r\n--b-- \t"), VALID),
    "something after a boundary": (lambda: outer(b"\r\n--b--", b"\r\n--b--x"), BAD),
    "a third part": (lambda: outer(b"\r\n--b--", b"\r\n--b\r\n\r\nsend money to eve\r\n--b--"), BAD),
    "two types of the signature": (
        lambda: outer(
            b"Content-Type: application/pkcs7-signature",
            b"Content-Type: text/plain\r\nContent-Type: application/pkcs7-signature",
        ),
        BAD,
    ),
    "another protocol than the second part": (
        lambda: outer(b'protocol="application/pkcs7-signature"', b'protocol="application/pgp-signature"'),
        BAD,
    ),
    "a pair of quotes in the protocol": (
        lambda: outer(b'protocol="application/pkcs7-signature"', b'protocol="application/pkcs7\\-signature"'),
        VALID,
    ),
    "no signature in the second part": (
        lambda: multipart(cpim().entity, b""),
        BAD,
    ),
    "the structure twice": (lambda: multipart(cpim().entity, detached() + detached()), BROKEN),
    "the signature of another message": (lambda: multipart(cpim(content=b"pay eve").entity, detached()), BROKEN),
    "the signed message as part of a signed message of Eve's": (
        lambda: eves(multipart(cpim().entity, detached()).entity),
        OTHER,
    ),
    "signed-data in the place of a detached signature": (
        lambda: multipart(cpim().entity, alices(cpim().entity).octets),
        BROKEN,
    ),
}


@pytest.mark.parametrize("name", AROUND)
def test_what_stands_around_in_another_shape(name: str) -> None:
    """SEC-1, T8, M-13, M-17, M-42."""
    build, expected = AROUND[name]
    verdict = judged(build())
    assert verdict.verdict is expected, verdict.reason
    if verdict.is_valid:
        assert verdict.content == cpim()


def test_what_stands_before_and_after_the_parts_is_never_shown() -> None:
    """T8."""
    obj = multipart(cpim().entity, detached())
    verdict = judged(
        MimeObject(obj.header_block, b"send money\r\n" + obj.octets + b"to eve\r\n--b\r\n\r\nnow\r\n--b--\r\n")
    )
    assert (verdict.verdict, verdict.content) == (VALID, cpim())
    assert verdict.covered_octets == len(cpim().entity)


class TestStructures:
    """SignedData that proves something else than it seems to."""

    def test_unsigned_attributes_are_not_read(self) -> None:
        """Whoever has the object can put them in: a counter-signature, another time, a certificate."""
        entity = cpim().entity
        info = ber.read(signer_info(identity(), entity))
        unsigned = ber.set_of(
            [kit.attribute(cms.SIGNING_TIME, ber.time(NOW)), kit.attribute("1.2.3", ber.NULL_DER)], 0xA1
        )
        changed_info = ber.sequence(*(child.der() for child in info.children), unsigned)
        verdict = judged(multipart(entity, signed_data([changed_info], [identity().certificate])))
        assert (verdict.verdict, verdict.content) == (VALID, cpim())

    @pytest.mark.parametrize("at", [0, 1, 2])
    def test_a_signed_attribute_twice_is_broken(self, at: int) -> None:
        entity = cpim().entity
        attributes = kit.usual_attributes(entity)
        attributes.append(kit.usual_attributes(b"other")[at])
        assert judged(forged(entity, identity(), attributes=attributes)).verdict is BROKEN

    def test_a_signed_attribute_with_two_values_is_broken(self) -> None:
        entity = cpim().entity
        attributes = kit.usual_attributes(entity)
        digests = [ber.read(kit.usual_attributes(one)[1]).children[1].children[0].der() for one in (b"x", entity)]
        attributes[1] = kit.attribute(cms.MESSAGE_DIGEST, *digests)
        assert judged(forged(entity, identity(), attributes=attributes)).verdict is BROKEN

    def test_a_certificate_that_only_looks_like_the_senders(self) -> None:
        """Eve makes one with Alice's names, issuer and serial number; nobody vouches for it."""
        real = identity().certificate
        lookalike = new_identity(ALICE, when=NOW)
        entity = cpim().entity
        sid = ber.sequence(real.issuer.public_bytes(), ber.integer(real.serial_number))
        info = [child.der() for child in ber.read(signer_info(lookalike, entity)).children]
        info[1] = sid
        raw = signed_data([ber.sequence(*info)], [lookalike.certificate, real], content=entity)
        assert judged(opaque(raw)).verdict is BROKEN
        verdict = judged(forged(entity, lookalike))
        assert (verdict.verdict, verdict.signer) == (VerdictKind.UNTRUSTED, "")

    def test_a_trusted_certificate_in_the_bag_lends_nothing(self) -> None:
        """Beside the untrusted signer's own lies the sender's."""
        lookalike, entity = new_identity(ALICE, when=NOW), cpim().entity
        bag = [identity().certificate, lookalike.certificate]
        verdict = judged(opaque(signed_data([signer_info(lookalike, entity)], bag, content=entity)))
        assert (verdict.verdict, verdict.fingerprint) == (VerdictKind.UNTRUSTED, lookalike.fingerprint)

    def test_an_encryption_key_signs_nothing(self) -> None:
        usage = x509.KeyUsage(False, False, True, False, False, False, False, False, False)
        name = [x509.UniformResourceIdentifier("im:alice@a.test")]
        signer = kit.certificate_with(name, extra=[(usage, True)])
        assert judged(forged(cpim().entity, signer)).verdict is VerdictKind.UNTRUSTED

    def test_a_homograph_is_spelled_out(self) -> None:
        """A certificate for Cyrillic "а.test" is as good as any; the verdict names its domain as the network sees it."""
        name = [x509.UniformResourceIdentifier("im:alice@xn--80a.test")]
        signer = kit.certificate_with(name)
        assert judged(forged(cpim().entity, signer)).verdict is OTHER
        verdict = judged(forged(cpim("im:alice@xn--80a.test").entity, signer))
        assert (verdict.verdict, verdict.signer) == (VALID, "im:alice@xn--80a.test")


class TestReplays:
    """T10: the same message in other octets is the same message."""

    @staticmethod
    def second(obj: MimeObject) -> Verdict:
        cache = ReplayCache()
        assert judged(sign(cpim(), identity(), when=NOW), replay=cache).is_valid
        return judged(obj, replay=cache)

    def test_in_the_other_form(self) -> None:
        """Anybody can move a detached signature and its content into signed-data."""
        obj = sign(cpim(), identity(), when=NOW)
        content, second = multipart_parts(obj)
        raw = cms.parse_signed_data(ber.read(kit_signature(second)))
        assert raw.content is None
        info = ber.read(kit_signature(second)).children[1].children[0].children[-1].children[0].der()
        again = opaque(signed_data([info], [identity().certificate], content=content))
        assert judged(again).is_valid
        assert self.second(again).verdict is VerdictKind.REPLAYED

    def test_with_another_boundary_preamble_and_certificates(self) -> None:
        obj = multipart(
            cpim().entity, signed_data([signer_info(identity(), cpim().entity)], [identity().certificate] * 3)
        )
        assert self.second(MimeObject(obj.header_block, b"x\r\n" + obj.octets)).verdict is VerdictKind.REPLAYED

    def test_with_the_other_signature_of_the_same_key(self) -> None:
        """ECDSA: (r, n - s) is as good as (r, s), and anybody can make it."""
        order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
        entity = cpim().entity
        info = [child.der() for child in ber.read(signer_info(identity(), entity)).children]
        r, s = decode_dss_signature(ber.read(info[-1]).octets())
        info[-1] = ber.octet_string(encode_dss_signature(r, order - s))
        twin = multipart(entity, signed_data([ber.sequence(*info)], [identity().certificate]))
        assert judged(twin).is_valid
        assert self.second(twin).verdict is VerdictKind.REPLAYED

    def test_inside_another_message(self) -> None:
        inner = sign(cpim(), identity(), when=NOW)
        verdict = self.second(cpim("im:eve@e.test", content=inner.octets, content_type=inner.content_type))
        assert verdict.verdict is VerdictKind.ENVELOPE_MISMATCH


def kit_signature(part: bytes) -> bytes:
    """The DER of a signature part that is base64."""
    return base64.b64decode(split_entity(part).octets)
