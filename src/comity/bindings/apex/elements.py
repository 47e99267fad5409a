"""What APEX peers say to each other, as values: core, report service, option party pack, access and presence services.

Place on the path: between ``wire.py``, which reads and writes them, and everything else in this binding. One dataclass an
element of the DTDs (RFC 3340 section 9, RFC 3341 section 6, RFC 3342 section 6, RFC 3343 section 6), its attributes in the
DTD's order. Values were checked against the DTD when they were read; ``wire.py`` answers 500 and 501 itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from comity.bindings.apex.endpoint import Endpoint

TargetHop = Literal["this", "final", "all"]

# --- core (RFC 3340 section 9.1) -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Option:
    """An option (RFC 3340 section 5): exactly one of ``internal`` and ``external`` is not ""."""

    internal: str = ""
    """IANA-registered name: ``statusRequest``."""
    external: str = ""
    """Absolute URI."""
    target_hop: TargetHop = "final"
    must_understand: bool = False
    trans_id: int = 0
    """1 to 2147483647 where it counts; 0: not written (RFC 3340's own examples leave it out)."""
    localize: str = "i-default"
    content: bytes = b""
    """Its children as they came, octet for octet (UTF-8), to be passed on as they are."""

    @property
    def name(self) -> str:
        """Either name."""
        return self.internal or self.external


@dataclass(frozen=True, slots=True)
class Attach:
    endpoint: Endpoint
    trans_id: int
    options: tuple[Option, ...] = ()


@dataclass(frozen=True, slots=True)
class Bind:
    relay: str
    """Domain, as A-labels, or an address literal."""
    trans_id: int
    options: tuple[Option, ...] = ()


@dataclass(frozen=True, slots=True)
class Terminate:
    trans_id: int = 0
    """0: everything of this session."""
    code: int = 250
    text: str = ""
    language: str = ""


@dataclass(frozen=True, slots=True)
class Originator:
    identity: Endpoint
    options: tuple[Option, ...] = ()


@dataclass(frozen=True, slots=True)
class Recipient:
    identity: Endpoint
    options: tuple[Option, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """Content in a part of its own (RFC 3340 section 4.1), never re-made: headers as they stood, and the octets.

    ``header_block`` is as in ``cpim.operations.MimeObject``, with Content-Type, without Content-ID and without a
    Content-Transfer-Encoding of 7bit, 8bit or binary; a transformative one stays, as do the octets it made."""

    header_block: bytes
    octets: bytes
    content_id: str
    """Without angle brackets."""


@dataclass(frozen=True, slots=True)
class Inline:
    """Content inside ``data-content``: one XML element, as it came, octet for octet (UTF-8)."""

    octets: bytes
    name: str = "Content"
    """The Name attribute that the ``content`` fragment refers to."""


Content = Part | Inline


@dataclass(frozen=True, slots=True)
class Data:
    originator: Originator
    recipients: tuple[Recipient, ...]
    content: Content
    options: tuple[Option, ...] = ()
    """Per-data options."""


@dataclass(frozen=True, slots=True)
class Ok:
    """The positive reply to attach, bind, terminate and data."""


@dataclass(frozen=True, slots=True)
class Error:
    """The negative reply (RFC 3080 section 7.1); codes in RFC 3340 section 10."""

    code: int
    text: str = ""
    language: str = ""


# --- replies of services, and the report service (RFC 3340 sections 6.1.2 and 9.2) ------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    code: int
    trans_id: int = 0
    """0: not written, as inside ``destination``."""
    text: str = ""
    language: str = ""


@dataclass(frozen=True, slots=True)
class Destination:
    identity: Endpoint
    reply: Reply


@dataclass(frozen=True, slots=True)
class StatusResponse:
    trans_id: int
    destinations: tuple[Destination, ...]


# --- option party pack (RFC 3342 section 6) -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DataTiming:
    """Milliseconds, 0 meaning: not asked for."""

    no_later_than: int = 0
    return_trip: int = 0
    report_after: int = 0
    report_errors: bool = False


@dataclass(frozen=True, slots=True)
class DataHopping:
    no_more_than: int = 0
    """0: no limit."""
    report_errors: bool = False


# --- access service (RFC 3341 section 6) --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AccessEntry:
    owner: Endpoint
    actor: str
    r"""As written, with its wildcards and with ``\*`` and ``\\`` for those characters themselves (RFC 3341 section 3)."""
    actions: tuple[str, ...] | None
    """None: not written (``set`` then deletes)."""
    last_update: str = ""
    """As written: RFC 3339; compared by the moment it names."""


@dataclass(frozen=True, slots=True)
class Query:
    owner: Endpoint
    actor: Endpoint
    """No wildcards, no escapes."""
    actions: tuple[str, ...]
    trans_id: int


@dataclass(frozen=True, slots=True)
class Get:
    owner: Endpoint
    actor: str
    trans_id: int


@dataclass(frozen=True, slots=True)
class Set:
    trans_id: int
    access: AccessEntry


@dataclass(frozen=True, slots=True)
class Allow:
    trans_id: int


@dataclass(frozen=True, slots=True)
class Deny:
    trans_id: int


# --- presence service (RFC 3343 section 6) --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Capability:
    baseline: str
    text: str


@dataclass(frozen=True, slots=True)
class Tuple:
    destination: str
    """URI."""
    available_until: datetime
    """Aware."""
    tuple_info: str = ""
    """URI."""
    capabilities: tuple[Capability, ...] = ()


@dataclass(frozen=True, slots=True)
class Presence:
    """A presence entry."""

    publisher: Endpoint
    last_update: str
    """As written; "" if absent."""
    publisher_info: str
    tuples: tuple[Tuple, ...]
    """One or more (APEX-22)."""


@dataclass(frozen=True, slots=True)
class Subscribe:
    publisher: Endpoint
    duration: int
    """Seconds."""
    trans_id: int


@dataclass(frozen=True, slots=True)
class Watch:
    publisher: Endpoint
    duration: int
    trans_id: int


@dataclass(frozen=True, slots=True)
class Publish:
    publisher: Endpoint
    trans_id: int
    time_stamp: str
    presence: Presence


@dataclass(frozen=True, slots=True)
class Notify:
    subscriber: Endpoint
    trans_id: int
    action: Literal["subscribe", "terminate"]
    duration: int | None = None
    """Seconds; only where a subscription is reported."""


CoreElement = Attach | Bind | Terminate | Data | Ok | Error
"""What is exchanged as BEEP messages."""

ServiceElement = (
    Reply | StatusResponse | (Query | Get | Set | Allow | Deny) | (Subscribe | Watch | Publish | Notify | Terminate)
)
"""What is exchanged with a service, as the content of ``data``."""
