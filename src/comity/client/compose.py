"""Objects a client makes: a message/cpim around a text or any other content.

Place on the path: before step 1, at the sender.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime

from comity.cpim.address import Address
from comity.cpim.entity import content_type_params, decode_transfer
from comity.cpim.message import new_message_id
from comity.cpim.native import wrap
from comity.cpim.operations import MimeObject

TEXT = "text/plain; charset=utf-8"


def text_object(
    from_: Address,
    to: Address,
    content: str | bytes,
    content_type: str = TEXT,
    *,
    subject: str = "",
    when: datetime | None = None,
    asks: Sequence[str] = (),
) -> MimeObject:
    """Make a message/cpim with a new Message-ID (RFC 3862, RFC 5438 section 6.3).

    A text's line ends become CR LF (RFC 8551 section 3.1.1: by the originator only); octets stay as they are. ``asks``: what the
    sender wants to be told, in the words of ``cpim.imdn.WISHES``; it comes as ``Received.report`` or ``Received.notice``.
    """
    if isinstance(content, str):
        lines = content.replace("\r\n", "\n").replace("\r", "\n")
        content = lines.replace("\n", "\r\n").encode("utf-8")
    return wrap(
        from_,
        to,
        content,
        content_type,
        when=when or datetime.now(UTC),
        message_id=new_message_id(os.urandom(15)),
        subjects=[("", subject)] if subject else (),
        asks=asks,
    )


def terse(secured: MimeObject) -> MimeObject:
    """An application/pkcs7-mime entity in the fewest octets: binary, without headers that only mail programs need.

    For its own sender, where a MESSAGE over UDP has 1300 octets (RFC 8551 section 3.2.1, RFC 8591 sections 5 and 7.1); no
    hop may do this.
    """
    media_type, params = content_type_params(secured.content_type)
    kind = f"; smime-type={params['smime-type']}" if "smime-type" in params else ""
    return MimeObject.of(media_type + kind, decode_transfer(secured))
