"""Writing a message/cpim object, once (RFC 3862 section 2.3.1).

Place on the path: step 4, only for a native message that holds no object, and the clients. The octets made here are
what everybody after us forwards and verifies, so their form is fixed: From, To, cc, DateTime, Subject, Message-ID,
further headers, then the content's headers; no Content-Transfer-Encoding (RFC 3862 section 7.1 allows none inside).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from comity.cpim.address import Address
from comity.cpim.header import (
    IMDN,
    NamedAddress,
    escape,
    is_absolute_uri,
    is_header_name,
    is_language,
    is_token,
    is_tokens,
    quoted,
)
from comity.errors import LocalProtocolError

#: The content type of text made by Comity (FMT-44).
PLAIN = "text/plain; charset=utf-8"

#: One subject, or (language, text) pairs, or a map; the language "" or "i-default" is written without a tag.
Subjects = str | Sequence[tuple[str, str]] | Mapping[str, str]

#: Somebody to name in From, To or cc; a plain string is a URI.
Named = NamedAddress | Address | str

_MIME_NAME = re.compile(r"[!-9;-~]+")
_MIME_VALUE = re.compile(r"[^\x00-\x1f\x7f]+")


def compose(
    *,
    from_: Named,
    to: Named | Sequence[Named],
    content: bytes,
    cc: Sequence[Named] = (),
    date_time: datetime | None = None,
    subject: Subjects = "",
    message_id: str = "",
    headers: Sequence[tuple[str, str]] = (),
    content_type: str = PLAIN,
    content_headers: Sequence[tuple[str, str]] = (),
    keep_encoding: bool = False,
) -> bytes:
    """Write an object; the same arguments give the same octets.

    Args:
        from_: the sender; a plain string is a URI without a formal name.
        to: one recipient or several.
        content: octets of the content, taken as they are; text should have CR LF line ends.
        cc: further recipients.
        date_time: aware; written in UTC, to the second or the millisecond.
        subject: spaces around it are dropped, since RFC 3862 has no way to write them.
        message_id: a token, see ``new_message_id``.
        headers: further (``[prefix.]name``, text) pairs, declarations (NS) included, in order.
        content_type: value of the content's Content-Type.
        content_headers: further MIME headers of the content.
        keep_encoding: let them hold the Content-Transfer-Encoding a native content came with, so that its octets need
            not be re-made; Comity itself never adds one (SEED-25).

    Raises:
        LocalProtocolError: something cannot be expressed.
    """
    recipients = [to] if isinstance(to, str | NamedAddress | Address) else to
    if not recipients:
        raise LocalProtocolError("a message/cpim object needs a recipient")
    lines = ["From: " + _address(from_)]
    lines += ["To: " + _address(address) for address in recipients]
    lines += ["cc: " + _address(address) for address in cc]
    if date_time is not None:
        lines.append("DateTime: " + timestamp(date_time))
    if subject:
        lines += _subject_lines(subject)
    if message_id:
        if not is_token(message_id):
            raise LocalProtocolError("a Message-ID must be a token")
        lines += [f"NS: imdn <{IMDN}>", "imdn.Message-ID: " + message_id]
    lines += [_header(name, text) for name, text in headers]
    lines += ["", _mime_header("Content-Type", content_type)]
    for name, value in content_headers:
        if name.lower() == "content-type" or (name.lower() == "content-transfer-encoding" and not keep_encoding):
            raise LocalProtocolError(f"{name} may not be among the further content headers")
        lines.append(_mime_header(name, value))
    lines += ["", ""]
    try:
        return "\r\n".join(lines).encode("utf-8") + content
    except UnicodeEncodeError:
        raise LocalProtocolError("a header holds a lone surrogate, which UTF-8 cannot express") from None


def timestamp(when: datetime) -> str:
    """Write an aware time as RFC 3339 in UTC."""
    if when.tzinfo is None:
        raise LocalProtocolError("a DateTime needs a time zone")
    at = when.astimezone(UTC).replace(tzinfo=None)
    return at.isoformat(timespec="milliseconds" if at.microsecond >= 1000 else "seconds") + "Z"


def _address(address: Named) -> str:
    if isinstance(address, NamedAddress):
        name, uri = address
    else:
        name, uri = "", str(address)
    if not is_absolute_uri(uri):
        raise LocalProtocolError("an address must be an absolute URI, percent-encoded")
    if not name:
        return f"<{uri}>"
    return f"{name if is_tokens(name) else quoted(name)} <{uri}>"


def _subject_lines(subject: Subjects) -> list[str]:
    if isinstance(subject, str):
        pairs: Sequence[tuple[str, str]] = [("", subject)]
    else:
        pairs = list(subject.items()) if isinstance(subject, Mapping) else subject
    lines = []
    for language, text in pairs:
        text = text.strip(" ")
        if not text:
            continue
        if language in ("", "i-default"):
            lines.append("Subject: " + escape(text))
        elif is_language(language):
            lines.append(f"Subject:;lang={language} {escape(text)}")
        else:
            raise LocalProtocolError("the language of a subject is not a language tag")
    return lines


def _header(name: str, text: str) -> str:
    if not is_header_name(name):
        raise LocalProtocolError("a header name holds a character that RFC 3862 does not allow")
    if not text or text[0] == " " or text[-1] == " ":
        raise LocalProtocolError("a header value must not be empty nor start or end with a space")
    return f"{name}: {escape(text)}"


def _mime_header(name: str, value: str) -> str:
    if not _MIME_NAME.fullmatch(name) or not _MIME_VALUE.fullmatch(value):
        raise LocalProtocolError("a content header cannot be written on one line")
    return f"{name}: {value}"
