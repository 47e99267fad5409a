"""What an XMPP client answers by itself, and what it reads off a stanza beside the object or the document. Pure.

Place on the path: steps 4 and 8 at a user's own program, for ``xmpp.py`` and ``xmpp_presence.py``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from comity.bindings.xmpp import mapping, wire
from comity.bindings.xmpp.queries import DISCO_INFO, PING
from comity.client.base import OCTETS_FEATURES
from comity.client.presence import Contact
from comity.cpim.address import Address, from_jid, to_jid
from comity.cpim.operations import Reason, Response, failure, success
from comity.errors import AddressError
from comity.xml import Element

ROSTER: Final = "jabber:iq:roster"
BLOCKING: Final = "urn:xmpp:blocking"


def arrived(stanza: Element) -> datetime | None:
    """The server's stamp on a message that waited (XEP-0203); it takes away what anybody else wrote (X-64)."""
    delay = stanza.find(f"{{{mapping.DELAY}}}delay")
    try:
        return None if delay is None else datetime.fromisoformat(delay.get("stamp"))
    except ValueError:
        return None


def server_id(stanza: Element) -> str:
    """The server's identifier (XEP-0359); it takes away what anybody else wrote (X-63)."""
    found = stanza.find(f"{{{mapping.STANZA_ID}}}stanza-id")
    return "" if found is None else found.get("id")


def capabilities() -> Element:
    """What this client is and can do (XEP-0030), as its presence says by hash (XEP-0115)."""
    identity = Element(f"{{{DISCO_INFO}}}identity", {"category": "client", "type": "console", "name": "Comity"})
    query = Element(f"{{{DISCO_INFO}}}query", {}, [identity])
    for feature in (DISCO_INFO, *OCTETS_FEATURES, PING):
        query.append(Element(f"{{{DISCO_INFO}}}feature", {"var": feature}))
    return query


def answer(stanza: Element) -> Element:
    """The answer to an iq of somebody else."""
    payload = next(stanza.elements(), None)
    if payload is not None and stanza.get("type") == "get":
        if payload.name == f"{{{DISCO_INFO}}}query":
            query = capabilities()
            if payload.get("node"):
                query.attributes["node"] = payload.get("node")
            return reply(stanza, wire.iq_result(stanza, query))
        if payload.name == f"{{{PING}}}ping":
            return reply(stanza, wire.iq_result(stanza))
    error = wire.error_reply(stanza, "service-unavailable")
    assert error is not None
    return reply(stanza, error)


def reply(stanza: Element, answer: Element) -> Element:
    """A client's answer names no sender: the server stamps it."""
    answer.attributes.pop("from", None)
    if stanza.get("from"):
        answer.attributes["to"] = stanza.get("from")
    return answer


# --- the contact list (RFC 6121 section 2, XEP-0191) ---


def key_of(address: Address) -> str:
    """What one and the same account is known by."""
    return address.with_scheme("im").folded().key


def address_of(jid: str) -> Address | None:
    """The address in a JID, None if it is none."""
    try:
        return from_jid(jid)[0]
    except AddressError:
        return None


def contact_of(item: Element) -> Contact | None:
    """An item of the roster."""
    address = address_of(item.get("jid"))
    if address is None:
        return None
    subscription = item.get("subscription")
    groups = tuple(group.text for group in item.find_all(f"{{{ROSTER}}}group"))
    return Contact(
        address,
        item.get("name"),
        groups,
        True,
        subscription in ("to", "both"),
        subscription in ("from", "both"),
        item.get("ask") == "subscribe",
    )


def blocking_element(name: str, address: Address) -> Element:
    """What blocks or unblocks somebody."""
    return Element(f"{{{BLOCKING}}}{name}", {}, [Element(f"{{{BLOCKING}}}item", {"jid": to_jid(address)})])


def response_of(answer: Element) -> Response:
    """What an answer, result or error, means."""
    id = answer.get("id")
    if answer.get("type") != "error":
        return success(id)
    response = mapping.error_to_response(answer, id)
    return failure(id, response.reason or Reason.INTERNAL, response.text)
