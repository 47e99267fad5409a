"""What a watcher's dialog needs to be notified, and the octets of its NOTIFY requests. Pure.

Place on the path: steps 7 to 9 of a notify, for ``notifier.py``. A NOTIFY is put together of three pieces: the head of its dialog,
written once and checked then; CSeq and Subscription-State, which change; and the content with its headers, written once for all
watchers who get the same. No octet of a document is ever made here (SEED-46).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Final

from comity.bindings.base import HostPort
from comity.bindings.sip.dialog import Dialog
from comity.bindings.sip.forms import object_headers
from comity.bindings.sip.message import SipRequest
from comity.cpim.operations import MimeObject
from comity.service.presence.interfaces import Content

#: Answers to a NOTIFY after which its subscription is gone (RFC 6665 section 4.2.2); any other one leaves it.
ENDING_CODES: Final = frozenset({404, 405, 410, 416, *range(480, 486), 489, 501, 604})
#: Seconds a NOTIFY that a temporary failure refused waits before what is then true is sent.
LEAST_RETRY, MOST_RETRY = 5, 120
NO_CONTENT: Final = b"Content-Length: 0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept with a subscription (``Subscription.data``): its dialog and the way its SUBSCRIBE came."""

    dialog: Dialog
    event: str
    """Event as it goes out, with its id."""
    contact: str
    """Our URI in the dialog."""
    transport: str
    remote: HostPort
    """Where the SUBSCRIBE came from: behind a NAT, the only address that works."""
    local: HostPort
    """The listener it came to."""
    partial: bool = False
    """The watcher takes differences (RFC 5263)."""
    peer: str = ""
    """Domain of the peer server that asked for a user of its own; "" for our own users."""

    def encode(self) -> bytes:
        return json.dumps(asdict(self), separators=(",", ":")).encode("utf-8", "surrogateescape")

    @classmethod
    def decode(cls, data: bytes) -> Kept:
        """Read what ``encode`` wrote."""
        fields = json.loads(data.decode("utf-8", "surrogateescape"))
        fields["dialog"] = Dialog(**{**fields["dialog"], "routes": tuple(fields["dialog"]["routes"])})
        for name in ("remote", "local"):
            fields[name] = (str(fields[name][0]), int(fields[name][1]))
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Head:
    """Octets of a dialog that are the same in each of its NOTIFY requests."""

    start: bytes
    """Start line with CR LF."""
    fixed: bytes
    """Header lines behind Via."""

    @property
    def target(self) -> str:
        """The Request-URI."""
        return self.start.split(b" ", 2)[1].decode("utf-8", "surrogateescape")


def head_of(kept: Kept, max_forwards: int) -> Head:
    """Write the head; raises LocalProtocolError if something in it may not stand in a header."""
    dialog = kept.dialog
    headers = [("Route", route) for route in dialog.routes_out]
    headers += [
        ("Max-Forwards", str(max_forwards)),
        ("From", f"<{dialog.local_uri}>;tag={dialog.local_tag}"),
        ("To", f"<{dialog.remote_uri}>;tag={dialog.remote_tag}"),
        ("Call-ID", dialog.call_id),
        ("Contact", f"<{kept.contact}>"),
        ("Event", kept.event),
    ]
    octets = SipRequest("NOTIFY", dialog.request_uri, headers).to_bytes()
    start, _, rest = octets.partition(b"\r\n")
    return Head(start + b"\r\n", rest.removesuffix(NO_CONTENT))


def notify_rest(head: Head, cseq: int, state: str, tail: bytes) -> bytes:
    """Everything behind Via of one NOTIFY."""
    return b"%bCSeq: %d NOTIFY\r\nSubscription-State: %b\r\n%b" % (head.fixed, cseq, state.encode("ascii"), tail)


class Form(Enum):
    """Which entity of a content goes out; keys of ``Content.cache``."""

    PLAIN = "sip: the server's word"
    WHOLE = "sip: the presentity's own entity"


def tail_of(content: Content, takes_secured: bool) -> bytes:
    """Content headers, empty line and body for a watcher; written once for all who get the same."""
    form = Form.WHOLE if takes_secured and content.whole is not None else Form.PLAIN
    tail: bytes | None = content.cache.get(form)
    if tail is None:
        obj = content.whole if form is Form.WHOLE else None
        tail = content.cache[form] = write_tail(obj or content.object)
    return tail


def write_tail(obj: MimeObject) -> bytes:
    """An entity behind the other headers of a request."""
    octets = SipRequest("NOTIFY", "sip:x", object_headers(obj), obj.octets).to_bytes()
    return octets.partition(b"\r\n")[2]
