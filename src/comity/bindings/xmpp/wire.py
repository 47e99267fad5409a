"""XMPP's words on the wire: namespaces, stream tags, errors, stanza errors.

Place on the path: steps 2 and 9. ``comity.xml.StreamReader`` gives element trees; this module names what is in
them and builds what goes out. Everything written passes ``encode``, which uses one set of canonical prefixes.
"""

from __future__ import annotations

from typing import Final

from comity.errors import RemoteProtocolError
from comity.xml import XML_LANG, CData, Element, RootClosed, RootOpened, StreamReader, XmlLimits, serialize, start_tag

CLIENT: Final = "jabber:client"
STREAMS: Final = "http://etherx.jabber.org/streams"
TLS: Final = "urn:ietf:params:xml:ns:xmpp-tls"
SASL: Final = "urn:ietf:params:xml:ns:xmpp-sasl"
SASL_CHANNEL_BINDING: Final = "urn:xmpp:sasl-cb:0"
BIND: Final = "urn:ietf:params:xml:ns:xmpp-bind"
SESSION: Final = "urn:ietf:params:xml:ns:xmpp-session"
STANZAS: Final = "urn:ietf:params:xml:ns:xmpp-stanzas"
STREAM_ERRORS: Final = "urn:ietf:params:xml:ns:xmpp-streams"
SM: Final = "urn:xmpp:sm:3"
CSI: Final = "urn:xmpp:csi:0"
ERRORS: Final = "urn:xmpp:errors"
COMITY_ERRORS: Final = "urn:comity:errors:0"

PREFIXES: Final = {STREAMS: "stream"}
STREAM: Final = f"{{{STREAMS}}}stream"
MESSAGE: Final = f"{{{CLIENT}}}message"
PRESENCE: Final = f"{{{CLIENT}}}presence"
IQ: Final = f"{{{CLIENT}}}iq"
ERROR: Final = f"{{{CLIENT}}}error"
STANZA_NAMES: Final = frozenset({MESSAGE, PRESENCE, IQ})

STREAM_CLOSE: Final = b"</stream:stream>"
KEEPALIVE: Final = b" "

#: Type that goes with each stanza error condition (RFC 6120 section 8.3.3; T3 of conformance.md).
CONDITION_TYPES: Final = {
    "bad-request": "modify",
    "conflict": "cancel",
    "feature-not-implemented": "cancel",
    "forbidden": "auth",
    "gone": "cancel",
    "internal-server-error": "cancel",
    "item-not-found": "cancel",
    "jid-malformed": "modify",
    "not-acceptable": "modify",
    "not-allowed": "cancel",
    "not-authorized": "auth",
    "policy-violation": "modify",
    "recipient-unavailable": "wait",
    "redirect": "modify",
    "registration-required": "auth",
    "remote-server-not-found": "cancel",
    "remote-server-timeout": "wait",
    "resource-constraint": "wait",
    "service-unavailable": "cancel",
    "subscription-required": "auth",
    "undefined-condition": "cancel",
    "unexpected-request": "wait",
}

#: Stream error conditions a reader may give as hint (RFC 6120 section 4.9.3).
STREAM_CONDITIONS: Final = frozenset(
    {
        "bad-format",
        "bad-namespace-prefix",
        "conflict",
        "connection-timeout",
        "host-gone",
        "host-unknown",
        "improper-addressing",
        "internal-server-error",
        "invalid-from",
        "invalid-namespace",
        "invalid-xml",
        "not-authorized",
        "not-well-formed",
        "policy-violation",
        "remote-connection-failed",
        "reset",
        "resource-constraint",
        "restricted-xml",
        "see-other-host",
        "system-shutdown",
        "undefined-condition",
        "unsupported-encoding",
        "unsupported-feature",
        "unsupported-stanza-type",
        "unsupported-version",
    }
)

PRE_AUTH_LIMITS: Final = XmlLimits(octets=8 * 1024, elements=32)
"""ejabberd 2026: 8,192 octets and 32 elements."""
STANZA_LIMITS: Final = XmlLimits()

Unit = RootOpened | Element | RootClosed


def encode(element: Element) -> bytes:
    """Octets of a top-level element on a stream, of whatever content namespace: see ``as_client``."""
    return serialize(element, CLIENT, PREFIXES)


def stream_header(attributes: dict[str, str], namespace: str = CLIENT) -> bytes:
    """XML declaration and opening tag of a stream with that content namespace (RFC 6120 section 4.7)."""
    return b"<?xml version='1.0'?>" + start_tag(Element(STREAM, attributes), namespace, PREFIXES)


def as_client(element: Element, namespace: str) -> Element:
    """What stands in a stream's own content namespace, called as in a client's (RFC 6120 section 4.8.3); changed in place.

    Nothing else has to know what kind of stream a stanza came by. Going out there is nothing to do: ``encode`` writes what
    is in jabber:client without a namespace, and so it gets the stream's."""
    prefix = f"{{{namespace}}}"
    waiting = [element]
    while waiting:
        one = waiting.pop()
        if one.name.startswith(prefix):
            one.name = f"{{{CLIENT}}}{one.local}"
            waiting += one.elements()
    return element


def check_header(opened: RootOpened, namespace: str = CLIENT) -> None:
    """Check names and namespaces of a stream header (RFC 6120 section 4.8).

    Args:
        opened: the header.
        namespace: the content namespace expected.

    Raises:
        RemoteProtocolError: with the stream error condition as hint.
    """
    root = opened.element
    if root.namespace != STREAMS:
        raise RemoteProtocolError("the root is not in the streams namespace", hint="invalid-namespace")
    if root.local != "stream":
        raise RemoteProtocolError("the root is not a stream", hint="bad-format")
    default = opened.namespaces.get("", "")
    if default not in (namespace, "", STREAMS):  # the last one: prefix-free (RFC 6120 section 4.8.5)
        raise RemoteProtocolError(f"the content namespace is not {namespace}", hint="invalid-namespace")


def stream_error(condition: str, text: str = "", application: Element | None = None) -> Element:
    """A stream error (RFC 6120 section 4.9)."""
    children: list[Element | str] = [Element(f"{{{STREAM_ERRORS}}}{condition}")]
    if text:
        children.append(Element(f"{{{STREAM_ERRORS}}}text", {XML_LANG: "en"}, [text]))
    if application is not None:
        children.append(application)
    return Element(f"{{{STREAMS}}}error", {}, children)


def error_of(element: Element) -> tuple[str, str]:
    """Condition and text of a stream error, SASL failure or stanza's ``error`` child."""
    condition, text = "undefined-condition", ""
    for child in element.elements():
        if child.namespace not in (STREAM_ERRORS, SASL, STANZAS):
            continue
        if child.local == "text":
            text = child.text
        else:
            condition = child.local
    return condition, text


def error_element(
    condition: str, text: str = "", *, kind: str = "", by: str = "", application: Element | None = None
) -> Element:
    """The ``error`` child of a stanza (RFC 6120 section 8.3.2)."""
    attributes = {"type": kind or CONDITION_TYPES[condition]}
    if by:
        attributes["by"] = by
    children: list[Element | str] = [Element(f"{{{STANZAS}}}{condition}")]
    if text:
        children.append(Element(f"{{{STANZAS}}}text", {XML_LANG: "en"}, [text]))
    if application is not None:
        children.append(application)
    return Element(ERROR, attributes, children)


def error_reply(
    stanza: Element,
    condition: str,
    text: str = "",
    *,
    kind: str = "",
    sender: str | None = None,
    application: Element | None = None,
) -> Element | None:
    """The error stanza that answers ``stanza``, or None where none may be sent (RFC 6120 section 8.3.1).

    Never an error for an error, nor for an iq result (XMPP-6). ``sender``: address to answer from; by default
    the stanza's ``to``.
    """
    if stanza.get("type") == "error" or (stanza.name == IQ and stanza.get("type") == "result"):
        return None
    attributes = {"type": "error"}
    origin = stanza.get("to") if sender is None else sender
    if origin:
        attributes["from"] = origin
    if stanza.get("from"):
        attributes["to"] = stanza.get("from")
    if stanza.get("id"):
        attributes["id"] = stanza.get("id")
    return Element(stanza.name, attributes, [error_element(condition, text, kind=kind, application=application)])


def iq_result(stanza: Element, payload: Element | None = None) -> Element:
    """The result that answers an iq."""
    attributes = {"type": "result", "id": stanza.get("id")}
    if stanza.get("to"):
        attributes["from"] = stanza.get("to")
    if stanza.get("from"):
        attributes["to"] = stanza.get("from")
    return Element(IQ, attributes, [payload] if payload is not None else [])


def child_of_client(name: str) -> str:
    """Clark name of ``name`` in jabber:client."""
    return f"{{{CLIENT}}}{name}"


__all__ = [
    "BIND",
    "CLIENT",
    "CONDITION_TYPES",
    "CSI",
    "ERROR",
    "IQ",
    "KEEPALIVE",
    "MESSAGE",
    "PRESENCE",
    "PRE_AUTH_LIMITS",
    "SASL",
    "SASL_CHANNEL_BINDING",
    "SESSION",
    "SM",
    "STANZAS",
    "STANZA_LIMITS",
    "STANZA_NAMES",
    "STREAM",
    "STREAMS",
    "STREAM_CLOSE",
    "STREAM_CONDITIONS",
    "STREAM_ERRORS",
    "TLS",
    "CData",
    "Element",
    "RootClosed",
    "RootOpened",
    "StreamReader",
    "Unit",
    "as_client",
    "check_header",
    "child_of_client",
    "encode",
    "error_element",
    "error_of",
    "error_reply",
    "iq_result",
    "stream_error",
    "stream_header",
]
