"""Cards and private settings that clients keep here: vcard-temp (XEP-0054) and private XML storage (XEP-0049).

Place on the path: beside it. Both are documents of the account, kept as they came. Its card may be read by every account here
that it does not block, as with other servers; its private settings by nobody else. Of others, an account without a card and one
that does not exist look alike (XMPP-8).
"""

from __future__ import annotations

from typing import Final

from comity.bindings.xmpp import wire
from comity.bindings.xmpp.devices import Connection
from comity.bindings.xmpp.ground import Ground
from comity.bindings.xmpp.mapping import response_to_error
from comity.bindings.xmpp.pubsub import kept_element
from comity.bindings.xmpp.queries import PRIVATE_STORAGE, VCARD
from comity.bindings.xmpp.wire import Element
from comity.cpim.address import Address, from_jid
from comity.cpim.operations import Response
from comity.errors import LocalProtocolError
from comity.service.interfaces import Origin
from comity.service.presence.interfaces import Documents
from comity.xml import serialize

_CARD: Final = f"{{{VCARD}}}vCard"
_PRIVATE: Final = f"{{{PRIVATE_STORAGE}}}query"
_TYPE: Final = "application/xml"


class Cards:
    """Queries about cards and private settings."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    def takes(self, stanza: Element) -> bool:
        """True if the iq, addressed to an account, is about its card or its private settings."""
        return next(stanza.elements()).name in (_CARD, _PRIVATE) and self._ground.presence is not None

    async def query(self, connection: Connection, stanza: Element) -> None:
        """Answer such an iq."""
        assert connection.account is not None
        answer = await self.answer(stanza, connection.account, self._ground.origin(connection))
        self._ground.answer(connection, answer)

    async def answer(self, stanza: Element, asker: Address, origin: Origin) -> Element | None:
        """The answer to such an iq, whoever asks."""
        assert self._ground.presence is not None
        documents = self._ground.presence.documents
        account = from_jid(stanza.get("to"))[0].folded() if stanza.get("to") else asker
        payload = next(stanza.elements())
        is_own = account.key == asker.key
        if stanza.get("type") == "set" and not is_own:
            answer = wire.error_reply(stanza, "forbidden")
        elif payload.name == _CARD and stanza.get("type") == "get":
            answer = await self._card(stanza, account, documents, is_own=is_own)
        elif payload.name == _CARD:
            answer = await self._keep(account, stanza, [("vcard-temp", payload)], origin)
        elif not is_own:
            answer = wire.error_reply(stanza, "forbidden")  # XEP-0049 section 4
        else:
            answer = await self._private(account, stanza, payload, origin)
        return answer

    async def _card(self, stanza: Element, account: Address, documents: Documents, *, is_own: bool) -> Element | None:
        stored = await documents.get(account, "vcard-temp")
        if stored is None:
            return wire.error_reply(stanza, "item-not-found" if is_own else "service-unavailable")
        return wire.iq_result(stanza, kept_element(stored.octets))

    async def _private(self, account: Address, stanza: Element, payload: Element, origin: Origin) -> Element | None:
        children = list(payload.elements())
        if not children or any(not _may_keep(child) for child in children):
            return wire.error_reply(stanza, "not-acceptable", "an element in a namespace of its own is kept here")
        if stanza.get("type") == "set":
            return await self._keep(account, stanza, [(_name(child), child) for child in children], origin)
        if len(children) > 1:
            return wire.error_reply(stanza, "bad-request", "one element is asked for at a time")
        assert self._ground.presence is not None
        stored = await self._ground.presence.documents.get(account, _name(children[0]))
        found = kept_element(stored.octets) if stored is not None else Element(children[0].name)
        return wire.iq_result(stanza, Element(_PRIVATE, {}, [found]))

    async def _keep(
        self, account: Address, stanza: Element, elements: list[tuple[str, Element]], origin: Origin
    ) -> Element | None:
        assert self._ground.presence is not None
        for name, element in elements:
            try:
                octets = serialize(element)
            except LocalProtocolError:
                return wire.error_reply(stanza, "not-acceptable", "this holds a name that cannot be kept")
            kept = await self._ground.presence.documents.put(account, name, _TYPE, octets, origin)
            if isinstance(kept, Response):
                return response_to_error(stanza, kept, is_local=False)
        return wire.iq_result(stanza)


def _may_keep(element: Element) -> bool:
    """XEP-0049 section 3: a namespace of the client's own, none of the protocol's."""
    namespace = element.namespace
    is_protocol = namespace in ("", "vcard-temp") or namespace.startswith(("jabber:", "http://etherx.jabber.org/"))
    return not is_protocol


def _name(element: Element) -> str:
    return f"private/{element.name}"
