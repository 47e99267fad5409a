"""Is an object signed, is it encrypted: told without a key, for what a message requires of every hop (T11).

Place on the path: read-only, for admission (step 5), for each way out (step 8) and for a sender before step 1. Nothing
is verified here: that a signature stands there is not that it is good. Only a recipient's verdict says that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from comity.cpim.entity import CPIM_TYPE, content_object, decode_transfer, signed_part
from comity.cpim.message import DEFAULT, CpimLimits, CpimMessage
from comity.cpim.operations import MimeObject, Reason, Requirement
from comity.errors import MalformedMessage

PKCS7 = frozenset({"application/pkcs7-mime", "application/x-pkcs7-mime"})
_SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")
_ENVELOPED_DATA = bytes.fromhex("06092a864886f70d010703")
_AUTH_ENVELOPED_DATA = bytes.fromhex("060b2a864886f70d0109100117")
_HEAD = 24
"""Octets of a ContentInfo within which its contentType begins and ends, however its length is written."""

SENTENCES = {
    Requirement.SIGNED: "The message must be signed and is not.",
    Requirement.ENCRYPTED: "The message must be encrypted and is not.",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What somebody who verified an object says of it."""

    verdict: str
    """A value of ``secure.VerdictKind``."""
    text: str
    """One sentence for a person."""
    reason: Reason | None = None
    """What to tell the sender if it is refused for it (T8); None: nothing to refuse by itself."""


def protections(obj: MimeObject, *, limits: CpimLimits = DEFAULT) -> frozenset[Requirement]:
    """Which of SIGNED and ENCRYPTED the object is, as far as can be seen without a key.

    A message/cpim counts as what its content is. What stands inside something encrypted is not seen, and no hop can
    take it away: see ``unmet``. The media type ``application/pkcs7-mime`` is one of several kinds; the kind is read from the CMS
    itself, since its smime-type is only a hint (RFC 8551 section 3.2.2) and RFC 3923 section 3.3 leaves it out.
    """
    found: set[Requirement] = set()
    for _ in range(limits.depth):
        if obj.media_type == "multipart/encrypted":
            return frozenset(found | {Requirement.ENCRYPTED})
        if obj.media_type in PKCS7:
            return frozenset(found | _cms_protections(obj))
        try:
            if obj.media_type == "multipart/signed":
                inner = signed_part(obj, limits=limits)
                found.add(Requirement.SIGNED)
            elif obj.media_type == CPIM_TYPE:
                inner = content_object(CpimMessage.parse(decode_transfer(obj), limits=limits))
            else:
                break
        except MalformedMessage:
            break
        obj = inner
    return frozenset(found)


def _cms_protections(obj: MimeObject) -> set[Requirement]:
    try:
        head = decode_transfer(obj)[:_HEAD]
    except MalformedMessage:
        return set()
    if _ENVELOPED_DATA in head or _AUTH_ENVELOPED_DATA in head:
        return {Requirement.ENCRYPTED}
    return {Requirement.SIGNED} if _SIGNED_DATA in head else set()


def unmet(obj: MimeObject, requirements: Collection[Requirement]) -> str:
    """One sentence about what is required of the object and is not there; "" if all is.

    Something encrypted meets ``signed`` too: whether a signature stands inside cannot be seen by a hop nor removed by
    it. The sender's own program looks before it encrypts, the recipient's policy after it decrypted.
    """
    if not requirements or (Requirement.SIGNED not in requirements and Requirement.ENCRYPTED not in requirements):
        return ""
    found = protections(obj)
    if Requirement.ENCRYPTED in requirements and Requirement.ENCRYPTED not in found:
        return SENTENCES[Requirement.ENCRYPTED]
    if Requirement.SIGNED in requirements and not found:
        return SENTENCES[Requirement.SIGNED]
    return ""


def needs_whole(requirements: Collection[Requirement]) -> bool:
    """True if the object must be handed over as it is: no text in its place, no text beside it."""
    return Requirement.SIGNED in requirements or Requirement.ENCRYPTED in requirements


def read_requirements(words: Iterable[str]) -> frozenset[Requirement]:
    """The requirements named; any case. Raises ValueError for a word that names none: it cannot be kept."""
    return frozenset(Requirement(word.lower()) for word in words)
