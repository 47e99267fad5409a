"""What every stream does, whosever it is and whichever side we are: headers, errors, closing, stanzas, stream management.

Place on the path: steps 3 and 9. Octets come in, elements are handed to the side's own handler; elements go out
as octets. Rules: no clock, socket or randomness of its own; the peer's mistakes never raise, they end the
stream with the stream error RFC 6120 section 4.9 names, and ``StreamEnded`` tells the binding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from comity.bindings.xmpp import wire
from comity.bindings.xmpp.events import CountWanted, Event, StanzasAcknowledged, StreamEnded
from comity.bindings.xmpp.jid import Jid
from comity.bindings.xmpp.sm import SmState, read_h
from comity.bindings.xmpp.wire import SM
from comity.errors import LocalProtocolError, RemoteProtocolError
from comity.xml import Element, RootClosed, RootOpened, StreamReader, XmlLimits

#: Seconds of silence after which the peer is asked whether it is there; see ``ANSWER_TIME``.
SILENCE = 60.0
#: Seconds in which anything must come after such a question; both together stay under 120 s (F-25).
ANSWER_TIME = 45.0
#: X-76: whitespace reads a second, and the burst of them.
KEEPALIVE_RATE = 10.0
KEEPALIVE_BURST = 20.0
#: Other stanzas than messages ask for an acknowledgement only when this many wait.
REQUEST_EVERY = 10

#: Octets of tls-server-end-point channel binding once TLS is up, None before (RFC 5929 section 4).
EndPoint = Callable[[], bytes | None]


class XmppStream:
    """One side of a client stream; the subclass says what each element means.

    ``answers_at_once``: whether ``<r/>`` is answered with what is handled now, and once more when the rest is; a server
    waits the few milliseconds its store needs and answers once.

    Args:
        end_point: gives the connection's channel binding, b"" for TLS without any, None without TLS.
        random: gives that many random octets.
        limits: caps on what the peer may send now.
    """

    answers_at_once = False
    content_namespace = wire.CLIENT
    """What stanzas are in on the wire; to everything behind this class they are in jabber:client (``wire.as_client``)."""

    def __init__(self, end_point: EndPoint, random: Callable[[int], bytes], limits: XmlLimits) -> None:
        self._end_point = end_point
        self._random = random
        self._reader = StreamReader(limits)
        self._events: deque[Event] = deque()
        self._out: list[bytes] = []
        self._now = 0.0
        self._is_header_sent = False
        self._is_ended = False
        self._is_peer_done = False
        self._is_waiting = False
        """True while a verb must be called before more of the peer's octets are looked at."""
        self._deadline: float | None = None
        self._jid: Jid | None = None
        self._sm = SmState("", Jid("", ""))
        self._is_sm_on = False
        self._is_request_due = False
        self._requested_at: float | None = None
        self._ack_owed: int | None = None
        self._count_asked = 0
        self._last_heard = 0.0
        self.octets_read = 0
        """All octets of the connection so far."""
        self._spaces = KEEPALIVE_BURST
        self._spaces_at = 0.0

    # --- the session contract (style.md) -------------------------------------------------------------------

    def receive_data(self, data: bytes, now: float) -> None:
        """Take octets read at ``now``."""
        self._now = self._last_heard = now
        if self._is_ended and self._is_peer_done:
            return
        if self._reader.is_between and data.isspace() and not self._take_space(now):
            self._fail("policy-violation", "too many keepalives")
            return
        self.octets_read += len(data)
        self._reader.receive_data(data)
        self._pump()
        self._count(len(data))
        if self._jid is None:
            self._reader.rest()  # a stranger may say nothing more for as long as it likes

    def receive_eof(self, now: float) -> None:
        """The peer will send no more."""
        self._now = now
        self._is_peer_done = True
        if not self._is_ended:
            self._end(StreamEnded("", "the connection was closed", is_local=False))
        self._out.append(b"")

    def next_event(self) -> Event | None:
        """The next event, or None."""
        return self._events.popleft() if self._events else None

    def data_to_send(self, now: float) -> list[bytes]:
        """Octets to write; an empty item at the end means half-close."""
        self._now = now
        if not self._is_ended:
            self._ask(now)
        if not self._out:
            return []
        out, self._out = self._out, []
        is_last = b"" in out
        joined = b"".join(out)
        return ([joined] if joined else []) + ([b""] if is_last else [])

    def next_timer(self) -> float | None:
        """When ``handle_timer`` has something to do."""
        if self._is_ended:
            return None
        timers = [] if self._deadline is None else [self._deadline]
        if self._jid is not None:
            timers.append(self._patience)
        return min(timers, default=None)

    def handle_timer(self, now: float) -> None:
        """End a stream that is late, or ask whether the peer is still there."""
        self._now = now
        if self._is_ended:
            return
        self._reader.rest()
        if self._deadline is not None and now >= self._deadline:
            self._fail("connection-timeout", "signing in took too long")
        elif self._jid is not None and now >= self._patience:
            if self._requested_at is None:
                self._is_request_due = True
            elif self._last_heard > self._requested_at:
                self._requested_at = None
                self._give_up_answer()
            else:
                self._fail("connection-timeout", "no sign of life came")

    @property
    def _patience(self) -> float:
        """When silence, or waiting for the answer to our question, has lasted too long."""
        if self._requested_at is None:
            return self._last_heard + SILENCE
        return self._requested_at + ANSWER_TIME

    # --- verbs ---------------------------------------------------------------------------------------------

    @property
    def jid(self) -> Jid | None:
        """The full JID bound to this stream, None before."""
        return self._jid

    @property
    def is_ended(self) -> bool:
        """True after ``StreamEnded``."""
        return self._is_ended

    @property
    def is_sm_on(self) -> bool:
        """True once stream management is enabled: what is sent will be confirmed."""
        return self._is_sm_on

    @property
    def is_tls(self) -> bool:
        """True if the connection is under TLS."""
        return self._end_point() is not None

    @property
    def sm_state(self) -> SmState:
        """What to keep for resumption (meaningful once ``SmEnabled`` was seen)."""
        return self._sm

    def send_stanza(self, stanza: Element, key: object = None) -> None:
        """Write a stanza; with stream management ``key`` comes back in ``StanzasAcknowledged``.

        Raises:
            LocalProtocolError: the stream cannot carry stanzas now, or XML cannot hold this one.
        """
        if self._jid is None or self._is_ended:
            raise LocalProtocolError("no resource is bound on this stream")
        self._write_stanza(stanza, key)

    def stanza_handled(self, index: int) -> None:
        """Finished with a received stanza: it may be counted in ``h`` (reliability.md section 5.2)."""
        self._sm.incoming.finish(index)
        self._settle_ack()

    def count_kept(self, index: int) -> None:
        """Answer ``CountWanted``: the count of stanzas up to ``index`` is kept and may be said."""
        self._sm.incoming.keep(index)
        self._settle_ack()

    def close(self, condition: str = "", text: str = "") -> None:
        """End the stream: with a stream error if ``condition`` is given, else politely."""
        if self._is_ended:
            return
        if condition:
            self._fail(condition, text)
            return
        self._write_header_if_needed()
        self._out += [wire.STREAM_CLOSE]
        self._end(StreamEnded("", text, is_local=True, is_orderly=True))

    def connection_lost(self) -> None:
        """The connection is gone: nothing more is read. Stream management's state stays."""
        self._reader.close()

    # --- for the subclass ------------------------------------------------------------------------------------

    def _handle_root(self, opened: RootOpened) -> None:
        raise NotImplementedError

    def _handle_element(self, element: Element) -> None:
        raise NotImplementedError

    def _write_header(self) -> None:
        raise NotImplementedError

    def _count(self, octets: int) -> None:
        """Called with the size of each read."""

    def _emit(self, event: Event) -> None:
        self._events.append(event)

    def _write(self, element: Element) -> None:
        self._out.append(wire.encode(element))

    def _write_stanza(self, stanza: Element, key: object = None) -> None:
        self._write_octets(wire.encode(stanza), key, is_message=stanza.name == wire.MESSAGE)

    def _write_octets(self, octets: bytes, key: object = None, *, is_message: bool = False) -> None:
        if self._is_sm_on:
            outgoing = self._sm.outgoing
            if outgoing.is_full:
                self._fail("resource-constraint", "too many stanzas are not acknowledged")
                return
            outgoing.add(octets, key)
            if is_message or len(outgoing) % REQUEST_EVERY == 0:
                self._is_request_due = True
        self._out.append(octets)

    def _ask(self, now: float) -> None:
        """Put the question whether the peer is there, and what it has taken, at the end of a write that needs it."""
        if not self._is_request_due or self._jid is None:
            return
        self._is_request_due = False
        if self._is_sm_on:
            self._out.append(b"<r xmlns='urn:xmpp:sm:3'/>")
        elif not self._write_question():
            return
        if self._requested_at is None:
            self._requested_at = now

    def _write_question(self) -> bool:
        """Without stream management: write something the peer has to answer; False if that is not possible."""
        self._out.append(wire.KEEPALIVE)  # TCP at least will notice
        self._last_heard = self._now
        return False

    def _give_up_answer(self) -> None:
        """The peer lives but does not answer the question."""

    def _settle_ack(self) -> None:
        """Answer the peer's last ``<r/>`` as soon as what it asks about is handled, and kept if it has to be."""
        incoming, owed = self._sm.incoming, self._ack_owed
        if owed is None or self._is_ended or incoming.handled < owed:
            return
        if incoming.sayable >= owed:
            self._ack_owed = None
            self._write_ack()
        elif self._count_asked < owed:
            self._count_asked = incoming.handled
            self._emit(CountWanted(incoming.handled))

    def _write_ack(self) -> None:
        self._write(Element(f"{{{SM}}}a", {"h": str(self._sm.incoming.h)}))

    def _restart(self) -> None:
        """A new stream follows on the same connection (RFC 6120 section 4.3.3)."""
        self._reader.reset()
        self._is_header_sent = False

    def _resume_reading(self) -> None:
        """The verb that was waited for has come."""
        self._is_waiting = False
        self._pump()

    def _fail(self, condition: str, text: str = "", application: Element | None = None) -> None:
        """Refuse the stream: error, end tag, half-close (RFC 6120 section 4.9.1)."""
        if self._is_ended:
            return
        self._write_header_if_needed()
        self._write(wire.stream_error(condition, text, application))
        self._out += [wire.STREAM_CLOSE, b""]
        self._is_peer_done = True
        self._end(StreamEnded(condition, text))

    def _handle_sm_counts(self, element: Element) -> bool:
        """Take ``<r/>`` and ``<a/>``; False if ``element`` is neither or stream management is off."""
        if not self._is_sm_on:
            return False
        if element.name == f"{{{SM}}}r":
            incoming = self._sm.incoming
            if self.answers_at_once and incoming.handled < incoming.received:
                self._write_ack()  # it may be long: whoever reads is still there
            self._ack_owed = incoming.received
            self._count_asked = 0
            self._settle_ack()
            return True
        if element.name == f"{{{SM}}}a":
            self._requested_at = None
            self._confirm(read_h(element.get("h")))
            return True
        return False

    def _confirm(self, h: int) -> None:
        keys = self._sm.outgoing.confirm(h)
        if keys:
            self._emit(StanzasAcknowledged(keys))

    # --- inside ------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        while not self._is_waiting and not (self._is_ended and self._is_peer_done):
            try:
                unit = self._reader.next_unit()
                if unit is None:
                    return
                self._handle_unit(unit)
            except RemoteProtocolError as error:
                condition = error.hint if error.hint in wire.STREAM_CONDITIONS else "bad-format"
                application = None
                if condition == "policy-violation" and "too long" in error.reason:
                    application = Element(f"{{{wire.ERRORS}}}stanza-too-big")
                self._fail(condition, error.reason, application)
                self._is_peer_done = True
                return

    def _handle_unit(self, unit: wire.Unit) -> None:
        if isinstance(unit, RootClosed):
            self._is_peer_done = True
            if not self._is_ended:
                self._out += [wire.STREAM_CLOSE, b""]
                self._end(StreamEnded("", "", is_local=False, is_orderly=True))
        elif self._is_ended:
            return  # said goodbye already: what still comes is dropped
        elif isinstance(unit, RootOpened):
            wire.check_header(unit, self.content_namespace)
            self._handle_root(unit)
        elif unit.name == f"{{{wire.STREAMS}}}error":
            condition, text = wire.error_of(unit)
            self._out += [wire.STREAM_CLOSE, b""]
            self._is_peer_done = True
            self._end(StreamEnded(condition, text[:500], is_local=False))
        elif self.content_namespace == wire.CLIENT:
            self._handle_element(unit)
        else:
            self._handle_element(wire.as_client(unit, self.content_namespace))

    def _write_header_if_needed(self) -> None:
        if not self._is_header_sent:
            self._write_header()
            self._is_header_sent = True

    def _end(self, event: StreamEnded) -> None:
        self._is_ended = True
        self._is_waiting = False
        self._emit(event)

    def _take_space(self, now: float) -> bool:
        self._spaces = min(KEEPALIVE_BURST, self._spaces + (now - self._spaces_at) * KEEPALIVE_RATE)
        self._spaces_at = now
        if self._spaces < 1:
            return False
        self._spaces -= 1
        return True
