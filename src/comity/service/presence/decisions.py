"""Who asks to see whom, and what is answered, from whatever protocol it comes.

Place on the path: step 5 of what RFC 6121 section 3 calls managing subscriptions, under ``service.py``; admission is done
(``Service.admit_subscription``), and is looked at once more, since a forged answer would be believed for years. Everything is
durable on both sides before it is answered; see ``pairs.py`` for what a stop in between does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from comity.cpim.address import Address
from comity.cpim.operations import Reason, Response, SubscribeOperation, failure
from comity.cpim.presence_rules import SubHandling
from comity.errors import AddressError
from comity.service import policy
from comity.service.interfaces import Accounts, Origin, Put
from comity.service.presence.access import Access, Reconsider
from comity.service.presence.blocks import Blocks
from comity.service.presence.interfaces import Ask, ContactItem, Decision, Default, Terms
from comity.service.presence.pairs import Pairs, state_of
from comity.service.presence.relations import SPACE, Relations, settle_key
from comity.service.presence.states import Act

MOST_ASK = 64 * 1024
"""Octets kept of a request, what the watcher wrote and the stanza; as long as a stanza may be."""


class Decisions:
    """Requests and answers.

    Args:
        relations: the rows.
        pairs: what moves both halves of a pair.
        access: what is decided already.
        blocks: whom the watcher blocks.
        accounts: who is one of ours.
        reconsider: called when a default changed.
    """

    def __init__(
        self,
        relations: Relations,
        pairs: Pairs,
        access: Access,
        blocks: Blocks,
        *,
        accounts: Accounts,
        reconsider: Reconsider,
    ) -> None:
        self._relations = relations
        self._pairs = pairs
        self._access = access
        self._blocks = blocks
        self._accounts = accounts
        self._reconsider = reconsider
        self.no_way: Callable[[str], Response | None] = lambda domain: failure(
            "", Reason.NO_ROUTE, "No server runs that could reach another domain."
        )
        """Why another domain cannot be reached; None if there is a way."""
        self.may_wait: Callable[[Address, Iterable[Address]], bool] = lambda watcher, waiting: True
        """``PeerQuota.may_wait``."""

    # --- the watcher's side --------------------------------------------------------------------------------------

    async def ask(self, operation: SubscribeOperation, origin: Origin, terms: Terms) -> Response | None:
        """See ``PresenceService.ask``. Raises StoreError."""
        refusal = self._check(operation, origin)
        if refusal is not None:
            return refusal
        watcher, target = _im(operation.watcher), _im(operation.target)
        if self._blocks.is_blocked(watcher, target):
            return failure(operation.trans_id, Reason.DENIED, "You block that person; unblock first.")
        proof = len(operation.proof.entity) if operation.proof is not None else 0
        if len(terms.text.encode()) + len(terms.native) + proof > MOST_ASK:
            return failure(operation.trans_id, Reason.SIZE, f"A request has at most {MOST_ASK} octets.")
        if not self._accounts.serves(watcher.domain):
            return await self._ask_from_abroad(watcher, target, self._asked(terms))
        if not self._accounts.serves(target.domain) and (no_way := self.no_way(target.domain)) is not None:
            return replace(no_way, trans_id=operation.trans_id)
        ask = self._asked(terms) if self._accounts.serves(target.domain) else self._signed(operation, terms)
        done = await self._pairs.act(watcher, target, Act.SUBSCRIBE, ask=ask)
        return replace(done, trans_id=operation.trans_id) if isinstance(done, Response) else None

    async def withdraw(self, operation: SubscribeOperation, origin: Origin) -> Response | None:
        """See ``PresenceService.withdraw``. Raises StoreError."""
        refusal = self._check(operation, origin)
        if refusal is not None:
            return refusal
        watcher, target = _im(operation.watcher), _im(operation.target)
        if not self._accounts.serves(watcher.domain):
            await self._pairs.came(target, watcher, Act.UNSUBSCRIBE)
            return None
        ask = self._signed(operation, Terms("")) if operation.proof is not None else None
        done = await self._pairs.act(watcher, target, Act.UNSUBSCRIBE, ask=ask)
        return replace(done, trans_id=operation.trans_id) if isinstance(done, Response) else None

    async def _ask_from_abroad(self, watcher: Address, target: Address, ask: Ask) -> Response | None:
        """Only our account's half is here. Of a domain that has too many waiting nothing is said: that would tell who exists."""
        book = await self._relations.load(target)
        waiting = [item.contact for item in book.items.values() if item.ask is not None]
        if self.may_wait(watcher, waiting):
            await self._pairs.came(target, watcher, Act.SUBSCRIBE, ask)
        return None

    async def answered(
        self, account: Address, presentity: Address, is_granted: bool, origin: Origin
    ) -> Response | None:
        """See ``PresenceService.answered``. Raises StoreError."""
        if self._accounts.serves(presentity.domain) or not origin.speaks_for(presentity.domain):
            return failure("", Reason.DENIED, "That server does not speak for the domain of who answers.")
        if not self._accounts.serves(account.domain):
            return failure("", Reason.NO_ROUTE, "That domain is not served here.")
        await self._pairs.came(account, presentity, Act.SUBSCRIBED if is_granted else Act.UNSUBSCRIBED)
        return None

    async def request(self, account: Address, watcher: Address, terms: Terms) -> SubHandling:
        """Say how a subscription that is made now is handled, and put it to the account if that has to be asked.

        For edges where a subscription is no entry in the watcher's own list (a SIP dialog): of the two halves only the
        account's is touched. For somebody unknown nothing is kept and it takes as long (N-02, N-12). Raises StoreError.
        """
        await self._pairs.request(account, watcher, self._asked(terms))
        await self._access.load(account)
        return self._access.grant(account, watcher, self._pairs.when()).sub_handling

    def _check(self, operation: SubscribeOperation, origin: Origin) -> Response | None:
        is_ours = self._accounts.serves(operation.watcher.domain)
        refusal = policy.check_watcher(operation, origin, is_ours=is_ours)
        if refusal is not None:
            return refusal
        if not is_ours and not self._accounts.serves(operation.target.domain):
            return failure(operation.trans_id, Reason.NO_ROUTE, "That domain is not served here.")
        if operation.watcher.key == operation.target.key:
            return failure(operation.trans_id, Reason.SYNTAX, "An account always sees itself.")
        return None

    def _asked(self, terms: Terms) -> Ask:
        return Ask(self._relations.store.time(), terms.text, terms.native_protocol, terms.native)

    def _signed(self, operation: SubscribeOperation, terms: Terms) -> Ask:
        """With the watcher's proof, which is for the presentity's own server to look at (SEC-34)."""
        asked = self._asked(terms)
        if operation.proof is None:
            return asked
        return replace(
            asked,
            proof=operation.proof.entity,
            subscript_id=operation.subscript_id,
            duration=operation.duration,
        )

    # --- the presentity's side -----------------------------------------------------------------------------------

    async def answer(
        self, account: Address, watcher: Address, decision: Decision, origin: Origin
    ) -> ContactItem | Response:
        """See ``PresenceService.answer``. ``NONE`` forgets what was decided: he has to ask again. Raises StoreError."""
        if not is_owner(account, origin):
            return failure("", Reason.DENIED, "Only the account itself decides who may see it.")
        if account.key == watcher.key:
            return failure("", Reason.SYNTAX, "An account always sees itself.")
        await self._access.load(account)
        granted = self._access.grant(account, watcher, self._pairs.when()).sub_handling
        item = (await self._relations.load(account)).item(watcher)
        match decision:
            case Decision.ALLOWED:
                is_polite = item.decision is Decision.POLITE
                kept = (
                    Decision.ALLOWED if is_polite else None if state_of(item).is_granted or item.ask else Decision.NONE
                )
                return await self._pairs.act(account, watcher, Act.SUBSCRIBED, decision=kept, finish=_listed)
            case Decision.REFUSED:
                # Also to one whom only a rule or the default let see it: his half still says so.
                is_told = granted > SubHandling.CONFIRM
                return await self._pairs.act(
                    account, watcher, Act.UNSUBSCRIBED, decision=decision, is_always_routed=is_told
                )
            case Decision.POLITE:
                return await self._pairs.act(account, watcher, Act.SUBSCRIBED, decision=decision, finish=_as_before)
            case Decision.NONE:
                return await self._forget(account, watcher, item)

    async def _forget(self, account: Address, watcher: Address, item: ContactItem) -> ContactItem | Response:
        if item.decision is Decision.ALLOWED or item.is_preapproved:
            return await self._pairs.act(account, watcher, Act.UNSUBSCRIBED, decision=Decision.NONE)
        if item.decision is Decision.NONE:
            return item
        return await self._pairs.ask_again(account, watcher)

    async def decisions(self, account: Address) -> Sequence[ContactItem]:
        """See ``PresenceService.decisions``: sorted by address."""
        book = await self._relations.load(account)
        items = (book.items[key] for key in sorted(book.items))
        return [item for item in items if item.decision is not Decision.NONE or item.ask or item.is_preapproved]

    async def default(self, account: Address) -> Default:
        """See ``PresenceService.default``."""
        await self._relations.load(account)
        return self._access.default_of(account)

    async def set_default(self, account: Address, default: Default | None, origin: Origin) -> Response | None:
        """See ``PresenceService.set_default``: durable, then effective, then answered."""
        if not is_owner(account, origin):
            return failure("", Reason.DENIED, "Only the account itself decides who may see it.")
        await self._relations.set_default(account, default, first=[Put(SPACE, settle_key(account), b"")])
        self._reconsider(account, None)
        await self._pairs.settle(account)
        return None


def is_owner(account: Address, origin: Origin) -> bool:
    """True if the account itself does it, in a session of its own."""
    return not origin.domains and origin.principal.with_scheme("im").key == account.key


def _im(address: Address) -> Address:
    """The address as accounts are kept by."""
    try:
        return address.with_scheme("im").folded()
    except AddressError:  # no account can have that name: nobody is found by it
        return address.with_scheme("im")


def _listed(_: ContactItem, after: ContactItem) -> ContactItem:
    return replace(after, is_listed=True)


def _as_before(before: ContactItem, after: ContactItem) -> ContactItem:
    """A polite block shows in no list and approves nothing."""
    return replace(after, is_preapproved=False, is_listed=before.is_listed)
