"""XCAP requests carried out: GET, PUT and DELETE of documents and their parts, conditions, entity-tags (RFC 4825 section 8).

Place on the path: beside it; ``handler.py`` hands in requests of an account that proved its password. Documents are kept by the
presence service (``Documents``), which acts by them at once; the contact list is one with that of every other protocol
(``Contacts``). Nothing is said to be done before it is durable, and what is refused changes nothing.

An entity-tag is that of the octets: a document that comes to say the same again is the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakValueDictionary

from comity.cpim.operations import Reason, Response
from comity.cpim.presence import PresenceDocument
from comity.errors import StoreError
from comity.service.interfaces import Accounts, Clock
from comity.service.presence.interfaces import ContactItem, Decision, PresenceService, Statement
from comity.xcap.application import (
    CAPS,
    CAPS_TYPE,
    FULL_LIMITS,
    USAGES,
    Usage,
    capabilities,
    service_addresses,
)
from comity.xcap.budget import Budgets
from comity.xcap.errors import Conflict, Refused
from comity.xcap.exchange import Answer, Request, check_conditions, check_type, etag_of, has_tag, refusal
from comity.xcap.lists import Person, is_plain_group, people_of, person, reconcile
from comity.xcap.selector import (
    ATTRIBUTE_TYPE,
    ELEMENT_TYPE,
    Change,
    Document,
    delete_part,
    put_attribute,
    put_element,
    read_part,
)
from comity.xcap.services import current_lists
from comity.xcap.standing import HARD_STATE, Standing
from comity.xcap.uri import read_node_selector

METHODS: Final = "GET, HEAD, PUT, DELETE"
READ_ONLY: Final = "GET, HEAD"
LARGEST: Final = max(usage.limits.octets for usage in USAGES.values())
"""Octets of the largest body there is a use for."""
_MOST_NAME, _MOST_GROUPS, _MOST_TEXT = 1023, 64, 8192


@dataclass(frozen=True, slots=True)
class _Present:
    """A document as it is now."""

    document: Document
    stored: str
    """Entity-tag in ``Documents``; "" if nothing is stored."""
    contacts: Mapping[str, ContactItem] = field(default_factory=dict)
    """The contact list it says, for resource-lists."""

    @property
    def etag(self) -> str:
        return etag_of(self.document.octets)


class Resources:
    """All documents of all accounts.

    Args:
        presence: keeps documents and contact lists.
        accounts: who exists.
        standing: remembers whose presence stays.
        clock: time for what one account may cost.
        most_contacts: in one contact list.
    """

    def __init__(
        self,
        presence: PresenceService,
        accounts: Accounts,
        standing: Standing,
        clock: Clock,
        most_contacts: int = 2000,
    ) -> None:
        self._presence = presence
        self._accounts = accounts
        self._standing = standing
        self._budgets = Budgets(clock)
        self._most_contacts = most_contacts
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """One request of an account after the other: a document is read, changed and written."""

    async def start(self) -> None:
        """Publish again what stays; call when watchers can be told, before XCAP listens. Raises StoreError."""
        await self._standing.publish_all(self._presence)

    async def answer(self, request: Request) -> Answer:
        """Carry out a request. Raises StoreError."""
        lock = self._locks.setdefault(request.user.key, asyncio.Lock())
        try:
            async with lock:
                self._budgets.check(request.user)
                return await self._carry_out(request)
        except Refused as refused:
            return refusal(refused)
        finally:
            self._budgets.take(request.user, len(request.body))

    async def _carry_out(self, request: Request) -> Answer:
        target = request.target
        if target.auid == "xcap-caps":
            return _capabilities(request)
        usage = USAGES.get(target.auid)
        if usage is None:
            raise Refused(404, "there is no such application usage here")
        if request.owner is None or request.owner.key != request.user.key:
            raise Refused(403, "documents belong to their account")
        if request.method not in METHODS.split(", "):
            raise Refused(405, "documents are read, put and deleted", allow=METHODS)
        self._check_name(request, usage)
        if request.method == "PUT":
            return await self._put(request, usage)
        if request.method == "DELETE":
            return await self._delete(request, usage)
        return await self._get(request, usage)

    def _check_name(self, request: Request, usage: Usage) -> None:
        path = request.target.path
        if len(path) == 1 and path[0] in usage.names:
            return
        if request.method != "PUT":
            raise Refused(404, "there is no such document")
        if len(path) > 1:
            raise Conflict("no-parent", "there are no directories here")
        raise Conflict("constraint-failure", f"the document of this usage is called {min(usage.names)}")

    # --- what there is -----------------------------------------------------------------------------------------

    async def _present(self, request: Request, usage: Usage) -> _Present | None:
        if usage.auid == "resource-lists":
            lists = await current_lists(self._presence, request.user)
            self._budgets.take(request.user, lists.octets if lists else 0)
            return _Present(lists.document, lists.stored, lists.contacts) if lists else None
        stored = await self._presence.documents.get(request.user, usage.stored)
        self._budgets.take(request.user, len(stored.octets) if stored else 0)
        return _Present(Document.read(stored.octets, usage.limits), stored.etag) if stored else None

    async def _get(self, request: Request, usage: Usage) -> Answer:
        present = await self._present(request, usage)
        if present is None:
            raise Refused(404, "there is no such document")
        etag = present.etag
        if request.target.node is None:
            media_type, octets = usage.media_type, present.document.octets
        else:
            selector = read_node_selector(request.target, usage.namespace)
            part = read_part(present.document, selector)
            if part is None:
                raise Refused(404, "there is no such part of the document")
            media_type, octets = part
        if request.if_match is not None and not has_tag(request.if_match, etag, is_weak=False):
            raise Refused(412, "the document is another one")
        if request.if_none_match is not None and has_tag(request.if_none_match, etag, is_weak=True):
            return Answer(304, {"ETag": etag})
        return Answer(200, {"Content-Type": media_type, "ETag": etag}, octets)

    # --- putting -------------------------------------------------------------------------------------------------

    async def _put(self, request: Request, usage: Usage) -> Answer:
        if request.target.node is None:
            present = await self._present(request, usage)
            check_conditions(request, present.etag if present else None)
            check_type(request, usage.media_type)
            change = Change(Document.read(request.body, usage.limits), is_new=present is None)
        else:
            present, change = await self._put_part(request, usage)
        usage.validate(change.document, request.user)
        await self._check_services(usage, change.document)
        etag = await self._keep(request, usage, present, change.document, _is_meant(request))
        return Answer(201 if change.is_new else 200, {"ETag": etag})

    async def _put_part(self, request: Request, usage: Usage) -> tuple[_Present, Change]:
        selector = read_node_selector(request.target, usage.namespace)
        if selector.is_namespaces:
            raise Refused(405, "namespace bindings are read only", allow=READ_ONLY)
        present = await self._present(request, usage)
        if present is None:
            raise Conflict("no-parent", "there is no such document")
        check_conditions(request, present.etag if present else None)
        check_type(request, ELEMENT_TYPE if selector.attribute is None else ATTRIBUTE_TYPE)
        put = put_element if selector.attribute is None else put_attribute
        uri = request.target.document_uri
        return present, put(present.document, selector, request.body, uri, usage.limits)

    async def _check_services(self, usage: Usage, document: Document) -> None:
        """A service is not called like an account, nor like something elsewhere (RFC 4826 section 4.4.5)."""
        if usage.auid != "rls-services":
            return
        for index, address in enumerate(service_addresses(document), 1):
            if address is None or not self._accounts.serves(address.domain):
                raise Conflict("constraint-failure", "a service is called by an address of a domain served here")
            if await self._accounts.exists(address):
                fields = [f"rls-services/service%5B{index}%5D/@uri"]
                raise Conflict("uniqueness-failure", "there is an account of that name", fields=fields)

    # --- keeping -------------------------------------------------------------------------------------------------

    async def _keep(
        self, request: Request, usage: Usage, present: _Present | None, document: Document, knows: bool
    ) -> str:
        """Make a document the account's, with all that follows from it; its entity-tag."""
        if usage.auid == "resource-lists":
            people = people_of(document, request.user)
            listed = present.contacts if present else {}
            _check_people(people.values(), len(people.keys() | listed.keys()), self._most_contacts)
            # The document first: there may be no room for it, and then nobody may have been taken out.
            await self._store(request, usage, present, document)
            people |= await self._change_contacts(request, listed, people, knows)
            return etag_of(reconcile(document, request.user, people))
        if usage.auid == "pidf-manipulation":
            await self._standing.add(request.user)
            self._publish(request, present, document)
            try:
                await self._store(request, usage, present, document)
            except (Refused, StoreError):
                self._take_back(request, present)
                raise
        else:
            await self._store(request, usage, present, document)
        return etag_of(document.octets)

    async def _store(self, request: Request, usage: Usage, present: _Present | None, document: Document) -> None:
        """Raises Refused, or StoreError."""
        stored = await self._presence.documents.put(
            request.user,
            usage.stored,
            usage.media_type,
            document.octets,
            request.origin,
            if_etag=present.stored if present else "",
        )
        if isinstance(stored, Response):
            raise _refused(stored)

    async def _change_contacts(
        self, request: Request, listed: Mapping[str, ContactItem], wanted: dict[str, Person], knows: bool
    ) -> dict[str, Person]:
        """Make the contact list what a document says; who stays in it although the document does not have them.

        Who is in the contact list and not in the document is removed, and all that was between the two is over. But a whole document
        of somebody who did not say which version it replaces (``knows``) removes only those to whom nothing is bound: a
        new phone with an empty list must not end every subscription.
        """
        contacts = self._presence.contacts
        for key in sorted(wanted):
            one, item = wanted[key], listed.get(key)
            kept = [group for group in item.groups if not is_plain_group(group)] if item else []
            if item is None or person(one.address, item.name, item.groups) != one:
                groups = [*sorted(one.groups), *kept]
                answer = await contacts.put(request.user, one.address, one.name, groups, request.origin)
                if isinstance(answer, Response):
                    raise _refused(answer)
        staying: dict[str, Person] = {}
        for key in sorted(listed.keys() - wanted.keys()):
            item = listed[key]
            if not knows and _is_bound(item):
                staying[key] = person(item.contact, item.name, item.groups)
                continue
            removed = await contacts.remove(request.user, item.contact, request.origin)
            if isinstance(removed, Response):
                raise _refused(removed)
        return staying

    def _publish(self, request: Request, present: _Present | None, document: Document) -> None:
        """Presence that stays (RFC 4827): one more device, which never goes by itself."""
        entity = request.user.with_scheme("pres")
        new = PresenceDocument.parse(document.octets)
        former = PresenceDocument.parse(present.document.octets).date_time if present else None
        if former is not None and new.is_outdated(former):
            # Older than what it replaces would count as having come late (PRES-12); but a PUT replaces.
            self._presence.unpublish(entity, request.origin, key=HARD_STATE)
        answer = self._presence.publish(entity, Statement(new), request.origin, key=HARD_STATE)
        if isinstance(answer, Response):
            raise _refused(answer)

    def _take_back(self, request: Request, present: _Present | None) -> None:
        """The document could not be kept: what was published before it is published again."""
        self._presence.unpublish(request.user.with_scheme("pres"), request.origin, key=HARD_STATE)
        if present is not None:
            self._publish(request, None, present.document)

    # --- deleting ------------------------------------------------------------------------------------------------

    async def _delete(self, request: Request, usage: Usage) -> Answer:
        present = await self._present(request, usage)
        if present is None:
            raise Refused(404, "there is no such document")
        if request.target.node is None:
            check_conditions(request, present.etag if present else None)
            return await self._delete_document(request, usage, present)
        selector = read_node_selector(request.target, usage.namespace)
        if selector.is_namespaces:
            raise Refused(405, "namespace bindings are read only", allow=READ_ONLY)
        change = delete_part(present.document, selector, usage.limits)
        if change is None:
            raise Refused(404, "there is no such part of the document")
        check_conditions(request, present.etag if present else None)
        usage.validate(change.document, request.user)
        return Answer(200, {"ETag": await self._keep(request, usage, present, change.document, knows=True)})

    async def _delete_document(self, request: Request, usage: Usage, present: _Present) -> Answer:
        if usage.auid == "resource-lists":
            if not _is_meant(request) and any(map(_is_bound, present.contacts.values())):
                phrase = "there are contacts bound by subscriptions; say by If-Match that they are meant"
                raise Conflict("cannot-delete", phrase)
            await self._change_contacts(request, present.contacts, {}, knows=True)
        if present.stored:
            answer = await self._presence.documents.delete(
                request.user, usage.stored, request.origin, if_etag=present.stored
            )
            if isinstance(answer, Response):
                raise _refused(answer)
        if usage.auid == "pidf-manipulation":
            self._presence.unpublish(request.user.with_scheme("pres"), request.origin, key=HARD_STATE)
            await self._standing.remove(request.user)
        return Answer(200)


def _is_meant(request: Request) -> bool:
    """True if who is left out is to go: who names a part, or the version it knows, has seen it; who puts all of it may not have."""
    names_version = request.if_match is not None and request.if_match.strip() != "*"
    return names_version or (request.target.node is not None and "/" in request.target.node)


def _is_bound(item: ContactItem) -> bool:
    """True if more is between the two than a name in a list."""
    is_decided = item.decision in (Decision.ALLOWED, Decision.POLITE) or item.is_preapproved
    return item.asks or item.sees or is_decided or item.ask is not None


def _check_people(people: Iterable[Person], total: int, most: int) -> None:
    """Before the first change: what the contact list would refuse half-way."""
    for one in people:
        sizes = [len(text.encode()) for text in (one.name, *one.groups)]
        if len(one.groups) > _MOST_GROUPS or max(sizes) > _MOST_NAME or sum(sizes) > _MOST_TEXT:
            raise Conflict("constraint-failure", "a name is too long, or somebody stands in too many lists")
    if total > most:
        raise Conflict("constraint-failure", f"a contact list has at most {most} entries")


def _capabilities(request: Request) -> Answer:
    target = request.target
    if request.owner is not None or target.path != ("index",):
        raise Refused(404, "there is no such document")
    if request.method not in READ_ONLY.split(", "):
        raise Refused(405, "the capabilities are read only", allow=READ_ONLY)
    octets = capabilities()
    part: tuple[str, bytes] | None = CAPS_TYPE, octets
    if target.node is not None:
        part = read_part(Document.read(octets, FULL_LIMITS), read_node_selector(target, CAPS))
    if part is None:
        raise Refused(404, "there is no such part of the document")
    etag = etag_of(octets)
    if request.if_none_match is not None and has_tag(request.if_none_match, etag, is_weak=True):
        return Answer(304, {"ETag": etag})
    return Answer(200, {"Content-Type": part[0], "ETag": etag}, part[1])


def _refused(response: Response) -> Refused:
    """A failure of the service in XCAP's words."""
    text = response.text or "this cannot be done"
    match response.reason:
        case Reason.SYNTAX:
            return Conflict("schema-validation-error", text)
        case Reason.SIZE:
            return Refused(413, text)
        case Reason.QUOTA:
            return Conflict("constraint-failure", text)
        case Reason.NO_PUBLICATION:
            return Refused(412, "the document was changed meanwhile")
        case Reason.DENIED:
            return Refused(403, text)
        case _:
            return Refused(503, text)
