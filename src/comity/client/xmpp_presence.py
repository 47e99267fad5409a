"""Presence and the contact list by XMPP: the far end of RFC 6121.

Place on the path: step 9 of a subscribe and step 3 of a notify, at a user's own program. What each device of a contact said last is
kept (bounded), since the server tells it once, when we sign in, and not when somebody here begins to watch. After a
connection that could not be resumed the server tells all of it again, and so is it waited for again.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from comity.bindings.xmpp import mapping, wire
from comity.bindings.xmpp.e2e import wrap_entity, wrap_octets
from comity.bindings.xmpp.mapping import Refusal
from comity.bindings.xmpp.notices import state_to_children
from comity.bindings.xmpp.presence import stanza_to_statement
from comity.bindings.xmpp.queries import PING
from comity.client.base import ClientError
from comity.client.presence import Contact, Judge, NotPossible, Sealer, Seen, Standing, Watch
from comity.client.xmpp_stanzas import BLOCKING, ROSTER, address_of, blocking_element, contact_of, key_of, response_of
from comity.cpim.address import Address, from_jid, to_jid
from comity.cpim.composition import Publication, compose_presence
from comity.cpim.operations import MimeObject, Reason, Response, success
from comity.cpim.presence import PIDF_TYPE, Note
from comity.cpim.presence_state import Availability, PresenceState, state_document, tuple_id_of
from comity.errors import AddressError
from comity.xml import Element

STATUS: Final = f"{{{wire.CLIENT}}}status"
SETTLE: Final = 3.0
"""Seconds after which a contact of whom the server said nothing counts as offline."""
REQUEST: Final = 1.0
"""Seconds in which the first request of others comes after signing in, if there is one."""
MOST_KEPT: Final = 10_000
"""Contacts whose presence, and people whose requests, are kept."""
MOST_DEVICES: Final = 50
_FAR: Final = timedelta(days=3650)


class Line(Protocol):
    """The signed-in client, as it is needed here."""

    @property
    def address(self) -> Address: ...

    @property
    def resource(self) -> str: ...

    async def until_bound(self) -> None:
        """Wait until stanzas flow. Raises ClientError if they never will."""

    def write(self, stanza: Element, key: object = None) -> None:
        """Send a stanza; one with a key goes again on the next stream if the server did not take it. Raises ClientError."""

    @property
    def is_announced(self) -> bool:
        """True if we are available, or were."""

    def announce(self) -> None:
        """Send our presence."""


class XmppPresence:
    """Presence of one signed-in XMPP client."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self.own: list[Element | str] = []
        """Children of the presence we announce."""
        self.own_type = ""
        self._devices: dict[str, dict[str, Publication]] = {}
        """By address key, then by resource."""
        self._asking: dict[str, Contact] = {}
        """Requests of others, by address key."""
        self._was_asked = asyncio.Event()
        """Set once somebody asked."""
        self._watches: dict[str, set[Watch]] = {}
        self._roster: dict[str, Contact] | None = None
        self._answers: dict[str, asyncio.Future[Element]] = {}
        self._numbers = itertools.count(1)
        self._prefix = os.urandom(4).hex()

    # --- publish -----------------------------------------------------------------------------------------------

    async def publish(
        self, availability: Availability, note: str = "", *, lease: int | None = None, sealer: Sealer | None = None
    ) -> Response:
        """See ``PresenceClient.publish``."""
        if lease is not None:
            raise NotPossible(
                "By XMPP presence ends with the connection. Publish by SIP to leave it behind for a time."
            )
        state, now = PresenceState(availability, (Note(note),) if note else ()), datetime.now(UTC)
        self.own = state_to_children(state)
        self.own_type = "unavailable" if availability is Availability.OFFLINE else ""
        if sealer is not None:
            document = state_document(self._line.address, tuple_id_of(self._line.resource), state, now)
            if document is None:
                raise ClientError("there is nothing to publish: the state is unknown")
            obj = sealer(MimeObject.of(PIDF_TYPE, document.raw))
            self.own.append(wrap_entity(obj.entity) or wrap_octets(obj.entity))
        await self._line.until_bound()
        self._line.announce()
        return await self._flushed("publish")

    async def unpublish(self) -> Response:
        """See ``PresenceClient.unpublish``."""
        return await self.publish(Availability.OFFLINE)

    # --- watch -------------------------------------------------------------------------------------------------

    async def watch(
        self, address: Address, *, judge: Judge | None = None, is_once: bool = False
    ) -> AsyncGenerator[Seen]:
        """See ``PresenceClient.watch``."""
        watch, key = Watch(address, judge), key_of(address)
        self._watches.setdefault(key, set()).add(watch)
        try:
            await self._appear()
            contact = (await self._list()).get(key)
            if contact is not None and contact.sees:
                self._show(key)
                self._settle(watch)
            elif is_once:
                watch.say(Standing.PENDING if contact is not None and contact.asks else Standing.REFUSED, "not asked")
            else:
                watch.say(Standing.PENDING)
                refused = await self.ask(address)
                if refused.reason is not None:
                    watch.say(Standing.REFUSED, refused.text or refused.reason.value)
                    watch.end()
            async for seen in watch.read():
                yield seen
                if is_once:
                    return
        finally:
            self._watches[key].discard(watch)
            if not self._watches[key]:
                del self._watches[key]

    async def _appear(self) -> None:
        """Become available, if we are not: presence of others, and what they ask, comes only then (RFC 6121 section 4.2)."""
        await self._line.until_bound()
        if not self._line.is_announced:
            self._line.announce()

    def _settle(self, watch: Watch) -> None:
        """If nothing was told by then, nothing is known to be open."""

        def nothing_came() -> None:
            if watch.last is None or watch.last.standing is Standing.PENDING:
                watch.show(None)

        asyncio.get_running_loop().call_later(SETTLE, nothing_came)

    def _show(self, key: str) -> None:
        """Tell the watchers what is known of a contact, if anything is."""
        devices = self._devices.get(key)
        if devices is None or key not in self._watches:
            return
        for watch in self._watches[key]:
            watch.show(compose_presence(watch.who, devices.values(), datetime.now(UTC)).object if devices else None)

    # --- stanzas -----------------------------------------------------------------------------------------------

    def take_presence(self, stanza: Element) -> None:
        """Take a presence stanza; its ``from`` was checked by our server."""
        waiting = self._answers.get(stanza.get("id")) if stanza.get("type") == "error" else None
        if waiting is not None:  # an error for what we sent
            if not waiting.done():
                waiting.set_result(stanza)
            return
        try:
            sender, resource = from_jid(stanza.get("from"))
        except AddressError:
            return
        key = key_of(sender)
        match stanza.get("type"):
            case "" | "unavailable":
                self._take_state(stanza, sender, resource)
            case "subscribe":
                status = stanza.find(STATUS)
                if len(self._asking) < MOST_KEPT or key in self._asking:
                    text = status.text if status is not None else ""
                    self._asking[key] = Contact(sender, is_listed=False, is_asking=True, text=text)
                    self._was_asked.set()
            case "unsubscribe":
                self._asking.pop(key, None)
            case "subscribed":
                for watch in self._watches.get(key, ()):
                    self._settle(watch)
            case "unsubscribed":
                self._devices.pop(key, None)
                for watch in self._watches.get(key, ()):
                    watch.say(Standing.REFUSED, "unsubscribed")
                    watch.end()
            case "error":
                self._refused(stanza, key)

    def _take_state(self, stanza: Element, sender: Address, resource: str) -> None:
        key, now = key_of(sender), datetime.now(UTC)
        if key not in self._devices and len(self._devices) >= MOST_KEPT:
            self._forget_the_gone()
            if len(self._devices) >= MOST_KEPT:
                return
        devices = self._devices.setdefault(key, {})
        if stanza.get("type") == "unavailable":
            # From the bare address: nothing of it is available (RFC 6121 section 4.4.2).
            gone = [resource] if resource else list(devices)
            for one in gone:
                devices.pop(one, None)
            if not devices:
                self._say_parting(stanza, sender, resource, now)
                return
        elif len(devices) < MOST_DEVICES or resource in devices:
            said = stanza_to_statement(stanza, resource, now)
            if isinstance(said, Refusal) or said.document is None or not said.document.is_about(sender):
                return
            devices[resource] = Publication(
                resource, said.document, now, now + _FAR, said.secured, keeps_ids=said.keeps_ids
            )
        self._show(key)

    def _forget_the_gone(self) -> None:
        """Nobody watches them and nothing of them is available: no reason to keep others out."""
        for key in [key for key, devices in self._devices.items() if not devices and key not in self._watches]:
            del self._devices[key]

    def _say_parting(self, stanza: Element, sender: Address, resource: str, now: datetime) -> None:
        """The last device is gone: closed, with the note it left."""
        said = stanza_to_statement(stanza, resource, now)
        document = None if isinstance(said, Refusal) else said.document
        for watch in self._watches.get(key_of(sender), ()):
            # Who has not said yes is not "closed": servers answer a probe for nobody so (GW-14).
            if watch.last is None or watch.last.standing is not Standing.PENDING:
                watch.show(None if document is None else MimeObject.of(PIDF_TYPE, document.raw))

    def _refused(self, stanza: Element, key: str) -> None:
        """An error for which nobody waits: whoever watches is told."""
        for watch in self._watches.get(key, ()):
            response = mapping.error_to_response(stanza, "")
            watch.say(Standing.ENDED, response.text or (response.reason or Reason.INTERNAL).value)

    def take_answer(self, stanza: Element) -> bool:
        """Take an iq that answers one of ours; False if it does not."""
        future = self._answers.get(stanza.get("id"))
        if future is None or stanza.get("from") not in ("", to_jid(self._line.address), self._line.address.domain):
            return False
        if not future.done():
            future.set_result(stanza)
        return True

    def take_push(self, stanza: Element) -> bool:
        """Take a roster push (RFC 6121 section 2.1.6); False if it is none of our server's."""
        query = stanza.find(f"{{{ROSTER}}}query")
        if query is None or stanza.get("from") not in ("", to_jid(self._line.address)):
            return False
        for item in query.find_all(f"{{{ROSTER}}}item"):
            contact = contact_of(item)
            if contact is None or self._roster is None:
                continue
            if item.get("subscription") == "remove":
                self._roster.pop(key_of(contact.address), None)
            else:
                self._roster[key_of(contact.address)] = contact
        return True

    def bound_again(self) -> None:
        """A new stream: the server tells everything again, and what it does not tell is over."""
        self._devices.clear()
        self._roster = None
        for key, watches in self._watches.items():
            for watch in watches:
                if watch.last is not None and watch.last.standing is Standing.ACTIVE:
                    asyncio.get_running_loop().call_later(SETTLE, self._check_still_there, key, watch)

    def _check_still_there(self, key: str, watch: Watch) -> None:
        if not self._devices.get(key):
            watch.show(None)

    def lost(self, error: ClientError | None) -> None:
        """The connection is gone for good, or the client closes."""
        for future in self._answers.values():
            if not future.done():
                future.set_exception(error or ClientError("the client was closed"))
                future.exception()
        for watches in self._watches.values():
            for watch in watches:
                watch.end(error)

    # --- the contact list ----------------------------------------------------------------------------------------

    async def contacts(self) -> Sequence[Contact]:
        """See ``PresenceClient.contacts``."""
        return sorted((await self._list()).values(), key=lambda contact: str(contact.address))

    async def requests(self) -> Sequence[Contact]:
        """See ``PresenceClient.requests``: the server hands them over when we become available.

        No server says that there are no more, and not every one hands them over before it answers something else: where
        none came yet, a moment is waited for the first.
        """
        await self._appear()
        await self._flushed("requests")
        with suppress(TimeoutError):
            async with asyncio.timeout(REQUEST):
                await self._was_asked.wait()
        return list(self._asking.values())

    async def put_contact(self, address: Address, name: str = "", groups: Sequence[str] = ()) -> Response:
        """See ``PresenceClient.put_contact``."""
        item = Element(f"{{{ROSTER}}}item", {"jid": to_jid(address)} | ({"name": name} if name else {}))
        item.children += [Element(f"{{{ROSTER}}}group", {}, [group]) for group in groups]
        return await self._set(Element(f"{{{ROSTER}}}query", {}, [item]))

    async def remove_contact(self, address: Address) -> Response:
        """See ``PresenceClient.remove_contact``."""
        item = Element(f"{{{ROSTER}}}item", {"jid": to_jid(address), "subscription": "remove"})
        return await self._set(Element(f"{{{ROSTER}}}query", {}, [item]))

    async def ask(self, address: Address, text: str = "") -> Response:
        """See ``PresenceClient.ask``."""
        status: list[Element | str] = [Element(STATUS, {}, [text])] if text else []
        return await self._tell("subscribe", address, status)

    async def allow(self, address: Address) -> Response:
        """See ``PresenceClient.allow``."""
        return await self._answer("subscribed", address)

    async def refuse(self, address: Address) -> Response:
        """See ``PresenceClient.refuse``."""
        return await self._answer("unsubscribed", address)

    async def _answer(self, kind: str, address: Address) -> Response:
        response = await self._tell(kind, address, [])
        if response.reason is None:
            self._asking.pop(key_of(address), None)
        return response

    async def block(self, address: Address) -> Response:
        """See ``PresenceClient.block``."""
        return await self._set(blocking_element("block", address))

    async def unblock(self, address: Address) -> Response:
        """See ``PresenceClient.unblock``."""
        return await self._set(blocking_element("unblock", address))

    async def blocked(self) -> Sequence[Address]:
        """See ``PresenceClient.blocked``."""
        answer = await self._ask("get", Element(f"{{{BLOCKING}}}blocklist"))
        if answer.get("type") == "error":
            raise ClientError(f"the server keeps no block list: {mapping.error_to_response(answer, '').text}")
        blocklist = answer.find(f"{{{BLOCKING}}}blocklist")
        items = blocklist.find_all(f"{{{BLOCKING}}}item") if blocklist is not None else []
        return [address for item in items if (address := address_of(item.get("jid"))) is not None]

    # --- requests of ours ----------------------------------------------------------------------------------------

    async def _list(self) -> dict[str, Contact]:
        """The contact list, fetched once and kept true by pushes."""
        if self._roster is None:
            answer = await self._ask("get", Element(f"{{{ROSTER}}}query"))
            if answer.get("type") == "error":
                raise ClientError(f"the server gives no contact list: {mapping.error_to_response(answer, '').text}")
            query = answer.find(f"{{{ROSTER}}}query")
            items = query.find_all(f"{{{ROSTER}}}item") if query is not None else []
            found = [contact for item in items if (contact := contact_of(item)) is not None]
            self._roster = {key_of(contact.address): contact for contact in found}
        return self._roster

    async def _ask(self, kind: str, payload: Element) -> Element:
        """Send an iq to our account; its answer, result or error."""
        id = self._id()
        return await self._exchange(id, Element(wire.IQ, {"type": kind, "id": id}, [payload]))

    async def _set(self, payload: Element) -> Response:
        answer = await self._ask("set", payload)
        return response_of(answer)

    async def _tell(self, kind: str, address: Address, children: list[Element | str]) -> Response:
        """Send a presence stanza to somebody, and wait until our server dealt with it."""
        id, bare = self._id(), to_jid(address)
        stanza = Element(wire.PRESENCE, {"type": kind, "id": id, "to": bare}, children)
        await self._line.until_bound()
        future = self._answers[id] = asyncio.get_running_loop().create_future()
        try:
            self._line.write(stanza, id)
            await self._flushed(id)
            return response_of(future.result()) if future.done() else success(id)
        finally:
            self._answers.pop(id, None)

    async def _flushed(self, trans_id: str) -> Response:
        """Wait until our server handled what was sent: it answers a ping after it (RFC 6120 section 10.1)."""
        id = self._id()
        ping = {"type": "get", "id": id, "to": self._line.address.domain}
        await self._exchange(id, Element(wire.IQ, ping, [Element(f"{{{PING}}}ping")]))
        return success(trans_id)

    async def _exchange(self, id: str, stanza: Element) -> Element:
        await self._line.until_bound()
        future: asyncio.Future[Element] = asyncio.get_running_loop().create_future()
        self._answers[id] = future
        try:
            self._line.write(stanza, id)
            return await future
        finally:
            self._answers.pop(id, None)

    def _id(self) -> str:
        return f"{self._prefix}-{next(self._numbers)}"
