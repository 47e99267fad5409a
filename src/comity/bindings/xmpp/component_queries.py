"""What a component of ours answers about itself: to whoever looks around on the server that it is attached to, it is a gateway to SIP.

Place on the path: beside it; queries carry no messages. Pure: a stanza comes in, the answer goes out. Nobody has to register with this
gateway (XEP-0077): addresses say all that it needs, so it does not offer it, and clients show it as ready to use.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from comity.bindings.xmpp import queries
from comity.bindings.xmpp.queries import DISCO_INFO, DISCO_ITEMS, PING, TIME, VCARD, VERSION
from comity.bindings.xmpp.wire import error_reply, iq_result
from comity.xml import Element

ESCAPING: Final = "jid\\20escaping"
"""XEP-0106: names that SIP allows and XMPP does not are written with escapes, and mean the same person."""
GATEWAY: Final = "jabber:iq:gateway"
NAME: Final = "SIP"
FEATURES: Final = (DISCO_INFO, DISCO_ITEMS, GATEWAY, ESCAPING, PING, TIME, VCARD, VERSION)


def answer(stanza: Element, version: str, when: datetime) -> Element | None:
    """Answer a get or set to the component itself."""
    payload = next(stanza.elements())
    kind = stanza.get("type")
    if kind == "get" and payload.name == f"{{{DISCO_INFO}}}query":
        return _info(stanza, payload)
    if kind == "get" and payload.name == f"{{{VCARD}}}vCard":
        text = "Messages and presence for people who use SIP"
        card = [Element(f"{{{VCARD}}}FN", {}, [NAME]), Element(f"{{{VCARD}}}DESC", {}, [text])]
        return iq_result(stanza, Element(f"{{{VCARD}}}vCard", {}, [*card]))
    if payload.name == f"{{{GATEWAY}}}query":
        return _gateway(stanza, payload)
    return queries.answer_iq(stanza, is_account=False, when=when, version=version)


def _info(stanza: Element, payload: Element) -> Element | None:
    if payload.get("node"):
        return error_reply(stanza, "item-not-found")
    identity = Element(f"{{{DISCO_INFO}}}identity", {"category": "gateway", "type": "sip", "name": NAME})
    features = [Element(f"{{{DISCO_INFO}}}feature", {"var": feature}) for feature in FEATURES]
    return iq_result(stanza, Element(f"{{{DISCO_INFO}}}query", {}, [identity, *features]))


def _gateway(stanza: Element, payload: Element) -> Element | None:
    """XEP-0100 section 4.7: a client asks how to write an address of that network, and for the JID that stands for one."""
    domain = stanza.get("to")
    if stanza.get("type") == "get":
        parts = [Element(f"{{{GATEWAY}}}desc", {}, ["The person's SIP address."]), Element(f"{{{GATEWAY}}}prompt")]
        return iq_result(stanza, Element(f"{{{GATEWAY}}}query", {}, [*parts]))
    prompt = payload.find(f"{{{GATEWAY}}}prompt")
    user = ("" if prompt is None else prompt.text).strip().removeprefix("sips:").removeprefix("sip:")
    name, _, host = user.partition("@")
    if not name or host.lower() not in ("", domain):
        return error_reply(stanza, "item-not-found", f"this gateway leads to {domain} only")
    return iq_result(
        stanza, Element(f"{{{GATEWAY}}}query", {}, [Element(f"{{{GATEWAY}}}jid", {}, [f"{name}@{domain}"])])
    )
