"""An XMPP client: signs in, sends objects in ``e2e`` or ``octets``, receives them with stream management.

Place on the path: the far ends of it; runs ``bindings.xmpp.session_client`` as a binding of its own network. It says
by its capabilities that it takes whole objects (XEP-0115). A lost connection is made anew and its stream resumed, or, if
the server forgot it, begun again where the server's last word ended (XEP-0198 section 5).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from datetime import UTC, datetime
from functools import partial
from typing import Any

from comity.bindings.base import HostPort, Link, Target
from comity.bindings.xmpp import events, mapping, wire
from comity.bindings.xmpp.e2e import wrap_entity, wrap_octets
from comity.bindings.xmpp.extensions import FORM_ELEMENT, PROTECTION, TOLD, WANTS_FORM
from comity.bindings.xmpp.jid import Jid
from comity.bindings.xmpp.protection import protection_element
from comity.bindings.xmpp.queries import DISCO_INFO, verification_string
from comity.bindings.xmpp.session_client import ClientOptions, XmppClientSession
from comity.bindings.xmpp.sm import SmState
from comity.client.base import ClientError, Mailbox, Options, Received, SignedIn, asserter, check_requirements
from comity.client.presence import HasPresence
from comity.client.xmpp_presence import XmppPresence
from comity.client.xmpp_stanzas import answer, arrived, capabilities, reply, server_id
from comity.cpim.address import Address, from_jid, to_jid
from comity.cpim.composing import composing_in
from comity.cpim.delivered import checked
from comity.cpim.message import new_message_id
from comity.cpim.operations import (
    Fate,
    MimeObject,
    Reason,
    Report,
    Requirement,
    Response,
    Status,
    failure,
    indeterminant,
    success,
)
from comity.errors import AddressError, DeliveryError, LocalProtocolError
from comity.net.driver import LoopClock
from comity.net.network import AsyncNetwork
from comity.net.stream import StreamLink
from comity.net.tls import TlsContexts
from comity.xml import Element

NODE = "urn:comity:client"
FEATURES_ID = "server-features"
FORM_SECONDS = 2.0
"""How long ``send`` waits, if asked to, for word of the form; as long as SIP's and APEX's answers take at most."""
CAPS = "{http://jabber.org/protocol/caps}c"
MOST_UNACKNOWLEDGED = 400
"""Stanzas under way at once; the session itself keeps at most 500."""
PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds between attempts to come back; the last one repeats."""
PASSING_CONDITIONS = frozenset({"", "connection-timeout", "internal-server-error", "reset", "system-shutdown"})
"""Ends of a stream after which coming back makes sense (RFC 6120 section 4.9.3)."""


class XmppClient(HasPresence, SignedIn):
    """One account signed in by XMPP; make it with ``comity.client.connect``."""

    name = "xmpp"

    def __init__(self, options: Options) -> None:
        self._options = options
        self._clock = LoopClock()
        self._network = AsyncNetwork(self._clock, tls=TlsContexts(trust=options.ca_file))
        self._mailbox = Mailbox()
        self._link: StreamLink | None = None
        self._session: XmppClientSession | None = None
        self._bound: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done while stanzas flow; a new one when the connection is lost and may come back."""
        self._resource = f"comity-{os.urandom(4).hex()}"
        self._resume: SmState | None = None
        self._returning: asyncio.Task[None] | None = None
        self._may_return = False
        """True once signed in, until something happens after which coming back makes no sense."""
        self._gone = asyncio.Event()
        """Set when the connection being made is lost again."""
        self._pending: dict[str, asyncio.Future[Response]] = {}
        self._forms: dict[str, asyncio.Future[Response]] = {}
        """By id: messages of which we still want to hear in which form they were delivered."""
        self._room = asyncio.Semaphore(MOST_UNACKNOWLEDGED)
        self._turn = asyncio.Lock()
        self._features: asyncio.Future[frozenset[str]] | None = None
        """What the server says it supports, once somebody asked."""
        self._presence: XmppPresence = XmppPresence(self)
        self._is_private = False
        """True once the stream was under TLS: what waits on it never goes on without (T11)."""
        self._error = ""
        self._is_closing = False
        self.is_announced = options.receive
        """Whether we are available, or were."""

    # --- life ------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, sign in and, to receive, become available. Raises ClientError."""
        try:
            await self._connect()
        except DeliveryError as error:
            raise ClientError(str(error)) from error
        await self._bound
        self._may_return = self._options.patience > 0

    async def _connect(self) -> None:
        options = self._options
        transport = options.transport or "tcp"
        host, port = await self._find(options, transport == "tls")
        server_name = options.address.domain if transport == "tls" else ""
        target = Target("tls" if transport == "tls" else "tcp", host, port, server_name)
        await self._network.connect(self, target, role="client")

    async def _return(self) -> None:
        """Try until stanzas flow again or patience ends; ``link_closed`` calls again if it breaks once more."""
        loop = asyncio.get_running_loop()
        deadline, attempt = loop.time() + self._options.patience, 0
        while not self._bound.done():
            try:
                await self._connect()
                gone = asyncio.ensure_future(self._gone.wait())
                await asyncio.wait((self._bound, gone), return_when=asyncio.FIRST_COMPLETED)
                gone.cancel()
            except DeliveryError as error:
                self._error = str(error)
            if self._bound.done() or not self._may_return:
                break
            pause = PAUSES[min(attempt, len(PAUSES) - 1)]
            if loop.time() + pause > deadline:
                self._may_return = False
                break
            attempt += 1
            await asyncio.sleep(pause)
        if not self._bound.done():
            self._lost(None)

    async def _find(self, options: Options, is_direct: bool) -> HostPort:
        if options.server is not None:
            targets = await self._network.resolve("sip", *options.server, "tcp", is_trusted=True)
        else:
            prefix, port = ("_xmpps-client._tcp", 5223) if is_direct else ("_xmpp-client._tcp", 5222)
            domain = options.address.domain
            targets = await self._network.resolve_service(prefix, domain, port, "tcp", is_trusted=True)
        return targets[0].host, targets[0].port

    async def close(self) -> None:
        """Say goodbye and close."""
        if not self._is_closing:
            self._is_closing = True
            self._may_return = False
            if self._returning is not None:
                self._returning.cancel()
                await asyncio.wait((self._returning,))
            self._mailbox.end(None)
            self._presence.lost(None)
            if self._session is not None and self._link is not None and not self._session.is_ended:
                self._session.close()
                self._link.flush()
                self._link.close()
        await self._network.close()

    def _send_presence(self) -> None:
        text = verification_string(capabilities())
        assert text is not None
        ver = base64.b64encode(hashlib.sha1(text.encode(), usedforsecurity=False).digest()).decode()  # XEP-0115
        caps = Element(CAPS, {"hash": "sha-1", "node": NODE, "ver": ver})
        kind = self._presence.own_type
        children = [*self._presence.own, caps]
        if not kind and not self._options.receive:
            # Whoever only says how they are, or watches, takes no messages away from their other devices.
            children.append(Element(wire.child_of_client("priority"), {}, ["-1"]))
        self._write(Element(wire.PRESENCE, {"type": kind} if kind else {}, children))

    # --- what presence needs ----------------------------------------------------------------------------------

    @property
    def address(self) -> Address:
        """Who signed in."""
        return self._options.address

    @property
    def resource(self) -> str:
        """Of our own full JID."""
        return self._resource

    async def until_bound(self) -> None:
        """Wait until stanzas flow. Raises ClientError if they never will."""
        while not self._bound.done():
            await asyncio.shield(self._bound)

    def write(self, stanza: Element, key: object = None) -> None:
        """Send a stanza; one with a key goes again on the next stream if the server did not take it. Raises ClientError."""
        self._write(stanza, key)

    def announce(self) -> None:
        """Send our presence, as it also goes out on every new stream from now on."""
        self.is_announced = True
        self._send_presence()

    def _write(self, stanza: Element, key: object = None) -> None:
        if self._session is None or self._link is None or self._session.is_ended:
            raise ClientError(f"the connection to the server is gone{self._error and ': ' + self._error}")
        self._session.send_stanza(stanza, key)
        self._link.flush()

    # --- send -------------------------------------------------------------------------------------------------

    def send(
        self,
        obj: MimeObject,
        to: Address,
        *,
        from_: Address | None = None,
        key: str = "",
        requirements: Collection[Requirement] = (),
        asks: bool = False,
    ) -> asyncio.Future[Response]:
        """See ``Client.send``; many may be under way, they leave in the order of the calls."""
        key, required = key or os.urandom(12).hex(), frozenset(requirements)
        sending = self._send(obj, to, from_, key, required, asks=asks)
        return asyncio.ensure_future(self._told(sending, key) if asks else sending)

    async def _told(self, sending: Coroutine[None, None, Response], key: str) -> Response:
        """Send, and wait a moment for word of the form, or of a failure behind the acknowledgement."""
        told = self._forms[key] = asyncio.get_running_loop().create_future()
        try:
            response = await sending
            if response.status is Status.INDETERMINANT:
                await asyncio.wait((told,), timeout=FORM_SECONDS)
            return told.result() if told.done() else response
        finally:
            del self._forms[key]

    async def _send(
        self,
        obj: MimeObject,
        to: Address,
        from_: Address | None,
        key: str,
        requirements: frozenset[Requirement],
        *,
        asks: bool,
    ) -> Response:
        attributes = {"to": to_jid(to), "id": key, "type": "chat"}
        if from_ is not None and from_ != self._options.address:
            attributes["from"] = to_jid(from_)
        children = [wrap_entity(obj.entity) or wrap_octets(obj.entity)]
        if requirements:
            children.append(protection_element(requirements))
        if asks:
            children.append(Element(WANTS_FORM))
        async with self._room:
            future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
            self._pending[key] = future
            try:
                async with self._turn:  # whoever waits for the connection leaves before who comes when it stands
                    if requirements and not await self._keeps_requirements():
                        text = "The server does not say that it keeps what a message requires."
                        return failure(key, Reason.PROTECTION, text)
                    while not self._bound.done():
                        await asyncio.shield(self._bound)
                    refusal = check_requirements(obj, requirements, key, is_protected=self._is_protected)
                    if refusal is not None:
                        return refusal
                    self._write(Element(wire.MESSAGE, attributes, [*children]), key)
                return await future
            except LocalProtocolError as error:
                return failure(key, Reason.SIZE, str(error))
            finally:
                self._pending.pop(key, None)

    def has_room(self, obj: MimeObject, to: Address, requirements: Collection[Requirement] = ()) -> bool:
        """See ``Client.has_room``: a stream has room; what a stanza may hold is the server's to say."""
        return True

    @property
    def _is_protected(self) -> bool:
        return self._session is not None and self._session.is_tls

    async def _keeps_requirements(self) -> bool:
        """Ask the server once: it would drop in silence a child it does not know (RFC 6120 section 8.4)."""
        if self._features is None:
            self._features = asyncio.get_running_loop().create_future()
            while not self._bound.done():
                await asyncio.shield(self._bound)
            ask = {"type": "get", "id": FEATURES_ID, "to": self._options.address.domain}
            try:
                self._write(Element(wire.IQ, ask, [Element(f"{{{DISCO_INFO}}}query")]), FEATURES_ID)
            except ClientError:
                self._features = None  # nothing was asked
                raise
        return PROTECTION in await asyncio.shield(self._features)

    def _is_servers(self, stanza: Element) -> bool:
        """Only the server itself may say what it supports; everybody may send an answer (RFC 6120 section 8.1.2.1)."""
        return stanza.get("from") in ("", self._options.address.domain)

    def _learn_features(self, stanza: Element) -> None:
        """The answer to the question above; an error means that nothing is known there."""
        query = stanza.find(f"{{{DISCO_INFO}}}query")
        found = query.find_all(f"{{{DISCO_INFO}}}feature") if query is not None else ()
        if self._features is not None and not self._features.done():
            self._features.set_result(frozenset(feature.get("var") for feature in found))

    # --- receive ----------------------------------------------------------------------------------------------

    def messages(self) -> AsyncIterator[Received]:
        """See ``Client.messages``."""
        return self._mailbox.messages()

    def _stanza(self, stanza: Element, index: int) -> None:
        if stanza.name == wire.MESSAGE and stanza.get("type") == "error":
            self._refused(stanza, index)
        elif stanza.name == wire.MESSAGE and self._is_servers(stanza) and stanza.find(FORM_ELEMENT) is not None:
            self._take_form(stanza)
            self._handled(index)
        elif stanza.name == wire.MESSAGE:
            self._message(stanza, index)
        else:
            if stanza.name == wire.PRESENCE:
                self._presence.take_presence(stanza)
            elif stanza.get("type") in ("get", "set"):
                is_push = stanza.get("type") == "set" and self._presence.take_push(stanza)
                self._write(reply(stanza, wire.iq_result(stanza)) if is_push else answer(stanza))
            elif self._presence.take_answer(stanza):
                pass
            elif stanza.name == wire.IQ and stanza.get("id") == FEATURES_ID and self._is_servers(stanza):
                self._learn_features(stanza)
            self._handled(index)

    def _take_form(self, stanza: Element) -> None:
        """Our own server says in which form a message of ours was delivered."""
        for said in stanza.find_all(FORM_ELEMENT):
            future = self._forms.get(said.get("id"))
            form, at = checked(said.get("form"), said.get("at"))
            if future is not None and not future.done() and form:
                future.set_result(success(said.get("id"), form, at))

    def _refused(self, stanza: Element, index: int) -> None:
        """Our message was refused: now, or, if it was acknowledged before, as a report."""
        key = stanza.get("id")
        response = mapping.error_to_response(stanza, key)
        future = self._pending.get(key) or self._forms.get(key)
        if future is not None and not future.done():
            future.set_result(response)
            self._handled(index)
            return
        try:
            sender, _ = from_jid(stanza.get("from"))
        except AddressError:
            sender = self._options.address
        report = Report(response.reason or Reason.INTERNAL, response.text, sender, key)
        empty = MimeObject.of("application/octet-stream", b"")
        received = Received(empty, sender, self._options.address, self._options.address.domain, report=report)
        self._mailbox.put(received, self._taker(index))

    def _take_receipt(self, stanza: Element, index: int) -> bool:
        """Take a receipt or marker (XEP-0184, XEP-0333) for a message of ours; False if the stanza is none."""
        found = next((child for child in stanza.elements() if child.name in TOLD), None)
        if found is None or stanza.find(mapping.BODY) is not None:
            return False
        try:
            sender, _ = from_jid(stanza.get("from"))
        except AddressError:
            return False
        own = self._options.address
        report = Report(Reason.INTERNAL, "", sender, found.get("id"), Fate(TOLD[found.name]))
        empty = MimeObject.of("application/octet-stream", b"")
        self._mailbox.put(Received(empty, sender, own, own.domain, report=report), self._taker(index))
        return True

    def _message(self, stanza: Element, index: int) -> None:
        if self._take_receipt(stanza, index):
            return
        made = mapping.stanza_to_operation(
            stanza, when=datetime.now(UTC), trans_id=stanza.get("id"), message_id=new_message_id(os.urandom(15))
        )
        if isinstance(made, mapping.Refusal):
            error = wire.error_reply(stanza, made.condition, made.text)
            if error is not None:
                self._write(error)
            self._handled(index)
            return
        if made.context.transient and composing_in(made.object) is not None:
            self._handled(index)  # somebody types: no message
            return
        history = mapping.read_history(stanza)
        when = arrived(stanza)
        first = asserter(made.source, self._options.address, history)
        is_late, id, refuser = when is not None, server_id(stanza), partial(self._refuse, stanza)
        received = Received(
            made.object,
            made.source,
            made.destination,
            first,
            is_late,
            when,
            history,
            requirements=made.requirements,
            id=id,
            refuser=refuser,
        )
        self._mailbox.put(received, self._taker(index))

    def _refuse(self, stanza: Element, reason: Reason, text: str) -> None:
        """Answer a message with a stanza error and the condition of RFC 3923 section 7, before it counts as taken."""
        error = mapping.response_to_error(stanza, failure("", reason, text), is_local=False)
        if error is None or self._session is None:
            return
        error = reply(stanza, error)
        if self._bound.done() and not self._session.is_ended:
            self._write(error)
        else:  # goes out when the stream is resumed
            (self._resume or self._session.sm_state).outgoing.add(wire.encode(error), None)

    def _taker(self, index: int) -> Callable[[], None]:
        """What says that a message is ours, on the stream it came by, wherever that stream is by then."""
        assert self._session is not None
        return partial(self._take, self._session.sm_state, index)

    def _take(self, state: SmState, index: int) -> None:
        if self._session is not None and self._session.sm_state is state:
            self._handled(index)
        else:
            state.incoming.finish(index)

    def _handled(self, index: int) -> None:
        if self._session is not None and self._link is not None:
            self._session.stanza_handled(index)
            self._link.flush()

    # --- Binding -----------------------------------------------------------------------------------------------

    def new_session(self, link: Link, role: str) -> XmppClientSession:
        """The session of a connection; it goes on with the stream of the lost one."""
        assert isinstance(link, StreamLink)
        self._link, options = link, self._options
        jid = Jid.parse(f"{to_jid(options.address)}/{self._resource}")
        may_be_open = options.allow_plaintext and not self._is_private
        settings = ClientOptions(jid, options.password, allow_plaintext=may_be_open)
        now = self._clock.now()
        self._session = XmppClientSession(settings, partial(_end_point, link), os.urandom, now, self._resume)
        self._gone = asyncio.Event()
        return self._session

    def handle_event(self, link: Link, event: object) -> None:
        """Take one event of the session."""
        match event:
            case events.TlsWanted(host=host):
                assert isinstance(link, StreamLink)
                assert self._session is not None
                link.start_tls_client(host)
                self._session.tls_started()  # what it writes now waits for the handshake
            case events.SignInFailed(condition=condition, text=text):
                self._error = f"{condition}{': ' + text if text else ''}"
                self._may_return = False
            case events.ResourceBound() | events.SmEnabled() | events.Resumed():
                if isinstance(event, events.ResourceBound):
                    self._presence.bound_again()
                    if self.is_announced:
                        self._send_presence()
                self._is_private = self._is_private or self._is_protected
                is_ready = not isinstance(event, events.ResourceBound) or not event.is_sm_offered
                if is_ready and not self._bound.done():
                    self._error = ""
                    self._bound.set_result(None)
            case events.StanzaReceived(stanza=stanza, index=index):
                self._stanza(stanza, index)
            case events.StanzasAcknowledged(keys=keys):
                for key in keys:
                    future = self._pending.get(key) if isinstance(key, str) else None
                    if future is not None and not future.done():
                        future.set_result(indeterminant(str(key)))
            case events.StreamEnded(condition=condition, text=text):
                self._error = self._error or f"{condition}{': ' + text if text else ''}"
                self._may_return = self._may_return and condition in PASSING_CONDITIONS
                self._interrupt()
                link.close()
            case _:
                pass

    def _interrupt(self) -> None:
        """Stanzas do not flow any more; whoever wants to send waits if they may again."""
        can_resume = self._session is not None and bool(self._session.sm_state.id)
        if self._may_return and can_resume and self._bound.done():
            self._bound = asyncio.get_running_loop().create_future()

    def link_closed(self, link: Link, error: Exception | None) -> None:
        """The connection is gone: come back, or tell whoever waits."""
        if self._session is not None:
            state = self._session.sm_state
            self._resume = state if state.id else self._resume
        self._gone.set()
        self._interrupt()
        if not self._may_return or self._resume is None:
            self._lost(error)
        elif self._returning is None or self._returning.done():
            self._error = ""
            self._returning = asyncio.ensure_future(self._return())

    def _lost(self, error: Exception | None) -> None:
        why = self._error or (str(error) if error else "")
        lost = ClientError(f"the server ended the stream: {why}" if why else "the connection to the server is gone")
        for key, future in list(self._pending.items()):
            if future.done():
                continue
            if "invalid-from" in why:
                future.set_result(failure(key, Reason.DENIED, "invalid-from: the sender is not the one who signed in"))
            else:
                _fail(future, lost)
        for awaited in (self._bound, self._features):
            if awaited is not None and not awaited.done():
                _fail(awaited, lost)
        self._presence.lost(None if self._is_closing else lost)
        if not self._is_closing:
            self._mailbox.end(lost)


def _fail(future: asyncio.Future[Any], error: ClientError) -> None:
    """Somebody may wait for it, nobody has to."""
    future.set_exception(error)
    future.exception()


def _end_point(link: Link) -> bytes | None:
    return None if link.peer.tls is None else link.peer.tls.server_end_point
