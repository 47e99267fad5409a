"""A SIP session over one stream connection or one datagram socket, both roles, sans-IO.

Place on the path: steps 3 and 9. Octets and ``now`` come in; events, octets and one timer come out. The transaction
layer is inside: retransmissions are absorbed and replayed, requests of ours are repeated until answered. What can be
refused without policy is refused here, without state. Three rules its readers must keep:

* Answers go to where the packet came from and nowhere else: no Via host is resolved, ``maddr`` is ignored, and the
  port is the packet's even without ``rport`` (S-29, S-30). This departs from RFC 3261 section 18.2.2, which would
  send to the sent-by port of a peer without rport: a port on the same host that never spoke to us.
* Before an address is proved over UDP, it gets at most one packet per request and no more octets than it sent (S-28).
* A response counts only if branch, sent-by, method and source all match the request (S-32, S-33).
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Sequence

from comity.bindings.sip.answers import Answers
from comity.bindings.sip.events import (
    Event,
    HostPort,
    MalformedReceived,
    PacketDropped,
    RequestFailed,
    RequestReceived,
    RequestRefused,
    RequestTimedOut,
    ResponseReceived,
)
from comity.bindings.sip.glance import METHODS as GLANCED
from comity.bindings.sip.glance import glance_for
from comity.bindings.sip.headers import MAGIC_COOKIE
from comity.bindings.sip.message import SipRequest, SipResponse
from comity.bindings.sip.overload import LEAST_RETRY, Overload
from comity.bindings.sip.refusals import refuse_address, refuse_extension, refuse_method
from comity.bindings.sip.settings import SessionSettings
from comity.bindings.sip.sources import Sources
from comity.bindings.sip.stun import binding_response, is_stun
from comity.bindings.sip.transaction import (
    ClientAction,
    ClientInput,
    ClientTransaction,
    ClientTransactions,
    ServerAction,
    ServerInput,
    ServerTransaction,
    ServerTransactions,
    State,
    Timers,
    server_key,
)
from comity.bindings.sip.wire import Malformed, Ping, StreamReader, Unit, parse_datagram
from comity.errors import LocalProtocolError, RemoteProtocolError

#: A request larger than this is not sent over UDP (RFC 3428 section 8).
MAX_DATAGRAM_REQUEST = 1300
_OK = SipResponse(200, "OK", ())
"""An answer of which nothing else is looked at."""


class SipSession:
    """One connection, or one datagram socket with all its peers."""

    def __init__(
        self,
        settings: SessionSettings,
        transport: str,
        local: HostPort,
        remote: HostPort | None = None,
        *,
        random: Callable[[int], bytes] = secrets.token_bytes,
        restarted: float | None = None,
    ) -> None:
        """``restarted``: when this process took over from one that may have taken requests already; None: there was none."""
        self.settings = settings
        self.transport = transport
        self.remote = remote
        self.is_datagram = transport == "udp"
        self.is_closed = False
        host = f"[{local[0]}]" if ":" in local[0] else local[0]
        self.sent_by = f"{host}:{local[1]}"
        self._via = f"SIP/2.0/{transport.upper()} {self.sent_by}".encode("ascii")
        self._glance = glance_for(self._via)
        self._random = random
        self._secret = random(16)
        self._answers = Answers(self._secret)
        self._reader = StreamReader(settings.limits)
        self._partial_deadline: float | None = None
        self._events: deque[Event] = deque()
        self._out: list[bytes] = []
        self._datagrams: list[tuple[bytes, HostPort]] = []
        self._timers = Timers()
        self._count = 0
        self._clients = ClientTransactions()
        self._servers = ServerTransactions(settings.most_transactions)
        self._overload = Overload(self._secret, 64 * settings.t1, 4 * settings.most_transactions, restarted)
        self._sources = Sources(
            settings.unproved_requests, settings.unproved_window, settings.proof_lifetime, settings.most_transactions
        )

    # --- octets in ---------------------------------------------------------------------------------------

    def receive_data(self, data: bytes, now: float) -> None:
        """Take octets of the stream."""
        if self.is_closed:
            return
        self._reader.feed(data)
        source = self.remote or ("", 0)
        while not self.is_closed and (unit := self._reader.next_unit()) is not None:
            self._partial_deadline = None
            self._take(unit, source, now, len(data))
        if not self._reader.is_partial:
            self._partial_deadline = None
        elif self._partial_deadline is None:
            self._partial_deadline = now + 64 * self.settings.t1

    def admits(self, address: HostPort, now: float) -> bool:
        """False for one packet too many from a network that proved nothing (S-31)."""
        # A peer we wait for is not a stranger: its answers are not counted.
        is_known = self._clients.is_asked(address) or self.is_proved(address, now)
        return is_known or self._sources.take_token(address, now)

    def receive_datagram(self, data: bytes, address: HostPort, now: float) -> None:
        """Take one datagram."""
        if is_stun(data):
            # The answer is larger than the request: only for who proved its address, as every registered phone has.
            octets = binding_response(data, address) if self.is_proved(address, now) else b""
            if octets:
                self._send(octets, address)
            return
        branch = self._glance(data)
        if branch:
            asked = self._clients.by_id(branch)
            if asked is not None and asked.address == address and asked.method in GLANCED:
                self._client_input(asked, ClientInput.FINAL, now, _OK)
                return
        unit = parse_datagram(data, self.settings.limits)
        if unit is not None:
            self._take(unit, address, now, len(data))

    def refuse_datagram(self, data: bytes, address: HostPort, now: float) -> bool:
        """Answer 503 to a new request without reading it, or drop it; False: it has to be taken (see ``overload``)."""
        octets = self._overload.refuse(data, address, now, self._servers)
        if octets and (len(octets) <= len(data) or self.is_proved(address, now)):
            self._send(octets, address)
        return octets is not None

    def receive_eof(self, now: float) -> None:
        """The peer will send no more: what waits for an answer of its has failed; half a message is dropped."""
        self._close("the peer closed the connection")

    def connection_lost(self, reason: str) -> None:
        """The transport is gone; nothing can be sent any more."""
        self._close(reason)
        self._out.clear()

    # --- events, octets out, timer -----------------------------------------------------------------------

    def next_event(self) -> Event | None:
        return self._events.popleft() if self._events else None

    def data_to_send(self, now: float) -> list[bytes]:
        """Octets for the stream; an empty item asks for a half-close."""
        out, self._out = self._out, []
        return out

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, HostPort]]:
        out, self._datagrams = self._datagrams, []
        return out

    def next_timer(self) -> float | None:
        first = self._timers.first
        if self._partial_deadline is not None and (first is None or self._partial_deadline < first):
            return self._partial_deadline
        return first

    def handle_timer(self, now: float) -> None:
        if self._partial_deadline is not None and self._partial_deadline <= now:
            # RFC 4475 section 3.1.2.2: the rest of a message that never comes.
            self._partial_deadline = None
            self._events.append(MalformedReceived(0, "a message did not end in time", self.remote or ("", 0)))
            self._close("a message did not end in time")
        for name, transaction in self._timers.due(now):
            if isinstance(transaction, ServerTransaction):
                transaction.advance(ServerInput.TIMER_J)
                self._servers.forget(transaction)
            else:
                self._client_input(transaction, ClientInput[f"TIMER_{name}"], now, None)

    # --- verbs -------------------------------------------------------------------------------------------

    def send_request(self, request: SipRequest, now: float, address: HostPort | None = None) -> str:
        """Send a request (without Via) in a new client transaction; returns the transaction's id.

        Raises LocalProtocolError if the connection is closed, no address is given for a datagram, the request is
        too large for one (RFC 3428 section 8), or a header holds what may not be sent.
        """
        if self.is_closed:
            raise LocalProtocolError("the connection is closed")
        target = address if self.is_datagram else self.remote or ("", 0)
        if target is None:
            raise LocalProtocolError("a datagram needs an address")
        branch = MAGIC_COOKIE + self._random(12).hex()
        via = f"SIP/2.0/{self.transport.upper()} {self.sent_by};branch={branch};rport"
        octets = SipRequest(request.method, request.uri_text, [("Via", via), *request.headers], request.body).to_bytes()
        if self.is_datagram and len(octets) > MAX_DATAGRAM_REQUEST:
            raise LocalProtocolError(f"a request over {MAX_DATAGRAM_REQUEST} octets may not go over UDP")
        return self._begin(ClientTransaction(branch, request.method, octets, target, self.settings.t1), now)

    def send_written(self, method: str, start: bytes, rest: bytes, now: float, address: HostPort | None = None) -> str:
        """As ``send_request``, for a request that stands ready but for its Via: its start line with CR LF, and all behind Via.

        No size is too large here (see ``is_too_large_written``); what is in it is the caller's to have checked.
        """
        if self.is_closed:
            raise LocalProtocolError("the connection is closed")
        target = address if self.is_datagram else self.remote or ("", 0)
        if target is None:
            raise LocalProtocolError("a datagram needs an address")
        branch = MAGIC_COOKIE + self._random(12).hex()
        octets = b"%bVia: %b;branch=%b;rport\r\n%b" % (start, self._via, branch.encode("ascii"), rest)
        return self._begin(ClientTransaction(branch, method, octets, target, self.settings.t1), now)

    def is_too_large_written(self, *pieces: bytes) -> bool:
        """True if a request of these pieces and Via should not go into a datagram (RFC 3261 section 18.1.1)."""
        return self.is_datagram and sum(map(len, pieces)) + len(self._via) + 54 > MAX_DATAGRAM_REQUEST

    def abandon(self, id: str) -> None:
        """Give up a request of ours: it is not sent again, and no answer to it is reported."""
        transaction = self._clients.by_id(id)
        if transaction is not None:
            transaction.advance(ClientInput.TRANSPORT_ERROR)
            self._clients.forget(transaction)

    def supersede(self, id: str) -> None:
        """What a request of ours says is no longer true: rather than send it again, give it up and report it as failed."""
        transaction = self._clients.by_id(id)
        if transaction is not None:
            transaction.is_superseded = True

    def local_tag(self, request: SipRequest) -> str:
        """The To tag that answers to a request outside a dialog bear."""
        return self._answers.tag(request)

    def _begin(self, transaction: ClientTransaction, now: float) -> str:
        self._clients.add(transaction)
        self._send(transaction.octets, transaction.address)
        if self.is_datagram:
            self._timers.arm(now + self.settings.t1, "E", transaction)
        self._timers.arm(now + 64 * self.settings.t1, "F", transaction)
        return transaction.id

    def respond(
        self,
        id: int,
        status_code: int,
        now: float,
        *,
        reason: str = "",
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        is_stateless: bool = False,
    ) -> None:
        """Answer a received request; a second final answer, or one to a peer that left, is dropped.

        ``is_stateless`` forgets the transaction at once: for challenges and refusals of strangers (S-01).
        """
        transaction = self._servers.by_id(id)
        if transaction is None or transaction.request is None or self.is_closed:
            return
        octets = self._answers.compose(
            transaction.request,
            transaction.source,
            status_code,
            reason=reason,
            headers=headers,
            body=body,
            most=None if self.is_proved(transaction.source, now) else transaction.octets,
        )
        is_final = status_code >= 200
        action = transaction.advance(ServerInput.FINAL if is_final else ServerInput.PROVISIONAL)
        if action is ServerAction.NOTHING:
            return
        transaction.response = octets
        if octets:
            self._send(octets, transaction.source)
        if action is ServerAction.SEND_AND_WAIT:
            self._servers.answered(transaction)
            transaction.request = None
            if self.is_datagram and not is_stateless:
                self._timers.arm(now + 64 * self.settings.t1, "J", transaction)
            else:
                transaction.advance(ServerInput.TIMER_J)
                self._servers.forget(transaction)

    def drop(self, id: int) -> None:
        """Leave a received request without an answer and forget it."""
        transaction = self._servers.by_id(id)
        if transaction is not None:
            transaction.advance(ServerInput.TRANSPORT_ERROR)
            self._servers.forget(transaction)

    def is_too_large(self, request: SipRequest) -> bool:
        """True if ``send_request`` would refuse to put the request into a datagram."""
        via = f"Via: SIP/2.0/UDP {self.sent_by};branch={MAGIC_COOKIE};rport\r\n"
        return self.is_datagram and len(request.to_bytes()) + len(via) + 24 > MAX_DATAGRAM_REQUEST

    def prove(self, address: HostPort, now: float) -> None:
        """Note that ``address`` showed it receives what is sent to it (it answered a challenge bound to its flow)."""
        if self.is_datagram:
            self._sources.prove(address, now)

    def is_proved(self, address: HostPort, now: float) -> bool:
        """True for streams, and for addresses proved within the lifetime."""
        return not self.is_datagram or self._sources.is_proved(address, now)

    # --- received units ----------------------------------------------------------------------------------

    def _take(self, unit: Unit, source: HostPort, now: float, size: int) -> None:
        if isinstance(unit, SipRequest):
            self._take_request(unit, source, now, size)
        elif isinstance(unit, SipResponse):
            self._take_response(unit, source, now)
        elif isinstance(unit, Ping):
            if not self.is_datagram:
                self._out.append(b"\r\n")  # RFC 5626 section 4.4.1
        else:
            self._take_malformed(unit, source, now, size)

    def _take_malformed(self, unit: Malformed, source: HostPort, now: float, size: int) -> None:
        status_code = 0
        if isinstance(unit.partial, SipRequest) and unit.partial.method != "ACK":
            code = int(unit.error.hint or "400")
            if self._refuse(unit.partial, source, now, size, code, reason=unit.error.reason):
                status_code = code
        self._events.append(MalformedReceived(status_code, unit.error.reason, source))
        if not unit.is_framed:
            self._close("the stream cannot be cut into messages any more")

    def _take_request(self, request: SipRequest, source: HostPort, now: float, size: int) -> None:
        key = server_key(request, source if self.is_datagram else None)
        known = self._servers.by_key(key)
        if known is not None:
            is_repeat = known.advance(ServerInput.REQUEST) is ServerAction.REPEAT and bool(known.response)
            # The bound of S-28 holds for each retransmission by its own size.
            if is_repeat and (len(known.response) <= size or self.is_proved(source, now)):
                self._send(known.response, source)
            return
        if self._overload.has_refused(key, now):
            self._refuse(request, source, now, size, 503, headers=[("Retry-After", str(LEAST_RETRY))])
            return
        try:
            refusal = self._refusal(request)
        except RemoteProtocolError as error:  # a header that is read only here: Route, Require
            self._take_malformed(Malformed(error, request, True), source, now, size)
            return
        if refusal is not None:
            status_code, headers = refusal
            if status_code:
                self._refuse(request, source, now, size, status_code, headers=headers)
                self._events.append(RequestRefused(status_code, request.method, source))
            return
        self._count += 1
        merge_key = None if request.to.tag else (request.call_id, request.from_.tag, str(request.cseq))
        transaction = ServerTransaction(self._count, key, merge_key, request, source, size)
        self._servers.add(transaction)
        self._events.append(RequestReceived(transaction.id, request, source, size))

    def _refuse(
        self,
        request: SipRequest,
        source: HostPort,
        now: float,
        size: int,
        status_code: int,
        *,
        reason: str = "",
        headers: Sequence[tuple[str, str]] = (),
    ) -> bool:
        """Answer without state; False if no answer can or may be sent."""
        most = None if self.is_proved(source, now) else size
        octets = self._answers.compose(request, source, status_code, reason=reason, headers=headers, most=most)
        if octets:
            self._send(octets, source)
        return bool(octets)

    def _refusal(self, request: SipRequest) -> tuple[int, list[tuple[str, str]]] | None:
        """What RFC 3261 section 8.2 refuses before any policy: (status code, headers); code 0 means silence."""
        settings = self.settings
        refusal = None if request.method in settings.asked else refuse_method(request, settings.methods)
        refusal = refusal or refuse_address(request, settings.schemes)
        if refusal is None and self._servers.is_merged(request):
            refusal = 482, []
        refusal = refusal or refuse_extension(request, settings.extensions)
        if refusal is None and not self._servers.has_room():
            return 503, [("Retry-After", "32")]
        return refusal

    def _take_response(self, response: SipResponse, source: HostPort, now: float) -> None:
        transaction = self._clients.match(response, self.sent_by, source if self.is_datagram else None)
        if isinstance(transaction, str):
            self._events.append(PacketDropped(transaction, source))
            return
        given = ClientInput.PROVISIONAL if response.status_code < 200 else ClientInput.FINAL
        self._client_input(transaction, given, now, response)

    # --- transactions ------------------------------------------------------------------------------------

    def _client_input(
        self, transaction: ClientTransaction, given: ClientInput, now: float, response: SipResponse | None
    ) -> None:
        settings = self.settings
        if transaction.is_superseded and given is ClientInput.TIMER_E and transaction.state is not State.COMPLETED:
            self._events.append(RequestFailed(transaction.id, "superseded"))
            self.abandon(transaction.id)
            return
        action = transaction.advance(given)
        if action in (ClientAction.PASS, ClientAction.PASS_AND_WAIT) and response is not None:
            self._events.append(ResponseReceived(transaction.id, response))
            if action is ClientAction.PASS_AND_WAIT:
                if self.is_datagram:
                    self._timers.arm(now + settings.t4, "K", transaction)
                else:
                    transaction.advance(ClientInput.TIMER_K)
        elif action in (ClientAction.RETRANSMIT_DOUBLED, ClientAction.RETRANSMIT_CAPPED):
            doubled = action is ClientAction.RETRANSMIT_DOUBLED
            transaction.interval = min(2 * transaction.interval, settings.t2) if doubled else settings.t2
            self._send(transaction.octets, transaction.address)
            self._timers.arm(now + transaction.interval, "E", transaction)
        elif action is ClientAction.TIME_OUT:
            self._events.append(RequestTimedOut(transaction.id))
        elif action is ClientAction.FAIL:
            self._events.append(RequestFailed(transaction.id, "the connection was lost"))
        if transaction.state is State.COMPLETED:
            transaction.octets = b""
        elif transaction.state is State.TERMINATED:
            self._clients.forget(transaction)

    def _close(self, reason: str) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self._partial_deadline = None
        for client in self._clients.take_all():
            if client.advance(ClientInput.TRANSPORT_ERROR) is ClientAction.FAIL:
                self._events.append(RequestFailed(client.id, reason))
        for server in self._servers.take_all():
            server.advance(ServerInput.TRANSPORT_ERROR)
        self._timers.clear()
        self._out.append(b"")

    def _send(self, octets: bytes, address: HostPort) -> None:
        if self.is_datagram:
            self._datagrams.append((octets, address))
        else:
            self._out.append(octets)
