"""Say what a received object proves (RFC 8551, RFC 3156, RFC 3923 section 6, RFC 8591).

Place on the path: after its end, at the recipient; relays import none of this (SEED-41). ``verify`` takes off one layer
after the other: signed (does the signature hold over exactly one whole entity, RFC 1847?), encrypted (if there are
keys), compressed, in any order within limits (SEC-16). What is left goes to ``judge.py``: is every signer trusted, is the
entity a message/cpim or PIDF, do the certificates prove its From, do envelope, recipient and time agree? The first "no" is
the verdict. Only octets under the signature are ever read for From, To and DateTime once something is signed
(reliability.md T8), and nothing encrypted is given before the whole of it was checked (T9).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from comity.cpim.address import Address
from comity.cpim.entity import content_object, content_type_params, decode_transfer, multipart_parts, split_entity
from comity.cpim.message import CpimMessage
from comity.cpim.operations import MimeObject, unfold
from comity.errors import MalformedMessage
from comity.secure import ber, chain, cms, openpgp
from comity.secure.chain import TrustStore
from comity.secure.cms_compressed import decompress
from comity.secure.cms_keys import ID_AUTH_ENVELOPED_DATA, ID_COMPRESSED_DATA
from comity.secure.evidence import (
    DecryptionFailed,
    NoKey,
    Opened,
    SignatureFailed,
    Signer,
    TooLarge,
    UnknownAlgorithm,
    UnknownSigner,
)
from comity.secure.freshness import ReplayMemory
from comity.secure.identity import Identity
from comity.secure.judge import closed, judge, unsigned
from comity.secure.opening import decrypt
from comity.secure.openpgp import PgpIdentity
from comity.secure.openpgp_mime import PGP_SIGNATURE
from comity.secure.question import CPIM, LIMITS, MAX_OCTETS, Question, escaped, view_of, view_or_none
from comity.secure.signing import canonical_text
from comity.secure.smime import ENCRYPTED_OIDS, PKCS7_MIME, PKCS7_SIGNATURE, digests_of, signers_of
from comity.secure.verdict import Layer, LayerKind, Verdict, VerdictKind

MULTIPART_SIGNED = "multipart/signed"
MULTIPART_ENCRYPTED = "multipart/encrypted"
SECURED = PKCS7_MIME | {MULTIPART_SIGNED, MULTIPART_ENCRYPTED}
_BARE_CR = re.compile(rb"\r(?!\n)")
MAX_LAYERS = 6
"""Signed, encrypted, signed is a triple wrap (RFC 8551 section 3.7); compression and a message/cpim around it make five."""


def verify(
    obj: MimeObject | bytes,
    trust: TrustStore,
    *,
    now: datetime,
    expected_from: str | Address | None = None,
    expected_to: str | Address | None = None,
    replay: ReplayMemory | None = None,
    asserted_by: str = "",
    arrived: datetime | None = None,
    keys: Sequence[Identity | PgpIdentity] = (),
) -> Verdict:
    """Say what ``obj`` proves.

    Args:
        obj: the object as it arrived, or a whole MIME entity.
        trust: anchors, pins and lists of whoever asks.
        now: aware UTC.
        expected_from: the sender according to the protocol around the object (SEED-28).
        expected_to: the recipient who got it: must stand in To or cc (SEED-34).
        replay: remembers what was accepted, here or on disk; None does not look for repeats.
        asserted_by: domain that vouches for From where no signature does (SEED-5).
        arrived: when it entered a known store-and-forward queue (SEC-24).
        keys: own identities, to open what is encrypted; without them that is only named. If one of them opens it and
            ``expected_to`` is not given, its address must stand in To or cc, or be the sender's (surreptitious forwarding).

    Returns:
        A verdict, whatever the octets; nothing is raised for bad input.

    Raises:
        SecurityError: ``replay`` is kept in a file that cannot be used.
    """
    whole = MimeObject(b"", obj) if isinstance(obj, bytes) else obj
    question = Question(
        trust,
        now,
        str(expected_from or ""),
        str(expected_to or ""),
        replay,
        asserted_by,
        arrived,
        whole.fingerprint,
        tuple(keys),
    )
    if len(whole.octets) > MAX_OCTETS:
        return _malformed(question, f"it is larger than {MAX_OCTETS} octets")
    try:
        obj = split_entity(obj) if isinstance(obj, bytes) else obj
    except MalformedMessage as error:
        return _malformed(question, error)
    return _look(obj, replace(question, sha256=obj.fingerprint))


def _malformed(question: Question, why: MalformedMessage | str) -> Verdict:
    return question.answer(VerdictKind.MALFORMED, f"The object cannot be read: {why}.")


def _look(obj: MimeObject | bytes, question: Question) -> Verdict:
    """Answer for the entity that lies inside the layers of ``question.around``."""
    around = question.around
    if len(around.layers) > MAX_LAYERS or around.octets > MAX_OCTETS * 2:
        return _malformed(question, f"there are more than {MAX_LAYERS} layers, or more than they may hold together")
    try:
        return _take_off(split_entity(obj) if isinstance(obj, bytes) else obj, question)
    except MalformedMessage as error:
        return _malformed(question, error)


def _take_off(obj: MimeObject, question: Question) -> Verdict:
    """Take off one layer by media type, or judge what has none."""
    _check_headers(obj)
    kind = obj.media_type
    if kind == MULTIPART_SIGNED:
        return _multipart_signed(obj, question)
    if kind in PKCS7_MIME:
        return _pkcs7_mime(obj, question)
    if kind == MULTIPART_ENCRYPTED:
        return _multipart_encrypted(obj, question)
    view = view_of(obj)
    if question.around.signers:
        return judge(view, obj, question)
    if kind == CPIM and question.around.outer is None:
        content = content_object(CpimMessage.parse(decode_transfer(obj), limits=LIMITS))
        if content.media_type in SECURED:
            return _look(content, replace(question, around=question.around.within(view)))
        return unsigned(obj, view, question, "The message is not signed")
    if kind.startswith("multipart/") and _holds_secured_part(obj):
        text = "Only a part of the object is secured, so nothing about its sender is proved"
        return unsigned(obj, view, question, text)
    return unsigned(obj, view, question, "The object is not signed")


def _check_headers(obj: MimeObject) -> None:
    """One Content-Type, one encoding, in lines that every reader parts alike: two must not see two objects in one set of
    octets."""
    if obj.header_block[:1] in (b" ", b"\t") or _BARE_CR.search(obj.header_block):
        raise MalformedMessage("its header begins with white space, or holds a bare CR")
    names = [line.partition(":")[0].rstrip(" \t").lower() for line in unfold(obj.header_block)]
    for name in ("content-type", "content-transfer-encoding"):
        if [found.strip() for found in names].count(name) > 1:
            raise MalformedMessage(f"there is more than one {name} header")
        if any(found != name and found.strip() == name for found in names):
            raise MalformedMessage(f"what looks like a {name} header is none")
    encoding = obj.header("content-transfer-encoding").lower()
    if obj.media_type.startswith("multipart/") and encoding not in ("", "7bit", "8bit", "binary"):
        raise MalformedMessage("a multipart has a transfer encoding")  # RFC 2045 section 6.4


def _holds_secured_part(obj: MimeObject) -> bool:
    try:
        return any(split_entity(part).media_type in SECURED for part in multipart_parts(obj))
    except MalformedMessage:
        return False


# --- signed ------------------------------------------------------------------------------------------------------


def _multipart_signed(obj: MimeObject, question: Question) -> Verdict:
    """RFC 1847 section 2.1, RFC 8551 section 3.5.3."""
    _, parameters = content_type_params(obj.content_type)
    protocol = parameters.get("protocol", "").lower()
    parts = multipart_parts(obj)
    if len(parts) != 2:
        raise MalformedMessage("multipart/signed has not exactly two parts")
    if not protocol or not parameters.get("micalg"):
        raise MalformedMessage("multipart/signed lacks protocol or micalg")
    content, second = parts[0], split_entity(parts[1])
    _check_headers(second)
    if second.media_type != protocol and {second.media_type, protocol} - PKCS7_SIGNATURE:
        raise MalformedMessage("the second part of multipart/signed is not of the type its protocol names")
    if protocol == PGP_SIGNATURE:
        canonical, armored = canonical_text(content), decode_transfer(second)  # RFC 3156 section 5: CR LF first
        micalg = openpgp.digests_of(parameters["micalg"])
        ask = partial(openpgp.signers_of, canonical, armored, question.trust, question.now, micalg)
        return _signed(canonical, ask, question)
    if protocol not in PKCS7_SIGNATURE:
        text = f"It is signed by {escaped(protocol)}, which was not checked: the sender is not proved."
        return _not_checked(content, text, question)
    try:
        signed = cms.parse_signed_data(decode_transfer(second))
    except TooLarge as error:
        return question.answer(VerdictKind.UNTRUSTED, f"The signature was not checked: {error}.")
    except (ber.BerError, MalformedMessage) as error:
        return question.answer(VerdictKind.BAD_SIGNATURE, f"The signature cannot be read: {error}.")
    if signed.content is not None:
        return question.answer(
            VerdictKind.BAD_SIGNATURE, "The signature brings a content of its own beside the signed part."
        )
    announced = digests_of(parameters["micalg"])
    return _signed(content, lambda: signers_of(signed, content, announced, question.trust, question.now), question)


def _signed_data(signed: cms.SignedData, question: Question) -> Verdict:
    """RFC 8551 section 3.5.2: the signature with its content inside."""
    if not signed.signers and signed.content is None:
        return question.answer(VerdictKind.UNSIGNED, "It brings certificates only; nothing is signed.")
    if signed.content is None:
        return question.answer(VerdictKind.BAD_SIGNATURE, "The signature came without what it signs.")
    content = signed.content
    return _signed(content, lambda: signers_of(signed, content, frozenset(), question.trust, question.now), question)


def _signed(content: bytes, check: Callable[[], tuple[Signer, ...]], question: Question) -> Verdict:
    """Check the signatures over ``content``, then look at what is signed."""
    if len(question.around.signers) >= cms.MAX_SIGNERS:  # what one signature may cost, all of them together may (M-26)
        raise MalformedMessage(f"there are more than {cms.MAX_SIGNERS} signers in all its layers", hint="size")
    try:
        signers = check()
    except (UnknownSigner, UnknownAlgorithm) as error:
        return _not_checked(content, f"The signature was not checked: {error}.", question)
    except TooLarge as error:
        return question.answer(VerdictKind.UNTRUSTED, f"The signature was not checked: {error}.")
    except (SignatureFailed, ber.BerError) as error:
        return question.answer(VerdictKind.BAD_SIGNATURE, f"The signature does not hold: {error}.")
    around = question.around.under(signers, content)
    return _look(content, replace(question, around=around))


def _not_checked(content: bytes, text: str, question: Question) -> Verdict:
    """What is signed in a way that we cannot check is shown, as unproved (SEC-5)."""
    inner = split_entity(content)
    view = view_or_none(inner)
    return question.answer(VerdictKind.NOT_CHECKED, text, from_="" if view is None else view.from_, content=inner)


# --- encrypted, compressed ---------------------------------------------------------------------------------------


def _pkcs7_mime(obj: MimeObject, question: Question) -> Verdict:
    """Whatever RFC 8551 section 3.2.2 puts into application/pkcs7-mime; the structure says what it is, not smime-type."""
    smime_type = content_type_params(obj.content_type)[1].get("smime-type", "").lower()
    try:
        info = ber.read(decode_transfer(obj))
        kind = cms.content_type_of(info)
        signed = cms.parse_signed_data(info) if kind == cms.ID_SIGNED_DATA else None
    except TooLarge as error:
        return question.answer(VerdictKind.UNTRUSTED, f"The signature was not checked: {error}.")
    except (ber.BerError, MalformedMessage) as error:
        if smime_type in ("enveloped-data", "authenveloped-data", "compressed-data"):
            raise MalformedMessage("the CMS structure cannot be read") from error
        return question.answer(VerdictKind.BAD_SIGNATURE, f"The signature cannot be read: {error}.")
    if signed is not None:
        return _signed_data(signed, question)
    if kind in ENCRYPTED_OIDS:
        return _encrypted(obj, question, is_authenticated=kind == ID_AUTH_ENVELOPED_DATA)
    if kind == ID_COMPRESSED_DATA:
        return _compressed(info, question)
    return question.answer(
        VerdictKind.NOT_CHECKED, f"It is protected in a way that was not checked (CMS content {kind})."
    )


def _compressed(info: ber.Element, question: Question) -> Verdict:
    """RFC 8551 section 3.6 (SEC-40)."""
    try:
        entity = decompress(info)
    except UnknownAlgorithm as error:
        return question.answer(VerdictKind.NOT_CHECKED, f"The object was not read: {error}.")
    except (TooLarge, ber.BerError) as error:
        raise MalformedMessage(str(error)) from error
    return _look(entity, replace(question, around=question.around.unpacked(len(entity))))


def _multipart_encrypted(obj: MimeObject, question: Question) -> Verdict:
    """RFC 1847 section 2.2 (SEC-6): a control part of the type that protocol names, then the encrypted octets."""
    parts = [split_entity(part) for part in multipart_parts(obj)]
    if len(parts) != 2:
        raise MalformedMessage("multipart/encrypted has not exactly two parts")
    protocol = content_type_params(obj.content_type)[1].get("protocol", "").lower()
    for part in parts:
        _check_headers(part)
    if not protocol or parts[0].media_type != protocol or parts[1].media_type != "application/octet-stream":
        raise MalformedMessage("the parts of multipart/encrypted are not the control part and the encrypted octets")
    return _encrypted(obj, question, is_authenticated=True)


NOT_AUTHENTICATED = "encrypted, not authenticated"
UNAUTHENTICATED = (
    "The object is encrypted so that a change on the way would not be noticed, and no signature inside proves that there "
    "was none: nothing of it is shown."
)


def _encrypted(obj: MimeObject, question: Question, *, is_authenticated: bool) -> Verdict:
    """Open one encrypted layer, if there are keys.

    ``is_authenticated`` is what can be seen from outside. Where it is False, everything that may go wrong from the first
    secret on has one answer, down to the layers: a wrong key, bad padding, an unreadable or an unsigned entity. Whoever
    sends changed copies of a message learns nothing from what we say (EFAIL; M-27, M-28, M-33)."""
    around = question.around
    if not question.keys:
        return closed(obj, question, VerdictKind.ENCRYPTED, "The object is encrypted and was not opened.")
    try:
        opened = decrypt(obj, question.keys, is_damage_judged=False)
    except NoKey:
        return closed(obj, question, VerdictKind.NO_KEY, "The object is encrypted for others: no key here opens it.")
    except (UnknownAlgorithm, TooLarge) as error:
        return closed(obj, question, VerdictKind.NOT_CHECKED, f"The object was not decrypted: {error}.")
    except DecryptionFailed as error:
        if is_authenticated:
            return closed(obj, question, VerdictKind.CANNOT_DECRYPT, str(error))
        return _unauthenticated(question)
    how = "authenticated" if opened.is_authenticated else "not authenticated"
    inside = around.opened(f"encrypted, {opened.algorithm}, {how}", len(opened.entity), _owner(opened, question))
    verdict = _look_inside(opened, replace(question, around=inside))
    if not opened.is_authenticated and not _is_signed_inside(verdict, len(inside.layers)):
        return _unauthenticated(question)
    return verdict


def _look_inside(opened: Opened, question: Question) -> Verdict:
    """Answer for what was opened; OpenPGP signs and encrypts in one (RFC 3156 section 6.2)."""
    if not opened.signatures:
        return _look(opened.entity, question)
    ask = partial(openpgp.signers_of, opened.entity, opened.signatures, question.trust, question.now)
    return _signed(opened.entity, ask, question)


def _unauthenticated(question: Question) -> Verdict:
    layer = Layer(LayerKind.ENCRYPTED, NOT_AUTHENTICATED)
    around = replace(question.around.ending(layer), signers=(), covered=None)
    return replace(question, around=around).answer(VerdictKind.DECRYPTED_UNAUTHENTICATED, UNAUTHENTICATED)


def _is_signed_inside(verdict: Verdict, depth: int) -> bool:
    """True if a signature that holds covers all that was found inside the first ``depth`` layers.

    Packed and sealed once more it may be; a message/cpim with headers of its own before it leaves those uncovered."""
    wrappings = (LayerKind.COMPRESSED, LayerKind.ENCRYPTED)
    kinds = [layer.kind for layer in verdict.layers[depth:]]
    return next((kind is LayerKind.SIGNED for kind in kinds if kind not in wrappings), False)


def _owner(opened: Opened, question: Question) -> str:
    """The address of the own identity that opened it."""
    for identity in question.keys:
        if isinstance(identity, Identity):
            prints = [chain.fingerprint(key.certificate) for key in identity.decryption_keys]
        else:
            prints = [identity.fingerprint]
        if opened.recipient in prints:
            return identity.address.uri
    return ""
