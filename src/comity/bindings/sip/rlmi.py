"""State of many resources in one NOTIFY (RFC 4662 section 5), and the list a SUBSCRIBE brings along (RFC 5367). Pure.

Place on the path: steps 4 and 8 of list subscriptions, for ``lists.py``. The first part of a multipart/related is the meta-information
(application/rlmi+xml), the others are the documents of its resources, whose octets are never touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from comity.bindings.sip.coding import ACCEPT_ENCODING, coding_of, decoded, is_known
from comity.bindings.sip.mapping import Refusal
from comity.bindings.sip.message import SipRequest
from comity.cpim.operations import MimeObject
from comity.errors import RemoteProtocolError
from comity.xml import Element, XmlLimits, is_xml_text, parse_document, serialize

RLMI: Final = "urn:ietf:params:xml:ns:rlmi"
RLMI_TYPE: Final = "application/rlmi+xml"
LISTS: Final = "urn:ietf:params:xml:ns:resource-lists"
LISTS_TYPE: Final = "application/resource-lists+xml"
#: A list that comes with a request: some 500 people.
BODY_LIMITS: Final = XmlLimits(octets=64 * 1024, depth=16, elements=2048, attributes=16, namespaces=16)


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource as it stands in a notification."""

    uri: str
    name: str = ""
    state: str = ""
    """Of its virtual subscription: active, pending or terminated; "" if nothing is known yet."""
    reason: str = ""
    """Why it is terminated."""
    document: MimeObject | None = None
    """Its state, if that is active."""


def write_state(uri: str, version: int, resources: Sequence[Resource], *, is_full: bool) -> MimeObject:
    """One notification body.

    Args:
        uri: of the list.
        version: 0 for the first NOTIFY of a subscription, one more for each.
        resources: all of them, or those that changed.
        is_full: these are all of them.
    """
    root = Element(
        f"{{{RLMI}}}list", {"uri": uri, "version": str(version), "fullState": "true" if is_full else "false"}
    )
    parts: list[tuple[str, MimeObject]] = []
    for resource in resources:
        element = Element(f"{{{RLMI}}}resource", {"uri": resource.uri})
        if resource.name and is_xml_text(resource.name):
            element.append(Element(f"{{{RLMI}}}name", children=[resource.name]))
        if resource.state:
            instance = Element(f"{{{RLMI}}}instance", {"id": "1", "state": resource.state})
            if resource.document is not None:
                cid = f"{len(parts) + 1}.{resource.document.fingerprint[:16]}@{version}.list.invalid"
                instance.attributes["cid"] = cid
                parts.append((cid, resource.document))
            if resource.reason:
                instance.attributes["reason"] = resource.reason
            element.append(instance)
        root.append(element)
    meta = b'<?xml version="1.0" encoding="UTF-8"?>\n' + serialize(root)
    start = f"0.{sha256(meta).hexdigest()[:16]}@{version}.list.invalid"
    first = MimeObject.of(f"{RLMI_TYPE};charset=UTF-8", meta)
    return _related([(start, first), *parts])


def _related(parts: Sequence[tuple[str, MimeObject]]) -> MimeObject:
    """A multipart/related whose root is the first part (RFC 2387)."""
    digest = sha256()
    for _, obj in parts:
        digest.update(obj.octets)
    boundary = digest.hexdigest()[:32]
    while any(boundary.encode() in obj.octets for _, obj in parts):
        digest.update(b"again")
        boundary = digest.hexdigest()[:32]
    mark = f"--{boundary}".encode()
    pieces = []
    for cid, obj in parts:
        head = b"Content-Transfer-Encoding: binary\r\nContent-ID: <" + cid.encode() + b">\r\n" + obj.header_block
        pieces.append(mark + b"\r\n" + head + b"\r\n" + obj.octets + b"\r\n")
    # COMPAT Linphone 5.1 crashes on a boundary in quotation marks; this one needs none.
    kind = f'multipart/related;type="{RLMI_TYPE}";start="<{parts[0][0]}>";boundary={boundary}'
    return MimeObject.of(kind, b"".join(pieces) + mark + b"--\r\n")


# --- a list that comes along ------------------------------------------------------------------------------------


def has_list(request: SipRequest) -> bool:
    """True if the body of a SUBSCRIBE is to be the list (RFC 5367 section 4)."""
    return bool(request.body) and request.content_type.partition(";")[0].strip().lower() == LISTS_TYPE


def read_list(request: SipRequest) -> list[tuple[str, str]] | Refusal:
    """URI and name of each entry, in order, nested lists flattened and each URI once.

    COMPAT Linphone compresses the body (deflate); that is taken up to the size a plain one may have."""
    if not is_known(coding_of(request)):
        return Refusal(415, headers=(("Accept-Encoding", ACCEPT_ENCODING),))
    try:
        body = decoded(request, BODY_LIMITS.octets).body
    except RemoteProtocolError as error:
        return Refusal(int(error.hint), "Bad Content-Encoding")
    try:
        root = parse_document(body, BODY_LIMITS)
    except RemoteProtocolError as error:
        return Refusal(413 if error.hint == "policy-violation" else 400, "Bad Resource List")
    if root.name != f"{{{LISTS}}}resource-lists":
        return Refusal(400, "Bad Resource List")
    found: dict[str, str] = {}
    waiting = [root]
    while waiting:
        element = waiting.pop(0)
        for child in element.elements():
            if child.name == f"{{{LISTS}}}list":
                waiting.append(child)
            elif child.name == f"{{{LISTS}}}entry" and child.get("uri").strip():
                display = child.find(f"{{{LISTS}}}display-name")
                found.setdefault(child.get("uri").strip(), display.text.strip() if display else "")
    return list(found.items())
