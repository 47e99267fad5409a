"""The access service, ``apex=access`` (RFC 3341): what accounts permit, asked for, got and set by APEX applications.

Place on the path: beside it, behind the relay (``binding.py``). It keeps nothing: what it answers is what binds senders and
watchers of every protocol (``Rights``), and what it sets binds them from the moment it says 250 (APEX-25).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from comity.bindings.apex.elements import (
    AccessEntry,
    Allow,
    Deny,
    Get,
    Option,
    Part,
    Query,
    Reply,
    ServiceElement,
    Set,
)
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.interfaces import Relay
from comity.cpim.access_entries import GET, MOST_ACTIONS, QUERY, SET
from comity.cpim.access_entries import AccessEntry as Entry
from comity.cpim.address import Address
from comity.cpim.operations import Reason, Response
from comity.errors import AddressError, StoreError
from comity.service.interfaces import Origin
from comity.service.presence.interfaces import Rights

log = logging.getLogger(__name__)

#: Why an entry was not set (RFC 3341 section 4.4, RFC 3340 section 10; T1 for the rest).
CODES: Final = {Reason.NO_PUBLICATION: 555, Reason.SYNTAX: 501, Reason.DENIED: 537, Reason.QUOTA: 554}
_DONE: Final = 250
_NOT_NOW: Final = (451, "Access entries cannot be looked up now.")
_ACTIONS: Final = {Query: QUERY, Get: GET, Set: SET}

_Request = Query | Get | Set


class AccessService:
    """See ``WellKnown``."""

    name = "access"

    def __init__(self) -> None:
        self._relay: Relay

    def start(self, relay: Relay) -> None:
        """See ``WellKnown.start``."""
        self._relay = relay

    def knows(self, element: ServiceElement | Part) -> bool:
        """A reply is no request: two services would answer each other for ever."""
        return isinstance(element, _Request)

    def understands(self, option: Option) -> bool:
        """None changes what is done here."""
        return False

    async def handle(
        self,
        originator: Endpoint,
        domain: str,
        element: ServiceElement | Part,
        origin: Origin,
        options: Sequence[Option] = (),
    ) -> None:
        """See ``WellKnown.handle``: the steps of RFC 3341 sections 4.2 to 4.4, in their order."""
        assert isinstance(element, _Request), "the relay asks knows() first"
        presence = self._relay.service.presence
        owner = element.access.owner if isinstance(element, Set) else element.owner
        try:
            if presence is None:  # SEED-45: blocks and rules are then nobody's either
                answer: ServiceElement | Reply = _refusal(element, 421, "This server keeps no access entries.")
            else:
                answer = await self._check(owner, originator, element, origin, presence.rights) or await self._answer(
                    element, presence.rights
                )
        except StoreError as error:
            log.error("access entries cannot be looked up: %s", error)
            answer = _refusal(element, *_NOT_NOW)
        if isinstance(element, Set) and isinstance(answer, Set):
            self._relay.say(self.name, domain, originator, Reply(_DONE, element.trans_id))
            self._relay.say(self.name, domain, owner, answer)
        else:
            self._relay.say(self.name, domain, originator, answer)

    async def _check(
        self, owner: Endpoint, originator: Endpoint, element: _Request, origin: Origin, rights: Rights
    ) -> Reply | None:
        """Steps 1 to 3. Only our own users are told who has no account: others would ask for names (T17, N-02)."""
        accounts = self._relay.service.accounts
        if not accounts.serves(owner.domain):
            return _refusal(element, 553, "That domain is not served here.")
        exists = not owner.is_service and await accounts.exists(_account(owner))
        is_permitted = await rights.may(
            _address(owner),
            _address(originator),
            _ACTIONS[type(element)],
            resource=owner.subaddress,
            actor_resource=originator.subaddress,
        )
        if not exists and not origin.domains:
            return _refusal(element, 550, "There is no such user here.")
        if not exists or not is_permitted:
            return _refusal(element, 537, "The owner does not permit that.")
        return None

    async def _answer(self, element: _Request, rights: Rights) -> ServiceElement:
        match element:
            case Query(actions=actions) if len(actions) > MOST_ACTIONS:
                return _refusal(element, 501, f"A query names at most {MOST_ACTIONS} actions.")
            case Query(owner, actor, actions, trans_id):
                is_permitted = await rights.may(
                    _address(owner),
                    _address(actor),
                    *actions,
                    resource=owner.subaddress,
                    actor_resource=actor.subaddress,
                )
                return Allow(trans_id) if is_permitted else Deny(trans_id)
            case Get(owner, actor, trans_id):
                try:
                    entry = await rights.entry(_address(owner), owner.subaddress, actor)
                except AddressError as error:
                    return _refusal(element, 501, f"That is no actor: {error}.")
                if entry is None:
                    return _refusal(element, 551, "There is no such entry.")
                return Set(trans_id, _written(owner, entry))
            case Set():
                return await self._set(element, rights)

    async def _set(self, element: Set, rights: Rights) -> Set | Reply:
        access = element.access
        done = await rights.set_entry(
            _address(access.owner), access.owner.subaddress, access.actor, access.actions, access.last_update
        )
        if isinstance(done, Response):
            assert done.reason is not None
            return _refusal(element, CODES.get(done.reason, 554), done.text)
        return Set(element.trans_id, _written(access.owner, done))


def _refusal(element: _Request, code: int, text: str) -> Reply:
    return Reply(code, element.trans_id, text, "en")


def _written(owner: Endpoint, entry: Entry) -> AccessEntry:
    """As an element: without actions if it is deleted."""
    return AccessEntry(owner, entry.actor, entry.actions or None, entry.last_update)


def _address(endpoint: Endpoint) -> Address:
    """Of a person or of a service; parts were checked when they were read."""
    return Address("im", endpoint.address, endpoint.domain)


def _account(endpoint: Endpoint) -> Address:
    """Our own users are named without regard to case (ADDR-4)."""
    address = _address(endpoint)
    try:
        return address.folded()
    except AddressError:  # no account can have that name
        return address
