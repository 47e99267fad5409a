"""What both clients say of presence: what was seen of somebody, the contact list, and what a client can do about them.

Place on the path: the far ends of a notify (RFC 3859 section 3.4). ``sip_presence.py`` and ``xmpp_presence.py`` do it in their
protocol's words. The rules their readers must keep: nothing is told of somebody before they, or their rules, said yes (GW-14); an
empty notification means closed; octets are kept as they came, and a verdict is about those octets.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Final, Protocol

from comity.client.base import ClientError
from comity.cpim.address import Address
from comity.cpim.entity import CPIM_TYPE, content_object, decode_transfer, signed_part
from comity.cpim.message import CpimMessage
from comity.cpim.operations import MimeObject, Response
from comity.cpim.presence import PIDF_TYPE, Note, PresenceDocument
from comity.cpim.presence_state import Availability, document_state, note_in
from comity.errors import AddressError, MalformedMessage
from comity.secure import Identity, TrustStore, Verdict, verify
from comity.secure.openpgp import PgpIdentity

MOST_WAITING: Final = 1000
"""Changes that wait for a slow reader; the oldest make room, the last state is never lost."""
_DEPTH: Final = 8

Sealer = Callable[[MimeObject], MimeObject]
"""Signs (or seals) the entity that a client is about to publish."""


class NotPossible(ClientError):
    """The protocol has no way to do this; the text names one that has."""


class Standing(Enum):
    """How things stand between a watcher and whom it watches."""

    PENDING = "pending"
    """They have not answered yet."""
    ACTIVE = "active"
    """What they let us see is known."""
    REFUSED = "refused"
    """They said no, or took back their yes."""
    ENDED = "ended"
    """It ended for another reason, see ``Seen.reason``."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing a watcher was told."""

    who: Address
    """``pres:`` address."""
    standing: Standing
    availability: Availability = Availability.UNKNOWN
    """Of the presentity as a whole; UNKNOWN unless active."""
    notes: tuple[Note, ...] = ()
    object: MimeObject | None = None
    """The entity: as it arrived where the protocol carries documents, else made here of what arrived."""
    document: PresenceDocument | None = None
    """View of the document in it; None if there is none that can be read."""
    verdict: Verdict | None = None
    """About ``object``; None if no trust was given."""
    reason: str = ""
    """Why it is refused or ended, in the protocol's words."""
    when: datetime = field(default_factory=lambda: datetime.now(UTC), compare=False)
    """When it arrived."""

    @property
    def sha256(self) -> str:
        """Of the octets of ``object``; "" without one."""
        return self.object.fingerprint if self.object is not None else ""

    @property
    def note(self) -> str:
        return note_in(self.notes)


@dataclass(frozen=True, slots=True)
class Judge:
    """Whom a watcher believes."""

    trust: TrustStore
    keys: tuple[Identity | PgpIdentity, ...] = ()
    """To open what is encrypted for us."""

    def verdict(self, obj: MimeObject, who: Address, now: datetime) -> Verdict:
        """What the entity proves about ``who``."""
        return verify(obj, self.trust, now=now, expected_from=who, asserted_by=who.domain, keys=self.keys)


@dataclass(frozen=True, slots=True)
class Contact:
    """Somebody in the contact list, or who asks to see us."""

    address: Address
    name: str = ""
    groups: tuple[str, ...] = ()
    is_listed: bool = True
    sees: bool = False
    """We see them."""
    is_seen: bool = False
    """They see us."""
    asks: bool = False
    """We asked, they did not answer yet."""
    is_asking: bool = False
    """They asked, we did not answer yet."""
    text: str = ""
    """What they wrote with it."""


class PresenceClient(Protocol):
    """What a client does about presence; both clients have it."""

    async def publish(
        self, availability: Availability, note: str = "", *, lease: int | None = None, sealer: Sealer | None = None
    ) -> Response:
        """Say how we are; what was said before by this client is replaced.

        Args:
            availability: OFFLINE says "closed" while the client stays signed in.
            note: for people.
            lease: SIP, APEX: seconds it stands, without being renewed and whether the client is there or not. None: it stands,
                renewed, until the client closes or says ``unpublish``.
            sealer: signs the document.

        Raises:
            NotPossible: a lease by XMPP, whose presence ends with the connection.
            ClientError: the connection is gone.
        """

    async def unpublish(self) -> Response:
        """Take back what was published."""

    def watch(self, address: Address, *, judge: Judge | None = None, is_once: bool = False) -> AsyncGenerator[Seen]:
        """Ask to see somebody, and give what comes, the present state first.

        It goes on by itself over refreshes, lost connections (XMPP) and ends after which trying again makes sense. It ends
        after a final refusal. Use ``contextlib.aclosing`` to end it before.

        Args:
            address: whom.
            judge: makes verdicts.
            is_once: only the present state, without subscribing.
        """

    async def contacts(self) -> Sequence[Contact]:
        """The contact list. Raises NotPossible (SIP)."""

    async def requests(self) -> Sequence[Contact]:
        """Who asks to see us and waits for an answer."""

    async def put_contact(self, address: Address, name: str = "", groups: Sequence[str] = ()) -> Response:
        """Add to the contact list, or change name and groups."""

    async def remove_contact(self, address: Address) -> Response:
        """Take out of the list, and end what was between us in both directions."""

    async def ask(self, address: Address, text: str = "") -> Response:
        """Ask once to see somebody from now on."""

    async def allow(self, address: Address) -> Response:
        """Let somebody see us, who asked or who will."""

    async def refuse(self, address: Address) -> Response:
        """Do not let somebody see us (any more)."""

    async def block(self, address: Address) -> Response:
        """Let nothing at all come from or go to somebody."""

    async def unblock(self, address: Address) -> Response:
        """End that."""

    async def blocked(self) -> Sequence[Address]:
        """Who is blocked."""


class HasPresence:
    """A client whose presence is kept by another object, made for its protocol; see ``PresenceClient``."""

    _presence: PresenceClient

    async def publish(
        self, availability: Availability, note: str = "", *, lease: int | None = None, sealer: Sealer | None = None
    ) -> Response:
        return await self._presence.publish(availability, note, lease=lease, sealer=sealer)

    async def unpublish(self) -> Response:
        return await self._presence.unpublish()

    def watch(self, address: Address, *, judge: Judge | None = None, is_once: bool = False) -> AsyncGenerator[Seen]:
        return self._presence.watch(address, judge=judge, is_once=is_once)

    async def contacts(self) -> Sequence[Contact]:
        return await self._presence.contacts()

    async def requests(self) -> Sequence[Contact]:
        return await self._presence.requests()

    async def put_contact(self, address: Address, name: str = "", groups: Sequence[str] = ()) -> Response:
        return await self._presence.put_contact(address, name, groups)

    async def remove_contact(self, address: Address) -> Response:
        return await self._presence.remove_contact(address)

    async def ask(self, address: Address, text: str = "") -> Response:
        return await self._presence.ask(address, text)

    async def allow(self, address: Address) -> Response:
        return await self._presence.allow(address)

    async def refuse(self, address: Address) -> Response:
        return await self._presence.refuse(address)

    async def block(self, address: Address) -> Response:
        return await self._presence.block(address)

    async def unblock(self, address: Address) -> Response:
        return await self._presence.unblock(address)

    async def blocked(self) -> Sequence[Address]:
        return await self._presence.blocked()


class Watch:
    """What waits to be read by one who watches somebody."""

    def __init__(self, who: Address, judge: Judge | None) -> None:
        self.who = who.with_scheme("pres")
        self.judge = judge
        self.last: Seen | None = None
        self._waiting: deque[Seen] = deque(maxlen=MOST_WAITING)
        self._ready = asyncio.Event()
        self._is_ended = False
        self._error: ClientError | None = None

    def put(self, seen: Seen) -> None:
        """Something was told; what says the same as the last is passed over."""
        if seen != self.last and not self._is_ended:
            self.last = seen
            self._waiting.append(seen)
            self._ready.set()

    def say(self, standing: Standing, reason: str = "") -> None:
        """Something was told that is no presence."""
        self.put(Seen(self.who, standing, reason=reason))

    def show(self, obj: MimeObject | None) -> None:
        """A notification came: with an entity, or empty, which means closed (GW-14)."""
        self.put(look(self.who, obj, self.judge))

    def end(self, error: ClientError | None = None) -> None:
        """Nothing more will come."""
        if not self._is_ended:
            self._is_ended, self._error = True, error
            self._ready.set()

    async def read(self) -> AsyncIterator[Seen]:
        """What came and comes. Raises ClientError when the connection is lost for good."""
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            if self._is_ended:
                break
            self._ready.clear()
            await self._ready.wait()
        if self._error is not None:
            raise self._error


def look(who: Address, obj: MimeObject | None, judge: Judge | None, now: datetime | None = None) -> Seen:
    """Read a notification's entity; what cannot be read says nothing about the state, and is said to."""
    when = now or datetime.now(UTC)
    if obj is None:
        return Seen(who, Standing.ACTIVE, Availability.OFFLINE, when=when)
    verdict = judge.verdict(obj, who, when) if judge is not None else None
    inner = verdict.content if verdict is not None and verdict.content is not None else obj
    try:
        document = _document(inner)
    except (MalformedMessage, AddressError) as error:
        return Seen(who, Standing.ACTIVE, object=obj, verdict=verdict, reason=str(error), when=when)
    if not document.is_about(who):
        text = f"the document is about {document.entity}"
        return Seen(who, Standing.ACTIVE, object=obj, verdict=verdict, reason=text, when=when)
    state = document_state(document, when)
    return Seen(who, Standing.ACTIVE, state.availability, state.notes, obj, document, verdict, when=when)


def _document(obj: MimeObject) -> PresenceDocument:
    """The presence document in an entity, through message/cpim and clear signatures."""
    for _ in range(_DEPTH):
        if obj.media_type == PIDF_TYPE:
            return PresenceDocument.of(obj)
        if obj.media_type == CPIM_TYPE:
            obj = content_object(CpimMessage.parse(decode_transfer(obj)))
        elif obj.media_type == "multipart/signed":
            obj = signed_part(obj)
        else:
            break
    raise MalformedMessage(f"there is no presence document that can be read in {obj.media_type or 'an untyped entity'}")
