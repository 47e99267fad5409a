"""The initiating side of a stream between servers: TLS, proving who we are, stanzas (RFC 6120, XEP-0220, XEP-0198).

Place on the path: step 9 of what goes to another server; ``server_stream.py`` is the receiving side. Nothing but the negotiation comes
back by such a stream. Without TLS, or with a certificate that does not name the domain, it carries nothing (G-05).
"""

from __future__ import annotations

import base64
import enum
from collections.abc import Callable

from comity.bindings.base import TlsInfo
from comity.bindings.xmpp import dialback, wire
from comity.bindings.xmpp.dialback import DIALBACK, RESULT, VERIFY, names_domain
from comity.bindings.xmpp.events import DialbackAnswered, StreamReady, StreamRefused, TlsWanted
from comity.bindings.xmpp.server_stream import MOST_KEY, PeerOptions, ServerStream, read_domain
from comity.bindings.xmpp.sm import OutgoingQueue
from comity.bindings.xmpp.wire import SASL, SM, TLS, Element, RootOpened
from comity.errors import LocalProtocolError, RemoteProtocolError


class OutState(enum.Enum):
    """What is expected next."""

    FEATURES = "features"
    PROCEED = "proceed"
    TLS = "tls"
    SASL = "sasl"
    DIALBACK = "dialback"
    ENABLING = "enabling"
    ASKING = "asking"
    """Open only to ask about dialback keys."""
    OPEN = "open"


class OutgoingStream(ServerStream):
    """A stream that we open to another server; the first header is queued at once.

    Events: ``TlsWanted`` (start TLS as client, then call ``tls_started``), ``StreamReady`` or ``StreamRefused``, then
    ``StanzasAcknowledged``, ``StreamEnded``. Verbs after ``StreamReady``: ``send_stanza``, ``close``.

    Args:
        ours: in whose name (U-labels).
        theirs: the domain called (U-labels).
        options, tls, random, now: as of ``ServerStream``.
        asks: True for a stream that only asks about dialback keys; then ``verify`` after ``StreamReady``.
    """

    def __init__(
        self,
        ours: str,
        theirs: str,
        options: PeerOptions,
        tls: Callable[[], TlsInfo | None],
        *,
        random: Callable[[int], bytes],
        now: float,
        asks: bool = False,
    ) -> None:
        super().__init__(options, tls, random, now)
        self._ours = ours
        self._theirs = theirs
        self._asks = asks
        self._state = OutState.FEATURES
        self._is_proved = False
        self._id = ""
        self._has_dialback = False
        self._used = now
        self._write_header_if_needed()

    # --- verbs -------------------------------------------------------------------------------------------------------

    def tls_started(self) -> None:
        """TLS is on its way after ``TlsWanted``: open the stream anew."""
        if self._state is not OutState.TLS:
            raise LocalProtocolError("TLS was not wanted")
        self._state = OutState.FEATURES
        self._write_header_if_needed()

    def verify(self, to: str, stream_id: str, key: str) -> None:
        """Ask whether ``key``, shown to our domain ``to`` on the stream of that id, is theirs; ``DialbackAnswered`` tells."""
        if self._state is not OutState.ASKING or self._is_ended:
            raise LocalProtocolError("nothing can be asked now")
        self._write(Element(VERIFY, {"from": to, "to": self._theirs, "id": stream_id}, [key]))

    def send_stanza(self, stanza: Element, key: object = None) -> None:
        """See ``XmppStream.send_stanza``."""
        self._used = self._now
        super().send_stanza(stanza, key)
        # Whoever sends presence waits for its end too, not only who sends a message.
        self._is_request_due = self._is_request_due or (self._is_sm_on and key is not None)

    # --- time --------------------------------------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """See ``Session``; a stream that nobody uses is closed."""
        timer = super().next_timer()
        if self._is_ended or self._state is not OutState.OPEN:
            return timer
        idle = self._used + self._options.idle_seconds
        return idle if timer is None else min(timer, idle)

    def handle_timer(self, now: float) -> None:
        """See ``Session``."""
        is_idle = self._state is OutState.OPEN and now >= self._used + self._options.idle_seconds
        if is_idle and not self._is_ended and not len(self._sm.outgoing):
            self._now = now
            self.close()
            return
        super().handle_timer(now)

    # --- header and features -----------------------------------------------------------------------------------------

    def _write_header(self) -> None:
        self._write_open({"from": self._ours, "to": self._theirs})

    def _handle_root(self, opened: RootOpened) -> None:
        sender = opened.element.get("from")
        if sender and read_domain(sender) != self._theirs:
            raise RemoteProtocolError("another host answered", hint="invalid-from")
        self._id = opened.element.get("id")
        self._has_dialback = DIALBACK in opened.namespaces.values()
        if not self._is_version_one(opened):
            self._give_up("unsupported-version", "the other server speaks an old protocol without TLS")

    def _handle_element(self, element: Element) -> None:
        handler = _TABLE.get((self._state, element.name))
        if handler is not None:
            handler(self, element)
        elif element.name == VERIFY and self.is_tls and "type" not in element.attributes:
            self._answer_verify(element)
        elif not self._handle_sm_counts(element):
            # A stream carries stanzas one way: what came here was proved by nobody.
            raise RemoteProtocolError("nothing was expected on this stream", hint="not-authorized")

    def _handle_features(self, element: Element) -> None:
        if not self.is_tls:
            if element.find(f"{{{TLS}}}starttls") is None:
                self._give_up("policy-violation", "the other server offers no TLS")
                return
            self._write(Element(f"{{{TLS}}}starttls"))
            self._state = OutState.PROCEED
            return
        is_listed = self._theirs in self._options.dialback
        if not is_listed and not names_domain(self._tls(), self._theirs):
            self._give_up("not-authorized", "the other server's certificate does not name its domain")
        elif self._asks:
            self._state = OutState.ASKING
            self._deadline = self._now + self._options.pre_auth_seconds
            self._emit(StreamReady(False))
        elif self._is_proved:
            self._enable(element)
        else:
            self._prove(element, is_listed=is_listed)

    def _prove(self, features: Element, *, is_listed: bool) -> None:
        mechanisms = features.find(f"{{{SASL}}}mechanisms")
        offered = [] if mechanisms is None else [m.text.strip() for m in mechanisms.find_all(f"{{{SASL}}}mechanism")]
        can_dial_back = self._has_dialback or features.find(dialback.FEATURE) is not None
        if "EXTERNAL" in offered and self._state is not OutState.SASL:
            identity = base64.b64encode(self._ours.encode()).decode("ascii")
            self._write(Element(f"{{{SASL}}}auth", {"mechanism": "EXTERNAL"}, [identity]))
            self._has_dialback = can_dial_back
            self._state = OutState.SASL
        elif is_listed and can_dial_back:
            self._dial_back()
        else:
            self._give_up("not-authorized", "the other server does not take our certificate")

    def _dial_back(self) -> None:
        key = self._options.keys.key(self._theirs, self._ours, self._id)
        self._write(Element(RESULT, {"from": self._ours, "to": self._theirs}, [key]))
        self._state = OutState.DIALBACK

    def _enable(self, features: Element) -> None:
        if features.find(f"{{{SM}}}sm") is None:
            self._open(has_acknowledgements=False)
            return
        self._write(Element(f"{{{SM}}}enable"))
        self._state = OutState.ENABLING

    def _open(self, *, has_acknowledgements: bool) -> None:
        self._state = OutState.OPEN
        self._used = self._now
        self._enter(self._theirs)
        self._emit(StreamReady(has_acknowledgements))

    def _give_up(self, condition: str, text: str) -> None:
        self._emit(StreamRefused(condition, text[:500]))
        self.close()

    # --- answers -----------------------------------------------------------------------------------------------------

    def _handle_proceed(self, element: Element) -> None:
        if not self._reader.is_between:
            raise RemoteProtocolError("octets came before TLS", hint="policy-violation")
        self._restart()
        self._state = OutState.TLS
        self._emit(TlsWanted(self._theirs))

    def _handle_tls_failure(self, element: Element) -> None:
        self._give_up("policy-violation", "the other server refused STARTTLS")

    def _handle_success(self, element: Element) -> None:
        self._is_proved = True
        self._restart()
        self._state = OutState.FEATURES
        self._write_header_if_needed()

    def _handle_failure(self, element: Element) -> None:
        condition, text = wire.error_of(element)
        if self._theirs in self._options.dialback and self._has_dialback:
            self._dial_back()
            return
        self._give_up(condition, text or "the other server does not take our certificate")

    def _handle_result(self, element: Element) -> None:
        if read_domain(element.get("from")) != self._theirs or read_domain(element.get("to")) != self._ours:
            raise RemoteProtocolError("that answers no question of ours", hint="invalid-from")
        if element.get("type") == "valid":
            self._is_proved = True
            self._open(has_acknowledgements=False)
            return
        error = element.find(wire.ERROR)
        condition, text = wire.error_of(error) if error is not None else ("not-authorized", "")
        self._give_up(condition, text or "the other server does not believe that we are who we are")

    def _handle_enabled(self, element: Element) -> None:
        self._sm.outgoing = OutgoingQueue(self._options.sm_queue)
        self._is_sm_on = True
        self._open(has_acknowledgements=True)

    def _handle_not_enabled(self, element: Element) -> None:
        self._open(has_acknowledgements=False)

    def _handle_verified(self, element: Element) -> None:
        id = element.get("id")
        if read_domain(element.get("from")) == self._theirs and len(id) <= MOST_KEY:
            self._emit(DialbackAnswered(id, element.get("type") == "valid"))


_Handler = Callable[[OutgoingStream, Element], None]

#: (state, element) to handler, in the order of a negotiation.
_TABLE: dict[tuple[OutState, str], _Handler] = {
    (OutState.FEATURES, f"{{{wire.STREAMS}}}features"): OutgoingStream._handle_features,
    (OutState.PROCEED, f"{{{TLS}}}proceed"): OutgoingStream._handle_proceed,
    (OutState.PROCEED, f"{{{TLS}}}failure"): OutgoingStream._handle_tls_failure,
    (OutState.SASL, f"{{{SASL}}}success"): OutgoingStream._handle_success,
    (OutState.SASL, f"{{{SASL}}}failure"): OutgoingStream._handle_failure,
    (OutState.DIALBACK, RESULT): OutgoingStream._handle_result,
    (OutState.ENABLING, f"{{{SM}}}enabled"): OutgoingStream._handle_enabled,
    (OutState.ENABLING, f"{{{SM}}}failed"): OutgoingStream._handle_not_enabled,
    (OutState.ASKING, VERIFY): OutgoingStream._handle_verified,
}
