"""The children of a message stanza: what they are called, who may say them, which are forgotten with the moment.

Place on the path: beside steps 4 and 8, which share these names. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from comity.bindings.xmpp import wire
from comity.bindings.xmpp.e2e import E2E
from comity.bindings.xmpp.wire import CLIENT
from comity.xml import Element, is_xml_text

PROTOCOL: Final = "xmpp"
XMPP_XML: Final = "application/xmpp+xml"
HISTORY: Final = "urn:comity:history:0"
HOPS: Final = f"{{{HISTORY}}}hops"
"""Beside the history: how many nodes may still be passed (T2)."""
DELAY: Final = "urn:xmpp:delay"
STANZA_ID: Final = "urn:xmpp:sid:0"
CHAT_STATES: Final = "http://jabber.org/protocol/chatstates"
HINTS: Final = "urn:xmpp:hints"
PROTECTION: Final = "urn:comity:protection:0"
"""What a message requires of every hop (``protection.py``); also the feature that says a server keeps it."""

FORM: Final = "urn:comity:form:0"
"""In which form a message was delivered: ``wants`` asks, ``form`` is our server's answer to who asked."""
WANTS_FORM: Final = f"{{{FORM}}}wants"
FORM_ELEMENT: Final = f"{{{FORM}}}form"

SEALED: Final = {
    "eu.siacs.conversations.axolotl": "OMEMO",
    "urn:xmpp:omemo:1": "OMEMO",
    "urn:xmpp:omemo:2": "OMEMO",
    "urn:xmpp:openpgp:0": "OpenPGP for XMPP",
    "jabber:x:encrypted": "OpenPGP (XEP-0027)",
    "urn:xmpp:otr:0": "OTR",
}
"""Encryptions that only XMPP programs read: beside them the body says that one cannot read it (XEP-0380, XEP-0384, XEP-0373)."""
OTR: Final = "?OTR"
"""Begins what OTR puts into a body."""

RECEIPTS: Final = "urn:xmpp:receipts"
MARKERS: Final = "urn:xmpp:chat-markers:0"
REQUEST: Final = f"{{{RECEIPTS}}}request"
MARKABLE: Final = f"{{{MARKERS}}}markable"
#: What a program tells of a message it got, with the message's id (XEP-0184, XEP-0333), and what that is in RFC 5438.
TOLD: Final = {
    f"{{{RECEIPTS}}}received": "delivered",
    f"{{{MARKERS}}}received": "delivered",
    f"{{{MARKERS}}}displayed": "displayed",
    f"{{{MARKERS}}}acknowledged": "displayed",
}
ASKED: Final = "imdn-"
"""Begins the id of a stanza made here whose sender, by another protocol, asked what becomes of it: no program's own id does."""

EME: Final = "urn:xmpp:eme:0"
"""XEP-0380: says of a stanza how it is encrypted, to who cannot decrypt it."""

PRIVATE: Final = "{urn:xmpp:carbons:2}private"
NO_COPY: Final = f"{{{HINTS}}}no-copy"

BODY: Final = f"{{{CLIENT}}}body"
SUBJECT: Final = f"{{{CLIENT}}}subject"
THREAD: Final = f"{{{CLIENT}}}thread"
KINDS: Final = frozenset({"normal", "chat", "headline"})

#: Elements only a server may put into a message (X-60 to X-64): taken away from whatever a client sends.
_SERVER_NAMESPACES: Final = frozenset({"urn:xmpp:forward:0", DELAY, "jabber:x:delay", HISTORY, FORM})
_SERVER_PREFIXES: Final = ("urn:xmpp:carbons:", "urn:xmpp:mam:")
#: Children that say nothing once the moment has passed.
PASSING: Final = frozenset({CHAT_STATES, HINTS})
_LANGUAGE = re.compile(r"[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*")


def is_server_only(child: Element) -> bool:
    """True for what no client may put into a message."""
    namespace = child.namespace
    if namespace in _SERVER_NAMESPACES or namespace.startswith(_SERVER_PREFIXES) or child.name == wire.ERROR:
        return True
    return namespace == STANZA_ID and (child.local == "stanza-id" or "by" in child.attributes)


def sealed_by(children: Iterable[Element]) -> str:
    """The encryption a message's content is under that only XMPP programs read, "" if it is none of those known here."""
    for child in children:
        if child.name == f"{{{EME}}}encryption" and child.get("namespace") != E2E:
            namespace = child.get("namespace")
            return SEALED.get(namespace) or shown(child.get("name"))[:32] or "something unknown"
        if child.namespace in SEALED and child.local in ("encrypted", "openpgp", "x"):
            return SEALED[child.namespace]
        if child.name == BODY and child.text.startswith(OTR):
            return SEALED["urn:xmpp:otr:0"]
    return ""


def language_tag(tag: str) -> str:
    """``tag`` if it is shaped like a language tag, else ""."""
    return tag if _LANGUAGE.fullmatch(tag) else ""


def detail_element(name: str) -> Element | None:
    """The detail of an error condition: of RFC 3923 (T3), or ours (T11); None if it has none."""
    namespace = PROTECTION if name == "protection-unavailable" else E2E
    return Element(f"{{{namespace}}}{name}") if name else None


def shown(text: str) -> str:
    """``text`` if XML can hold it, else ""."""
    return text if is_xml_text(text) else ""
