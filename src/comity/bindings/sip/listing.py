"""One list subscription as it stands: its entries, what of them has to be said, and the next NOTIFY's body. Pure.

Place on the path: step 8 of list subscriptions, for ``lists.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from comity.bindings.sip.rlmi import Resource, write_state
from comity.cpim.address import Address
from comity.cpim.operations import MimeObject
from comity.errors import AddressError
from comity.service.interfaces import Origin, Timer
from comity.service.presence.interfaces import Content, Subscription

MOST_MEMBERS: Final = 500
CHUNK: Final = {"udp": 10 * 1024}
"""Octets of documents in one NOTIFY, by transport; what does not fit comes with the next."""
CHUNK_STREAM: Final = 40 * 1024


@dataclass(slots=True, eq=False)
class Member:
    """One entry of a list."""

    uri: str
    name: str
    address: Address | None
    """None for what nobody here can watch."""
    virtual: Subscription | None = None
    state: str = ""
    reason: str = ""
    content: Content | None = None
    is_asked: bool = False
    """It was subscribed to, or is being."""


@dataclass(slots=True, eq=False)
class ListWatch:
    """One list subscription."""

    subscription: Subscription
    uri: str
    origin: Origin
    is_own: bool
    """The contact list, which is followed; else a list that came along, or a service."""
    is_service: bool = False
    """Of the watcher's own rls-services, read again with each SUBSCRIBE."""
    members: dict[str, Member] = field(default_factory=dict)
    """By the key of their address, or their URI."""
    dirty: dict[str, None] = field(default_factory=dict)
    """Members whose state has to be said."""
    is_full: bool = True
    """The next NOTIFY says everything."""
    version: int = 0
    said_at: float = float("-inf")
    is_starting: bool = True
    timer: Timer | None = None
    end: Timer | None = None

    def next_body(self, transport: str) -> MimeObject:
        """What the next NOTIFY says: everything, or what changed; documents for which there is no room wait for the one after it."""
        room = CHUNK.get(transport, CHUNK_STREAM)
        resources: list[Resource] = []
        for key in list(self.members) if self.is_full else list(self.dirty):
            member = self.members[key]
            obj = member.content.object if member.content is not None else None
            self.dirty.pop(key, None)
            if obj is not None and resources and len(obj.octets) > room:
                self.dirty[key] = None
                if self.is_full:
                    resources.append(Resource(member.uri, member.name))
                continue
            room -= len(obj.octets) if obj is not None else 0
            resources.append(Resource(member.uri, member.name, member.state, member.reason, obj))
        body = write_state(self.uri, self.version, resources, is_full=self.is_full)
        self.version = (self.version + 1) & 0xFFFFFFFF
        self.is_full = False
        return body


def key_of(member: Member) -> str:
    """What an entry is known by."""
    return member.uri if member.address is None else member.address.key


def address_of_entry(uri: str) -> Address | None:
    """The account an entry means, None for what has no presence (tel:)."""
    try:
        address = Address.from_any(uri)
        return address.folded()
    except AddressError:
        return None
