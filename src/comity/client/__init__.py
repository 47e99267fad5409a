"""Clients for SIP, XMPP and APEX on the same sans-IO sessions as the server.

async with connect("xmpp", address, password, server=("127.0.0.1", 5222)) as client:
    response = await client.send(text_object(address, to, "hello"), to)
    async for received in client.messages():
        ...
    await client.publish(Availability.AWAY, "at lunch")
    async for seen in client.watch(to):
        ...
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

from comity.bindings.base import HostPort, Transport
from comity.client.base import ClientError, MessageClient, Options, Received
from comity.client.compose import terse, text_object
from comity.client.presence import Contact, Judge, NotPossible, PresenceClient, Seen, Standing
from comity.cpim.address import Address

__all__ = [
    "Client",
    "ClientError",
    "Contact",
    "Judge",
    "NotPossible",
    "Options",
    "Received",
    "Seen",
    "Standing",
    "connect",
    "terse",
    "text_object",
]


class Client(MessageClient, PresenceClient, Protocol):
    """A signed-in client: messages, presence and contacts."""


def connect(
    via: Literal["sip", "xmpp", "apex"],
    address: Address,
    password: str,
    *,
    server: HostPort | None = None,
    transport: Transport | None = None,
    ca_file: Path | None = None,
    allow_plaintext: bool = False,
    receive: bool = True,
    instance: str = "",
    patience: float = 30.0,
) -> Client:
    """Make a client; ``async with`` signs it in and out. Needs a running event loop.

    Args:
        via: the protocol.
        address: the account, an im: address.
        password: its password.
        server: where to connect; None: found by DNS (RFC 3263; RFC 6120 section 3.2.1; RFC 3340 section 3.1).
        transport: SIP: "udp", "tcp" or "tls" (default); XMPP: "tcp" with STARTTLS (default) or "tls"; APEX: "tcp" with
            the TLS profile (default) or "tls".
        ca_file: PEM file of authorities to believe the server by instead of the system's.
        allow_plaintext: XMPP, APEX: go on without TLS if the server offers none.
        receive: False: announce no contact address for messages; ``send``, ``publish`` and ``watch`` work all the same, and by XMPP
            such a device has a negative priority, by APEX it is a subaddress, so that it takes no messages away from others.
        instance: SIP: ``urn:uuid:…`` by which the server knows this device again (RFC 5626).
        patience: seconds to try to go on after a lost connection, 0 for none. XMPP (XEP-0198) and APEX: what is under way
            meanwhile waits, and is sent again if, and only if, the server did not take it. SIP: what is watched is
            subscribed to anew, and what is published is published again; a request under way has failed.

    Raises (on entering):
        ClientError: no connection, no trust in the server's certificate, or wrong credentials.
    """
    options = Options(address, password, server, transport, ca_file, allow_plaintext, receive, instance, patience)
    if via == "sip":
        from comity.client.sip import SipClient  # noqa: PLC0415  a program that speaks one protocol loads one

        return SipClient(options)
    if via == "apex":
        from comity.client.apex import ApexClient  # noqa: PLC0415

        return ApexClient(options)
    from comity.client.xmpp import XmppClient  # noqa: PLC0415

    return XmppClient(options)
