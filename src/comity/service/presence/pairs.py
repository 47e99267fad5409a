"""The two halves of what is between two people, moved together by the tables of ``states.py``.

Place on the path: step 5, under ``decisions.py`` and ``contacts.py``. An act changes the actor's half, then the other's: two
rows, two commits, and a stop may come between them. So the first commit also says what is owed to the other half (space
"relation", ``owed/ACTOR/OTHER/ACT``), the last one takes that away, and ``recover`` delivers at the next start what was
still owed. Nobody was told yes before, and delivering twice changes nothing: the tables see to it. The half of somebody of another
domain is that domain's: what is owed to it is carried there (``errands.py``).

Whatever the other half says, the presentity's half alone decides what a watcher is shown (``access.py``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from comity.cpim.address import Address
from comity.cpim.operations import Reason, Response, failure
from comity.cpim.presence_rules import SubHandling
from comity.errors import AddressError, StoreError
from comity.failpoints import failpoint
from comity.service.interfaces import Accounts, Delete, Op, Put
from comity.service.presence.access import Access, Reconsider
from comity.service.presence.blocks import Blocks
from comity.service.presence.edges import Edges
from comity.service.presence.errands import Errand
from comity.service.presence.interfaces import Ask, ContactItem, Decision
from comity.service.presence.relations import (
    SETTLE,
    SPACE,
    Book,
    Change,
    Relations,
    pack_ask,
    read_key,
    settle_key,
    shown,
    unpack_ask,
)
from comity.service.presence.states import Act, State, Step, inbound, outbound

log = logging.getLogger(__name__)

_OWED = "owed/"
_GRANTED = (Decision.ALLOWED, Decision.POLITE)


@dataclass(frozen=True, slots=True)
class ListLimits:
    """Of each account ([limits] contact_list, requests)."""

    contacts: int = 2000
    """Entries of the contact list; as many requests of others are kept."""
    requests: int = 50
    """Requests of its own that wait for an answer (ACL-27)."""
    blocked: int = 2000


class Pairs:
    """Moves both halves.

    Args:
        relations: the rows.
        access: what a new request gets.
        blocks: from whom nothing comes.
        edges: the bindings, told of what concerns their devices.
        accounts: who is one of ours.
        when: aware UTC now.
        reconsider: called when what a watcher may see may have changed.
        limits: of each account.
    """

    def __init__(
        self,
        relations: Relations,
        access: Access,
        blocks: Blocks,
        edges: Edges,
        *,
        accounts: Accounts,
        when: Callable[[], datetime],
        reconsider: Reconsider,
        limits: ListLimits | None = None,
    ) -> None:
        self._relations = relations
        self._access = access
        self._blocks = blocks
        self._edges = edges
        self._accounts = accounts
        self.when = when
        self._reconsider = reconsider
        self.limits = limits or ListLimits()
        self.push: Callable[[Errand], None] = lambda errand: None
        """Carries an act to another domain (``Errands``); where no server runs it stays owed until one does."""

    # --- the actor's half ----------------------------------------------------------------------------------------

    async def act(
        self,
        account: Address,
        other: Address,
        *acts: Act,
        ask: Ask | None = None,
        decision: Decision | None = None,
        is_always_routed: bool = False,
        finish: Callable[[ContactItem, ContactItem], ContactItem] = lambda before, after: after,
    ) -> ContactItem | Response:
        """Carry out acts of ``account`` towards ``other``, on both halves. Raises StoreError.

        Args:
            account: who acts; one of ours.
            other: towards whom, here or elsewhere.
            acts: one of the four, or more, done to the account's half as one.
            ask: the request, for ``subscribe``.
            decision: what is kept instead of what the table leads to.
            is_always_routed: the other half hears of it even if this one did not change.
            finish: what else becomes of the row, of the item before and after.

        Returns:
            The account's item afterwards, or why nothing was done.
        """
        owed: dict[Act, Op] = {}

        def change(item: ContactItem, book: Book) -> ContactItem | Response:
            after = item
            for act in acts:
                step = outbound(act, state_of(after), after.is_preapproved)
                if step.goes_on or is_always_routed:
                    owed[act] = Put(SPACE, _owed_key(account, other, act), b"" if ask is None else pack_ask(ask))
                after = _stepped(after, step, decision)
            return finish(item, after)

        changed = await self.update(account, other, change, first=owed.values())
        if isinstance(changed, Response):
            return changed
        for act in owed:
            failpoint("presence.between-halves")
            await self._deliver(other, account, act, ask)
        return changed

    def _over_limit(self, before: ContactItem, after: ContactItem, book: Book) -> Response | None:
        if after.asks and not before.asks and sum(i.asks for i in book.items.values()) >= self.limits.requests:
            text = f"{self.limits.requests} requests wait for an answer already."
            return failure("", Reason.QUOTA, text)
        if after.is_listed and not before.is_listed:
            listed = sum(item.is_listed for item in book.items.values())
            if listed >= self.limits.contacts:
                return failure("", Reason.QUOTA, f"A contact list has at most {self.limits.contacts} entries.")
        return None

    # --- the other half ------------------------------------------------------------------------------------------

    async def _deliver(self, account: Address, actor: Address, act: Act, ask: Ask | None) -> None:
        """Do to ``account``'s half what ``actor`` did, and say so to its devices; or carry it to its domain."""
        if not self._accounts.serves(account.domain):
            self.push(Errand(actor, account, act, _owed_key(actor, account, act)))
            return
        settled = [Delete(SPACE, _owed_key(actor, account, act))]
        match act:
            case Act.SUBSCRIBE:
                await self._subscribe(account, actor, ask or Ask(self._relations.store.time()), settled)
            case _ if not await self._accounts.exists(account):
                await self._relations.store.commit(settled)
            case Act.UNSUBSCRIBE:
                await self._unsubscribe(account, actor, settled)
            case Act.SUBSCRIBED | Act.UNSUBSCRIBED:
                await self._answered(account, actor, act, settled)

    async def _subscribe(self, account: Address, watcher: Address, ask: Ask, settled: Sequence[Op]) -> None:
        if self._blocks.is_blocked(account, watcher):
            await self._relations.store.commit(settled)  # silence, as from somebody who does not answer
            return
        reply = await self.request(account, watcher, ask)
        if reply is None:
            await self._relations.store.commit(settled)
        elif self._accounts.serves(watcher.domain):
            await self._answered(watcher, account, reply, settled)
        else:
            await self._owe(account, watcher, reply)

    async def _owe(self, account: Address, other: Address, act: Act) -> None:
        """Have ``act`` carried to another domain."""
        await self._relations.store.commit([Put(SPACE, _owed_key(account, other, act), b"")])
        self.push(Errand(account, other, act, _owed_key(account, other, act)))

    # --- people of other domains -----------------------------------------------------------------------------------

    async def came(self, account: Address, other: Address, act: Act, ask: Ask | None = None) -> None:
        """Do to our account's half what somebody of another domain did, authenticated. Raises StoreError."""
        match act:
            case Act.SUBSCRIBE:
                await self._subscribe(account, other, ask or Ask(self._relations.store.time()), ())
            case _ if not await self._accounts.exists(account):
                pass
            case Act.UNSUBSCRIBE:
                if await self._unsubscribe(account, other, ()):
                    await self._owe(account, other, Act.UNSUBSCRIBED)  # table 7, note 1
            case Act.SUBSCRIBED | Act.UNSUBSCRIBED:
                await self._answered(account, other, act, ())

    async def leave(self, items: Iterable[ContactItem]) -> None:
        """An account kept these and is removed: the other domains hear that nothing is left between it and their people."""
        for item in items:
            if self._accounts.serves(item.contact.domain):
                continue
            if item.asks or item.sees:
                await self._owe(item.account, item.contact, Act.UNSUBSCRIBE)
            if item.decision in _GRANTED:
                await self._owe(item.account, item.contact, Act.UNSUBSCRIBED)

    async def refused(self, errand: Errand) -> None:
        """The other domain's server takes an act not at all: a request counts as refused. Raises StoreError."""
        if errand.what is Act.SUBSCRIBE:
            await self._answered(errand.account, errand.other, Act.UNSUBSCRIBED, ())

    async def is_wanted(self, errand: Errand) -> bool:
        """Whether the account's half still says what the act says. Raises StoreError."""
        assert isinstance(errand.what, Act)
        if errand.what is Act.SUBSCRIBE and (await self._relations.load(errand.account)).item(errand.other).sees:
            return True  # asked again: table 2 has it routed, and the answer may have been lost
        return await self._is_backed(errand.account, errand.other, errand.what)

    async def request(self, account: Address, watcher: Address, ask: Ask) -> Act | None:
        """Put a watcher's request to the account, or say what it decided already; None while nothing is.

        Only the account's half changes: it is the caller who knows whether the watcher has one. For an account that does not
        exist nothing is kept, and the same is said after the same work (N-02, N-12).
        """
        await self._access.load(account)
        exists = await self._accounts.exists(account)
        await self._access.load(account)
        handling = self._access.grant(account, watcher, self.when(), is_new=True).sub_handling
        same_work = [Put(SPACE, "nobody", b"")] if handling is SubHandling.CONFIRM else []
        if not exists:
            if same_work:
                await self._relations.store.commit(same_work)
            return _SAID.get(handling)
        if handling is SubHandling.BLOCK:
            return Act.UNSUBSCRIBED
        replies: list[Act | None] = []

        def change(item: ContactItem, book: Book) -> ContactItem:
            step = inbound(Act.SUBSCRIBE, state_of(item), item.is_preapproved)
            if step.reply is None and handling is not SubHandling.CONFIRM:
                replies.append(Act.SUBSCRIBED)
                return item  # what its rules or its default give is no decision: it ends with them
            replies.append(step.reply)
            if step.state.is_asked and item.ask is None:
                waiting = sum(other.ask is not None for other in book.items.values())
                return item if waiting >= self.limits.contacts else replace(item, ask=ask)
            return _stepped(item, step)

        await self._asked(account, watcher, change, then=same_work)
        return replies[-1]

    async def ask_again(self, account: Address, watcher: Address) -> ContactItem:
        """Forget that the account refused the watcher; one that is politely blocked is put to it anew."""
        ask = Ask(self._relations.store.time())

        def change(item: ContactItem, _: Book) -> ContactItem:
            again = ask if item.decision is Decision.POLITE else item.ask
            return replace(item, decision=Decision.NONE, ask=again)

        return await self._asked(account, watcher, change)

    async def _asked(
        self, account: Address, watcher: Address, change: Change, *, then: Sequence[Op] = ()
    ) -> ContactItem:
        changed = await self._change(account, watcher, change, then=then)
        assert not isinstance(changed, Response)
        before, after = changed
        if after.ask is not None and before.ask is None:
            self._edges.asked(after)
        self._tell_changed(before, after)
        return after

    async def _unsubscribe(self, account: Address, watcher: Address, settled: Sequence[Op]) -> bool:
        """Returns whether the watcher had anything that ended."""

        def change(item: ContactItem, _: Book) -> ContactItem:
            if item.decision is Decision.POLITE:
                return item  # the account decided not to be bothered by him: that outlives his going
            return _stepped(item, inbound(Act.UNSUBSCRIBE, state_of(item), item.is_preapproved))

        changed = await self._change(account, watcher, change, then=settled)
        assert not isinstance(changed, Response)
        before, after = changed
        if state_of(before) is not state_of(after):
            self._edges.withdrew(after)
        self._tell_changed(before, after)
        return state_of(before) is not state_of(after)

    async def _answered(self, account: Address, presentity: Address, act: Act, settled: Sequence[Op]) -> None:
        """``presentity`` answered what ``account`` asked; ignored if it asked nothing (N-07)."""
        steps: list[Step] = []

        def change(item: ContactItem, _: Book) -> ContactItem:
            step = inbound(act, state_of(item), item.is_preapproved)
            steps.append(step)
            return _stepped(item, step)

        changed = await self._change(account, presentity, change, then=settled)
        assert not isinstance(changed, Response)
        before, after = changed
        if steps[-1].goes_on:
            self._edges.answered(after, act is Act.SUBSCRIBED)
        self._tell_changed(before, after)

    # --- both ----------------------------------------------------------------------------------------------------

    async def update(
        self, account: Address, other: Address, change: Change, *, first: Iterable[Op] = ()
    ) -> ContactItem | Response:
        """Change one half by itself, and tell the account's devices. Raises StoreError."""

        def within(item: ContactItem, book: Book) -> ContactItem | Response:
            new = change(item, book)
            return new if isinstance(new, Response) else self._over_limit(item, new, book) or new

        changed = await self._change(account, other, within, first=first)
        if isinstance(changed, Response):
            return changed
        # Before the other half: what comes back from there is told after this.
        self._tell_changed(*changed)
        return changed[1]

    async def _change(
        self, account: Address, other: Address, change: Change, *, first: Iterable[Op] = (), then: Sequence[Op] = ()
    ) -> tuple[ContactItem, ContactItem] | Response:
        """Change a row; what watchers may see is judged anew as soon as it is durable."""
        await self._access.load(account)  # so that it can be judged before this is answered (G9)
        changed = await self._relations.change(account, other, change, first=first, then=then)
        if not isinstance(changed, Response):
            before, after = changed
            if _seen(before) != _seen(after):
                self._reconsider(account, other)
            if (before.asks, before.sees) != (after.asks, after.sees) and not self._accounts.serves(other.domain):
                self._reconsider(other, account)  # of whom nothing is kept here but this
        return changed

    def _tell_changed(self, before: ContactItem, after: ContactItem) -> None:
        if shown(before) != shown(after):
            self._edges.contact_changed(after)

    async def settle(self, account: Address, *, is_owed: bool = True) -> None:
        """Answer who waits and has not to wait any more: the account's rules, default or list changed. Raises StoreError.

        ``is_owed``: ``settle_key`` was committed with that change, so that a stop in between is made good.
        """
        waiting = [
            item.contact for item in (await self._relations.load(account)).items.values() if item.ask is not None
        ]
        for watcher in waiting:
            await self._access.load(account)
            reply = _SAID.get(self._access.grant(account, watcher, self.when()).sub_handling)
            if reply is None:
                continue
            owed = [Put(SPACE, _owed_key(account, watcher, reply), b"")]
            # What its rules or its default give is no decision: only the question goes.
            await self.update(account, watcher, lambda item, _: replace(item, ask=None), first=owed)
            failpoint("presence.between-halves")
            await self._deliver(watcher, account, reply, None)
        if is_owed:
            await self._relations.store.commit([Delete(SPACE, settle_key(account))])

    async def part(self, account: Address, gone: Address) -> None:
        """Forget what was between the account and one who is removed; his entry in the list stays. Raises StoreError."""

        def change(item: ContactItem, _: Book) -> ContactItem:
            return replace(item, asks=False, sees=False, ask=None, decision=Decision.NONE, is_preapproved=False)

        changed = await self._change(account, gone, change)
        assert not isinstance(changed, Response)
        before, after = changed
        if before.asks or before.sees:
            self._edges.answered(after, False)
        if before.ask is not None or before.decision in _GRANTED:
            self._edges.withdrew(after)
        self._tell_changed(before, after)

    async def recover(self) -> None:
        """Deliver what was owed when the process ended; call before anything listens. Raises StoreError."""
        for key, entry in await self._relations.store.scan(SPACE, _OWED):
            try:
                actor_key, other_key, act_name = key.removeprefix(_OWED).split("/")
                actor, other, act = read_key(actor_key), read_key(other_key), Act(act_name)
                ask = unpack_ask(entry.value) if entry.value else None
            except (ValueError, AddressError, StoreError) as error:
                log.error("%s is owed and cannot be read, it is left: %s", key, error)
                continue
            failpoint("presence.recovery")
            if await self._is_backed(actor, other, act):
                await self._deliver(other, actor, act, ask)
            else:
                await self._relations.store.commit([Delete(SPACE, key)])
        for key, _ in await self._relations.store.scan(SPACE, SETTLE):
            failpoint("presence.recovery")
            await self.settle(read_key(key.removeprefix(SETTLE)))

    async def _is_backed(self, actor: Address, other: Address, act: Act) -> bool:
        """Whether the actor's half says what the act says; if not, its own commit was not carried out."""
        await self._access.load(actor)
        state = state_of((await self._relations.load(actor)).item(other))
        granted = self._access.grant(actor, other, self.when()).sub_handling
        match act:
            case Act.SUBSCRIBE:
                return state.asks
            case Act.UNSUBSCRIBE:
                return not (state.asks or state.sees)
            case Act.SUBSCRIBED:
                return granted >= SubHandling.POLITE_BLOCK
        return granted < SubHandling.POLITE_BLOCK


#: What a watcher is answered at once; nothing while the account has to be asked.
_SAID = {
    SubHandling.BLOCK: Act.UNSUBSCRIBED,
    SubHandling.POLITE_BLOCK: Act.SUBSCRIBED,
    SubHandling.ALLOW: Act.SUBSCRIBED,
}


def state_of(item: ContactItem) -> State:
    """An item in the words of RFC 6121; a politely blocked watcher has a subscription, as far as he knows."""
    return State.of(asks=item.asks, sees=item.sees, is_asked=item.ask is not None, is_granted=item.decision in _GRANTED)


def _seen(item: ContactItem) -> tuple[object, ...]:
    """What of an item can change what its contact may see."""
    return (item.decision, item.ask is None, item.is_preapproved, item.is_listed)


def _stepped(item: ContactItem, step: Step, decision: Decision | None = None) -> ContactItem:
    """The item after a step; ``decision`` where the table does not say which of them it is."""
    state = step.state
    if decision is None:
        decision = item.decision
        if state.is_granted and decision not in _GRANTED:
            decision = Decision.ALLOWED
        elif not state.is_granted and decision in _GRANTED:
            decision = Decision.NONE
    is_from = state.is_granted and decision is Decision.ALLOWED
    return replace(
        item,
        asks=state.asks,
        sees=state.sees,
        decision=decision,
        ask=item.ask if state.is_asked else None,
        is_preapproved=step.is_approved,
        is_listed=item.is_listed or state.asks or state.sees or is_from or step.is_approved,
    )


def _owed_key(actor: Address, other: Address, act: Act) -> str:
    return f"{_OWED}{actor.key}/{other.key}/{act.value}"
