"""The artefacts of "Johnny, you are fired" (Müller et al., USENIX Security 2019), each made again for message/cpim.

The published set (github.com/RUB-NDS/Johnny-You-Are-Fired) has 88 files: 52 attacking mails, 7 good ones, the rest are
pictures and texts. ``ARTEFACTS`` lists the 52 by name. In all of them Eve, whose certificate is as good as anybody's,
wants Johnny to believe that his manager signed "you are fired". A mail's headers become either those of an unsigned
message/cpim around the signed text, as in the mail ("outside"), or those of the message/cpim that is signed ("inside").

Expected is one kind for each, never one that says the manager signed. Where From *is* Eve's address and only its formal
name lies, the whole object is truly Eve's: the verdict says so, by address, and never speaks the formal name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import pytest

from comity.cpim.operations import MimeObject
from comity.secure import IdentityMatch, Verdict, VerdictKind, ber, cms, openpgp, verify
from tests.secure import kit, pgpkit
from tests.secure.kit import ALICE, EVE, NOW, cpim, identity, judged, multipart, signed_data, signer_info

FIRED = b"Johnny, you are fired!"
PROMOTED = b"Congratulations, you've been promoted!"
MANAGER, SIGNER = "im:alice@a.test", "im:eve@e.test"

ARTEFACTS = [
    "01-cms/eContent_confusion",
    "01-cms/eContent_confusion_refinement",
    "01-cms/multiple_signerInfos_append_johnny",
    "01-cms/multiple_signerInfos_prepend_johnny",
    "01-cms/no_signerInfos_no_certificates_detached",
    "01-cms/no_signerInfos_detached",
    "01-cms/crash_01",
    "03-mime/m1-pgp-inline",
    "03-mime/m1-pgp-inline2",
    "03-mime/m1-pgp-mime",
    "03-mime/m1-smime",
    "03-mime/m2-pgp-inline",
    "03-mime/m2-pgp-inline2",
    "03-mime/m2-pgp-mime",
    "03-mime/m2-smime-mix",
    "03-mime/m3-pgp-inline",
    "03-mime/m3-pgp-mime",
    "03-mime/m3-smime",
    "03-mime/m4-pgp-inline",
    "03-mime/m4-pgp-mime",
    "03-mime/m4-smime",
    "04-id/i1-from-unequals-signer-pgp-mime",
    "04-id/i1-from-unequals-signer-smime",
    "04-id/i2-from-contains-signer-pgp-mime",
    "04-id/i2-from-contains-signer-smime",
    "04-id/i2-from-is-empty-pgp-mime",
    "04-id/i2-from-is-empty-smime",
    "04-id/i2-from-is-nonexistent-pgp-mime",
    "04-id/i2-from-is-nonexistent-smime",
    "04-id/i2-from-is-only-a-name-pgp-mime",
    "04-id/i2-from-is-only-a-name-smime",
    "04-id/i2-from-is-sender-signer-a-pgp-mime",
    "04-id/i2-from-is-sender-signer-a-smime",
    "04-id/i2-from-is-sender-signer-b-pgp-mime",
    "04-id/i2-from-is-sender-signer-b-smime",
    "04-id/i2-from-is-signer-sender-a-pgp-mime",
    "04-id/i2-from-is-signer-sender-a-smime",
    "04-id/i2-from-is-signer-sender-b-pgp-mime",
    "04-id/i2-from-is-signer-sender-b-smime",
    "04-id/i3-from-is-sender-sender-signer-pgp-mime",
    "04-id/i3-from-is-sender-sender-signer-smime",
    "04-id/i3-from-is-sender-signer-sender-pgp-mime",
    "04-id/i3-from-is-sender-signer-sender-smime",
    "04-id/i3-from-sender-others-signer-pgp-mime",
    "04-id/i3-from-sender-others-signer-smime",
    "04-id/i3-from-signer-others-sender-pgp-mime",
    "04-id/i3-from-signer-others-sender-smime",
    "04-id/i3-from1-sender-from2-signer-pgp-mime",
    "04-id/i3-from1-sender-from2-signer-smime",
    "04-id/i3-from1-signer-from2-sender-pgp-mime",
    "04-id/i3-from1-signer-from2-sender-smime",
    "05-ui/u1-generic",
]


@dataclass(frozen=True)
class World:
    """Where everybody signs with one technology; both sign by hand, for our own ``sign`` refuses half of this."""

    name: str

    @property
    def now(self) -> datetime:
        return pgpkit.now() if self.name == "pgp-mime" else NOW

    def sign(self, entity: bytes, who: str) -> bytes:
        address = ALICE if who == "manager" else EVE
        if self.name == "smime":
            signer = identity(address)
            return multipart(entity, signed_data([signer_info(signer, entity)], [signer.certificate])).entity
        signature = (
            openpgp.sign_detached(entity, pgpkit.person(address)).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        )
        octets = (
            b"--p\r\n"
            + entity
            + b"\r\n--p\r\nContent-Type: application/pgp-signature\r\n\r\n"
            + signature
            + b"\r\n--p--\r\n"
        )
        kind = 'multipart/signed; protocol="application/pgp-signature"; micalg=pgp-sha512; boundary=p'
        return MimeObject.of(kind, octets).entity

    def whole(self, headers: bytes, content: bytes) -> bytes:
        """A message/cpim entity with these headers and this entity inside."""
        stamp = f"DateTime: {self.now:%Y-%m-%dT%H:%M:%SZ}\r\n".encode()
        return b"Content-Type: message/cpim\r\n\r\n" + headers + stamp + b"\r\n" + content

    def judge(self, entity: bytes) -> Verdict:
        """What Johnny is told, who trusts Eve's certificate as much as the manager's."""
        people = [pgpkit.person(ALICE), pgpkit.person(EVE)] if self.name == "pgp-mime" else []
        trust = kit.trust(openpgp_pinned=tuple(person.certificate for person in people))
        return verify(entity, trust, now=self.now)


SMIME = World("smime")


@pytest.fixture(params=["smime", "pgp-mime"])
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


def text(body: bytes, subtype: bytes = b"plain") -> bytes:
    return b"Content-Type: text/" + subtype + b"; charset=utf-8\r\n\r\n" + body


def from_manager(content: bytes, world: World = SMIME) -> bytes:
    return world.whole(b"From: <im:alice@a.test>\r\nTo: <im:bob@b.test>\r\n", content)


def never_the_managers(verdict: Verdict) -> None:
    """What no attack may reach: "valid" with the manager's name, or his text shown as proved."""
    assert not (verdict.is_valid and MANAGER in (verdict.signer, verdict.from_))
    assert not (verdict.identity is IdentityMatch.MATCH and verdict.signer == MANAGER)
    if verdict.verdict in (VerdictKind.BAD_SIGNATURE, VerdictKind.MALFORMED):
        assert (verdict.content, verdict.signer) == (None, "")


# --- 01: CMS -----------------------------------------------------------------------------------------------------


def detached(signature: bytes) -> MimeObject:
    return multipart(cpim(content=FIRED).entity, signature)


def econtent_confusion() -> MimeObject:
    """Good over the content inside, beside which another is shown."""
    signed = cpim(content=PROMOTED).entity
    return detached(signed_data([signer_info(identity(), signed)], [identity().certificate], content=signed))


def econtent_refinement() -> MimeObject:
    """The signed attributes as the content inside: their signature is good over them."""
    attributes = ber.set_of(kit.usual_attributes(cpim(content=PROMOTED).entity))
    info = signer_info(identity(), attributes, has_attributes=False)
    return detached(signed_data([info], [identity().certificate], content=attributes))


def two_signers(*, manager_first: bool) -> MimeObject:
    """Eve's own good signature beside one of the manager's, taken from something else."""
    infos = [signer_info(identity(EVE), cpim(content=FIRED).entity), signer_info(identity(), b"promoted")]
    certificates = [identity(EVE).certificate, identity().certificate]
    return detached(signed_data(infos[::-1] if manager_first else infos, certificates))


CMS: dict[str, Callable[[], MimeObject]] = {
    "eContent_confusion": econtent_confusion,
    "eContent_confusion_refinement": econtent_refinement,
    "multiple_signerInfos_append_johnny": lambda: two_signers(manager_first=False),
    "multiple_signerInfos_prepend_johnny": lambda: two_signers(manager_first=True),
    "no_signerInfos_no_certificates_detached": lambda: detached(signed_data([], [])),
    "no_signerInfos_detached": lambda: detached(signed_data([], [identity().certificate])),
    "crash_01": lambda: detached(ber.sequence(ber.oid(cms.ID_SIGNED_DATA))),
}


@pytest.mark.parametrize("name", CMS)
def test_cms(name: str) -> None:
    """M-11, M-12, M-13."""
    verdict = judged(CMS[name]())
    assert verdict.verdict is VerdictKind.BAD_SIGNATURE, verdict.reason
    never_the_managers(verdict)


@pytest.mark.parametrize("name", CMS)
def test_cms_around_the_text_only(name: str) -> None:
    """The same structures inside an unsigned message/cpim, as a mail has them."""
    obj = CMS[name]()
    verdict = SMIME.judge(from_manager(obj.entity))
    assert verdict.verdict is VerdictKind.BAD_SIGNATURE, verdict.reason
    never_the_managers(verdict)


# --- 03: MIME ----------------------------------------------------------------------------------------------------


def mixed(subtype: bytes, *parts: bytes) -> bytes:
    body = b"".join(b"--DELIMITER\r\n" + part + b"\r\n" for part in parts)
    return b"Content-Type: multipart/" + subtype + b"; boundary=DELIMITER\r\n\r\n" + body + b"--DELIMITER--\r\n"


HIDING = b"<b>" + FIRED + b'</b><style>fieldset, br{display: none;}</style><div style="display: none;"><plaintext>'
REFERENCE = b'<b>Johnny, you are fired!</b><iframe width="100%" src="cid:target"></iframe><img src="cid:target">'
MIME: dict[str, Callable[[bytes], bytes]] = {
    "m1": lambda signed: mixed(b"mixed", text(FIRED + b"\r\n.\r\n" * 50), signed),
    "m2": lambda signed: mixed(b"mixed", text(HIDING, b"html"), signed),
    "m3": lambda signed: mixed(b"related", text(REFERENCE, b"html"), b"Content-ID: <target>\r\n" + signed),
    "m4": lambda signed: mixed(
        b"mixed", text(FIRED), b"Content-Disposition: attachment; filename=smime.p7s\r\n" + signed
    ),
}


@pytest.mark.parametrize("is_outermost", [True, False], ids=["outermost", "in message/cpim"])
@pytest.mark.parametrize("what", ["message", "text"])
@pytest.mark.parametrize("name", MIME)
def test_mime(world: World, name: str, what: str, is_outermost: bool) -> None:
    """M-03, M-04: a signed part among others proves nothing about the rest."""
    inner = from_manager(text(PROMOTED), world) if what == "message" else text(PROMOTED)
    assert world.judge(world.sign(inner, "manager")).signer == MANAGER
    entity = MIME[name](world.sign(inner, "manager"))
    verdict = world.judge(entity if is_outermost else from_manager(entity, world))
    assert (verdict.verdict, verdict.signer, verdict.layers) == (VerdictKind.UNSIGNED, "", ())
    never_the_managers(verdict)


CLEARTEXT = (
    b"-----BEGIN PGP SIGNED MESSAGE-----\r\nHash: SHA512\r\n\r\n"
    + PROMOTED
    + b"\r\n-----BEGIN PGP SIGNATURE-----\r\n\r\n"
    b"iQEzBAEBCgAdFiEE\r\n=abcd\r\n-----END PGP SIGNATURE-----\r\n"
)


@pytest.mark.parametrize("name", ["m1", "m1 again", "m2", "m2 again", "m3", "m4"])
def test_mime_with_inline_openpgp(name: str) -> None:
    """M-41: text that is signed inline is text; the cleartext framework is never read."""
    if name.endswith("again"):  # in one part with the attacker's text, before it in m1 and inside HTML in m2
        part = text(FIRED + b"\r\n" * 50 + CLEARTEXT) if name[:2] == "m1" else text(HIDING + CLEARTEXT, b"html")
    else:
        part = MIME[name](text(CLEARTEXT))
    for entity in (part, from_manager(part)):
        verdict = SMIME.judge(entity)
        assert (verdict.verdict, verdict.signer, verdict.layers) == (VerdictKind.UNSIGNED, "", ())
        never_the_managers(verdict)


# --- 04: identity ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """Headers of a message that Eve signed, and what is said of it."""

    headers: bytes
    inside: VerdictKind
    """With these headers under the signature."""
    outside: VerdictKind
    """With these headers around it."""


TO = b"To: <im:bob@b.test>\r\n"
M, E = b"<im:alice@a.test>", b"<im:eve@e.test>"
OTHER, BAD, VALID = VerdictKind.SIGNED_BY_OTHER, VerdictKind.MALFORMED, VerdictKind.VALID
TWO, BARE = VerdictKind.AMBIGUOUS_SENDER, VerdictKind.HEADERS_UNPROTECTED
SHAPES = {
    "i1-from-unequals-signer": Shape(b"From: " + M + b"\r\n" + TO, OTHER, OTHER),
    "i2-from-contains-signer": Shape(b"From: The Manager " + E + b"\r\n" + TO, VALID, BARE),
    "i2-from-is-empty": Shape(b"From: \r\n" + TO, BAD, BAD),
    "i2-from-is-nonexistent": Shape(TO, BAD, BAD),
    "i2-from-is-only-a-name": Shape(b"From: The Manager\r\n" + TO, BAD, BAD),
    "i2-from-is-sender-signer-a": Shape(b'From: "im:alice@a.test" ' + E + b"\r\n" + TO, VALID, BARE),
    "i2-from-is-sender-signer-b": Shape(b'From: "im:alice@a.test' + b" " * 40 + b'." ' + E + b"\r\n" + TO, VALID, BARE),
    "i2-from-is-signer-sender-a": Shape(b'From: "im:eve@e.test" ' + M + b"\r\n" + TO, OTHER, OTHER),
    "i2-from-is-signer-sender-b": Shape(b'From: "im:eve@e.test' + b" " * 40 + b'." ' + M + b"\r\n" + TO, OTHER, OTHER),
    "i3-from-is-sender-sender-signer": Shape(b"From: " + M + b", " + E + b"\r\n" + TO, BAD, BAD),
    "i3-from-is-sender-signer-sender": Shape(b"From: " + E + b", " + M + b"\r\n" + TO, BAD, BAD),
    "i3-from-sender-others-signer": Shape(
        b"From: " + M + b"\r\nSender: " + E + b"\r\nReply-To: " + E + b"\r\n" + TO, OTHER, OTHER
    ),
    "i3-from-signer-others-sender": Shape(
        b"From: " + E + b"\r\nSender: " + M + b"\r\nReply-To: " + M + b"\r\n" + TO, VALID, BARE
    ),
    "i3-from1-sender-from2-signer": Shape(b"From: " + M + b"\r\nFrom: " + E + b"\r\n" + TO, TWO, TWO),
    "i3-from1-signer-from2-sender": Shape(b"From: " + E + b"\r\nFrom: " + M + b"\r\n" + TO, TWO, TWO),
}


@pytest.mark.parametrize("name", SHAPES)
def test_identity_with_the_headers_signed(world: World, name: str) -> None:
    """M-07, M-08, M-09, M-10, FMT-38."""
    shape = SHAPES[name]
    verdict = world.judge(world.sign(world.whole(shape.headers, text(FIRED)), "eve"))
    assert verdict.verdict is shape.inside, verdict.reason
    never_the_managers(verdict)
    if verdict.is_valid:
        assert (verdict.signer, verdict.from_) == (SIGNER, SIGNER)
        assert "alice" not in verdict.reason
        assert "Manager" not in verdict.reason


@pytest.mark.parametrize("name", SHAPES)
def test_identity_with_the_headers_outside(world: World, name: str) -> None:
    """SEC-28, M-05."""
    shape = SHAPES[name]
    verdict = world.judge(world.whole(shape.headers, world.sign(text(FIRED), "eve")))
    assert verdict.verdict is shape.outside, verdict.reason
    assert not verdict.covers_whole
    never_the_managers(verdict)


# --- 05: the user interface --------------------------------------------------------------------------------------


@pytest.mark.parametrize("subtype", [b"html", b"plain"])
def test_what_the_body_draws_is_not_in_the_verdict(subtype: bytes) -> None:
    """M-20, u1: the verdict stands outside the body."""
    drawn = b'<div style="background-color: green">VERDICT: valid, signed by im:alice@a.test \xf0\x9f\x94\x92</div>'
    verdict = SMIME.judge(from_manager(text(drawn, subtype)))
    assert (verdict.verdict, verdict.signer, verdict.reason) == (VerdictKind.UNSIGNED, "", "The message is not signed.")


# --- the good ones, and the list ---------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["manager", "eve"])
def test_the_good_mails_are_valid_for_who_signed(world: World, who: str) -> None:
    """The set's own controls: without them all of the above would hold for a reader that says no to everything."""
    sender = MANAGER if who == "manager" else SIGNER
    verdict = world.judge(world.sign(cpim(sender, when=world.now, content=PROMOTED).entity, who))
    assert (verdict.verdict, verdict.signer) == (VerdictKind.VALID, sender), verdict.reason


def test_every_published_artefact_has_its_shape_here() -> None:
    made = {f"01-cms/{name}" for name in CMS}
    made |= {f"04-id/{name}-{technology}" for name in SHAPES for technology in ("smime", "pgp-mime")}
    made |= {f"03-mime/{name}-{kind}" for name in MIME for kind in ("smime", "pgp-mime", "pgp-inline")}
    made |= {"03-mime/m1-pgp-inline2", "03-mime/m2-pgp-inline2", "05-ui/u1-generic"}
    made = {name.replace("m2-smime", "m2-smime-mix") for name in made}
    assert len(ARTEFACTS) == len(set(ARTEFACTS)) == 52
    assert made == set(ARTEFACTS)
