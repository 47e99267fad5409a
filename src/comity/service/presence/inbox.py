"""Who may send messages to an account: whom it blocks, the ``msg-handling`` of its rules (ACL-21), its access entries (APEX-12).

What is said first counts:

1. A block, either way (XEP-0191).
2. The account itself may always.
3. An access entry that names the sender without ``core:data``: refused.
4. A rule that holds and names ``msg-handling``.
5. The access entry that matches the sender best.
6. Messages are taken.

Place on the path: step 5 of a message, asked by ``pipeline.py`` when the recipient is known to exist. Everything is in memory,
and where nobody blocks anybody, has entries, or rules that speak of messages, nothing is asked (``is_idle``). Which accounts have such rules
stands in space "relation" as ``inbox/ACCOUNT``, written before the rules that need it and removed after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from comity.cpim.access_entries import CORE_DATA
from comity.cpim.address import Address
from comity.cpim.common_policy import Question, Requestor
from comity.cpim.message_rules import MESSAGE_RULES, MessageRules, MsgHandling
from comity.cpim.operations import MessageOperation, Reason, Response, failure
from comity.cpim.presence_rules import PresenceRules
from comity.service import policy
from comity.service.interfaces import Delete, Op, Put
from comity.service.presence.access import RULES, Access
from comity.service.presence.blocks import Blocks
from comity.service.presence.documents import DocumentStore
from comity.service.presence.entries import Entries
from comity.service.presence.relations import SPACE, Relations, read_key, settle_key

_PREFIX = "inbox/"


class Inbox:
    """Judges senders.

    Args:
        relations: whose store says which accounts have rules about messages.
        blocks: whom accounts block.
        documents: where the rules are.
        access: reads the rules of an account.
        entries: what accounts set by APEX.
    """

    def __init__(
        self, relations: Relations, blocks: Blocks, documents: DocumentStore, access: Access, entries: Entries
    ) -> None:
        self._store = relations.store
        self._blocks = blocks
        self._access = access
        self._entries = entries
        self._rules: dict[str, MessageRules] = {}
        """By account; only those that speak of messages."""
        documents.beside[RULES] = _mark
        access.on_rules = self._take

    async def load(self) -> None:
        """Take up the rules that speak of messages; call before anything listens. Raises StoreError."""
        for key, _ in await self._store.scan(SPACE, _PREFIX):
            account = read_key(key.removeprefix(_PREFIX))
            await self._access.load(account)
            self._take(account, self._access.rules_of(account))

    def _take(self, account: Address, rules: PresenceRules | None) -> None:
        taken = None if rules is None else MessageRules.of(rules.rule_set)
        if taken is not None and taken.rules:
            self._rules[account.key] = taken
        else:
            self._rules.pop(account.key, None)

    @property
    def is_idle(self) -> bool:
        """True if everybody takes messages from everybody."""
        return not self._rules and self._blocks.is_idle and self._entries.is_idle

    def look(self, operation: MessageOperation, when: datetime) -> tuple[bool, Response | None]:
        """Whether the recipient takes a message of this sender, authenticated; if not, its refusal, or None to drop it."""
        sender, recipient = operation.source, operation.destination
        if self._blocks.is_blocked(sender, recipient):  # XEP-0191 section 3.2: it could not be answered
            text = "You block that person; unblock first."
            return False, failure(operation.trans_id, Reason.DENIED, text)
        if self._blocks.is_blocked(recipient, sender):
            return False, policy.no_such_user(operation)
        context = operation.context
        match self.handling(recipient, sender, when, context.resource, context.source_resource):
            case MsgHandling.ALLOW:
                return True, None
            case MsgHandling.POLITE_BLOCK:
                return False, None
        return False, policy.no_such_user(operation)

    def handling(
        self, recipient: Address, sender: Address, when: datetime, resource: str = "", sender_resource: str = ""
    ) -> MsgHandling:
        """What the recipient wants done with messages of this sender, blocks apart."""
        if sender.key == recipient.key:
            return MsgHandling.ALLOW
        entry = self._entries.match(recipient, resource, sender, sender_resource)
        is_taken = entry is None or entry.permits(CORE_DATA)
        if entry is not None and entry.is_one and not is_taken:
            return MsgHandling.BLOCK
        rules = self._rules.get(recipient.key)
        if rules is not None:
            ruled = rules.handling(Question(Requestor.account(sender), when))
            if ruled is not None:
                return ruled
        return MsgHandling.ALLOW if is_taken else MsgHandling.BLOCK


def _mark(account: Address, octets: bytes | None) -> tuple[Sequence[Op], Sequence[Op]]:
    """What is committed before and after a rules document: one word of it is enough to look at it after a restart."""
    key, settle = _PREFIX + account.key, Put(SPACE, settle_key(account), b"")
    if octets is not None and MESSAGE_RULES.encode() in octets:
        return [settle, Put(SPACE, key, b"")], ()
    return [settle], [Delete(SPACE, key)]
