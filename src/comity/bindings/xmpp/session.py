"""The server's side of a client stream: resource, stream management, stanza checks (RFC 6120 sections 7 and 8).

Place on the path: step 3; ``sign_in.py`` is what comes before. What leaves here as ``StanzaReceived`` has a proved
sender in ``from``, a well-formed ``to`` and obeys the rules of its kind; ``mapping.py`` and ``binding.py`` rely on it.

The negotiation is the table ``_TABLE``: (state, element) to handler. What is not in it is refused by the state's
own rule in ``_refuse_element``.
"""

from __future__ import annotations

from collections.abc import Callable

from comity.bindings.xmpp import wire
from comity.bindings.xmpp.events import (
    ResourceBound,
    Resumed,
    ResumeWanted,
    SmEnabled,
    StanzaReceived,
    StanzasAcknowledged,
)
from comity.bindings.xmpp.jid import Jid, prepare_resource
from comity.bindings.xmpp.life import LifeSigns
from comity.bindings.xmpp.session_client import ClientOptions, XmppClientSession
from comity.bindings.xmpp.sign_in import ServerOptions, SignIn, State
from comity.bindings.xmpp.sm import MODULUS, OutgoingQueue, SmState, read_h
from comity.bindings.xmpp.stream import EndPoint
from comity.bindings.xmpp.wire import BIND, CSI, IQ, MESSAGE, PRESENCE, SASL, SESSION, SM, TLS, Element
from comity.errors import AddressError, LocalProtocolError, RemoteProtocolError

__all__ = ["ClientOptions", "ServerOptions", "State", "XmppClientSession", "XmppServerSession"]

#: What may wait for a client that said nobody looks (XEP-0352); above it everything is sent.
MAX_HELD = 64
_IQ_TYPES = frozenset({"get", "set", "result", "error"})


class XmppServerSession(SignIn):
    """A client's stream as its server sees it.

    Args:
        options: the server's side.
        end_point: gives tls-server-end-point data of our certificate once TLS is up, None before.
        random: gives that many random octets.
        now: monotonic seconds at which the connection was made; the deadline counts from there.
    """

    def __init__(self, options: ServerOptions, end_point: EndPoint, random: Callable[[int], bytes], now: float) -> None:
        super().__init__(options, end_point, random, now)
        self._asked_resume: tuple[str, int] | None = None
        self._life = LifeSigns()
        self._is_inactive = False
        self._held: dict[str, bytes] = {}

    # --- verbs -------------------------------------------------------------------------------------------------

    def resume(self, state: SmState) -> None:
        """Answer ``ResumeWanted``: go on with ``state``, which the former session no longer uses."""
        asked, self._asked_resume = self._asked_resume, None
        if asked is None or self._is_ended:
            raise LocalProtocolError("no resumption was wanted")
        previous_id, h = asked
        try:
            keys = state.outgoing.confirm(h)
        except RemoteProtocolError as error:
            self._fail("undefined-condition", error.reason)
            return
        self._sm = state
        self._jid = state.jid
        self._deadline = None
        self._is_sm_on = True
        self._state = State.BOUND
        self._write(Element(f"{{{SM}}}resumed", {"previd": previous_id, "h": str(state.incoming.h)}))
        self._emit(Resumed(state.jid))
        if keys:
            self._emit(StanzasAcknowledged(keys))
        waiting = state.outgoing.unconfirmed()
        self._out += [octets for octets, _ in waiting]
        self._is_request_due = bool(waiting)
        self._resume_reading()

    def refuse_resume(self, condition: str = "item-not-found", h: int | None = None) -> None:
        """Answer ``ResumeWanted``: no such stream for this account (X-69, X-70); a resource may still be bound.

        ``h``: how many stanzas of a stream that cannot go on were handled (XEP-0198 section 5), None if unknown."""
        if self._is_ended:
            return
        self._asked_resume = None
        self._write_sm_failed(condition, h)
        self._resume_reading()

    def send_passing(self, stanza: Element, slot: str) -> None:
        """Write what says nothing later: while nobody looks it waits, and a newer one of its ``slot`` replaces it.

        Raises LocalProtocolError as ``send_stanza`` does."""
        self.send_raw(wire.encode(stanza), slot)

    def send_raw(self, octets: bytes, slot: str) -> None:
        """``send_passing`` for a stanza that is written already, once for many who get it."""
        if self._jid is None or self._is_ended:
            raise LocalProtocolError("no resource is bound on this stream")
        self._held.pop(slot, None)
        if self._may_wait:
            self._held[slot] = octets
            return
        if self._held:
            self._write_held()
        self._write_octets(octets, is_message=octets.startswith(b"<message"))

    def take_held(self) -> dict[str, bytes]:
        """What waits for the client to look again, or to acknowledge, by its slot; it waits here no longer."""
        held, self._held = self._held, {}
        return held

    @property
    def _may_wait(self) -> bool:
        """True while nobody looks, or while so little is acknowledged that a client which merely sleeps would be lost."""
        if self._is_sm_on and len(self._held) < self._sm.outgoing.to_spare:
            return True
        return self._is_inactive and len(self._held) < MAX_HELD

    def _write_held(self) -> None:
        for held in self.take_held().values():
            self._write_octets(held, is_message=held.startswith(b"<message"))

    def _confirm(self, h: int) -> None:
        super()._confirm(h)
        if self._held and not self._may_wait:
            self._write_held()

    # --- elements ----------------------------------------------------------------------------------------------

    def _handle_element(self, element: Element) -> None:
        handler = _TABLE.get((self._state, element.name))
        if handler is not None:
            handler(self, element)
        else:
            self._refuse_element(element)

    def _refuse_element(self, element: Element) -> None:
        is_stanza = element.name in wire.STANZA_NAMES
        if not is_stanza:
            if self._state is State.NEGOTIATING and element.namespace == SASL:
                self._fail_sign_in("malformed-request")
                return
            raise RemoteProtocolError("this element is not understood here", hint="unsupported-stanza-type")
        needs_tls = not self.is_tls and not self._options.allow_plaintext
        if needs_tls and element.name == IQ:
            raise RemoteProtocolError("TLS is required", hint="policy-violation")
        if self._state is State.AUTHENTICATED and element.name == IQ:
            self._write_reply(wire.error_reply(element, "not-allowed", "bind a resource first"))
            return
        raise RemoteProtocolError("sign in and bind a resource first", hint="not-authorized")

    # --- resource, session, stream management ----------------------------------------------------------------------

    def _handle_bind(self, element: Element) -> None:
        bind = element.find(f"{{{BIND}}}bind")
        if bind is None or element.get("type") != "set" or not element.get("id"):
            self._write_reply(wire.error_reply(element, "not-allowed", "bind a resource first"))
            return
        assert self._account is not None
        wanted = bind.find(f"{{{BIND}}}resource")
        resource = wanted.text if wanted is not None else ""
        try:
            resource = prepare_resource(resource) if resource else self._random(8).hex()
        except AddressError as error:
            self._write_reply(wire.error_reply(element, "bad-request", error.reason))
            return
        self._jid = Jid(self._account.local, self._account.domain, resource)
        self._deadline = None
        self._state = State.BOUND
        jid = Element(f"{{{BIND}}}jid", {}, [str(self._jid)])
        self._write(wire.iq_result(element, Element(f"{{{BIND}}}bind", {}, [jid])))
        self._emit(ResourceBound(self._jid))

    def _handle_resume(self, element: Element) -> None:
        self._asked_resume = (element.get("previd"), read_h(element.get("h")))
        self._is_waiting = True
        self._emit(ResumeWanted(*self._asked_resume))

    def _handle_enable(self, element: Element) -> None:
        if self._state is not State.BOUND or self._is_sm_on:
            self._write_sm_failed("unexpected-request")
            return
        assert self._jid is not None
        self._sm.id = self._random(16).hex()
        self._sm.outgoing = OutgoingQueue(self._options.sm_queue)
        self._sm.jid = self._jid
        may_resume = element.get("resume") in ("true", "1")
        self._sm.incoming.start()
        self._sm.incoming.is_kept_apart = may_resume and self._options.keeps_counts
        self._is_sm_on = True
        attributes = {}
        if may_resume:
            attributes = {"id": self._sm.id, "resume": "true", "max": str(int(self._options.resume_seconds))}
        self._write(Element(f"{{{SM}}}enabled", attributes))
        self._emit(SmEnabled(self._sm.id if may_resume else "", self._options.resume_seconds if may_resume else 0.0))

    def _handle_late_resume(self, element: Element) -> None:
        self._write_sm_failed("unexpected-request")

    def _write_sm_failed(self, condition: str, h: int | None = None) -> None:
        attributes = {} if h is None else {"h": str(h % MODULUS)}
        self._write(Element(f"{{{SM}}}failed", attributes, [Element(f"{{{wire.STANZAS}}}{condition}")]))

    def _handle_counts(self, element: Element) -> None:
        try:
            is_taken = self._handle_sm_counts(element)
        except RemoteProtocolError as error:
            if error.hint != "undefined-condition":
                raise
            self._fail("undefined-condition", error.reason, Element(f"{{{SM}}}handled-count-too-high"))
            return
        if not is_taken:
            raise RemoteProtocolError("stream management is not enabled", hint="unsupported-stanza-type")

    # --- is somebody there? ----------------------------------------------------------------------------------------

    def _write_stanza(self, stanza: Element, key: object = None) -> None:
        if self._held:
            self._write_held()  # in order: nothing overtakes what waited
        super()._write_stanza(stanza, key)
        if self._is_sm_on or key is None or self._is_ended:
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
        self._out.append(wire.encode(self._life.ask(self._random(8).hex(), self._domain, str(self._jid))))
        return True

    def _give_up_answer(self) -> None:
        if self._life.question:
            self._proved(self._life.give_up())

    def _is_answer(self, iq: Element) -> bool:
        """Take the answer to our question, whatever it says."""
        if not self._life.question or iq.get("id") != self._life.question or iq.get("type") not in ("result", "error"):
            return False
        self._requested_at = None
        self._proved(self._life.answered())
        self._is_request_due = self._is_request_due or len(self._life) > 0
        return True

    def _proved(self, keys: tuple[object, ...]) -> None:
        if keys:
            self._emit(StanzasAcknowledged(keys))

    def _handle_activity(self, element: Element) -> None:
        """XEP-0352: the client says whether anybody looks at it."""
        self._is_inactive = element.local == "inactive"
        if not self._is_inactive:
            self._write_held()

    # --- stanzas -----------------------------------------------------------------------------------------------

    def _handle_stanza(self, element: Element) -> None:
        index = self._sm.incoming.receive()
        self._stamp(element)
        if element.name == IQ and self._is_answer(element):
            self.stanza_handled(index)
            return
        reply = self._check_stanza(element)
        if reply is None:
            self._emit(StanzaReceived(element, index))
            return
        self._write_reply(reply if reply.name in wire.STANZA_NAMES else None)
        self.stanza_handled(index)

    def _stamp(self, element: Element) -> None:
        """Check ``from`` and write the full JID there (RFC 6120 section 8.1.2.1; X-46, X-47)."""
        assert self._jid is not None
        claimed = element.get("from")
        if claimed:
            try:
                jid = Jid.parse(claimed)
            except AddressError:
                raise RemoteProtocolError("from is not an address", hint="invalid-from") from None
            if jid not in (self._jid, self._jid.bare):
                raise RemoteProtocolError("from is not this stream's address", hint="invalid-from")
        element.attributes["from"] = str(self._jid)

    def _check_stanza(self, element: Element) -> Element | None:
        """The reply that ends the stanza here, an element of another name for silence, or None to go on."""
        silence = Element("silence")
        to = element.get("to", "\0")
        if to != "\0":
            try:
                element.attributes["to"] = str(Jid.parse(to))
            except AddressError as error:
                del element.attributes["to"]
                return wire.error_reply(element, "jid-malformed", f"to: {error.reason}") or silence
        if element.name != IQ:
            return None
        children = list(element.elements())
        kind = element.get("type")
        if kind not in _IQ_TYPES or not element.get("id") or (kind in ("get", "set") and len(children) != 1):
            reply = wire.error_reply(element, "bad-request", "an iq has an id, a known type and one child")
            return reply or silence
        if kind == "set" and children[0].name == f"{{{BIND}}}bind":
            return wire.error_reply(element, "not-allowed", "a resource is bound already")
        if kind == "set" and children[0].name == f"{{{SESSION}}}session":
            return wire.iq_result(element)  # RFC 3921 section 3: old clients ask, nothing is to be done
        return None

    def _write_reply(self, reply: Element | None) -> None:
        if reply is not None:
            self._write_stanza(reply)


_Handler = Callable[[XmppServerSession, Element], None]

#: (state, element) to handler, in the order of RFC 6120 sections 5, 6, 7, 8 and of XEP-0198.
_TABLE: dict[tuple[State, str], _Handler] = {
    (State.NEGOTIATING, f"{{{TLS}}}starttls"): XmppServerSession._handle_starttls,
    (State.NEGOTIATING, f"{{{SASL}}}auth"): XmppServerSession._handle_auth,
    (State.CHALLENGED, f"{{{SASL}}}response"): XmppServerSession._handle_response,
    (State.CHALLENGED, f"{{{SASL}}}abort"): XmppServerSession._handle_abort,
    (State.AUTHENTICATED, IQ): XmppServerSession._handle_bind,
    (State.AUTHENTICATED, f"{{{SM}}}resume"): XmppServerSession._handle_resume,
    (State.AUTHENTICATED, f"{{{SM}}}enable"): XmppServerSession._handle_enable,
    (State.BOUND, MESSAGE): XmppServerSession._handle_stanza,
    (State.BOUND, PRESENCE): XmppServerSession._handle_stanza,
    (State.BOUND, IQ): XmppServerSession._handle_stanza,
    (State.BOUND, f"{{{CSI}}}active"): XmppServerSession._handle_activity,
    (State.BOUND, f"{{{CSI}}}inactive"): XmppServerSession._handle_activity,
    (State.BOUND, f"{{{SM}}}enable"): XmppServerSession._handle_enable,
    (State.BOUND, f"{{{SM}}}resume"): XmppServerSession._handle_late_resume,
    (State.BOUND, f"{{{SM}}}r"): XmppServerSession._handle_counts,
    (State.BOUND, f"{{{SM}}}a"): XmppServerSession._handle_counts,
}
