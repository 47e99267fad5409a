"""Step 5, protection by policy: what accounts and domains require of messages, and what signatures are looked at here.

Place on the path: inside admission, for ``pipeline.py``. A rule is of everybody (``*``), of a domain or of an account;
all that fit hold together, so a narrower one can ask for more and never for less. What a rule requires travels with the
message from here on, as if its sender had required it (T11). A server proves nothing to a recipient: its look at a
signature refuses what is broken or leaves a note in the history, outside the octets (SEED-37). Who may be asked to be watched only by
operations that the watcher signed says so in the same rules (SEC-34).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

import msgspec

from comity.cpim.address import Address
from comity.cpim.entity import is_secured
from comity.cpim.operations import MessageOperation, Reason, Requirement, Response, SubscribeOperation, failure
from comity.cpim.protection import read_requirements
from comity.errors import StoreError
from comity.service.interfaces import Inspector, Store

Look = Literal["off", "mark", "refuse"]
Operations = Literal["any", "signed"]

BROKEN = frozenset({"bad-signature", "signed-by-other", "malformed"})
"""Verdicts a server can give without a person's own keys and pins."""
SPACE_PREFIX = "protection/"
"""Where the rules of accounts stand among the settings of the store."""
MOST_OCTETS = 256 * 1024
"""Larger objects are not looked at: hashing one would hold up everybody (0.5 ms for 64 KiB with P-256, measured)."""
MOST_PROOF = 64 * 1024
"""Octets of a signed operation: a page of headers, a signature and its certificates."""
_NOT_JUDGED = frozenset({"untrusted", "not-checked"})
"""Verdicts that say more of who asks here than of the proof: where none is demanded, the presentity's program may know better."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What one domain or account asks for."""

    require: frozenset[Requirement] = frozenset()
    """Of messages to it."""
    require_from: frozenset[Requirement] = frozenset()
    """Of messages from it."""
    verify: Look = "off"
    """What becomes of a message to it whose verdict is one of ``verdicts``."""
    verdicts: frozenset[str] = BROKEN
    operations: Operations = "any"
    """Which subscribe and unsubscribe operations about it are taken."""


NO_RULE = Rule()


class _Stored(msgspec.Struct, omit_defaults=True):
    require: list[str] = []
    require_from: list[str] = []
    verify: Look = "off"
    operations: Operations = "any"


def pack_rule(rule: Rule) -> bytes:
    """A rule of an account as the store keeps it."""
    return msgspec.json.encode(_Stored(_words(rule.require), _words(rule.require_from), rule.verify, rule.operations))


def unpack_rule(octets: bytes, key: str) -> Rule:
    """Read what ``pack_rule`` wrote for an account. Raises StoreError: what cannot be read must not count as no rule."""
    try:
        kept = msgspec.json.decode(octets, type=_Stored)
        require, require_from = read_requirements(kept.require), read_requirements(kept.require_from)
        return Rule(require, require_from, kept.verify, operations=kept.operations)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise StoreError(f"the stored protection rule of {key} cannot be read, set it anew: {error}") from error


def _words(requirements: Iterable[Requirement]) -> list[str]:
    return sorted(requirement.value for requirement in requirements)


class Protection:
    """The rules of this server.

    Args:
        rules: of the configuration, by ``*``, domain or ``im:`` address.
        inspector: looks at signatures; None: nobody does.
    """

    def __init__(self, rules: Mapping[str, Rule] | None = None, inspector: Inspector | None = None) -> None:
        self._everybody: Rule | None = None
        self._domains: dict[str, Rule] = {}
        self._accounts: dict[str, Rule] = {}
        self._own: dict[str, Rule] = {}
        """What accounts set themselves, over and above."""
        self._inspector = inspector
        for of, rule in (rules or {}).items():
            if of == "*":
                self._everybody = rule
            elif "@" in of:
                self._accounts[Address.parse(of).folded().key] = rule
            else:
                self._domains[of.lower()] = rule

    async def load(self, store: Store) -> None:
        """Take up the rules accounts set. Raises StoreError for one that cannot be read: it may demand what is needed."""
        for name, entry in await store.scan("setting", SPACE_PREFIX):
            key = name.removeprefix(SPACE_PREFIX)
            self._own[key] = unpack_rule(entry.value, key)

    def put(self, key: str, rule: Rule) -> None:
        """An account's rule was changed; ``NO_RULE`` takes it away."""
        if rule == NO_RULE:
            self._own.pop(key, None)
        else:
            self._own[key] = rule

    @property
    def is_idle(self) -> bool:
        """True if there is no rule at all: nothing is asked of any message."""
        return not (self._everybody or self._domains or self._accounts or self._own)

    def rules_of(self, address: Address) -> list[Rule]:
        """All that hold for an address, each by itself: what one refuses is refused, what one requires is required."""
        of_account = self._accounts.get(address.key), self._own.get(address.key)
        found = (self._everybody, self._domains.get(address.domain), *of_account)
        return [rule for rule in found if rule is not None]

    def required(self, operation: MessageOperation) -> MessageOperation:
        """The operation with what the rules of its sender and its recipient require of it."""
        of_sender = [rule.require_from for rule in self.rules_of(operation.source)]
        of_recipient = [rule.require for rule in self.rules_of(operation.destination)]
        wanted = operation.requirements.union(*of_sender, *of_recipient)
        return operation if wanted == operation.requirements else replace(operation, requirements=wanted)

    def look(self, operation: MessageOperation, when: datetime) -> tuple[str, Response | None]:
        """Look at the object's signature if the recipient's rule says so: the note for the history, and the refusal."""
        looking = [rule for rule in self.rules_of(operation.destination) if rule.verify != "off"]
        if not looking or not is_secured(operation.object):
            return "", None
        must_look = any(rule.verify == "refuse" for rule in looking)
        if self._inspector is None:  # an account asked while there were authorities, and they were taken away
            if must_look:
                text = "The recipient's server is to check signatures and has no authorities to check them by."
                return "", failure(operation.trans_id, Reason.PROTECTION, text)
            return "not checked: no authorities", None
        if len(operation.object.octets) > MOST_OCTETS:
            if must_look:
                text = f"The recipient's server checks signatures and takes none of more than {MOST_OCTETS} octets."
                return "", failure(operation.trans_id, Reason.SIZE, text)
            return "not checked: too large", None
        finding = self._inspector.inspect(operation, when)
        said = [rule.verify for rule in looking if finding.verdict in rule.verdicts]
        if not said:
            return "", None
        if "refuse" in said:
            return "", failure(operation.trans_id, finding.reason or Reason.PROTECTION, finding.text)
        return f"{finding.verdict}: {finding.text}", None

    async def prove(self, operation: SubscribeOperation, presentity: Address, when: datetime) -> Response | None:
        """Refuse an operation whose proof does not hold, or that has none where the presentity demands one (SEC-34).

        Nothing here asks whether there is such a presentity, so nobody learns it (T17).

        Args:
            operation: as it arrived.
            presentity: its target, as the rules name it.
            when: now, aware UTC.
        """
        is_demanded = any(rule.operations == "signed" for rule in self.rules_of(presentity.with_scheme("im")))
        if operation.proof is None:
            if not is_demanded:
                return None
            text = "Who wants to watch this address has to sign what is asked for, and this came unsigned."
            return failure(operation.trans_id, Reason.PROTECTION, text)
        if self._inspector is None:
            if not is_demanded:
                return None
            text = "This server is to check signed operations and has no authorities to check them by."
            return failure(operation.trans_id, Reason.PROTECTION, text)
        if len(operation.proof.entity) > MOST_PROOF:
            return failure(operation.trans_id, Reason.SIZE, f"A signed operation has at most {MOST_PROOF} octets.")
        # In a thread: the proof is remembered on disk before it counts, and nobody else shall wait for that.
        finding = await asyncio.to_thread(self._inspector.inspect_operation, operation, when)
        if finding.verdict == "valid" or (finding.verdict in _NOT_JUDGED and not is_demanded):
            return None
        return failure(operation.trans_id, finding.reason or Reason.DENIED, finding.text)
