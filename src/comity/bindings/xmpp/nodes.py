"""The nodes of accounts, and who is told of them (XEP-0163 section 4).

Place on the path: under ``personal.py``. A node is one document of its account (``Documents``). Told are available devices whose
capabilities name the node with ``+notify``: at once when something changes, and with the last item when they come; the
account's own, and those of contacts who may see it and watch it now. Whom the account blocks politely is told nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from comity.bindings.xmpp import wire
from comity.bindings.xmpp.devices import Connection
from comity.bindings.xmpp.extensions import PROTOCOL
from comity.bindings.xmpp.ground import Ground
from comity.bindings.xmpp.notices import to_octets
from comity.bindings.xmpp.pubsub import EVENT, Node, decode_node, event, items_element
from comity.bindings.xmpp.queries import NOTIFY
from comity.bindings.xmpp.wire import Element
from comity.cpim.address import Address, to_jid
from comity.cpim.operations import Reason, Response, failure
from comity.errors import StoreError
from comity.service.interfaces import Origin
from comity.service.presence.interfaces import PresenceService, StoredDocument

_PREFIX: Final = "pep/"
_TYPE: Final = "application/json"
#: How often a change is tried again that another device of the account was quicker than.
_TRIES: Final = 8

Change = Callable[[Node | None], "Node | Element | None"]
"""Makes of a node what it is to be: the node, or the error that says why not."""


class Nodes:
    """What accounts keep, and notifications of it."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    @property
    def _presence(self) -> PresenceService:
        presence = self._ground.presence
        assert presence is not None
        return presence

    # --- what is kept ------------------------------------------------------------------------------------------------

    async def names(self, account: Address) -> list[str]:
        """Of all its nodes."""
        return [name.removeprefix(_PREFIX) for name in await self._presence.documents.names(account, _PREFIX)]

    async def load(self, account: Address, name: str) -> Node | None:
        """One of them."""
        return _node(name, await self._presence.documents.get(account, _PREFIX + name))

    async def delete(self, account: Address, name: str, origin: Origin) -> bool | Response:
        """Delete one; False if it is not there."""
        return await self._presence.documents.delete(account, _PREFIX + name, origin)

    async def change(
        self, account: Address, name: str, origin: Origin, change: Change
    ) -> tuple[Node | Element | Response | None, bool]:
        """Change a node, durably; the node as it is now, or why not, and whether it is new.

        Another device may change it meanwhile: then once more."""
        documents, document = self._presence.documents, _PREFIX + name
        for _ in range(_TRIES):
            stored = await documents.get(account, document)
            node = change(_node(name, stored))
            if not isinstance(node, Node):
                return node, False
            octets = node.encode()
            if stored is not None and stored.octets == octets:
                return node, False
            etag = stored.etag if stored is not None else ""
            kept = await documents.put(account, document, _TYPE, octets, origin, if_etag=etag)
            if isinstance(kept, StoredDocument):
                return node, stored is None
            if kept.reason is not Reason.NO_PUBLICATION:
                return kept, stored is None
        return failure("", Reason.OVERLOAD, "This node changes too often."), False

    # --- notifications -----------------------------------------------------------------------------------------------

    def tell(self, account: Address, node: Node, child: Element, item: str) -> None:
        """Tell the account's own devices, and those of contacts who may know."""
        wish = node.name + NOTIFY
        devices = [one for one in self._ground.devices.available(account) if wish in (one.features or ())]
        if node.access != "whitelist":
            for watcher in self._watchers(account):
                devices += [one for one in self._ground.devices.available(watcher) if wish in (one.features or ())]
        self._write(devices, account, node.name, child, item)

    def _watchers(self, account: Address) -> list[Address]:
        subscriptions = self._presence.seen_by(account)
        return [one.watcher for one in subscriptions if one.edge == PROTOCOL and one.watcher.key != account.key]

    def _write(self, devices: Iterable[Connection], account: Address, node: str, child: Element, item: str) -> None:
        sender, id = to_jid(account), self._ground.random(8).hex()
        octets = wire.encode(event(sender, id, child))
        tail = octets[len(b"<message") :]
        for device in devices:
            written = b"<message to='" + to_octets(str(device.jid)) + b"'" + tail
            if device.is_live:
                self._ground.pass_raw(device, written, f"event {sender} {node} {item}")
                device.link.flush()
            else:
                device.send_raw(written)

    def came(self, connection: Connection) -> None:
        """A device is available and what it can do is known: show it the last items of what it wants to be told of."""
        if self._ground.presence is None or connection.presence is None:
            return
        wanted = frozenset(one.removesuffix(NOTIFY) for one in connection.features or () if one.endswith(NOTIFY))
        new, connection.events = wanted - connection.events, wanted
        if new:
            self._ground.run(self._show_all(connection, new))

    def granted(self, account: Address, contact: Address) -> None:
        """``contact`` lets ``account`` see it from now on: show its devices what they would have been shown when they came."""
        for device in self._ground.devices.available(account):
            if device.events:
                self._ground.run(self._show(device, contact, device.events))

    async def _show_all(self, connection: Connection, wanted: frozenset[str]) -> None:
        assert connection.account is not None
        account = connection.account
        await self._show(connection, account, wanted)
        for item in (await self._presence.contacts.roster(account)).items:
            if item.sees:
                await self._show(connection, item.contact, wanted)

    async def _show(self, connection: Connection, account: Address, wanted: frozenset[str]) -> None:
        assert connection.account is not None
        is_own = connection.account.key == account.key
        names = [name for name in await self.names(account) if name in wanted]
        if not names or not (is_own or await self._presence.may_see(account, connection.account)):
            return
        for name in names:
            node = await self.load(account, name)
            if node is None or not node.items or (node.access == "whitelist" and not is_own):
                continue
            if node.options["send_last_published_item"] != "on_sub_and_presence":
                continue
            device = connection.current
            if device.presence is None:
                return
            last = node.items[-1]
            child = items_element(EVENT, node.name, [last], with_payload=node.is_on("deliver_payloads"))
            self._write([device], account, node.name, child, last.id)


def _node(name: str, stored: StoredDocument | None) -> Node | None:
    try:
        return None if stored is None else decode_node(name, stored.octets)
    except ValueError as error:
        raise StoreError(f"the stored node {name}: {error}") from error
