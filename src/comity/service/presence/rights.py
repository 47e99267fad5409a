"""What accounts permit, in the tokens of APEX (RFC 3341 section 3): one answer from everything they said by any protocol (APEX-25).

Place on the path: step 5, over ``access.py`` (``presence:subscribe``), ``inbox.py`` (``core:data``) and ``entries.py`` (all else). What is
asked here is what binds: there is no second set of entries beside the rules, the decisions and the blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from comity.cpim.access_entries import CORE_DATA, PUBLISH, SUBSCRIBE, TOKENS, AccessEntry, Actor, is_service, permits
from comity.cpim.address import Address
from comity.cpim.message_rules import MsgHandling
from comity.cpim.operations import Response
from comity.cpim.presence_rules import Permissions, SubHandling
from comity.errors import AddressError
from comity.service.presence.access import Access
from comity.service.presence.blocks import Blocks
from comity.service.presence.entries import Entries
from comity.service.presence.inbox import Inbox
from comity.service.presence.interfaces import Default


class AccountRights:
    """See ``Rights``.

    Args:
        access: who may see whom.
        inbox: who may send to whom.
        entries: what was set by APEX.
        blocks: who blocks whom.
        when: aware UTC now.
    """

    def __init__(
        self, access: Access, inbox: Inbox, entries: Entries, blocks: Blocks, when: Callable[[], datetime]
    ) -> None:
        self._access = access
        self.grant: Callable[[Address, Address], Permissions] = lambda owner, actor: access.grant(owner, actor, when())
        """What a watcher may see; where there are presentities, it knows their spheres (``Moves.grant``)."""
        self._inbox = inbox
        self._entries = entries
        self._blocks = blocks
        self._when = when

    async def may(
        self, owner: Address, actor: Address, *actions: str, resource: str = "", actor_resource: str = ""
    ) -> bool:
        """See ``Rights.may``. Raises StoreError."""
        owner, actor = self._own(owner), self._own(actor)
        await self._access.load(owner)
        return all(self._may(owner, actor, action, resource, actor_resource) for action in actions)

    def _may(self, owner: Address, actor: Address, action: str, resource: str, actor_resource: str) -> bool:
        if actor.key == owner.key:
            return True
        if action == CORE_DATA:
            return self._may_send(owner, actor, resource, actor_resource)
        if action.startswith("presence:") and (resource or actor_resource):
            # Presence is of accounts and for accounts: what an entry gives a subaddress alone is nothing, what it withholds is.
            entry = self._entries.match(owner, resource, actor, actor_resource)
            return (entry is None or entry.permits(action)) and self._may(owner, actor, action, "", "")
        if action == SUBSCRIBE and not is_service(actor):
            return self.grant(owner, actor).sub_handling is SubHandling.ALLOW
        if not self._access.permits(owner, actor, action, resource=resource, actor_resource=actor_resource):
            return False
        # One for many ("presence:all") is permitted if each of them is.
        each = [token for token in TOKENS if token != action and permits([action], token)]
        return all(self._may(owner, actor, token, resource, actor_resource) for token in each)

    def _may_send(self, owner: Address, actor: Address, resource: str, actor_resource: str) -> bool:
        if actor.key == owner.key:
            return True
        if self._blocks.is_blocked(owner, actor) or self._blocks.is_blocked(actor, owner):
            return False
        handling = self._inbox.handling(owner, actor, self._when(), resource, actor_resource)
        return handling is MsgHandling.ALLOW

    def may_send(self, owner: Address, actor: Address, *, resource: str = "", actor_resource: str = "") -> bool:
        """See ``Rights.may_send``."""
        return self._may_send(self._own(owner), self._own(actor), resource, actor_resource)

    def may_publish(self, owner: Address, actor: Address) -> bool:
        """See ``Rights.may_publish``."""
        return self._access.permits(self._own(owner), self._own(actor), PUBLISH)

    async def entry(self, owner: Address, resource: str, actor: str) -> AccessEntry | None:
        """See ``Rights.entry``. Raises AddressError and StoreError."""
        owner = self._own(owner)
        found = self._entries.find(owner, resource, actor)
        if found is None and Actor.parse(actor).key == "*@*":
            await self._access.load(owner)
            is_shown = self._access.default_of(owner) is Default.EVERYONE
            return AccessEntry(resource, actor, (CORE_DATA, SUBSCRIBE) if is_shown else (CORE_DATA,))
        return found

    async def set_entry(
        self, owner: Address, resource: str, actor: str, actions: tuple[str, ...] | None, last_update: str
    ) -> AccessEntry | Response:
        """See ``Rights.set_entry``. Raises StoreError."""
        return await self._entries.change(self._own(owner), resource, actor, actions, last_update)

    def _own(self, address: Address) -> Address:
        """As accounts are kept; services and foreign names are as they came."""
        address = address.with_scheme("im")
        if is_service(address) or not self._entries.accounts.serves(address.domain):
            return address
        try:
            return address.folded()
        except AddressError:  # no account can have that name: nobody is found by it
            return address
