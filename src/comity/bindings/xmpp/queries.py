"""What the server answers to iq stanzas addressed to itself or to the sender's own account; entity capabilities.

Place on the path: beside it; queries carry no messages. Pure: a stanza comes in, the answer goes out.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from comity.bindings.xmpp.e2e import E2E, OCTETS
from comity.bindings.xmpp.extensions import PROTECTION
from comity.bindings.xmpp.wire import CSI, SM, error_reply, iq_result
from comity.xml import XML_LANG, Element

DISCO_INFO: Final = "http://jabber.org/protocol/disco#info"
DISCO_ITEMS: Final = "http://jabber.org/protocol/disco#items"
PING: Final = "urn:xmpp:ping"
VERSION: Final = "jabber:iq:version"
TIME: Final = "urn:xmpp:time"
ROSTER: Final = "jabber:iq:roster"
BLOCKING: Final = "urn:xmpp:blocking"
VCARD: Final = "vcard-temp"
PRIVATE_STORAGE: Final = "jabber:iq:private"
PUBLISH_OPTIONS: Final = "http://jabber.org/protocol/pubsub#publish-options"
"""Of accounts. COMPAT profanity 0.13: looks for it at the server's address only, and without it leaves the options out."""
CAPS: Final = "http://jabber.org/protocol/caps"
CARBONS: Final = "urn:xmpp:carbons:2"
DATA_FORMS: Final = "jabber:x:data"

#: What a client appends to a node's name to be told of it (XEP-0163 section 4.3.2).
NOTIFY: Final = "+notify"
#: How many nodes a device may wish to be told of, and the length of such a feature: they are kept for every device.
MAX_WISHES: Final = 64
MAX_WISH: Final = 256

#: Features of the server's own address.
SERVER_FEATURES: Final = (DISCO_INFO, DISCO_ITEMS, E2E, PING, TIME, OCTETS, CARBONS, CSI, SM, VERSION, PROTECTION)
#: Those more if presence is not switched off.
PRESENCE_FEATURES: Final = (ROSTER, BLOCKING, VCARD, PRIVATE_STORAGE, PUBLISH_OPTIONS)
#: Administration and registration are not done here (X-65).
_FORBIDDEN: Final = frozenset({"jabber:iq:auth", "jabber:iq:register", "http://jabber.org/protocol/commands"})
_HASHES: Final = {"sha-1": "sha1", "sha-256": "sha256", "sha-512": "sha512"}


def answer_iq(
    stanza: Element,
    *,
    is_account: bool,
    when: datetime,
    version: str,
    has_presence: bool = False,
    items: Iterable[str] = (),
) -> Element | None:
    """Answer a get or set that asks the server (or, ``is_account``, the sender's own account); None to a reply.

    ``items``: components that are attached to the server."""
    kind = stanza.get("type")
    if kind not in ("get", "set"):
        return None
    payload = next(stanza.elements())
    key = (kind, payload.name)
    if key == ("get", f"{{{DISCO_INFO}}}query"):
        return _disco_info(stanza, payload, is_account, has_presence)
    if key == ("get", f"{{{DISCO_ITEMS}}}query"):
        found = [] if is_account else [Element(f"{{{DISCO_ITEMS}}}item", {"jid": item}) for item in items]
        return iq_result(stanza, Element(f"{{{DISCO_ITEMS}}}query", {}, [*found]))
    if key == ("get", f"{{{PING}}}ping"):
        return iq_result(stanza)
    if key == ("get", f"{{{VERSION}}}query"):
        children: list[Element | str] = [Element(f"{{{VERSION}}}name", {}, ["Comity"])]
        if version:
            children.append(Element(f"{{{VERSION}}}version", {}, [version]))
        return iq_result(stanza, Element(f"{{{VERSION}}}query", {}, children))
    if key == ("get", f"{{{TIME}}}time"):
        utc = when.strftime("%Y-%m-%dT%H:%M:%SZ")
        children = [Element(f"{{{TIME}}}tzo", {}, ["+00:00"]), Element(f"{{{TIME}}}utc", {}, [utc])]
        return iq_result(stanza, Element(f"{{{TIME}}}time", {}, children))
    if payload.namespace == ROSTER:
        if kind == "get":
            # The server has no contact list, and without presence nobody has; an empty one lets every client go on.
            return iq_result(stanza, Element(f"{{{ROSTER}}}query"))
        return error_reply(stanza, "not-allowed", "the contact list cannot be changed here")
    if payload.namespace == VCARD:
        return error_reply(stanza, "item-not-found" if kind == "get" else "service-unavailable")
    if payload.namespace in _FORBIDDEN:
        return error_reply(stanza, "forbidden")
    return error_reply(stanza, "service-unavailable")


def _disco_info(stanza: Element, payload: Element, is_account: bool, has_presence: bool) -> Element | None:
    if payload.get("node"):
        return error_reply(stanza, "item-not-found")
    identity = {"category": "account", "type": "registered"}
    if not is_account:
        identity = {"category": "server", "type": "im", "name": "Comity"}
    query = Element(f"{{{DISCO_INFO}}}query", {}, [Element(f"{{{DISCO_INFO}}}identity", identity)])
    own = (DISCO_INFO, DISCO_ITEMS) if is_account else SERVER_FEATURES
    for feature in own + PRESENCE_FEATURES if has_presence else own:
        query.append(Element(f"{{{DISCO_INFO}}}feature", {"var": feature}))
    return iq_result(stanza, query)


def ask_features(domain: str, to: str, id: str, node: str) -> Element:
    """The query for what a device supports (XEP-0115 section 6.2)."""
    query = Element(f"{{{DISCO_INFO}}}query", {"node": node} if node else {})
    return Element("{jabber:client}iq", {"type": "get", "from": domain, "to": to, "id": id}, [query])


def features_of(query: Element) -> frozenset[str]:
    """The features in a disco#info answer."""
    return frozenset(f.get("var") for f in query.find_all(f"{{{DISCO_INFO}}}feature"))


def kept_features(query: Element) -> frozenset[str]:
    """Those among them that mean something to the server: what else a device claims is not kept for it."""
    named = features_of(query)
    wished = sorted(name for name in named if name.endswith(NOTIFY) and len(name) <= MAX_WISH)
    return frozenset({*(named & {E2E, OCTETS}), *wished[:MAX_WISHES]})


def is_hash_right(query: Element, hash_name: str, ver: str) -> bool:
    """Whether a disco#info answer has the verification string announced (XEP-0115 section 5.4; X-66)."""
    if hash_name not in _HASHES:
        return False
    text = verification_string(query)
    if text is None:
        return False
    digest = hashlib.new(_HASHES[hash_name], text.encode("utf-8"), usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii") == ver


def verification_string(query: Element) -> str | None:
    """The string that is hashed (XEP-0115 section 5.1), None for an answer that section 5.4 calls ill-formed."""
    identities = [
        "/".join((i.get("category"), i.get("type"), i.get(XML_LANG), i.get("name")))
        for i in query.find_all(f"{{{DISCO_INFO}}}identity")
    ]
    features = [f.get("var") for f in query.find_all(f"{{{DISCO_INFO}}}feature")]
    forms: dict[str, str] = {}
    for form in query.find_all(f"{{{DATA_FORMS}}}x"):
        fields = {
            field.get("var"): sorted(v.text for v in field.find_all(f"{{{DATA_FORMS}}}value"))
            for field in form.find_all(f"{{{DATA_FORMS}}}field")
        }
        kind = fields.pop("FORM_TYPE", [])
        if not kind:
            continue
        if len(set(kind)) > 1 or kind[0] in forms:
            return None
        forms[kind[0]] = "".join(
            f"{name}<" + "".join(f"{v}<" for v in values) for name, values in sorted(fields.items())
        )
    if len(set(identities)) != len(identities) or len(set(features)) != len(features):
        return None
    parts = [f"{text}<" for text in (*sorted(identities), *sorted(features))]
    parts += [f"{kind}<{fields_text}" for kind, fields_text in sorted(forms.items())]
    return "".join(parts)
