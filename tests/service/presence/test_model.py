"""Decisions and contact lists against a model that is written another way: whatever people do, in whatever order (XMPP-10 to XMPP-12).

The model knows facts and no table: who asked, who granted. What it says is compared with both halves, with what a device that
follows the pushes knows, with what one that comes back after a while is told, and with a server that was started anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from comity.cpim.address import Address
from comity.cpim.presence_rules import SubHandling
from comity.service.presence.interfaces import ContactItem, Decision, Roster
from comity.service.presence.relations import shown
from tests.service.presence.desk import ALICE, BOB, Desk, Told, by

PEOPLE = (ALICE, BOB)
PAIRS = [(one, other) for one in PEOPLE for other in PEOPLE if one is not other]
pairs = st.sampled_from(PAIRS)

HANDLING = {
    Decision.ALLOWED: SubHandling.ALLOW,
    Decision.POLITE: SubHandling.POLITE_BLOCK,
    Decision.REFUSED: SubHandling.BLOCK,
}


@dataclass
class Bond:
    """What is between a watcher and a presentity, as people would tell it."""

    wants: bool = False
    """The watcher asked and was not answered."""
    has: bool = False
    """The watcher was told yes."""
    waits: bool = False
    """The presentity sees the question."""
    decision: Decision = Decision.NONE
    approved: bool = False


@dataclass
class Device(Told):
    """A device of each person that keeps its list by the pushes alone."""

    lists: dict[str, dict[str, ContactItem]] = field(default_factory=dict)

    def contact_changed(self, item: ContactItem) -> None:
        """Take the push in."""
        kept = self.lists.setdefault(item.account.key, {})
        if item.is_listed:
            kept[item.contact.key] = item
        else:
            assert item.contact.key in kept, "a removal of what was never shown"
            del kept[item.contact.key]


def seen(items: Iterable[ContactItem]) -> dict[str, tuple[object, ...]]:
    """A list as a device shows it."""
    return {item.contact.key: shown(item) for item in items}


class Decided(RuleBasedStateMachine):
    """Two people: more of them only make it rarer that something happens between any two."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.bonds = {(watcher.key, presentity.key): Bond() for watcher, presentity in PAIRS}
        self.away: dict[str, tuple[int, dict[str, ContactItem]]] = {}
        """A device of each that saw the list once and went away."""

    def teardown(self) -> None:
        self.loop.close()

    def run(self, work: object) -> None:
        self.loop.run_until_complete(work)  # type: ignore[arg-type]  # a coroutine of any result

    @initialize()
    def begin(self) -> None:
        self.device = Device()
        self.loop.run_until_complete(self._start(Desk()))

    async def _start(self, desk: Desk) -> None:
        self.desk = await desk.start()
        self.desk.keeping.edges.attach("xmpp", self.device)

    def bond(self, pair: tuple[Address, Address]) -> Bond:
        return self.bonds[pair[0].key, pair[1].key]

    # --- what people do ------------------------------------------------------------------------------------------

    @rule(pair=pairs)
    def ask(self, pair: tuple[Address, Address]) -> None:
        """watcher, presentity"""
        self.run(self.desk.ask(*pair))
        bond = self.bond(pair)
        if bond.decision in (Decision.ALLOWED, Decision.POLITE):
            bond.has, bond.wants = True, False
        elif bond.approved:
            bond.decision, bond.has, bond.wants, bond.waits = Decision.ALLOWED, True, False, False
        else:
            bond.wants, bond.waits = not bond.has, True

    @rule(pair=pairs)
    def withdraw(self, pair: tuple[Address, Address]) -> None:
        self.run(self.desk.withdraw(*pair))
        bond = self.bond(pair)
        bond.wants = bond.has = False
        if bond.decision is not Decision.POLITE:
            bond.waits = False
        if bond.decision is Decision.ALLOWED:
            bond.decision = Decision.NONE

    @rule(pair=pairs)
    def allow(self, pair: tuple[Address, Address]) -> None:
        self.run(self.desk.answer(pair[1], pair[0], Decision.ALLOWED))
        bond = self.bond(pair)
        if bond.waits or bond.decision in (Decision.ALLOWED, Decision.POLITE):
            if bond.waits and bond.wants:
                bond.has, bond.wants = True, False
            bond.decision, bond.waits = Decision.ALLOWED, False
        else:
            bond.decision, bond.approved = Decision.NONE, True

    @rule(pair=pairs)
    def refuse(self, pair: tuple[Address, Address]) -> None:
        was_seen = self.handling(pair) > SubHandling.CONFIRM
        self.run(self.desk.answer(pair[1], pair[0], Decision.REFUSED))
        bond = self.bond(pair)
        if bond.waits or was_seen:
            bond.has = bond.wants = False
        bond.decision, bond.waits, bond.approved = Decision.REFUSED, False, False

    @rule(pair=pairs)
    def block_politely(self, pair: tuple[Address, Address]) -> None:
        self.run(self.desk.answer(pair[1], pair[0], Decision.POLITE))
        bond = self.bond(pair)
        if bond.waits and bond.wants:
            bond.has, bond.wants = True, False
        bond.decision, bond.waits, bond.approved = Decision.POLITE, False, False

    @rule(pair=pairs, name=st.sampled_from(["", "Friend"]))
    def put(self, pair: tuple[Address, Address], name: str) -> None:
        self.run(self.desk.contacts.put(pair[0], pair[1], name, ["Group"] if name else [], by(pair[0])))

    @rule(pair=pairs)
    def remove(self, pair: tuple[Address, Address]) -> None:
        """Both directions end; what was decided against the contact stays."""
        self.run(self.desk.contacts.remove(*pair, by(pair[0])))
        outbound, inbound = self.bond(pair), self.bond(pair[::-1])
        if outbound.wants or outbound.has:
            outbound.wants = outbound.has = False
            if outbound.decision is not Decision.POLITE:
                outbound.waits = False
            if outbound.decision is Decision.ALLOWED:
                outbound.decision = Decision.NONE
        if inbound.decision is Decision.ALLOWED or inbound.approved:
            if inbound.decision is Decision.ALLOWED or inbound.waits:
                inbound.has = inbound.wants = False
            if inbound.decision is Decision.ALLOWED:
                inbound.decision = Decision.NONE
            inbound.approved, inbound.waits = False, False

    @rule()
    def restart(self) -> None:
        """Everything comes back from the store."""
        self.loop.run_until_complete(self._start(Desk(self.desk.store)))

    @rule(person=st.sampled_from(PEOPLE))
    def look_and_leave(self, person: Address) -> None:
        """A device takes the list and goes away."""
        roster = self.roster(person)
        self.away[person.key] = roster.version, {item.contact.key: item for item in roster.items}

    @rule(person=st.sampled_from(PEOPLE))
    def come_back(self, person: Address) -> None:
        """It is told what changed since, and knows what the list is (RFC 6121 section 2.6)."""
        if person.key not in self.away:
            return
        version, known = self.away.pop(person.key)
        since = self.loop.run_until_complete(self.desk.contacts.roster_since(person, version))
        assert since is not None
        for item in since.items:
            if item.is_listed:
                known[item.contact.key] = item
            else:
                known.pop(item.contact.key, None)
        roster = self.roster(person)
        assert since.version == roster.version
        assert seen(known.values()) == seen(roster.items)

    # --- what has to be ------------------------------------------------------------------------------------------

    def roster(self, person: Address) -> Roster:
        return self.loop.run_until_complete(self.desk.contacts.roster(person))

    def handling(self, pair: tuple[Address, Address]) -> SubHandling:
        self.loop.run_until_complete(self.desk.access.load(pair[1]))
        return self.desk.access.grant(pair[1], pair[0], self.desk.clock.when()).sub_handling

    @invariant()
    def both_halves_say_what_people_say(self) -> None:
        for watcher, presentity in PAIRS:
            bond = self.bond((watcher, presentity))
            of_watcher = self.loop.run_until_complete(self.desk.contacts.item(watcher, presentity))
            of_presentity = self.loop.run_until_complete(self.desk.contacts.item(presentity, watcher))
            assert (of_watcher.asks, of_watcher.sees) == (bond.wants, bond.has)
            decided = (of_presentity.ask is not None, of_presentity.decision, of_presentity.is_preapproved)
            assert decided == (bond.waits, bond.decision, bond.approved)

    @invariant()
    def nobody_sees_more_than_was_decided(self) -> None:
        for pair in PAIRS:
            bond = self.bond(pair)
            expected = HANDLING.get(bond.decision, SubHandling.ALLOW if bond.approved else SubHandling.CONFIRM)
            if bond.decision is Decision.REFUSED and bond.waits:
                expected = SubHandling.CONFIRM
            assert self.handling(pair) is expected

    @invariant()
    def a_device_that_takes_every_push_knows_the_list(self) -> None:
        for person in PEOPLE:
            known = self.device.lists.get(person.key, {})
            assert seen(known.values()) == seen(self.roster(person).items)

    @invariant()
    def nothing_is_owed(self) -> None:
        assert self.loop.run_until_complete(self.desk.store.scan("relation", "owed/")) == []


Decided.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestDecided = Decided.TestCase
