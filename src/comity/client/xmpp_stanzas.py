"""What an XMPP client answers by itself, and what it reads off a stanza beside the object. Pure.

Place on the path: steps 4 and 8 at a user's own program, for ``xmpp.py``.
"""

from __future__ import annotations

from datetime import datetime

from comity.bindings.xmpp import mapping, wire
from comity.bindings.xmpp.queries import DISCO_INFO, PING
from comity.client.base import OCTETS_FEATURES
from comity.xml import Element


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
