"""Lists as they are now, and what a list service stands for (RFC 4826 section 4.5).

Place on the path: beside it. ``resources.py`` reads resource-lists by it; a list subscription asks it who is in a service of the
subscriber's own. References to other documents (``entry-ref``, ``external``) are not followed: those entries are left out, as
section 4.5 allows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from comity.cpim.address import Address, to_sip_uri
from comity.service.interfaces import Clock
from comity.service.presence.interfaces import ContactItem, PresenceService
from comity.xcap.application import FULL_LIMITS, LIST_LIMITS, LISTS, SERVICES, owner_of, path_of
from comity.xcap.budget import Budgets
from comity.xcap.errors import Refused
from comity.xcap.lists import NEW, person, reconcile
from comity.xcap.selector import Document, find_element
from comity.xcap.uri import read_node_selector
from comity.xml import Element

_LISTS_NAME: Final = "resource-lists/index"
_SERVICES_NAME: Final = "rls-services/index"
_LONGEST: Final = FULL_LIMITS.octets


@dataclass(frozen=True, slots=True)
class CurrentLists:
    """An account's resource-lists, brought up to date with its contact list."""

    document: Document
    stored: str
    """Entity-tag in ``Documents``; "" if nothing is stored."""
    octets: int
    """What reading it cost: a list that was only ever kept by XMPP costs as much to write as a stored one to read."""
    contacts: Mapping[str, ContactItem] = field(default_factory=dict)


async def current_lists(presence: PresenceService, owner: Address) -> CurrentLists | None:
    """None if there is neither a document nor a contact. Raises StoreError, or Refused 413."""
    stored = await presence.documents.get(owner, _LISTS_NAME)
    roster = await presence.contacts.roster(owner)
    contacts = {item.contact.key: item for item in roster.items if is_person(item, owner)}
    if stored is None and not contacts:
        return None
    kept = Document.read(stored.octets if stored else NEW, LIST_LIMITS)
    people = {key: person(item.contact, item.name, item.groups) for key, item in contacts.items()}
    # Somebody with a long name in many groups is written once for each: what cannot be read again is not even made.
    if sum(len(one.name) * max(1, len(one.groups)) + sum(map(len, one.groups)) for one in people.values()) > _LONGEST:
        raise Refused(413, "the contact list is too long for a document")
    octets = reconcile(kept, owner, people)
    document = kept if octets == kept.octets else Document.read(octets, FULL_LIMITS)
    return CurrentLists(document, stored.etag if stored else "", max(len(kept.octets), len(octets)), contacts)


def is_person(item: ContactItem, owner: Address) -> bool:
    """True for a contact that an entry of a list can mean."""
    if not item.contact.local or item.contact.key == owner.key:
        return False
    read = owner_of(to_sip_uri(item.contact))
    return read is not None and read.key == item.contact.key


class ListServices:
    """The list services of all accounts.

    Args:
        presence: keeps documents and contact lists.
        clock: time for what one account may cost.
    """

    def __init__(self, presence: PresenceService, clock: Clock) -> None:
        self._presence = presence
        self._budgets = Budgets(clock)
        """Reading long documents at each SUBSCRIBE would keep everybody else waiting."""

    async def entries(self, owner: Address, uri: Address) -> list[tuple[str, str]] | None:
        """URI and name of everybody in the service of ``owner`` that is called ``uri``.

        None if there is none for presence, or they were read too often for now. Raises StoreError."""
        try:
            self._budgets.check(owner)
        except Refused:
            return None
        stored = await self._presence.documents.get(owner, _SERVICES_NAME)
        if stored is None:
            return None
        self._budgets.take(owner, len(stored.octets))
        root = Document.read(stored.octets, LIST_LIMITS).root.element
        for service in root.elements():
            if owner_of(service.get("uri")) == uri:
                return await self._entries_of(owner, service)
        return None

    async def _entries_of(self, owner: Address, service: Element) -> list[tuple[str, str]] | None:
        packages = service.find(f"{{{SERVICES}}}packages")
        if packages is not None and "presence" not in (one.text.strip() for one in packages.elements()):
            return None
        one = service.find(f"{{{SERVICES}}}list")
        if one is None:
            one = await self._referred(owner, service.find(f"{{{SERVICES}}}resource-list"))
        return None if one is None else list(dict(_flattened(one)).items())

    async def _referred(self, owner: Address, reference: Element | None) -> Element | None:
        """The list a ``resource-list`` names among the account's own."""
        if reference is None:
            return None
        try:
            target = path_of(reference.text)
            lists = await current_lists(self._presence, owner)
            self._budgets.take(owner, lists.octets if lists else 0)
            if target.node is None or lists is None:
                return None
            found = find_element(lists.document, read_node_selector(target, LISTS))
        except (
            Refused
        ):  # it was looked at when it was put, but not whether it leads anywhere; or the list became too long
            return None
        return found.element if found is not None and found.name == f"{{{LISTS}}}list" else None


def _flattened(one: Element) -> Iterator[tuple[str, str]]:
    for child in one.elements():
        if child.name == f"{{{LISTS}}}list":
            yield from _flattened(child)
        elif child.name == f"{{{LISTS}}}entry":
            display = child.find(f"{{{LISTS}}}display-name")
            yield child.get("uri").strip(), display.text.strip() if display else ""
