"""What ``verify`` was asked, what was taken off an object on the way in, and what the entity found there says of itself.

Place on the path: between ``verifying.py``, which takes off layers and notes each in ``Around``, and ``judge.py``, which
answers. The rule its readers must keep: a ``View`` is read from one set of octets, and ``Question.answer`` is the only
place where a ``Verdict`` is made, so that none forgets what was covered, by whom, inside what.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from comity.cpim.address import Address
from comity.cpim.entity import decode_transfer
from comity.cpim.message import CpimLimits, CpimMessage, check_profile
from comity.cpim.operations import MimeObject
from comity.errors import MalformedMessage
from comity.secure.chain import TrustStore
from comity.secure.evidence import Signer
from comity.secure.freshness import ReplayMemory
from comity.secure.identity import Identity, Name, name_of, proves

if TYPE_CHECKING:
    from comity.secure.openpgp import PgpIdentity
from comity.secure.verdict import IdentityMatch, Layer, LayerKind, Verdict, VerdictKind

CPIM = "message/cpim"
PIDF = "application/pidf+xml"
MAX_OCTETS = 16 * 1024 * 1024
"""Of a whole object, and of what is found inside all its layers together. What arrived by a protocol is far smaller
(reliability.md 6.2); a file may hold more, and it is read in memory."""
LIMITS = CpimLimits(message=MAX_OCTETS)


@dataclass(frozen=True, slots=True)
class View:
    """What the entity says about itself; read from one set of octets only."""

    kind: str
    """Media type."""
    from_: str = ""
    to: tuple[str, ...] = ()
    date_time: datetime | None = None
    identifier: str = ""
    """imdn.Message-ID, or the object's hash (SEC-25)."""
    is_ambiguous: bool = False
    has_headers: bool = False
    """True for message/cpim and PIDF: the kinds that say from whom they are."""

    @property
    def noun(self) -> str:
        """What to call it in a sentence."""
        return "presence document" if self.kind == PIDF else "message"


@dataclass(frozen=True, slots=True)
class Around:
    """What was taken off on the way to an entity."""

    layers: tuple[Layer, ...] = ()
    """Outermost first."""
    signers: tuple[Signer, ...] = ()
    """Of every signature that holds, outermost first; whether they are trusted is asked at the end."""
    covered: bytes | None = None
    """Exactly the octets under the innermost of these signatures."""
    outer: View | None = None
    """The message/cpim whose headers stand outside of every signature."""
    recipients: tuple[str, ...] = ()
    """Addresses of the own identities that opened an encrypted layer."""
    octets: int = 0
    """What was found inside so far."""

    def under(self, signers: tuple[Signer, ...], content: bytes) -> Around:
        """Inside a signature that holds."""
        who = " and ".join(_signed_by(signer) for signer in signers)
        layer = Layer(LayerKind.SIGNED, f"signed by {who}")
        return replace(self._in(layer, len(content)), signers=(*self.signers, *signers), covered=content)

    def opened(self, text: str, octets: int, recipient: str) -> Around:
        """Inside an encrypted layer."""
        recipients = (*self.recipients, recipient) if recipient else self.recipients
        return replace(self._in(Layer(LayerKind.ENCRYPTED, text), octets), recipients=recipients)

    def unpacked(self, octets: int) -> Around:
        """Inside a compressed layer."""
        return self._in(Layer(LayerKind.COMPRESSED, "compressed"), octets)

    def within(self, view: View) -> Around:
        """Inside a message/cpim that no signature covers."""
        text = f"message/cpim from {escaped(view.from_) or 'nobody'}, its headers not signed"
        return replace(self._in(Layer(LayerKind.UNPROTECTED, text), 0), outer=view)

    def ending(self, layer: Layer) -> Around:
        """As it is, with a last layer that was not opened."""
        return replace(self, layers=(*self.layers, layer))

    def _in(self, layer: Layer, octets: int) -> Around:
        return replace(self, layers=(*self.layers, layer), octets=self.octets + octets)


def _signed_by(signer: Signer) -> str:
    """How a layer names its signer: an address only if the certificate is trusted."""
    if signer.distrust:
        return f"an untrusted key, {signer.fingerprint[:16]}"
    return first_name(signer.names) or signer.title


@dataclass(frozen=True, slots=True)
class Question:
    """What the caller wants to know, the arguments of ``verify``; and what was taken off so far."""

    trust: TrustStore
    now: datetime
    expected_from: str
    expected_to: str
    replay: ReplayMemory | None
    asserted_by: str
    arrived: datetime | None
    sha256: str
    keys: tuple[Identity | PgpIdentity, ...] = ()
    around: Around = Around()

    def answer(
        self,
        verdict: VerdictKind,
        reason: str,
        *,
        from_: str = "",
        signer: str = "",
        identity: IdentityMatch = IdentityMatch.NONE,
        content: MimeObject | None = None,
        about: Signer | None = None,
        freshness: str = "",
    ) -> Verdict:
        """The verdict, with everything that ``around`` says for itself.

        Args:
            verdict, reason, from_, signer, identity, content, freshness: fields of ``Verdict``.
            about: whose certificate the verdict is about; the innermost signature's if not given.
        """
        around = self.around
        about = about or next(iter(around.signers), None)
        return Verdict(
            verdict,
            signer,
            from_,
            self.sha256,
            reason,
            asserted_by="" if identity is IdentityMatch.MATCH or verdict not in _ASSERTED else self.asserted_by,
            content=content,
            freshness=freshness,
            certificate=about.certificate if about else b"",
            fingerprint=about.fingerprint if about else "",
            technology=about.technology if about else "",
            encryption_certificate=about.encryption_certificate if about else b"",
            capabilities=about.capabilities if about else (),
            identity=identity,
            covered_sha256="" if around.covered is None else hashlib.sha256(around.covered).hexdigest(),
            covered_octets=len(around.covered or b""),
            covers_whole=around.covered is not None and around.outer is None,
            layers=around.layers,
        )

    def signer_text(self, from_: str) -> str:
        """The address to call the signers by: From in canonical form if all prove it, else the first one proved.

        A sip: address is not called im: unless that is proved too: the two may be two people (SEC-19)."""
        if from_ and self._all_prove(from_):
            address = canonical(from_)
            return address if self._all_prove(address) else str(name_of(from_))
        return first_name([name for signer in self.around.signers for name in signer.names])

    def _all_prove(self, address: str) -> bool:
        return all(proves(signer.names, address, self.trust.sip_vouches_for) for signer in self.around.signers)


#: Verdicts under which nobody has proved the sender, so that whoever asserts him is named (SEED-5).
_ASSERTED = frozenset(
    {
        VerdictKind.UNSIGNED,
        VerdictKind.ENVELOPE_MISMATCH,
        VerdictKind.NOT_ADDRESSED,
        VerdictKind.NOT_CHECKED,
        VerdictKind.HEADERS_UNPROTECTED,
        VerdictKind.UNTRUSTED,
        VerdictKind.CHANGED,
        VerdictKind.ENCRYPTED,
        VerdictKind.NO_KEY,
        VerdictKind.CANNOT_DECRYPT,
        VerdictKind.DECRYPTED_UNAUTHENTICATED,
    }
)


def view_of(obj: MimeObject) -> View:
    """Read a message/cpim or PIDF; anything else says nothing about its sender.

    Raises:
        MalformedMessage: it is one of the two and cannot be read without doubt.
    """
    if obj.media_type == CPIM:
        message = CpimMessage.parse(decode_transfer(obj), limits=LIMITS)
        if len(message.senders) > 1:
            return View(CPIM, is_ambiguous=True, has_headers=True)
        check_profile(message)
        sender = message.from_
        to = tuple(address.uri for address in (*message.to, *message.cc))
        identifier = message.message_id or obj.fingerprint
        return View(CPIM, sender.uri if sender else "", to, message.date_time, identifier, has_headers=True)
    if obj.media_type == PIDF:
        from comity.cpim.presence import PresenceDocument  # noqa: PLC0415  # messages need no XML (SEED-7)

        document = PresenceDocument.of(obj)
        from_ = document.entity if document.presentity is None else document.presentity.uri
        return View(PIDF, from_, (), document.date_time, obj.fingerprint, has_headers=True)
    return View(obj.media_type)


def view_or_none(obj: MimeObject) -> View | None:
    """As ``view_of``, None for what cannot be read."""
    try:
        return view_of(obj)
    except MalformedMessage:
        return None


def first_name(names: Sequence[Name]) -> str:
    """The address to show of several: im: if there is one."""
    return str(min(names, key=lambda name: name.scheme != "im")) if names else ""


def canonical(uri: str) -> str:
    """A usable address URI as we write it."""
    scheme = uri.partition(":")[0].lower()
    address = Address.from_any(uri)
    return address.with_scheme("pres").uri if scheme == "pres" else address.uri


def escaped(text: str) -> str:
    """Text from outside, fit for a sentence on a terminal: nothing unprintable, not too long."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[:200])
