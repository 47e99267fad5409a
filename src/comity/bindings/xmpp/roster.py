"""The contact list as XMPP sees it: read, changed, pushed to those who asked for it (RFC 6121 section 2).

Place on the path: beside step 5. An iq of the account's own comes in, the presence service's contact list is asked or changed,
and what it says of every change, whoever made it, goes to all interested resources. A push holds what is durable.

The version is the list's own number; every change of an item has one of its own, so a push brings exactly that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from comity.bindings.xmpp import wire
from comity.bindings.xmpp.devices import Connection
from comity.bindings.xmpp.ground import Ground
from comity.bindings.xmpp.jid import Jid
from comity.bindings.xmpp.mapping import Refusal, response_to_error
from comity.bindings.xmpp.queries import ROSTER
from comity.bindings.xmpp.wire import IQ, Element
from comity.cpim.address import Address, from_jid, to_jid
from comity.cpim.operations import Response
from comity.errors import AddressError
from comity.service.presence.interfaces import ContactItem, Contacts, Decision, Roster

_QUERY: Final = f"{{{ROSTER}}}query"
_ITEM: Final = f"{{{ROSTER}}}item"
_GROUP: Final = f"{{{ROSTER}}}group"
#: Octets of a name and of a group's name: as long as a part of a JID (RFC 7622 section 3.1).
MAX_NAME: Final = 1023
#: Groups of one item; Prosody and ejabberd have no limit but that of the stanza.
MAX_GROUPS: Final = 64


@dataclass(frozen=True, slots=True)
class RosterSet:
    """What a roster set asks for."""

    contact: Address
    name: str = ""
    groups: tuple[str, ...] = ()
    is_removal: bool = False


class ContactLists:
    """Roster queries and pushes."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    def takes(self, stanza: Element) -> bool:
        """True if the iq, addressed to the account, asks for the list or changes it."""
        return self._ground.presence is not None and _payload(stanza).name == _QUERY

    async def query(self, connection: Connection, stanza: Element) -> None:
        """Answer such an iq."""
        presence = self._ground.presence
        assert presence is not None
        if stanza.get("type") == "get":
            await self._get(connection, stanza, presence.contacts)
        else:
            self._ground.answer(connection, await self._set(connection, stanza, presence.contacts))

    # --- get -------------------------------------------------------------------------------------------------------

    async def _get(self, connection: Connection, stanza: Element, contacts: Contacts) -> None:
        assert connection.account is not None
        if any(_payload(stanza).elements()):
            # RFC 6121 section 2.1.3: the query of a roster get holds nothing.
            self._ground.answer(connection, wire.error_reply(stanza, "bad-request", "a roster get holds no item"))
            return
        version = _payload(stanza).attributes.get("ver")
        connection.wants_roster, connection.waiting_pushes = True, []
        try:
            changed = await _changes(contacts, connection.account, version)
            roster = await contacts.roster(connection.account) if changed is None else changed
        finally:
            connection = connection.current
            waiting, connection.waiting_pushes = connection.waiting_pushes or [], None
        if changed is None:
            items: list[Element | str] = [item_element(item) for item in roster.items]
            answer = Element(_QUERY, {"ver": str(roster.version)}, items)
            self._ground.reply(connection, wire.iq_result(stanza, answer))
        else:
            self._ground.reply(connection, wire.iq_result(stanza))  # RFC 6121 section 2.6.3: empty, then what changed
            for item in sorted(changed.items, key=lambda item: item.version):
                self._push(connection, item)
        for item in waiting:
            if item.version > roster.version:
                self._push(connection, item)
        connection.link.flush()

    # --- set -------------------------------------------------------------------------------------------------------

    async def _set(self, connection: Connection, stanza: Element, contacts: Contacts) -> Element | None:
        assert connection.account is not None
        asked, origin = read_set(_payload(stanza), connection.account), self._ground.origin(connection)
        if isinstance(asked, Refusal):
            return wire.error_reply(stanza, asked.condition, asked.text)
        made: ContactItem | Response | bool
        if asked.is_removal:
            made = await contacts.remove(connection.account, asked.contact, origin)
        else:
            made = await contacts.put(connection.account, asked.contact, asked.name, asked.groups, origin)
        if made is False:
            # RFC 6121 section 2.5.3 shows this type, not the condition's own.
            return wire.error_reply(stanza, "item-not-found", "that contact is not in the list", kind="modify")
        return response_to_error(stanza, made, is_local=False) if isinstance(made, Response) else wire.iq_result(stanza)

    # --- push ------------------------------------------------------------------------------------------------------

    def changed(self, item: ContactItem) -> None:
        """An item changed: tell the interested resources of its account."""
        for connection in self._ground.devices.of(item.account):
            if not connection.wants_roster:
                continue
            if connection.waiting_pushes is not None:
                connection.waiting_pushes.append(item)
                continue
            self._push(connection, item)
            connection.link.flush()

    def _push(self, connection: Connection, item: ContactItem) -> None:
        attributes = {"type": "set", "id": f"push-{self._ground.random(6).hex()}", "to": str(connection.jid)}
        query = Element(_QUERY, {"ver": str(item.version)}, [item_element(item)])
        self._ground.reply(connection, Element(IQ, attributes, [query]))


def item_element(item: ContactItem) -> Element:
    """An item of the list as RFC 6121 section 2.1.2 writes it."""
    attributes = {"jid": to_jid(item.contact)}
    if not item.is_listed:
        return Element(_ITEM, {**attributes, "subscription": "remove"})
    if item.name:
        attributes["name"] = item.name
    attributes["subscription"] = subscription_of(item)
    if item.asks:
        attributes["ask"] = "subscribe"
    if item.is_preapproved:
        attributes["approved"] = "true"
    return Element(_ITEM, attributes, [Element(_GROUP, {}, [group]) for group in item.groups])


def subscription_of(item: ContactItem) -> str:
    """The state in the words of RFC 6121 section 2.1.2.5."""
    if item.decision is Decision.ALLOWED:
        return "both" if item.sees else "from"
    return "to" if item.sees else "none"


def _payload(stanza: Element) -> Element:
    return next(stanza.elements())


async def _changes(contacts: Contacts, account: Address, version: str | None) -> Roster | None:
    """What changed since the version a client has; None if it needs all of the list."""
    if not version or not version.isascii() or not version.isdigit() or len(version) > 18:
        return None
    return await contacts.roster_since(account, int(version))


def read_set(query: Element, account: Address) -> RosterSet | Refusal:
    """Read a roster set of ``account`` with the checks of RFC 6121 section 2.3.3."""
    items = list(query.elements())
    if len(items) != 1 or items[0].name != _ITEM or not items[0].get("jid"):
        return Refusal("bad-request", "a roster set holds one item, which has a jid")
    item = items[0]
    try:
        jid = Jid.parse(item.get("jid"))
        if not jid.local or jid.resource:
            return Refusal("not-acceptable", "a contact is local@domain")
        contact = from_jid(str(jid))[0].folded()
    except AddressError as error:
        return Refusal("jid-malformed", error.reason)
    if contact.key == account.key:
        return Refusal("not-allowed", "nobody is in their own contact list")
    if item.get("subscription") == "remove":
        return RosterSet(contact, is_removal=True)
    name, groups = item.get("name"), tuple(group.text for group in item.find_all(_GROUP))
    if len(set(groups)) != len(groups):
        return Refusal("bad-request", "each group is named once")
    if not all(groups) or len(groups) > MAX_GROUPS:
        return Refusal("not-acceptable", f"there are at most {MAX_GROUPS} groups, and each has a name")
    if any(len(text.encode("utf-8", "surrogatepass")) > MAX_NAME for text in (name, *groups)):
        return Refusal("not-acceptable", f"a name has at most {MAX_NAME} octets")
    return RosterSet(contact, name, groups)
