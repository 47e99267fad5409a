"""The four operations in the middle, and their response (RFC 3859 section 3, RFC 3860 section 3).

Place on the path: what every ``mapping.py`` makes of a protocol event (step 4), what the service admits,
routes and stores (steps 5 to 7), and what the far ``mapping.py`` takes (step 8). Nothing here knows a
protocol. The rule its readers must keep: ``MimeObject.octets`` is never re-made, only carried.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property

from comity.cpim.address import Address
from comity.cpim.delivered import PASSED_ON as PASSED_ON  # noqa: PLC0414  part of the operation's vocabulary
from comity.cpim.history import HistoryEntry as HistoryEntry  # noqa: PLC0414  part of the operation's vocabulary
from comity.cpim.history import extended as extended  # noqa: PLC0414  part of the operation's vocabulary

#: RFC 3860 section 3.4.2 asks for an initial value over 100.
INITIAL_MAX_FORWARDS = 128


class Status(Enum):
    """The only three answers an operation has (RFC 3860 section 3.4.1, with the RFC's spelling)."""

    SUCCESS = "success"
    FAILURE = "failure"
    INDETERMINANT = "indeterminant"


class Reason(Enum):
    """Why an operation failed; one native code per binding stands beside each in table T1 of conformance.md."""

    SYNTAX = "syntax"
    """Source, destination or object cannot be read."""
    NO_SUCH_USER = "no-such-user"
    NO_ROUTE = "no-route"
    """The destination's domain cannot be resolved or is not served."""
    TIMEOUT = "timeout"
    """The next hop gave no answer in time."""
    DENIED = "denied"
    """Policy: the sender may not do this, or is not who the message says."""
    AWAY = "away"
    """Nobody is reachable there now and the message was not stored."""
    SIZE = "size"
    CONTENT = "content"
    """The content type, a Require, or octets that the recipient's protocol cannot carry."""
    HOPS = "hops"
    LOOP = "loop"
    SUBSCRIPTION_EXISTS = "subscription-exists"
    INTERNAL = "internal"
    OVERLOAD = "overload"
    QUOTA = "quota"
    """The recipient's stored messages are at their limit."""
    EXPIRED = "expired"
    """The message's lifetime ended before it could be delivered."""
    TIMESTAMP = "timestamp"
    """T8: the secured object's time is outside the window."""
    SIGNATURE = "signature"
    """T8: the recipient says the signature does not verify."""
    DECRYPTION = "decryption"
    """T8: the recipient says it cannot decrypt."""
    NO_PUBLICATION = "no-publication"
    """There is no publication with that entity-tag (RFC 3903 section 6)."""
    UNSERVED = "unserved"
    """Operations of this kind are not carried here: the operator switched them off (SEED-45)."""
    PROTECTION = "protection"
    """T11: the protection the sender requires is not there, or cannot be kept on the next hop."""


class Requirement(Enum):
    """Protection that travels with a message: a hop that cannot keep it fails the message, with a report (T11)."""

    TLS = "tls"
    """Every link the message passes is under TLS."""
    SIGNED = "signed"
    """The object is signed, and is handed over as that and as nothing else."""
    ENCRYPTED = "encrypted"
    """The same for encrypted."""


#: Reasons that say nothing about the next attempt: the item stays queued and is tried again.
TEMPORARY_REASONS = frozenset({Reason.TIMEOUT, Reason.AWAY, Reason.OVERLOAD, Reason.INTERNAL})


@dataclass(frozen=True)
class MimeObject:
    """An immutable MIME entity: the object that crosses untouched (RFC 3862 section 2.2).

    ``header_block`` is the entity's MIME header lines as they stood outside the octets, each ended by CR LF,
    without the empty line (a SIP request's ``Content-*`` headers, the lines inside an ``e2e`` element). It
    always holds Content-Type. ``octets`` is everything after the empty line.
    """

    header_block: bytes
    octets: bytes

    @classmethod
    def of(cls, content_type: str, octets: bytes) -> MimeObject:
        """Make an object from a Content-Type value and its octets."""
        return cls(b"Content-Type: " + content_type.encode("utf-8") + b"\r\n", octets)

    @property
    def entity(self) -> bytes:
        """Header block, empty line and octets: the whole MIME entity."""
        return self.header_block + b"\r\n" + self.octets

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of ``octets`` as lower-case hex; equal at ingress and at every egress (G3)."""
        return hashlib.sha256(self.octets).hexdigest()

    @cached_property
    def content_type(self) -> str:
        """The Content-Type value, unfolded, parameters included; "" if there is none."""
        return self.header("content-type")

    @cached_property
    def media_type(self) -> str:
        """``type/subtype`` in lower case, without parameters."""
        return self.content_type.partition(";")[0].strip().lower()

    @cached_property
    def _headers(self) -> dict[str, str]:
        """First value of each MIME header, by its name in lower case: a message is asked for them a dozen times."""
        found: dict[str, str] = {}
        for line in unfold(self.header_block):
            key, colon, value = line.partition(":")
            if colon:
                found.setdefault(key.strip().lower(), value.strip())
        return found

    def header(self, name: str) -> str:
        """Value of the first MIME header called ``name`` (any case), unfolded; "" if absent."""
        return self._headers.get(name.lower(), "")


def unfold(header_block: bytes) -> list[str]:
    """Split a MIME header block into logical lines: folding joined (RFC 5322 section 2.2.3), text as UTF-8."""
    lines: list[list[str]] = []  # in pieces: joined once, else many folds would cost the square of their number
    for raw in header_block.replace(b"\r\n", b"\n").split(b"\n"):
        text = raw.decode("utf-8", "replace")
        if text[:1] in (" ", "\t") and lines:
            lines[-1].append(text.strip())
        elif text:
            lines.append([text])
    return [" ".join(pieces) for pieces in lines]


class Fate(Enum):
    """What a report says became of a message."""

    FAILED = "failed"
    DELIVERED = "delivered"
    """A device took it; told only to those who asked (``Context.wants_receipt``)."""
    DISPLAYED = "displayed"
    """A person saw it, as the recipient's program says; only ever repeated, never made by a server (T21)."""
    DELAYED = "delayed"
    """Still on its way after ``Context.report_after``; nothing is lost."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a report is about; travels in the context beside its IMDN object (RFC 5438)."""

    reason: Reason
    """Why it failed; INTERNAL, and without meaning, where it did not."""
    text: str
    """One sentence for a person."""
    recipient: Address
    """Whom the failed message was for."""
    native_id: str = ""
    """The identifier the sender's own protocol gave the failed message, as in its context."""
    fate: Fate = Fate.FAILED
    form: str = ""
    """Of what was delivered (``Response.form``)."""
    at: str = ""
    """The node at which the object ended, where the form is a text."""
    condition: str = ""
    """As in ``Response``."""


@dataclass(frozen=True, slots=True)
class Context:
    """Optional hints a binding may use and any hop may drop; never signed, never trusted for identity."""

    thread: str = ""
    """SIP Call-ID or XMPP thread (T4, T5)."""
    subject: str = ""
    language: str = ""
    source_resource: str = ""
    """XMPP resource or SIP gr of the sender's device."""
    resource: str = ""
    """XMPP resource or SIP gr the message asks for."""
    kind: str = ""
    """XMPP message type as sent: normal, chat, headline …; "" where the protocol has none."""
    native_id: str = ""
    """The identifier the sender's protocol gave the message (SIP Call-ID, XMPP id)."""
    lifetime: float | None = None
    """Seconds the sender wants the message to be worth delivering (SIP Expires); None: the server's default."""
    transient: bool = False
    """Worth nothing later (typing states): never stored for an offline recipient, never reported."""
    no_copies: bool = False
    """The sender wants no copies of it on other devices, its own or the recipient's."""
    sealed: str = ""
    """Name of the encryption that only programs of the sender's protocol read (OMEMO): the object is that protocol's own, whatever
    text stands in it is a notice to who cannot decrypt it, and is never handed over as the message."""
    native_protocol: str = ""
    native: bytes = b""
    """What only a device of ``native_protocol`` understands, serialised by that binding (XMPP extensions)."""
    native_is_whole: bool = False
    """True if ``native`` says all there is to say, and the object says it in words for everybody else (XMPP reactions)."""
    report: Report | None = None
    wants_receipt: str = ""
    """The protocol of the device that asked to be told when the message was delivered: a report with ``Fate.DELIVERED`` goes to
    devices of that protocol. "": nobody asked. Who passes the request on in its own protocol (``Contact.is_hop``) answers with
    ``Response.form`` "passed-on": then the next hop reports."""
    asks: str = ""
    """What the sender's object asks to be told by notifications (RFC 5438): words of ``imdn.WISHES``, a space between. The service
    reads it out of the object; a device's mere taking of the message is no answer to it (IMDN-9)."""
    report_after: float | None = None
    """Seconds after which such a device wants to know that the message is still on its way; None: never."""


@dataclass(frozen=True, slots=True)
class MessageOperation:
    """The message operation (RFC 3860 section 3.1)."""

    source: Address
    destination: Address
    trans_id: str
    """Chosen by the sender's side; the response repeats it."""
    object: MimeObject
    max_forwards: int = INITIAL_MAX_FORWARDS
    context: Context = field(default_factory=Context)
    history: tuple[HistoryEntry, ...] = ()
    is_wrapped: bool = False
    """True if the object was made at ingress from a native message, a moment ago (GW-1)."""
    requirements: frozenset[Requirement] = frozenset()
    """What every hop must keep; never a hint that may be dropped, so not in the context (T11, SEC-29, SEC-30)."""

    def forwarded(self, entry: HistoryEntry) -> MessageOperation:
        """This operation as it leaves for another node: one hop less, one history entry more (GW-8, T2)."""
        return replace(self, max_forwards=self.max_forwards - 1, history=extended(self.history, entry))


@dataclass(frozen=True, slots=True)
class SubscribeOperation:
    """The subscribe operation (RFC 3859 section 3.4.1); duration 0 ends the subscription of that ``subscript_id``, or, if
    there is none, asks once (section 3.4.3)."""

    watcher: Address
    """``pres:`` address of who wants to know."""
    target: Address
    """``pres:`` address of whom it is about."""
    subscript_id: str
    """Globally unique over time (RFC 3859 section 3.4)."""
    trans_id: str
    duration: int
    """Seconds."""
    context: Context = field(default_factory=Context)
    history: tuple[HistoryEntry, ...] = ()
    proof: MimeObject | None = None
    """The operation signed by the watcher, carried beside it untouched (SEC-34); see ``secure/operation.py``."""


class Substate(Enum):
    """State of a subscription as its watcher is told (OPS-31); words of RFC 6665 section 4.1.3."""

    ACTIVE = "active"
    PENDING = "pending"
    """Waits for the presentity's answer; no document."""
    TERMINATED = "terminated"


class EndReason(Enum):
    """Why a subscription ended (RFC 6665 section 4.1.3)."""

    DEACTIVATED = "deactivated"
    """Subscribe anew at once: the notifier moved or restarted."""
    PROBATION = "probation"
    REJECTED = "rejected"
    TIMEOUT = "timeout"
    """Its duration is over, or the watcher ended it."""
    GIVEUP = "giveup"
    NORESOURCE = "noresource"
    INVARIANT = "invariant"


@dataclass(frozen=True, slots=True)
class NotifyOperation:
    """The notify operation (RFC 3859 section 3.4.2); it has no response."""

    watcher: Address
    """``pres:`` address, as subscribed."""
    target: Address
    trans_id: str
    object: MimeObject | None
    """The presence document, or the secured entity that holds it; None while pending and where there is nothing to say."""
    substate: Substate = Substate.ACTIVE
    reason: EndReason | None = None
    """Set exactly when terminated."""
    context: Context = field(default_factory=Context)
    history: tuple[HistoryEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class Response:
    """The response to an operation: exactly one per TransID (RFC 3860 section 3.1)."""

    trans_id: str
    status: Status
    reason: Reason | None = None
    """Set exactly when status is FAILURE."""
    text: str = ""
    """One sentence for a person; never holds the peer's octets unescaped."""
    retry_after: int | None = None
    """Seconds after which trying again makes sense."""
    duration: int | None = None
    """On success of a subscribe, the seconds granted, never more than asked (OPS-22)."""
    form: str = ""
    """On success, what was handed over: "object", "text" (plain text of an unsecured object),
    "text-of-signed" (readable part of a signed object and a statement of what was not proved), "passed-on" (the whole object,
    to a next hop that will report to the sender itself)."""
    is_unsent: bool = False
    """On failure: nothing of the message can have reached the other side, so that another way may be tried at once."""
    at: str = ""
    """On success, the node at which the object ended, where ``form`` is a text and a next hop said so; else the service knows."""
    is_protected: bool | None = None
    """On success, whether it left under TLS, where the binding knows better than ``Contact.is_protected``."""
    condition: str = ""
    """On failure, the exact word of a side that is no program of ours, of those of RFC 6120 section 8.3.3, " bare" behind it where
    it is about the person and not one device, " sip" where a SIP answer was put into that word: decides nothing, and lets the
    sender's protocol say it as exactly (T3, GW-3)."""

    @property
    def is_temporary(self) -> bool:
        """True for a failure that a later attempt may cure."""
        return self.status is Status.FAILURE and self.reason in TEMPORARY_REASONS


def success(trans_id: str, form: str = "", at: str = "") -> Response:
    """The operation was carried out."""
    return Response(trans_id, Status.SUCCESS, form=form, at=at)


def handed_over(trans_id: str, form: str, at: str = "") -> Response:
    """What to tell a sender of a message that was taken in this form: who passes it on cannot know its end."""
    return indeterminant(trans_id) if form == PASSED_ON else success(trans_id, form, at)


def indeterminant(trans_id: str) -> Response:
    """The operation was accepted; its end is not known yet."""
    return Response(trans_id, Status.INDETERMINANT)


def failure(
    trans_id: str, reason: Reason, text: str = "", retry_after: int | None = None, *, condition: str = ""
) -> Response:
    """The operation was not carried out, for ``reason``."""
    return Response(trans_id, Status.FAILURE, reason, text, retry_after, condition=condition)


def unsent(trans_id: str, text: str, reason: Reason = Reason.TIMEOUT) -> Response:
    """The next hop could not be reached at all: not one octet of the message left (``Response.is_unsent``)."""
    return Response(trans_id, Status.FAILURE, reason, text, is_unsent=True)
