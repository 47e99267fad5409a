"""Between SIP SUBSCRIBE and the subscribe operation, with the proof in its body (SEC-34). Pure.

Place on the path: steps 4 and 8, as ``mapping.py`` for messages. A signed body is the watcher's proof and is carried as it
stands; any other body (filters, RFC 4660) says nothing about who asks.
"""

from __future__ import annotations

from comity.bindings.sip.mapping import Refusal, address_of, header_block
from comity.bindings.sip.message import SipRequest
from comity.cpim.address import Address, to_sip_uri
from comity.cpim.operations import MimeObject, SubscribeOperation, unfold
from comity.errors import AddressError, LocalProtocolError, RemoteProtocolError

HOUR = 3600
"""Duration without Expires, the default of the presence package (RFC 3856 section 6.4)."""
SIGNED = frozenset({"multipart/signed", "application/pkcs7-mime", "application/x-pkcs7-mime"})
"""Media types of a body that is a proof."""


def request_to_subscription(request: SipRequest, target: Address | None = None) -> SubscribeOperation | Refusal:
    """Make the subscribe operation of a SUBSCRIBE request: From watches the Request-URI (RFC 3856 section 6.6).

    ``target``: whom the dialog it came in is about; there the Request-URI is our Contact.
    """
    try:
        proof = _proof_of(request)
        if isinstance(proof, Refusal):
            return proof
        return SubscribeOperation(
            address_of(str(request.from_.uri))[0].with_scheme("pres"),
            (target or address_of(request.uri_text)[0]).with_scheme("pres"),
            subscript_id(request.call_id, request.from_.tag or ""),
            request.via.branch or f"{request.call_id}/{request.cseq.number}",
            HOUR if request.expires is None else request.expires,
            proof=proof,
        )
    except RemoteProtocolError as error:
        return Refusal(int(error.hint) if error.hint.isdigit() else 400, error.reason)
    except AddressError as error:
        return Refusal(404 if error.text == request.uri_text else 400, error.reason)


def subscript_id(call_id: str, tag: str) -> str:
    """SubscriptID of the dialog that the watcher begins; what a refresh keeps, so what is signed (RFC 6665 section 4.4.1)."""
    return f"{call_id};{tag}"[:256]


def _proof_of(request: SipRequest) -> MimeObject | Refusal | None:
    if not request.body or request.content_type.partition(";")[0].strip().lower() not in SIGNED:
        return None
    if (request.value("content-encoding") or "identity").lower() != "identity":
        return Refusal(415, headers=(("Accept-Encoding", "identity"),))
    return MimeObject(header_block(request), request.body)


def subscription_to_request(
    operation: SubscribeOperation, *, target: str, call_id: str, tag: str, cseq: int = 1, contact: str
) -> SipRequest:
    """Make the SUBSCRIBE request, without Via, with the proof as its body.

    Args:
        operation: its SubscriptID is ``subscript_id(call_id, tag)``.
        target: Request-URI; the presentity's SIP URI outside a dialog.
        call_id: of the dialog.
        tag: of From.
        cseq: higher with each request of the dialog.
        contact: where NOTIFY requests are to go, with angle brackets.

    Raises:
        LocalProtocolError: the SubscriptID is another, so the proof would not fit what is asked.
    """
    if operation.subscript_id != subscript_id(call_id, tag):
        raise LocalProtocolError("the SubscriptID is not that of the dialog")
    watcher, presentity = to_sip_uri(operation.watcher), to_sip_uri(operation.target)
    headers = [
        ("Max-Forwards", "70"),
        ("From", f"<{watcher}>;tag={tag}"),
        ("To", f"<{presentity}>"),
        ("Call-ID", call_id),
        ("CSeq", f"{cseq} SUBSCRIBE"),
        ("Contact", contact),
        ("Event", "presence"),
        ("Expires", str(operation.duration)),
    ]
    if operation.proof is None:
        return SipRequest("SUBSCRIBE", target, headers, b"")
    for line in unfold(operation.proof.header_block):
        name, _, value = line.partition(":")
        headers.append((name.strip(), value.strip()))
    return SipRequest("SUBSCRIBE", target, headers, operation.proof.octets)
