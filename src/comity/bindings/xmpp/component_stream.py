"""The stream of an external component, both sides (XEP-0114): header, handshake, stanzas, and the proof that they were taken.

Place on the path: steps 3 and 9, under ``components.py``. A component's stream has one domain, proved by a digest over a
secret that both ends know, and nothing of RFC 6120 after its header: no features, no acknowledgements. What was taken is
therefore asked for, as of a client without stream management (``life.py``): a host by an iq from us to ourselves, which it can
only give back after it has worked through all that stood before; a component by a ping, which it has to answer.

The secret never travels, but nothing else protects such a stream: whoever reads the line reads the messages, and who can write
into it speaks for the domain. Where it may be spoken without TLS is decided by whoever makes the connection.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from comity.bindings.xmpp import wire
from comity.bindings.xmpp.events import (
    HandshakeFailed,
    HandshakeSucceeded,
    StanzaReceived,
    StanzasAcknowledged,
)
from comity.bindings.xmpp.jid import Jid
from comity.bindings.xmpp.life import LifeSigns
from comity.bindings.xmpp.stream import EndPoint, XmppStream
from comity.bindings.xmpp.wire import IQ, Element, RootOpened
from comity.errors import AddressError, RemoteProtocolError
from comity.xml import XmlLimits

COMPONENT: Final = "jabber:component:accept"
HANDSHAKE: Final = wire.child_of_client("handshake")
"""As ``wire.as_client`` calls it."""
MOST_RETURNING: Final = 64
"""Stanzas of a component to itself that wait for others before them."""
_IQ_TYPES: Final = frozenset({"get", "set", "result", "error"})


@dataclass(frozen=True, slots=True)
class ComponentOptions:
    """What both sides need to know; limits from reliability.md section 6.2."""

    domain: str
    """Our own (U-labels): that of the server, in whose name a component is asked, or that of the component."""
    secrets: Mapping[str, str] = field(repr=False)
    """By the domain (U-labels) of each component: those that may attach, or the one that we are."""
    handshake_seconds: float = 30.0
    pre_auth_octets: int = 64 * 1024
    pre_auth_limits: XmlLimits = wire.PRE_AUTH_LIMITS
    stanza_limits: XmlLimits = field(default_factory=lambda: XmlLimits(octets=512 * 1024))


def digest(stream_id: str, secret: str) -> str:
    """What proves that ``secret`` is known, on the stream with that id (XEP-0114 section 3)."""
    # SHA-1 is what the protocol says. Its weakness is collisions, and nothing here rests on there being none.
    return hashlib.sha1((stream_id + secret).encode(), usedforsecurity=False).hexdigest()


class ComponentStream(XmppStream):
    """One side of a component's stream; ``domain`` is known from the start or by the other side's header.

    Events: ``HandshakeSucceeded`` (of the server ``HandshakeFailed`` for a wrong one), then ``StanzaReceived`` with prepared addresses, ``StanzasAcknowledged``,
    ``StreamEnded``. Verbs after ``HandshakeSucceeded``: ``send_stanza``, ``close``.
    """

    content_namespace = COMPONENT

    def __init__(
        self, options: ComponentOptions, end_point: EndPoint, random: Callable[[int], bytes], now: float
    ) -> None:
        super().__init__(end_point, random, options.pre_auth_limits)
        self._options = options
        self._deadline = now + options.handshake_seconds
        self._last_heard = self._spaces_at = now
        self._domain = ""
        self._octets = 0
        self._life = LifeSigns()
        self._has_answered = False
        """True once a question of ours was answered: from then on no answer means trouble, not a program that gives none."""

    @property
    def domain(self) -> str:
        """The component's domain (U-labels), "" before it is known."""
        return self._domain

    # --- for the side ----------------------------------------------------------------------------------------

    def _question(self, id: str) -> Element:
        raise NotImplementedError

    def _is_answer(self, iq: Element) -> bool:
        """True if ``iq``, which has the question's id, is what came of it."""
        raise NotImplementedError

    def _check_sender(self, sender: Jid) -> None:
        """Raise RemoteProtocolError if the other side may not send in that name."""

    def _enter(self) -> None:
        """The handshake is done: stanzas flow."""
        self._jid = Jid("", self._domain)
        self._deadline = None
        self._reader.limits = self._options.stanza_limits
        self._is_request_due = True  # at once, so that it is known whether questions are answered at all
        self._emit(HandshakeSucceeded(self._domain))

    # --- stanzas ---------------------------------------------------------------------------------------------

    def _handle_element(self, element: Element) -> None:
        if element.name == HANDSHAKE and self._jid is None:
            self._handle_handshake(element)
        elif self._jid is None:
            raise RemoteProtocolError("the handshake comes first", hint="not-authorized")  # K-03
        elif element.name in wire.STANZA_NAMES:
            self._handle_stanza(element)
        else:
            raise RemoteProtocolError("this element is not understood here", hint="unsupported-stanza-type")

    def _handle_handshake(self, element: Element) -> None:
        raise NotImplementedError

    def _handle_stanza(self, element: Element) -> None:
        sender = self._sender(element)
        self._check_sender(sender)
        element.attributes["from"] = str(sender)
        reply = self._check(element)
        if reply is not None:
            if reply.name in wire.STANZA_NAMES:
                self._write(reply)
        elif element.name == IQ and self._life.question == element.get("id") and self._is_answer(element):
            self._answered()
        else:
            self._received(element, self._sm.incoming.receive())

    def _received(self, element: Element, index: int) -> None:
        """Hand up a checked stanza."""
        self._emit(StanzaReceived(element, index))

    def _sender(self, element: Element) -> Jid:
        try:
            return Jid.parse(element.get("from")) if "from" in element.attributes else Jid("", self._domain)
        except AddressError:
            raise RemoteProtocolError("from is not an address", hint="invalid-from") from None

    def _check(self, element: Element) -> Element | None:
        """The reply that ends the stanza here, an element of another name for silence, or None to go on."""
        silence = Element("silence")
        if "to" not in element.attributes:
            return wire.error_reply(element, "bad-request", "a stanza here says whom it is for") or silence
        try:
            element.attributes["to"] = str(Jid.parse(element.get("to")))
        except AddressError as error:
            del element.attributes["to"]
            return wire.error_reply(element, "jid-malformed", f"to: {error.reason}") or silence
        kind = element.get("type")
        if element.name == IQ and (
            kind not in _IQ_TYPES
            or not element.get("id")
            or (kind in ("get", "set") and len(list(element.elements())) != 1)
        ):
            return wire.error_reply(element, "bad-request", "an iq has an id, a known type and one child") or silence
        return None

    # --- what was taken ----------------------------------------------------------------------------------------

    def _write_stanza(self, stanza: Element, key: object = None) -> None:
        super()._write_stanza(stanza, key)
        if key is None or self._is_ended:
            return
        if self._life.is_mute:
            self._emit(StanzasAcknowledged((key,)))
            return
        self._life.add(key)
        self._is_request_due = self._is_request_due or not self._life.question

    def _write_question(self) -> bool:
        if self._life.is_mute:
            return super()._write_question()
        if self._life.question:
            return False
        question = self._question(self._random(12).hex())
        self._out.append(wire.encode(question))
        return True

    def _answered(self) -> None:
        self._requested_at = None
        self._has_answered = True
        keys = self._life.answered()
        if keys:
            self._emit(StanzasAcknowledged(keys))
        self._is_request_due = self._is_request_due or len(self._life) > 0

    def _give_up_answer(self) -> None:
        if not self._life.question:
            return
        if self._has_answered:
            self._fail("connection-timeout", "a question was not answered")
            return
        keys = self._life.give_up()
        if keys:
            self._emit(StanzasAcknowledged(keys))

    # --- small parts -------------------------------------------------------------------------------------------

    def _count(self, octets: int) -> None:
        if self._jid is None:
            self._octets += octets
            if self._octets > self._options.pre_auth_octets:
                self._fail("policy-violation", "too much was sent before the handshake")


class AttachedSession(ComponentStream):
    """A component's stream as the server it is attached to sees it.

    Args:
        options: the server's side.
        end_point: what TLS gives, None without.
        random: gives that many random octets.
        now: monotonic seconds.
    """

    def __init__(
        self, options: ComponentOptions, end_point: EndPoint, random: Callable[[int], bytes], now: float
    ) -> None:
        super().__init__(options, end_point, random, now)
        self._id = random(16).hex()
        self._returning: deque[tuple[int, Element]] = deque()
        """What the component sent to itself, until all before it is handled: it may be its question."""

    def stanza_handled(self, index: int) -> None:
        """Finished with a received stanza; what the component sent to itself after it goes back now."""
        super().stanza_handled(index)
        self._return()

    def _write_header(self) -> None:
        attributes = {"id": self._id}
        if self._domain:
            attributes["from"] = self._domain
        self._out.append(wire.stream_header(attributes, COMPONENT))
        self._is_header_sent = True

    def _handle_root(self, opened: RootOpened) -> None:
        to = opened.element.get("to")
        if not to:
            raise RemoteProtocolError("the header names no component", hint="improper-addressing")
        try:
            asked = Jid.parse(to)
        except AddressError:
            raise RemoteProtocolError("the header names no component", hint="improper-addressing") from None
        if asked.local or asked.resource or asked.domain not in self._options.secrets:
            raise RemoteProtocolError("no such component may attach here", hint="host-unknown")  # K-02
        self._domain = asked.domain
        self._write_header_if_needed()

    def _handle_handshake(self, element: Element) -> None:
        expected = digest(self._id, self._options.secrets[self._domain])
        if not hmac.compare_digest(expected.encode(), element.text.strip().lower().encode()):
            self._emit(HandshakeFailed(self._domain, "not-authorized"))
            raise RemoteProtocolError("the handshake is not right", hint="not-authorized")  # K-01
        self._write(Element(HANDSHAKE))
        self._enter()

    def _check_sender(self, sender: Jid) -> None:
        if sender.domain != self._domain:
            raise RemoteProtocolError("a component speaks for its own domain only", hint="invalid-from")  # K-04

    def _received(self, element: Element, index: int) -> None:
        if Jid.parse(element.get("to")).domain != self._domain:
            super()._received(element, index)
        elif len(self._returning) >= MOST_RETURNING:
            raise RemoteProtocolError("too much was sent to oneself", hint="resource-constraint")
        else:
            self._returning.append((index, element))
            self._return()

    def _return(self) -> None:
        incoming = self._sm.incoming
        while self._returning and incoming.handled >= self._returning[0][0] - 1 and not self._is_ended:
            index, element = self._returning.popleft()
            self._write(element)
            incoming.finish(index)

    def _question(self, id: str) -> Element:
        return self._life.ask(id, self._options.domain, self._domain)

    def _is_answer(self, iq: Element) -> bool:
        return iq.get("type") in ("result", "error") and iq.get("to") == self._options.domain


class AttachingSession(ComponentStream):
    """A component's stream as the component sees it; the header is queued at once.

    Args:
        options: the component's side.
        end_point: what TLS gives, None without.
        random: gives that many random octets.
        now: monotonic seconds.
    """

    def __init__(
        self, options: ComponentOptions, end_point: EndPoint, random: Callable[[int], bytes], now: float
    ) -> None:
        super().__init__(options, end_point, random, now)
        self._domain = options.domain
        self._write_header_if_needed()

    def _write_header(self) -> None:
        self._out.append(wire.stream_header({"to": self._domain}, COMPONENT))
        self._is_header_sent = True

    def _handle_root(self, opened: RootOpened) -> None:
        id = opened.element.get("id")
        if not id:
            raise RemoteProtocolError("the header has no id to answer", hint="invalid-xml")
        self._write(Element(HANDSHAKE, {}, [digest(id, self._options.secrets[self._domain])]))

    def _handle_handshake(self, element: Element) -> None:
        self._enter()

    def _question(self, id: str) -> Element:
        return self._life.ask(id, self._domain, self._domain)

    def _is_answer(self, iq: Element) -> bool:
        # Our own question come back; nobody else may send in the name of this domain through the host. A host that sends
        # nothing back to where it came from refuses it instead, and that proves as much.
        return iq.get("from") == self._domain or iq.get("type") in ("result", "error")
