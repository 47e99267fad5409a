"""Personal eventing: what an account's programs keep here for themselves and for its contacts (XEP-0163, XEP-0060).

Place on the path: beside it. Bookmarks, avatars, nicknames, device lists and keys of end-to-end encryption, vCard4: each node is a
document of its account (``Documents``, bounded by ``[limits] documents`` and ``document_octets``), so its items survive a restart.

Only the account itself changes anything. Who else may look is said by the node: anybody ("open"), who may see the account's
presence ("presence", the default), nobody ("whitelist"). Whoever may not see the account learns nothing but open nodes: its
private nodes, its missing ones and accounts that do not exist all look alike (XMPP-8). A politely blocked contact is told nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Final

from comity.bindings.xmpp import wire
from comity.bindings.xmpp.devices import Connection
from comity.bindings.xmpp.ground import Ground
from comity.bindings.xmpp.mapping import response_to_error
from comity.bindings.xmpp.nodes import Change, Nodes
from comity.bindings.xmpp.pubsub import (
    EVENT,
    FEATURES,
    MAX_NAME,
    OWNER,
    PUBSUB,
    Item,
    Node,
    items_element,
    options_form,
    pubsub,
    read_options,
    refusal,
)
from comity.bindings.xmpp.queries import DISCO_INFO, DISCO_ITEMS, PRESENCE_FEATURES
from comity.bindings.xmpp.wire import Element
from comity.cpim.address import Address, from_jid, to_jid
from comity.cpim.operations import Reason, Response
from comity.errors import LocalProtocolError
from comity.service.interfaces import Origin
from comity.service.presence.interfaces import PresenceService
from comity.xml import serialize

log = logging.getLogger(__name__)

_DISCO: Final = frozenset({f"{{{DISCO_INFO}}}query", f"{{{DISCO_ITEMS}}}query"})


class Personal:
    """Queries about nodes, and notifications."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._nodes = Nodes(ground)
        self._verbs: dict[tuple[str, str], Callable[[_Query], Awaitable[Element | None]]] = {
            ("get", f"{{{PUBSUB}}}items"): self._items,
            ("set", f"{{{PUBSUB}}}publish"): self._publish,
            ("set", f"{{{PUBSUB}}}retract"): self._retract,
            ("set", f"{{{PUBSUB}}}create"): self._create,
            ("set", f"{{{OWNER}}}delete"): self._delete,
            ("set", f"{{{OWNER}}}purge"): self._purge,
            ("get", f"{{{OWNER}}}configure"): self._configuration,
            ("set", f"{{{OWNER}}}configure"): self._configure,
            ("get", f"{{{OWNER}}}default"): self._default,
        }

    @property
    def _presence(self) -> PresenceService:
        presence = self._ground.presence
        assert presence is not None
        return presence

    def came(self, connection: Connection) -> None:
        """A device is available and what it can do is known: show it the last items of what it wants to be told of."""
        self._nodes.came(connection)

    def granted(self, account: Address, contact: Address) -> None:
        """``contact`` lets ``account`` see it from now on."""
        self._nodes.granted(account, contact)

    # --- queries -----------------------------------------------------------------------------------------------------

    def takes(self, stanza: Element) -> bool:
        """True if the iq, addressed to an account, is about its nodes, or asks what the account is."""
        payload = next(stanza.elements())
        is_asked = payload.name in _DISCO and stanza.get("type") == "get"
        is_ours = is_asked or payload.name in (f"{{{PUBSUB}}}pubsub", f"{{{OWNER}}}pubsub")
        return is_ours and self._ground.presence is not None

    async def query(self, connection: Connection, stanza: Element) -> None:
        """Answer such an iq."""
        assert connection.account is not None
        answer = await self.answer(stanza, connection.account, self._ground.origin(connection))
        self._ground.answer(connection, answer)

    async def answer(self, stanza: Element, asker: Address, origin: Origin) -> Element | None:
        """The answer to such an iq, whoever asks."""
        to = stanza.get("to")
        account = from_jid(to)[0].folded() if to else asker
        asked = _Query(stanza, account, asker, origin)
        payload = next(stanza.elements())
        if payload.name in _DISCO:
            return await self._discover(asked, payload)
        action = next(payload.elements(), None)
        if action is None:
            return refusal(stanza, "bad-request")
        verb = self._verbs.get((stanza.get("type"), action.name))
        if verb is None:
            return refusal(stanza, "feature-not-implemented", "unsupported", feature=action.local)
        asked.payload, asked.action, asked.node = payload, action, action.get("node")
        if not asked.is_own and verb != self._items:
            return refusal(stanza, "forbidden")
        if not asked.node and verb not in (self._default, self._create):
            return refusal(stanza, "bad-request", "nodeid-required")
        if len(asked.node.encode()) > MAX_NAME or not asked.node.isprintable():
            return refusal(stanza, "not-acceptable", text="this is no name for a node here")
        return await verb(asked)

    async def _items(self, asked: _Query) -> Element | None:
        node = await self._nodes.load(asked.account, asked.node)
        if node is None or not await self._may_look(asked, node):
            return await self._hidden(asked, node)
        wanted = [item.get("id") for item in asked.action.elements() if item.get("id")]
        items: Iterable[Item] = node.items
        if wanted:
            items = [one for one in node.items if one.id in wanted]
        elif asked.action.get("max_items").isdigit():
            items = node.items[-int(asked.action.get("max_items")[:9]) or len(node.items) :]
        return wire.iq_result(asked.stanza, pubsub(items_element(PUBSUB, node.name, items)))

    async def _publish(self, asked: _Query) -> Element | None:
        stanza = asked.stanza
        items = asked.action.find_all(f"{{{PUBSUB}}}item")
        if len(items) != 1:
            return refusal(stanza, "bad-request" if not items else "not-allowed", "item-required" if not items else "")
        payloads = list(items[0].elements())
        id = items[0].get("id") or self._ground.random(8).hex()
        if len(payloads) != 1 or len(id.encode()) > MAX_NAME:
            detail = "payload-required" if not payloads else "invalid-payload"
            return refusal(stanza, "bad-request", detail)
        try:
            options = read_options(asked.payload.find(f"{{{PUBSUB}}}publish-options"))
            item = Item(id, serialize(payloads[0]).decode())
        except ValueError as error:
            return refusal(stanza, "conflict", "precondition-not-met", f"no node here has such a {error}")
        except LocalProtocolError:
            return refusal(stanza, "not-acceptable", text="the item holds a name that cannot be kept")

        def change(node: Node | None) -> Node | Element | None:
            if node is None:
                node = Node(asked.node).configured(options)
            elif name := node.unlike(options):
                return refusal(stanza, "conflict", "precondition-not-met", f"the node has another {name}")
            return node.with_item(item)

        node = await self._change(asked, change)
        if not isinstance(node, Node):
            return node
        told = items_element(EVENT, node.name, [item], with_payload=node.is_on("deliver_payloads"))
        self._nodes.tell(asked.account, node, told, item.id)
        result = Element(f"{{{PUBSUB}}}item", {"id": id})
        return wire.iq_result(stanza, pubsub(Element(f"{{{PUBSUB}}}publish", {"node": node.name}, [result])))

    async def _retract(self, asked: _Query) -> Element | None:
        ids = [item.get("id") for item in asked.action.elements()]
        if len(ids) != 1 or not ids[0]:
            return refusal(asked.stanza, "bad-request", "item-required")

        def change(node: Node | None) -> Node | Element | None:
            if node is None or all(one.id != ids[0] for one in node.items):
                return refusal(asked.stanza, "item-not-found")
            return node.without(ids[0])

        node = await self._change(asked, change)
        if not isinstance(node, Node):
            return node
        if node.is_on("notify_retract") or asked.action.get("notify") in ("1", "true"):
            gone = Element(f"{{{EVENT}}}retract", {"id": ids[0]})
            self._nodes.tell(asked.account, node, Element(f"{{{EVENT}}}items", {"node": node.name}, [gone]), ids[0])
        return wire.iq_result(asked.stanza)

    async def _create(self, asked: _Query) -> Element | None:
        given = asked.node
        asked.node = given or self._ground.random(12).hex()
        try:
            options = read_options(asked.payload.find(f"{{{PUBSUB}}}configure"))
        except ValueError as error:
            return refusal(asked.stanza, "not-acceptable", text=f"no node here has such a {error}")

        def change(node: Node | None) -> Node | Element | None:
            if node is not None:
                return refusal(asked.stanza, "conflict")
            return Node(asked.node).configured(options)

        node = await self._change(asked, change)
        if not isinstance(node, Node):
            return node
        made = None if given else pubsub(Element(f"{{{PUBSUB}}}create", {"node": node.name}))
        return wire.iq_result(asked.stanza, made)

    async def _delete(self, asked: _Query) -> Element | None:
        last = await self._nodes.load(asked.account, asked.node)
        deleted = await self._nodes.delete(asked.account, asked.node, asked.origin)
        if isinstance(deleted, Response):
            return response_to_error(asked.stanza, deleted, is_local=False)
        if not deleted or last is None:
            return refusal(asked.stanza, "item-not-found")
        if last.is_on("notify_delete"):
            self._nodes.tell(asked.account, last, Element(f"{{{EVENT}}}delete", {"node": last.name}), "")
        return wire.iq_result(asked.stanza)

    async def _purge(self, asked: _Query) -> Element | None:
        def change(node: Node | None) -> Node | Element | None:
            return refusal(asked.stanza, "item-not-found") if node is None else replace(node, items=())

        node = await self._change(asked, change)
        if not isinstance(node, Node):
            return node
        if node.is_on("notify_retract"):
            self._nodes.tell(asked.account, node, Element(f"{{{EVENT}}}purge", {"node": node.name}), "")
        return wire.iq_result(asked.stanza)

    async def _configuration(self, asked: _Query) -> Element | None:
        node = await self._nodes.load(asked.account, asked.node)
        if node is None:
            return refusal(asked.stanza, "item-not-found")
        form = Element(f"{{{OWNER}}}configure", {"node": node.name}, [options_form(node)])
        return wire.iq_result(asked.stanza, pubsub(form, namespace=OWNER))

    async def _configure(self, asked: _Query) -> Element | None:
        try:
            options = read_options(asked.action)
        except ValueError as error:
            return refusal(asked.stanza, "not-acceptable", text=f"no node here has such a {error}")

        def change(node: Node | None) -> Node | Element | None:
            return refusal(asked.stanza, "item-not-found") if node is None else node.configured(options)

        node = await self._change(asked, change)
        return wire.iq_result(asked.stanza) if isinstance(node, Node) else node

    async def _default(self, asked: _Query) -> Element | None:
        form = Element(f"{{{OWNER}}}default", {}, [options_form(Node(""))])
        return wire.iq_result(asked.stanza, pubsub(form, namespace=OWNER))

    # --- discovery ---------------------------------------------------------------------------------------------------

    async def _discover(self, asked: _Query, payload: Element) -> Element | None:
        name = payload.get("node")
        is_info = payload.namespace == DISCO_INFO
        node = await self._nodes.load(asked.account, name) if name else None
        if name and (node is None or not await self._may_look(asked, node)):
            return await self._hidden(asked, node)
        if not name and not await self._sees(asked):
            return refusal(asked.stanza, "service-unavailable")
        query = Element(payload.name, {"node": name} if name else {})
        if is_info:
            _describe(query, node)
        elif node is not None:
            query.children += [_item(asked.account, name=one.id) for one in node.items]
        else:
            query.children += [_item(asked.account, node=one.name) for one in await self._visible(asked)]
        return wire.iq_result(asked.stanza, query)

    async def _visible(self, asked: _Query) -> list[Node]:
        nodes = [await self._nodes.load(asked.account, name) for name in await self._nodes.names(asked.account)]
        return [node for node in nodes if node is not None and (asked.is_own or node.access != "whitelist")]

    # --- who may look ------------------------------------------------------------------------------------------------

    async def _may_look(self, asked: _Query, node: Node) -> bool:
        if asked.is_own or node.access == "open":
            return True
        return node.access == "presence" and await self._sees(asked)

    async def _sees(self, asked: _Query) -> bool:
        return asked.is_own or await self._presence.may_see(asked.account, asked.asker)

    async def _hidden(self, asked: _Query, node: Node | None) -> Element | None:
        """The error about a node that is not there, or not for who asks."""
        if not await self._sees(asked):
            return refusal(asked.stanza, "service-unavailable")
        return (
            refusal(asked.stanza, "item-not-found")
            if node is None
            else refusal(asked.stanza, "not-allowed", "closed-node")
        )

    async def _change(self, asked: _Query, change: Change) -> Node | Element | None:
        """Change the node that is asked about; the error if it cannot be."""
        made, is_new = await self._nodes.change(asked.account, asked.node, asked.origin, change)
        return _refused(asked.stanza, made, is_new=is_new) if isinstance(made, Response) else made


class _Query:
    """One iq about an account's nodes."""

    def __init__(self, stanza: Element, account: Address, asker: Address, origin: Origin) -> None:
        self.stanza = stanza
        self.account = account
        self.asker = asker
        self.origin = origin
        self.payload = self.action = stanza
        self.node = ""

    @property
    def is_own(self) -> bool:
        """True if the account itself asks."""
        return self.account.key == self.asker.key


def _refused(stanza: Element, response: Response, *, is_new: bool) -> Element | None:
    """The error for what the account has no room for."""
    if response.reason is Reason.SIZE:
        return refusal(stanza, "not-acceptable", "payload-too-big", response.text)
    if response.reason is Reason.QUOTA:
        return refusal(
            stanza, "resource-constraint", "max-nodes-exceeded" if is_new else "max-items-exceeded", response.text
        )
    return response_to_error(stanza, response, is_local=False)


def _describe(query: Element, node: Node | None) -> None:
    """What an account's address, or one of its nodes, is and can do."""
    if node is None:
        identities = [("account", "registered"), ("pubsub", "pep")]
        features: Iterable[str] = dict.fromkeys((DISCO_INFO, DISCO_ITEMS, *FEATURES, *PRESENCE_FEATURES))
    else:
        identities, features = [("pubsub", "leaf")], (PUBSUB,)
    query.children += [Element(f"{{{DISCO_INFO}}}identity", {"category": c, "type": t}) for c, t in identities]
    query.children += [Element(f"{{{DISCO_INFO}}}feature", {"var": feature}) for feature in features]


def _item(account: Address, **what: str) -> Element:
    return Element(f"{{{DISCO_ITEMS}}}item", {"jid": to_jid(account), **what})
