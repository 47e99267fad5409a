"""The blocking command (XEP-0191): the list of those with whom an account has nothing to do, and its pushes.

Place on the path: beside step 5. What blocking means is decided in the service: the blocked see someone who is offline and their
messages are refused. Here stands only the list, and what our own user may not send to whom she blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from comity.bindings.xmpp import wire
from comity.bindings.xmpp.devices import Connection
from comity.bindings.xmpp.ground import Ground
from comity.bindings.xmpp.jid import Jid
from comity.bindings.xmpp.mapping import response_to_error
from comity.bindings.xmpp.queries import BLOCKING
from comity.bindings.xmpp.wire import IQ, Element
from comity.cpim.address import Address, from_jid, to_jid
from comity.cpim.operations import Response
from comity.errors import AddressError
from comity.service.presence.interfaces import Contacts

BLOCKING_ERRORS: Final = "urn:xmpp:blocking:errors"
_ITEM: Final = f"{{{BLOCKING}}}item"
_KINDS: Final = {"blocklist": "get", "block": "set", "unblock": "set"}


class Blocklists:
    """Queries about the blocklist, and pushes."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    def takes(self, stanza: Element) -> bool:
        """True if the iq, addressed to the account, is a blocking command."""
        payload = next(stanza.elements())
        is_known = payload.namespace == BLOCKING and _KINDS.get(payload.local) == stanza.get("type")
        return self._ground.presence is not None and is_known

    async def query(self, connection: Connection, stanza: Element) -> None:
        """Answer such an iq."""
        presence = self._ground.presence
        assert presence is not None
        payload = next(stanza.elements())
        if payload.local == "blocklist":
            answer = await self._list(connection, stanza, presence.contacts)
        else:
            answer = await self._change(connection, stanza, payload, presence.contacts)
        self._ground.answer(connection, answer)

    async def _list(self, connection: Connection, stanza: Element, contacts: Contacts) -> Element | None:
        assert connection.account is not None
        connection.current.wants_blocklist = True
        blocked = await contacts.blocked(connection.account)
        return wire.iq_result(stanza, _element("blocklist", blocked))

    async def _change(
        self, connection: Connection, stanza: Element, payload: Element, contacts: Contacts
    ) -> Element | None:
        assert connection.account is not None
        account, origin = connection.account, self._ground.origin(connection)
        try:
            others = [_address(item.get("jid")) for item in payload.find_all(_ITEM)]
        except AddressError as error:
            return wire.error_reply(stanza, "jid-malformed", error.reason)
        if any(other is None for other in others):
            return wire.error_reply(stanza, "not-acceptable", "a whole account or a whole domain is blocked")
        named = [other for other in others if other is not None]
        if any(other.key == account.key for other in named):
            return wire.error_reply(stanza, "not-allowed", "nobody blocks themselves")
        refused: Response | None
        if payload.local == "unblock":
            refused = await contacts.unblock(account, named or None, origin)
        elif not named:
            return wire.error_reply(stanza, "bad-request", "whom to block is not said")  # XEP-0191 section 3.3
        else:
            refused = await contacts.block(account, named, origin)
        return wire.iq_result(stanza) if refused is None else response_to_error(stanza, refused, is_local=False)

    def changed(self, account: Address, blocked: Sequence[Address], unblocked: Sequence[Address] | None) -> None:
        """The list changed: tell the resources that asked for it (XEP-0191 sections 3.3 to 3.5)."""
        pushes = [_element("block", blocked)] if blocked else []
        if unblocked is None or unblocked:
            pushes.append(_element("unblock", unblocked or ()))
        for connection in self._ground.devices.of(account):
            if not connection.wants_blocklist:
                continue
            for push in pushes:
                attributes = {"type": "set", "id": f"push-{self._ground.random(6).hex()}", "to": str(connection.jid)}
                self._ground.reply(connection, Element(IQ, attributes, [push]))
            connection.link.flush()

    def refusal(self, connection: Connection, stanza: Element, other: Address) -> Element | None:
        """The error for a stanza to somebody whom its sender blocks (XEP-0191 section 3.2), None if she does not."""
        presence = self._ground.presence
        assert connection.account is not None
        if presence is None or not presence.contacts.is_blocked(connection.account, other):
            return None
        text = "You block this contact."
        return wire.error_reply(
            stanza, "not-acceptable", text, kind="cancel", application=Element(f"{{{BLOCKING_ERRORS}}}blocked")
        )


def _element(name: str, others: Sequence[Address]) -> Element:
    return Element(f"{{{BLOCKING}}}{name}", {}, [Element(_ITEM, {"jid": _jid(other)}) for other in others])


def _jid(other: Address) -> str:
    return to_jid(other) if other.local else other.domain_u


def _address(text: str) -> Address | None:
    """Whom an item names: an account, or a domain (with an empty local part); None for less than that."""
    jid = Jid.parse(text)
    if jid.resource:
        return None
    if jid.local:
        return from_jid(str(jid))[0].folded()
    domain = from_jid(f"x@{jid.domain}")[0].domain
    return Address("im", "", domain)
