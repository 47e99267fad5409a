"""The client's side of a client stream: STARTTLS, sign-in, resource, stream management (RFC 6120, XEP-0198).

Place on the path: step 3 of a program that signs in somewhere. ``comity.client`` runs it; the tests wire it to
``XmppServerSession`` in memory. Usable alone: octets in, events out. Imported as ``session.XmppClientSession``.
"""

from __future__ import annotations

import base64
import enum
from collections.abc import Callable
from dataclasses import dataclass, field

from comity import sasl
from comity.bindings.xmpp import wire
from comity.bindings.xmpp.events import (
    ResourceBound,
    Resumed,
    SignInFailed,
    SignInSucceeded,
    SmEnabled,
    StanzaReceived,
    StanzasAcknowledged,
    TlsWanted,
)
from comity.bindings.xmpp.jid import Jid
from comity.bindings.xmpp.sm import SmState, read_h
from comity.bindings.xmpp.stream import EndPoint, XmppStream
from comity.bindings.xmpp.wire import BIND, IQ, SASL, SESSION, SM, TLS, Element, RootOpened
from comity.errors import AddressError, LocalProtocolError, RemoteProtocolError
from comity.xml import XML_LANG


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Who signs in, and what is acceptable."""

    jid: Jid
    """The account; a resource in it is asked for."""
    password: str = field(repr=False)
    allow_plaintext: bool = False
    """True: go on without TLS if the server offers none (loopback, tests)."""
    use_stream_management: bool = True
    negotiation_seconds: float = 30.0


class ClientState(enum.Enum):
    """What is expected next."""

    FEATURES = "features"
    PROCEED = "proceed"
    TLS = "tls"
    SASL = "sasl"
    RESUMING = "resuming"
    BINDING = "binding"
    OPENING_SESSION = "opening session"
    BOUND = "bound"


class XmppClientSession(XmppStream):
    """A client's stream as the client sees it; the first header is queued at once.

    Events: ``TlsWanted`` (start TLS as client, then call ``tls_started``), ``SignInSucceeded`` or
    ``SignInFailed``, then ``ResourceBound`` (or ``Resumed``), ``SmEnabled``, ``StanzaReceived``,
    ``StanzasAcknowledged``, ``StreamEnded``. Verbs after ``ResourceBound``: ``send_stanza``,
    ``stanza_handled``, ``close``. Where a stream cannot be resumed, what was sent with a key and is not counted in the
    server's last word is sent again on the new one.

    Args:
        options: the account and what is acceptable.
        end_point: gives tls-server-end-point data of the *server's* certificate once TLS is up, None before.
        random: gives that many random octets.
        now: monotonic seconds.
        resume: what ``sm_state`` of the lost session gave, to go on with it (XEP-0198 section 5).
    """

    answers_at_once = True

    def __init__(
        self,
        options: ClientOptions,
        end_point: EndPoint,
        random: Callable[[int], bytes],
        now: float,
        resume: SmState | None = None,
    ) -> None:
        super().__init__(end_point, random, wire.STANZA_LIMITS)
        self._options = options
        self._deadline = now + options.negotiation_seconds
        self._last_heard = now
        self._spaces_at = now
        self._state = ClientState.FEATURES
        self._account = options.jid.bare
        self._resume_from = resume if resume is not None and resume.id else None
        self._is_signed_in = False
        self._scram: sasl.ScramClient | None = None
        self._mechanism = ""
        self._is_sm_offered = False
        self._needs_session = False
        self._repeats: list[tuple[bytes, object]] = []
        """What the lost stream did not get across, to be sent again on the new one."""
        self._is_counting = False
        """True once ``enable`` is written: the queue fills although the answer is still to come."""
        self._write_header_if_needed()

    @property
    def state(self) -> ClientState:
        """What is expected next."""
        return self._state

    # --- verbs -------------------------------------------------------------------------------------------------

    def tls_started(self) -> None:
        """TLS is up after ``TlsWanted``: open the stream anew. The caller has checked the certificate."""
        if self._state is not ClientState.TLS:
            raise LocalProtocolError("TLS was not wanted")
        self._state = ClientState.FEATURES
        self._write_header_if_needed()

    # --- stream ------------------------------------------------------------------------------------------------

    def _write_header(self) -> None:
        attributes = {"to": self._account.domain, "version": "1.0", XML_LANG: "en"}
        if self.is_tls:
            attributes["from"] = str(self._account)  # RFC 6120 section 4.7.1: not before it is private
        self._out.append(wire.stream_header(attributes))
        self._is_header_sent = True

    def _handle_root(self, opened: RootOpened) -> None:
        sender = opened.element.get("from")
        try:
            is_expected = not sender or Jid.parse(sender) == Jid("", self._account.domain)
        except AddressError:
            is_expected = False
        if not is_expected:
            raise RemoteProtocolError("another host answered", hint="invalid-from")

    def _handle_element(self, element: Element) -> None:
        if self._state is ClientState.BOUND:
            self._handle_bound(element)
            return
        handler = _TABLE.get((self._state, element.name))
        if handler is None:
            raise RemoteProtocolError("this element was not expected now", hint="unsupported-stanza-type")
        handler(self, element)

    # --- features ------------------------------------------------------------------------------------------------

    def _handle_features(self, element: Element) -> None:
        if self._is_signed_in:
            self._handle_bind_features(element)
            return
        if not self.is_tls:
            if element.find(f"{{{TLS}}}starttls") is not None:
                self._write(Element(f"{{{TLS}}}starttls"))
                self._state = ClientState.PROCEED
                return
            if not self._options.allow_plaintext:
                self._give_up("encryption-required", "the server offers no TLS")
                return
        self._choose(element.find(f"{{{SASL}}}mechanisms"))

    def _choose(self, mechanisms: Element | None) -> None:
        offered = [] if mechanisms is None else [m.text for m in mechanisms.find_all(f"{{{SASL}}}mechanism")]
        end_point = self._end_point()
        may_use_plain = self.is_tls or self._options.allow_plaintext
        name = sasl.choose_mechanism(offered, end_point, may_use_plain)
        if name is None:
            self._give_up("invalid-mechanism", "the server offers no mechanism we may use")
            return
        self._mechanism = name
        if name == "PLAIN":
            first = sasl.write_plain(self._account.local, self._options.password)
        else:
            nonce = base64.b64encode(self._random(18)).decode("ascii")
            has_plus = any(other.endswith("-PLUS") for other in offered)
            self._scram = sasl.ScramClient(
                name,
                self._account.local,
                self._options.password,
                nonce,
                end_point=end_point,
                server_offers_plus=has_plus,
            )
            first = self._scram.first()
        self._write(Element(f"{{{SASL}}}auth", {"mechanism": name}, [base64.b64encode(first).decode("ascii")]))
        self._state = ClientState.SASL

    def _handle_proceed(self, element: Element) -> None:
        if not self._reader.is_between:
            raise RemoteProtocolError("octets came before TLS", hint="policy-violation")
        self._restart()
        self._state = ClientState.TLS
        self._emit(TlsWanted(self._account.domain))

    def _handle_tls_failure(self, element: Element) -> None:
        self._give_up("encryption-required", "the server refused STARTTLS")

    # --- SASL ----------------------------------------------------------------------------------------------------

    def _handle_challenge(self, element: Element) -> None:
        if self._scram is None:
            self._give_up("malformed-request", "the server challenged a mechanism that has no challenge")
            return
        try:
            answer = self._scram.final(sasl.decode_base64(element.text))
        except sasl.SaslFailure as failure:
            self._give_up(failure.condition, failure.text)
            return
        self._write(Element(f"{{{SASL}}}response", {}, [base64.b64encode(answer).decode("ascii")]))

    def _handle_success(self, element: Element) -> None:
        if self._scram is not None:
            try:
                self._scram.verify(sasl.decode_base64(element.text))
            except sasl.SaslFailure as failure:
                self._give_up(failure.condition, failure.text)
                return
        self._is_signed_in = True
        self._restart()
        self._state = ClientState.FEATURES
        self._emit(SignInSucceeded(self._account, self._mechanism))
        self._write_header_if_needed()

    def _handle_failure(self, element: Element) -> None:
        self._give_up(*wire.error_of(element))

    def _give_up(self, condition: str, text: str) -> None:
        self._emit(SignInFailed(self._account, condition, text[:500]))
        self.close()

    # --- resource and stream management -----------------------------------------------------------------------------

    def _handle_bind_features(self, element: Element) -> None:
        self._is_sm_offered = element.find(f"{{{SM}}}sm") is not None
        session = element.find(f"{{{SESSION}}}session")
        self._needs_session = session is not None and session.find(f"{{{SESSION}}}optional") is None
        if self._resume_from is not None and self._is_sm_offered:
            h = str(self._resume_from.incoming.h)
            self._write(Element(f"{{{SM}}}resume", {"previd": self._resume_from.id, "h": h}))
            self._state = ClientState.RESUMING
            return
        self._bind()

    def _bind(self) -> None:
        bind = Element(f"{{{BIND}}}bind")
        if self._options.jid.resource:
            bind.append(Element(f"{{{BIND}}}resource", {}, [self._options.jid.resource]))
        self._write(Element(IQ, {"type": "set", "id": "bind"}, [bind]))
        self._state = ClientState.BINDING

    def _handle_resumed(self, element: Element) -> None:
        state = self._resume_from
        assert state is not None
        keys = state.outgoing.confirm(read_h(element.get("h")))
        self._sm = state
        self._jid = state.jid
        self._is_sm_on = True
        self._deadline = None
        self._state = ClientState.BOUND
        self._emit(Resumed(state.jid))
        self._acknowledge(keys)
        waiting = state.outgoing.unconfirmed()
        self._out += [octets for octets, _ in waiting]
        self._is_request_due = bool(waiting)

    def _handle_resume_failed(self, element: Element) -> None:
        state, self._resume_from = self._resume_from, None
        assert state is not None
        if element.get("h"):
            self._acknowledge(state.outgoing.confirm(read_h(element.get("h"))))
        self._repeats = [(octets, key) for octets, key in state.outgoing.unconfirmed() if key is not None]
        self._bind()

    def _handle_iq(self, element: Element) -> None:
        if element.get("type") == "error":
            error = element.find(wire.ERROR)
            self._give_up(*(wire.error_of(error) if error is not None else ("undefined-condition", "")))
            return
        if self._state is ClientState.BINDING and element.get("id") == "bind":
            bound = element.find(f"{{{BIND}}}bind")
            jid = bound.find(f"{{{BIND}}}jid") if bound is not None else None
            try:
                self._jid = Jid.parse(jid.text if jid is not None else "")
            except AddressError:
                raise RemoteProtocolError("the server bound no address", hint="invalid-xml") from None
            if self._needs_session:
                session = Element(f"{{{SESSION}}}session")
                self._write(Element(IQ, {"type": "set", "id": "session"}, [session]))
                self._state = ClientState.OPENING_SESSION
                return
        self._enter()

    def _enter(self) -> None:
        assert self._jid is not None
        self._state = ClientState.BOUND
        self._deadline = None
        self._emit(ResourceBound(self._jid, self._is_sm_offered))
        if self._is_sm_offered and self._options.use_stream_management:
            self._write(Element(f"{{{SM}}}enable", {"resume": "true"}))
            # Whatever is written from here on counts (XEP-0198 section 4): the queue starts before the answer.
            self._sm.jid = self._jid
            self._is_counting = True
        for octets, key in self._repeats:
            if self._is_counting:
                self._sm.outgoing.add(octets, key)
            self._out.append(octets)
        self._repeats.clear()

    def _write_stanza(self, stanza: Element, key: object = None) -> None:
        if self._is_counting and not self._is_sm_on:
            octets = wire.encode(stanza)
            self._sm.outgoing.add(octets, key)
            self._out.append(octets)
            return
        super()._write_stanza(stanza, key)

    def _handle_bound(self, element: Element) -> None:
        if element.name in wire.STANZA_NAMES:
            self._emit(StanzaReceived(element, self._sm.incoming.receive()))
        elif element.name == f"{{{SM}}}enabled":
            self._is_sm_on = True
            self._is_request_due = bool(len(self._sm.outgoing))
            self._sm.incoming.start()
            may_resume = element.get("resume") in ("true", "1")
            self._sm.id = element.get("id") if may_resume else ""
            seconds = element.get("max")
            self._emit(SmEnabled(self._sm.id, float(seconds) if seconds.isdigit() else 0.0))
        elif element.name == f"{{{SM}}}failed":
            self._is_counting = False
        elif not self._handle_sm_counts(element):
            raise RemoteProtocolError("this element was not expected now", hint="unsupported-stanza-type")

    def _acknowledge(self, keys: tuple[object, ...]) -> None:
        if keys:
            self._emit(StanzasAcknowledged(keys))


_Handler = Callable[[XmppClientSession, Element], None]

#: (state, element) to handler, in the order of a sign-in.
_TABLE: dict[tuple[ClientState, str], _Handler] = {
    (ClientState.FEATURES, f"{{{wire.STREAMS}}}features"): XmppClientSession._handle_features,
    (ClientState.PROCEED, f"{{{TLS}}}proceed"): XmppClientSession._handle_proceed,
    (ClientState.PROCEED, f"{{{TLS}}}failure"): XmppClientSession._handle_tls_failure,
    (ClientState.SASL, f"{{{SASL}}}challenge"): XmppClientSession._handle_challenge,
    (ClientState.SASL, f"{{{SASL}}}success"): XmppClientSession._handle_success,
    (ClientState.SASL, f"{{{SASL}}}failure"): XmppClientSession._handle_failure,
    (ClientState.RESUMING, f"{{{SM}}}resumed"): XmppClientSession._handle_resumed,
    (ClientState.RESUMING, f"{{{SM}}}failed"): XmppClientSession._handle_resume_failed,
    (ClientState.BINDING, IQ): XmppClientSession._handle_iq,
    (ClientState.OPENING_SESSION, IQ): XmppClientSession._handle_iq,
}
