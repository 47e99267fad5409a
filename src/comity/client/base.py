"""What both clients share: the messages received, the error for a sign-in that failed, how a server is found.

Place on the path: the far ends of it. A client runs the same sans-IO sessions as the server, as a ``Binding`` of a
network of its own. A received message counts as taken (SIP 200, XMPP ``<a/>``) only when the caller asks for the
next one: a program that dies while it handles a message gets it again.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from comity.bindings.base import HostPort, Listener, Network, Transport
from comity.cpim.address import Address
from comity.cpim.entity import cpim_view
from comity.cpim.imdn import Imdn, notification_in
from comity.cpim.native import plain_text, readable_part
from comity.cpim.operations import (
    HistoryEntry,
    MimeObject,
    Reason,
    Report,
    Requirement,
    Response,
    failure,
)
from comity.cpim.protection import unmet
from comity.errors import ComityError, LocalProtocolError, MalformedMessage
from comity.net.network import AsyncNetwork
from comity.service.interfaces import Delivery, Service

OCTETS_FEATURES = ("urn:ietf:params:xml:ns:xmpp-e2e", "urn:comity:octets:0")


Refuser = Callable[[Reason, str], None]
"""Tells the sender, by our server, why a message is not taken."""


class ClientError(ComityError):
    """The client cannot sign in, or its connection is gone; the text says why."""


@dataclass(frozen=True, slots=True)
class Received:
    """One message received."""

    object: MimeObject
    """As it came: its octets are what the sender's program made, or what the first server made of a plain text."""
    from_: Address
    """The envelope's sender, as our server authenticated it."""
    to: Address
    asserted_by: str
    """Domain that vouches for the sender where no signature does."""
    is_delayed: bool = False
    arrived: datetime | None = None
    """When our server took it, as far as it says so (SIP Date, XEP-0203): its freshness is judged by this (SEC-24)."""
    history: tuple[HistoryEntry, ...] = ()
    report: Report | None = None
    """Set when our server says what became of a message of ours: its failure, or what we asked to be told."""
    requirements: frozenset[Requirement] = frozenset()
    """What the sender required of every hop; of the object it holds for the recipient's eyes too."""
    id: str = ""
    """The server's identifier on the wire (SIP Call-ID and From-tag, XEP-0359 stanza-id): a repeat has the same."""
    refuser: Refuser | None = field(default=None, repr=False, compare=False)
    """What ``refuse`` calls; None for what nobody waits for an answer to."""

    def refuse(self, reason: Reason, text: str = "") -> None:
        """Tell the sender that this message is not taken (table T8), in the words of our protocol.

        Call it before asking for the next message: that one takes this. A report is never refused. Whoever would
        rather say nothing just goes on (RFC 3923 section 7: "MAY return a stanza error").

        Args:
            reason: usually ``Verdict.refusal``: TIMESTAMP, SIGNATURE, DECRYPTION …
            text: one sentence for the sender; no secrets, and for a decryption nothing of what failed (M-33).
        """
        if self.refuser is not None:
            self.refuser(reason, text)

    @property
    def notice(self) -> Imdn | None:
        """What the recipient's program says of a message of ours, in an object of its own (RFC 5438); None if it is none."""
        try:
            view = cpim_view(self.object)
            return None if view is None else notification_in(view)
        except MalformedMessage:
            return None

    @property
    def text(self) -> str | None:
        """The readable text, if there is any that needs no key."""
        plain = plain_text(self.object)
        return plain.text if plain is not None else readable_part(self.object)


@dataclass(frozen=True, slots=True)
class Options:
    """How to sign in."""

    address: Address
    password: str
    server: HostPort | None = None
    """Where to connect; None: found by DNS."""
    transport: Transport | None = None
    """SIP: udp, tcp or tls (default); XMPP: tcp (STARTTLS, default) or tls; APEX: tcp (the TLS profile, default) or tls."""
    ca_file: Path | None = None
    """Authorities to believe the server by instead of the system's."""
    allow_plaintext: bool = False
    """XMPP, APEX: sign in without TLS if the server offers none."""
    receive: bool = True
    """False: messages are not received; no contact address is announced for them."""
    instance: str = ""
    """SIP: ``urn:uuid:…`` by which the server knows this device again after a lost connection (RFC 5626)."""
    patience: float = 30.0
    """Seconds to try to come back, and go on, after a lost connection; 0: give up at once. SIP: where something is watched
    or published; messages are sent on a new client."""


def check_requirements(
    obj: MimeObject, requirements: Collection[Requirement], key: str, *, is_protected: bool
) -> Response | None:
    """The failure of a message whose first hop would break what it requires; None to go on."""
    if missing := unmet(obj, requirements):
        return failure(key, Reason.PROTECTION, missing)
    if Requirement.TLS in requirements and not is_protected:
        return failure(key, Reason.PROTECTION, "The message must stay under TLS and this connection is not.")
    return None


def asserter(sender: Address, own: Address, history: Sequence[HistoryEntry]) -> str:
    """Who vouches for a sender where no signature does: for one of another domain that domain, as our server has it proved; else
    our own server, whose entry is the last. What nodes before it wrote is nobody's word but theirs."""
    if sender.domain != own.domain:
        return sender.domain
    return history[-1].node if history else own.domain


class MessageClient(Protocol):
    """What a signed-in client does about messages; see ``comity.client.connect``."""

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
        """Send an object; the future gives what the server said, SUCCESS or INDETERMINANT meaning "yes".

        Args:
            obj: a whole MIME entity, usually made by ``comity.client.text_object``.
            to: whom it is for.
            from_: another sender than the one signed in, to see it refused.
            key: identifier for the wire; the same again marks a repeat of the same message.
            requirements: what every hop must keep, this one to begin with: nothing is sent where it cannot be (T11).
            asks: wait a moment for word of the form in which it was delivered (``Response.form`` and ``at``) where the
                protocol's own answer has none: an XMPP stream acknowledges what the server took.
        """

    def has_room(self, obj: MimeObject, to: Address, requirements: Collection[Requirement] = ()) -> bool:
        """False if ``send`` would have to refuse the object for its size: a MESSAGE over UDP holds 1300 octets."""

    def messages(self) -> AsyncIterator[Received]:
        """Messages in the order they arrive; asking for the next one takes the former."""

    async def close(self) -> None: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Mailbox:
    """Messages that wait to be taken, each with what says so to the server."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[Received, Callable[[], None]] | None] = asyncio.Queue()
        self._error: ClientError | None = None

    def put(self, received: Received, take: Callable[[], None]) -> None:
        """A message came; ``take`` tells the server that it is ours now."""
        self._queue.put_nowait((received, take))

    def end(self, error: ClientError | None) -> None:
        """No more will come."""
        self._error = self._error or error
        self._queue.put_nowait(None)

    async def messages(self) -> AsyncIterator[Received]:
        """See ``Client.messages``. Raises ClientError when the connection is lost."""
        while (waiting := await self._queue.get()) is not None:
            received, take = waiting
            yield received
            take()
        self._queue.put_nowait(None)
        if self._error is not None:
            raise self._error


class SignedIn(ABC):
    """What both clients do around their protocol: ``async with``, and the parts of a ``Binding`` nobody needs."""

    _network: AsyncNetwork

    @abstractmethod
    async def open(self) -> None:
        """Connect and sign in. Raises ClientError."""

    @abstractmethod
    async def close(self) -> None:
        """Say goodbye and close."""

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except BaseException:
            await self._network.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def listeners(self) -> Sequence[Listener]:
        """None: a client calls."""
        return ()

    async def start(self, service: Service, network: Network) -> None:  # noqa: B027  nothing to start
        """Not used: a client brings its own network."""

    async def drain(self) -> None:  # noqa: B027  nothing to drain
        """Nothing: ``close`` says goodbye."""

    def deliver(self, delivery: Delivery) -> asyncio.Future[Response]:
        """Not used: nobody is behind a client."""
        raise LocalProtocolError("a client delivers to nobody")
