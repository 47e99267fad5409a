"""Between SIP MESSAGE and the message operation; failure reasons and status codes. Pure.

Place on the path: steps 4 and 8. In: a text or any other single content is wrapped into a message/cpim once; an
object and a secured entity stay as they are (GW-1). Out: a device that takes message/cpim gets the object's octets;
others get the text of an unsecured one (GW-2). The tables are T1, T3, T4 and T8 of conformance.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from ipaddress import ip_address

from comity.bindings.sip.coding import ACCEPT_ENCODING, coding_of, decoded, is_known
from comity.bindings.sip.conditions import code_of, word_of
from comity.bindings.sip.forms import Form, body_of
from comity.bindings.sip.headers import clean_text, quoted, unquoted
from comity.bindings.sip.history import history_headers, parse_history
from comity.bindings.sip.message import SipRequest, SipResponse, long_name
from comity.bindings.sip.protection import parse_protection, protection_headers
from comity.bindings.sip.reports import form_headers, parse_form, report_headers
from comity.bindings.sip.uri import SipUri
from comity.cpim.address import Address, from_sip_uri, to_sip_uri
from comity.cpim.composing import COMPOSING_TYPE
from comity.cpim.entity import CPIM_TYPE, SECURED, content_type_params
from comity.cpim.names import Names
from comity.cpim.native import wrap
from comity.cpim.operations import (
    Context,
    MessageOperation,
    MimeObject,
    Reason,
    Response,
    Status,
    failure,
    success,
)
from comity.cpim.said import said
from comity.errors import AddressError, ComityError, LocalProtocolError, RemoteProtocolError

#: Failure reason to status code (T1, T8); the wording of T8 where the RFC gives one.
STATUS_CODES: dict[Reason, tuple[int, str]] = {
    Reason.SYNTAX: (400, ""),
    Reason.NO_SUCH_USER: (404, ""),
    Reason.NO_ROUTE: (404, ""),
    Reason.TIMEOUT: (408, ""),
    Reason.DENIED: (403, ""),
    Reason.AWAY: (480, ""),
    Reason.SIZE: (413, ""),
    Reason.CONTENT: (415, ""),
    Reason.HOPS: (483, ""),
    Reason.LOOP: (482, "Loop Detected"),
    Reason.SUBSCRIPTION_EXISTS: (403, ""),
    Reason.INTERNAL: (500, ""),
    Reason.OVERLOAD: (503, ""),
    Reason.QUOTA: (480, "Mailbox Full"),
    Reason.EXPIRED: (480, "Message Expired"),
    Reason.TIMESTAMP: (400, "Incorrect Date or Time"),
    Reason.SIGNATURE: (403, "Signature Not Verified"),
    Reason.DECRYPTION: (493, ""),
    Reason.UNSERVED: (403, "Service Not Offered"),
    Reason.PROTECTION: (403, "Protection Not Available"),
    Reason.NO_PUBLICATION: (412, ""),
}
#: Status code to failure reason (T3, read through T1); other codes by their class, see ``reason_of``.
REASONS: dict[int, Reason] = {
    400: Reason.SYNTAX,
    401: Reason.DENIED,
    403: Reason.DENIED,
    404: Reason.NO_SUCH_USER,
    405: Reason.CONTENT,
    406: Reason.CONTENT,
    407: Reason.DENIED,
    408: Reason.TIMEOUT,
    410: Reason.NO_SUCH_USER,
    412: Reason.NO_PUBLICATION,
    413: Reason.SIZE,
    415: Reason.CONTENT,
    416: Reason.CONTENT,
    420: Reason.CONTENT,
    421: Reason.CONTENT,
    430: Reason.AWAY,
    480: Reason.AWAY,
    481: Reason.NO_SUCH_USER,
    482: Reason.LOOP,
    483: Reason.HOPS,
    484: Reason.NO_SUCH_USER,
    485: Reason.NO_SUCH_USER,
    486: Reason.AWAY,
    487: Reason.AWAY,
    488: Reason.CONTENT,
    493: Reason.DECRYPTION,
    501: Reason.CONTENT,
    503: Reason.OVERLOAD,
    504: Reason.TIMEOUT,
    505: Reason.CONTENT,
    513: Reason.SIZE,
    603: Reason.DENIED,
    604: Reason.NO_SUCH_USER,
    606: Reason.CONTENT,
}
_BY_CLASS = {3: Reason.NO_ROUTE, 4: Reason.SYNTAX, 5: Reason.INTERNAL, 6: Reason.AWAY}
#: What only the phrase tells: RFC 3428 section 11.4 has the first, T8 the second (ours), T11 the third (ours).
PHRASES: dict[tuple[int, str], Reason] = {
    (STATUS_CODES[reason][0], STATUS_CODES[reason][1].lower()): reason
    for reason in (Reason.TIMESTAMP, Reason.SIGNATURE, Reason.UNSERVED, Reason.PROTECTION)
}
#: Answers to a whole object after which a device is asked to show its text instead.
NOT_UNDERSTOOD = frozenset({406, 415, 420, 488})
#: Those of them that speak of the type, and will the next time too (420 is about what the message requires).
TYPE_REFUSED = frozenset({406, 415, 488})

_LANGUAGE = re.compile(r"[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*")
_CALL_ID = re.compile(r"[A-Za-z0-9\-.!%*_+~:@]{1,128}")
_WARNING = re.compile(r'399 \S+ ("(?:[^"\\]|\\.)*")')


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that makes no operation."""

    status_code: int
    text: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Edge:
    """How the envelope of a peer server's request is read."""

    names: Names
    """What people are called on its link."""
    source: str = ""
    """URI of the sender where another header than From says it."""
    destination: Address | None = None
    """The recipient, as the link calls them, where the Request-URI is a Contact of ours."""


# --- step 4: in -------------------------------------------------------------------------------------------------


def request_to_operation(
    request: SipRequest, *, when: datetime, message_id: str, edge: Edge | None = None
) -> MessageOperation | Refusal:
    """Make the message operation of a MESSAGE request (RFC 3428 section 7, T4).

    Args:
        request: passed by the session; its sender is not authenticated here.
        when: time of receipt, aware UTC.
        message_id: for the object, should one have to be made.
        edge: for a request of a peer server.
    """
    try:
        return _operation(request, when, message_id, edge)
    except RemoteProtocolError as error:
        return Refusal(int(error.hint) if error.hint.isdigit() else 400, error.reason)
    except AddressError as error:
        return Refusal(404 if error.text == request.uri_text else 400, error.reason)
    except LocalProtocolError:
        return Refusal(400, "the content cannot be expressed in message/cpim")


def envelope_of(request: SipRequest, edge: Edge | None) -> tuple[Address, str, Address, str]:
    """Sender and recipient as the request names them, each with the device it names ("gr"). Raises AddressError."""
    source, source_gr = address_of((edge and edge.source) or str(request.from_.uri))
    if edge is not None and edge.destination is not None:
        return source, source_gr, edge.destination, ""
    return source, source_gr, *address_of(request.uri_text)


def _operation(request: SipRequest, when: datetime, message_id: str, edge: Edge | None) -> MessageOperation | Refusal:
    if not is_known(coding_of(request)):
        return Refusal(415, headers=(("Accept-Encoding", ACCEPT_ENCODING),))
    request = decoded(request)
    if request.max_forwards == 0:
        # "the gateway MUST NOT forward" (RFC 3860 section 3.4.2): to whatever device, it would be one hop more.
        return Refusal(483)
    source, source_gr, destination, gr = envelope_of(request, edge)
    if edge is not None and not edge.names.is_plain:
        sender, recipient = edge.names.to_core(source), edge.names.to_core(destination)
        if sender is None or recipient is None:
            return Refusal(403 if sender is None else 404)
        source, destination = sender, recipient
    content_type = request.content_type
    if not content_type:
        if request.body:
            return Refusal(400, "a body needs a Content-Type")
        content_type = "text/plain"
    media_type = content_type_params(content_type)[0]
    languages = request.listed("content-language")
    language = languages[0] if languages and _LANGUAGE.fullmatch(languages[0]) else ""
    subject = clean_text(request.value("subject") or "")
    is_object = media_type == CPIM_TYPE or media_type in SECURED
    if is_object:
        obj = MimeObject(header_block(request), request.body)
    else:
        obj = wrap(
            source,
            destination,
            request.body,
            _with_charset(content_type, media_type, request.body),
            when=when,
            message_id=message_id,
            subjects=[(language, subject)] if subject else (),
            language=language,
            content_headers=_extra_headers(request),
        )
    context = Context(
        thread=_thread(request.call_id),
        subject=subject,
        language=language,
        source_resource=source_gr,
        resource=gr,
        native_id=request.call_id,
        lifetime=_lifetime(request, when),
        transient=media_type == COMPOSING_TYPE,
    )
    max_forwards = request.max_forwards
    return MessageOperation(
        source,
        destination,
        request.via.branch or f"{request.call_id}/{request.cseq.number}",
        obj,
        min(70, 70 if max_forwards is None else max_forwards),
        context,
        parse_history(request),
        is_wrapped=not is_object,
        requirements=parse_protection(request),
    )


def address_of(uri: str) -> tuple[Address, str]:
    """The address that a URI of a request names, and the device ("gr") if it names one. Raises AddressError."""
    return from_sip_uri(uri) if uri[:3].lower() == "sip" else (Address.from_any(uri), "")


def _with_charset(content_type: str, media_type: str, content: bytes) -> str:
    """Say the charset that SIP implies: UTF-8 (RFC 3261 section 7.4.1), where MIME would imply US-ASCII."""
    if media_type != "text/plain" or content.isascii() or "charset" in content_type_params(content_type)[1]:
        return content_type
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return content_type
    return f"{content_type}; charset=utf-8"


def header_block(request: SipRequest) -> bytes:
    """The entity's MIME headers, written from the request's Content-* headers (never Content-Length)."""
    lines = [f"Content-Type: {request.content_type}\r\n"]
    lines += [f"{name}: {value}\r\n" for name, value in _extra_headers(request)]
    languages = request.value("content-language")
    if languages:
        lines.append(f"Content-Language: {clean_text(languages)}\r\n")
    return "".join(lines).encode("utf-8", "surrogateescape")


def _extra_headers(request: SipRequest) -> list[tuple[str, str]]:
    found = []
    for written, value in request.headers:
        name = long_name(written)
        if name.startswith("content-") and name not in _OWN_HEADERS:
            found.append((name.title().replace("-Id", "-ID"), value))
    return found


_OWN_HEADERS = frozenset({"content-type", "content-length", "content-encoding", "content-language"})


def _thread(call_id: str) -> str:
    """Call-ID as thread (RFC 7572 section 4), without the sender's IP address that many phones put in (SEC-37)."""
    word, at, host = call_id.partition("@")
    if at:
        try:
            ip_address(host.rpartition(":")[0] if host.count(":") == 1 else host.strip("[]"))
        except ValueError:
            return call_id
    return word


def _lifetime(request: SipRequest, when: datetime) -> float | None:
    """Seconds left of Expires, which counts from Date, else from receipt (RFC 3428 section 7)."""
    if request.expires is None:
        return None
    date = request.value("date")
    if date is None:
        return float(request.expires)
    try:
        sent = parsedate_to_datetime(date)
        # RFC 3261 section 20.17: SIP restricts the time zone to GMT.
        if not date.endswith("GMT"):
            raise ValueError("not GMT")
    except (ValueError, TypeError, IndexError) as error:
        raise RemoteProtocolError("Date is not an RFC 1123 date in GMT", hint="400") from error
    ends = sent.replace(tzinfo=UTC) + timedelta(seconds=min(request.expires, 10**9))
    return max(0.0, (ends - when).total_seconds())


# --- step 8: out ------------------------------------------------------------------------------------------------


def operation_to_request(
    operation: MessageOperation,
    form: Form,
    *,
    target: str,
    tag: str,
    call_id: str,
    accepted: datetime,
    max_forwards: int = 70,
    is_last_hop: bool = False,
    receipt_id: str = "",
) -> SipRequest | None:
    """Make the MESSAGE request for one device, without Via (RFC 3428 section 4, T4); None if ``form`` is impossible.

    Args:
        operation: what to deliver.
        form: what of it.
        target: the device's Contact URI.
        tag: From-tag, constant over attempts (reliability.md section 5.3).
        call_id: Call-ID where the operation's thread cannot serve as one; constant too.
        accepted: when the message was accepted here; becomes Date.
        max_forwards: hop limit to leave with at most.
        is_last_hop: the request goes straight to the recipient's device (see ``protection_headers``).
        receipt_id: Call-ID of what is no object and of which the sender wants to hear: by that alone a phone's notification can
            name it, and messages of one thread have to differ.
    """
    body = body_of(operation, form)
    if body is None:
        return None
    content_headers, octets, subject, language = body
    context = operation.context
    if _CALL_ID.fullmatch(context.thread):
        call_id = context.thread
    if receipt_id and context.asks and form is not Form.OBJECT and context.report is None:
        call_id = receipt_id
    headers = [
        ("Max-Forwards", str(max(0, min(operation.max_forwards, max_forwards)))),
        ("From", f"<{to_sip_uri(operation.source, context.source_resource)}>;tag={tag}"),
        ("To", f"<{to_sip_uri(operation.destination, context.resource)}>"),
        ("Call-ID", call_id),
        ("CSeq", "1 MESSAGE"),
        ("Date", format_datetime(accepted.astimezone(UTC), usegmt=True)),
    ]
    if subject := clean_text(subject or context.subject):
        headers.append(("Subject", subject[:512]))
    if context.lifetime is not None:
        headers.append(("Expires", str(int(context.lifetime))))
    if language and _LANGUAGE.fullmatch(language):
        headers.append(("Content-Language", language))
    if form is Form.OBJECT:
        headers += history_headers(operation.history)
        headers += report_headers(context.report) if context.report is not None else []
    headers += protection_headers(operation.requirements, is_last_hop=is_last_hop)
    return SipRequest("MESSAGE", target, headers + content_headers, octets)


# --- answers ----------------------------------------------------------------------------------------------------


def response_to_status(response: Response) -> tuple[int, str, list[tuple[str, str]]]:
    """Status code, reason phrase ("" for the usual one) and headers of an operation's response (T1)."""
    if response.status is Status.SUCCESS:
        return 200, "", form_headers(response.form, response.at)
    if response.status is Status.INDETERMINANT:
        return 202, "", []
    status_code, phrase = STATUS_CODES[response.reason or Reason.INTERNAL]
    exact = code_of(response.condition)
    if exact is not None:
        status_code, phrase = exact, ""
    headers: list[tuple[str, str]] = []
    if response.retry_after is not None:
        headers.append(("Retry-After", str(response.retry_after)))
    elif status_code == 503:
        headers.append(("Retry-After", "30"))
    if status_code == 415:
        headers.append(("Accept", ACCEPT))
    if response.text:
        # The sentence for a person (RFC 3261 section 20.43: code 399 is any text).
        headers.append(("Warning", f"399 comity {quoted(clean_text(response.text)[:256])}"))
    return status_code, phrase, headers


#: What a MESSAGE to us may hold; the last is meant: every single type is carried (SIP-1, SIP-8).
ACCEPT = "message/cpim, text/plain, multipart/signed, multipart/encrypted, application/pkcs7-mime, */*"


def reason_of(status_code: int, phrase: str = "") -> Reason:
    """Failure reason of a final answer that is not 2xx (T3, T8)."""
    told = PHRASES.get((status_code, phrase.strip().lower())) or REASONS.get(status_code)
    return told or _BY_CLASS.get(status_code // 100, Reason.INTERNAL)


def status_to_response(trans_id: str, answer: SipResponse, form: Form, *, is_server: bool = False) -> Response:
    """The response of an operation from a final answer: a device's, or a server's, which may have handed it on as a text."""
    if answer.status_code < 300:
        taken, at = parse_form(answer) if is_server else ("", "")
        if form is Form.OBJECT and taken:
            return success(trans_id, taken, at)
        return success(trans_id, form.value if form is not Form.NATIVE else "text")
    retry_after: int | None = None
    text = (answer.value("retry-after") or "").partition(";")[0].partition("(")[0].strip()
    if text.isascii() and text.isdigit() and len(text) <= 6:
        retry_after = int(text)
    phrase = said(answer.reason)[:80]
    words = f"The answer was {answer.status_code}" + (f" {phrase}." if phrase else ".")
    warning = _WARNING.match(answer.value("warning") or "")
    if warning is not None:
        words = said(unquoted(warning[1]))
    reason = reason_of(answer.status_code, answer.reason)
    # What only a phrase says, or T8 has words of its own for, is said more exactly by the reason.
    is_known = reason in PHRASES.values() or reason is Reason.DECRYPTION
    condition = "" if is_known else word_of(answer.status_code)
    return failure(trans_id, reason, words, retry_after, condition=condition)


def can_be_user(uri: SipUri) -> bool:
    """False for a user part that is no plain account name: not UTF-8, or with characters RFC 7622 section 3.3.1 bars."""
    if not uri.user:
        return True
    try:
        return not set("\"&'/:<>@") & set(from_sip_uri(str(uri.without_extras))[0].folded().local)
    except ComityError:
        return False


def is_sender(uri: str, principal: Address) -> bool:
    """True if a From URI names the authenticated user and nobody else (S-06, S-12, S-13)."""
    try:
        sender = Address.from_any(uri)
        # Our own users are named without regard to case (ADDR-4); the principal is written as its account is.
        return sender.key == principal.key or sender.folded().key == principal.key
    except ComityError:
        return False
