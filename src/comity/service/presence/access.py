"""Who may see what of an account, all that it decided taken together (step 5 of a subscribe, step 6 of each notify).

Place on the path: over ``relations.py``, ``blocks.py`` and the account's rules document (RFC 5025), under ``subscriptions.py``
and ``pairs.py``. What is said first counts:

1. The account itself sees everything of itself.
2. Blocked, either way (XEP-0191): as politely blocked, he sees somebody who is offline.
3. A decision against him: politely blocked, or refused (until he asks again, where he may). So is an access entry (RFC 3341) that
   names him and does not permit ``presence:subscribe``; there asking again changes nothing.
4. The rules, if they give more than "block": their handling and their transformations alone. Where they say "confirm", the
   account's answer counts as the confirmation.
5. A decision for him, an approval in advance, or an access entry that names him and permits it: everything.
6. The access entry that matches him best: everything or nothing.
7. The default of the account, else the operator's.

An account that does not exist has the operator's default, like one that never decided anything (N-02).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Final

from comity.cpim.access_entries import SUBSCRIBE, Match, is_service
from comity.cpim.address import Address
from comity.cpim.common_policy import Question, Requestor
from comity.cpim.message_rules import MessageRules
from comity.cpim.operations import Reason, Response, failure
from comity.cpim.presence_rules import EVERYTHING, Permissions, PresenceRules, SubHandling
from comity.errors import MalformedMessage, StoreError
from comity.service.presence.blocks import Blocks
from comity.service.presence.documents import DocumentStore
from comity.service.presence.entries import ENTRIES, Entries
from comity.service.presence.interfaces import Decision, Default
from comity.service.presence.relations import Book, Relations

RULES: Final = "pres-rules/index"
"""Name of the account's rules among its documents."""
MOST_RULES = 20_000
"""Accounts whose rules, or that they have none, are kept in memory."""
MOST_OCTETS = 8 * 1024 * 1024
"""Of the documents of those; parsed they take some ten times that."""

NOTHING: Final = Permissions()
CONFIRM: Final = Permissions(SubHandling.CONFIRM)
POLITE: Final = Permissions(SubHandling.POLITE_BLOCK)

Reconsider = Callable[[Address, Address | None], None]
"""(account, watcher): what that watcher (None: anybody) may see of the account changed, durably."""


class Access:
    """What watchers may see.

    Args:
        relations: what accounts decided about single people.
        blocks: whom they block.
        documents: where their rules are.
        entries: what they set by APEX.
        default: the operator's.
        reconsider: called when an account's rules changed.
    """

    def __init__(
        self,
        relations: Relations,
        blocks: Blocks,
        documents: DocumentStore,
        entries: Entries,
        *,
        default: Default,
        reconsider: Reconsider,
    ) -> None:
        self._relations = relations
        self._blocks = blocks
        self._documents = documents
        self.entries = entries
        self._default = default
        self._reconsider = reconsider
        self._rules: OrderedDict[str, PresenceRules | None] = OrderedDict()
        """By account; None: it has none."""
        self._octets = 0
        self.on_rules: Callable[[Address, PresenceRules | None], None] = lambda account, rules: None
        """Called when the rules of an account changed."""
        documents.readers[RULES] = _read_rules

    async def load(self, account: Address) -> None:
        """Bring what ``grant`` needs into memory; it stays there until the next turn of the loop at least. Raises StoreError."""
        if account.key not in self._rules:
            document = await self._documents.get(account, RULES)
            if account.key not in self._rules:  # else they were put in the meantime
                self._keep(account, _stored_rules(account, None if document is None else document.octets))
        self._rules.move_to_end(account.key)
        await self._relations.load(account)

    def grant(
        self,
        account: Address,
        watcher: Address | None,
        now: datetime,
        sphere: str = "",
        *,
        is_new: bool = False,
    ) -> Permissions:
        """What ``watcher`` may see of the account; ``load`` came before, in the same turn.

        Args:
            account: the presentity.
            watcher: authenticated; None: nobody was.
            now: aware.
            sphere: of the presentity, by its published documents.
            is_new: he asks now: one who was refused may be asked about again.
        """
        book = self._relations.loaded(account)
        if book is None or account.key not in self._rules:
            raise LookupError(f"{account} was not loaded before its watchers were judged")
        if watcher is None:
            return self._ruled(account, None, now, sphere) or NOTHING
        if watcher.key == account.key:
            return EVERYTHING
        if not self._blocks.is_idle and self._is_blocked(account, watcher):
            return POLITE
        item = book.items.get(watcher.key)
        decision = Decision.NONE if item is None else item.decision
        if decision is Decision.POLITE:
            return POLITE
        entry = None if self.entries.is_idle else self.entries.match(account, "", watcher)
        named = None if entry is None or not entry.is_one else entry.permits(SUBSCRIBE)
        if named is False:
            return NOTHING
        by_default = self._by_default(account, watcher, book) if entry is None else _entered(entry)
        if decision is Decision.REFUSED:
            is_asked_about = (item is not None and item.ask is not None) or is_new
            return CONFIRM if is_asked_about and by_default.sub_handling is SubHandling.CONFIRM else NOTHING
        is_allowed = decision is Decision.ALLOWED or (item is not None and item.is_preapproved) or named is True
        granted = self._ruled(account, watcher, now, sphere)
        if granted is not None:
            return _confirmed(granted) if is_allowed and granted.sub_handling is SubHandling.CONFIRM else granted
        return EVERYTHING if is_allowed else by_default

    def seen(self, viewer: Address, target: Address) -> Permissions:
        """What our account sees of somebody of another domain: whatever that domain tells it, if it granted that; ``load`` of the
        viewer came before, in the same turn."""
        book = self._relations.loaded(viewer)
        if book is None:
            raise LookupError(f"{viewer} was not loaded before what it sees was judged")
        if not self._blocks.is_idle and self._is_blocked(viewer, target):
            return POLITE
        item = book.items.get(target.key)
        if item is None or not (item.sees or item.asks):
            return NOTHING
        return EVERYTHING if item.sees else CONFIRM

    def permits(
        self, account: Address, actor: Address, action: str, *, resource: str = "", actor_resource: str = ""
    ) -> bool:
        """Whether the account permits an action that no rule and no decision speaks of: itself, else by an access entry.

        A block takes everything away. Nothing has to be loaded.
        """
        if actor.key == account.key:
            return True
        if self.entries.is_idle and not is_service(actor):
            return False
        if self._is_blocked(account, actor):
            return False
        entry = self.entries.match(account, resource, actor, actor_resource)
        return entry is not None and entry.permits(action)

    def rules_of(self, account: Address) -> PresenceRules | None:
        """The rules of an account that is loaded."""
        return self._rules.get(account.key)

    def next_change(self, account: Address, now: datetime) -> datetime | None:
        """When to ask ``grant`` again though nobody changed anything: a validity of the rules begins or ends."""
        rules = self._rules.get(account.key)
        return None if rules is None else rules.rule_set.next_change(now)

    def default_of(self, account: Address) -> Default:
        """What holds for an account that is loaded: its own default, else the operator's."""
        book = self._relations.loaded(account)
        return self._default if book is None or book.default is None else book.default

    def document_changed(self, account: Address, name: str, octets: bytes | None) -> None:
        """A document of the account was put (None: removed): rules act at once."""
        if name == RULES:
            self._keep(account, _stored_rules(account, octets))
            self.on_rules(account, self._rules[account.key])
        elif name == ENTRIES:
            self.entries.take(account, octets)
        else:
            return
        self._reconsider(account, None)

    # --- each for itself -----------------------------------------------------------------------------------------

    def _is_blocked(self, account: Address, watcher: Address) -> bool:
        return self._blocks.is_blocked(account, watcher) or self._blocks.is_blocked(watcher, account)

    def _ruled(self, account: Address, watcher: Address | None, now: datetime, sphere: str) -> Permissions | None:
        """What the account's rules grant, None if that is not more than "block"."""
        rules = self._rules[account.key]
        if rules is None:
            return None
        requestor = Requestor() if watcher is None else Requestor.account(watcher)
        granted = rules.permissions(Question(requestor, now, sphere))
        return granted if granted.sub_handling > SubHandling.BLOCK else None

    def _by_default(self, account: Address, watcher: Address, book: Book) -> Permissions:
        match book.default or self._default:
            case Default.DENY:
                return NOTHING
            case Default.EVERYONE:
                return EVERYTHING
            case Default.DOMAIN if watcher.domain == account.domain:
                return EVERYTHING
            case Default.CONTACTS if (item := book.items.get(watcher.key)) is not None and item.is_listed:
                return EVERYTHING
        return CONFIRM

    def _keep(self, account: Address, rules: PresenceRules | None) -> None:
        self._octets += _size(rules) - _size(self._rules.pop(account.key, None))
        self._rules[account.key] = rules
        while len(self._rules) > 1 and (len(self._rules) > MOST_RULES or self._octets > MOST_OCTETS):
            self._octets -= _size(self._rules.popitem(last=False)[1])


def _entered(entry: Match) -> Permissions:
    return EVERYTHING if entry.permits(SUBSCRIBE) else NOTHING


def _size(rules: PresenceRules | None) -> int:
    return 0 if rules is None else len(rules.rule_set.raw)


def _confirmed(granted: Permissions) -> Permissions:
    """What a rule that asks for confirmation gives once it is there; everything, if it says nothing of it."""
    if granted == CONFIRM:
        return EVERYTHING
    return replace(granted, sub_handling=SubHandling.ALLOW)


def _read_rules(octets: bytes) -> Response | None:
    """A rules document is parsed before it is taken (N-24): a bad one is refused and the one before it stands."""
    try:
        MessageRules.of(PresenceRules.parse(octets).rule_set)
    except MalformedMessage as error:
        reason = Reason.SIZE if error.hint == "size" else Reason.SYNTAX
        return failure("", reason, f"The rules cannot be used: {error}.")
    return None


def _stored_rules(account: Address, octets: bytes | None) -> PresenceRules | None:
    try:
        return None if octets is None else PresenceRules.parse(octets)
    except (
        MalformedMessage
    ) as error:  # it was read when it was put: the store is damaged, or it is from another version
        raise StoreError(f"the stored rules of {account} cannot be read, put them anew: {error}") from error
