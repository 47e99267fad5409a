"""Contact lists: service/presence/contacts.py and relations.py (XMPP-10, RFC 6121 sections 2.3 to 2.6), blocking (XEP-0191)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence

import pytest

from comity.cpim.address import Address
from comity.cpim.operations import Reason, Response
from comity.cpim.presence_rules import SubHandling
from comity.errors import StoreError
from comity.service.interfaces import Put
from comity.service.presence.contacts import MOST_GROUPS, MOST_NAME, MOST_TEXT
from comity.service.presence.interfaces import ContactItem, Decision, Default
from comity.service.presence.keeping import KeepingLimits
from comity.service.presence.pairs import ListLimits
from comity.service.presence.relations import Relations
from comity.service.presence.states import State
from tests.service.presence.desk import ALICE, BOB, CAROL, DAVE, Desk, by


def run(work: Coroutine[None, None, None]) -> None:
    asyncio.run(work)


def refused(answer: object) -> Reason | None:
    assert isinstance(answer, Response), answer
    return answer.reason


async def put(desk: Desk, account: Address, contact: Address, name: str = "", *groups: str) -> ContactItem:
    item = await desk.contacts.put(account, contact, name, groups, by(account))
    assert isinstance(item, ContactItem), item
    return item


class TestEditing:
    def test_what_is_put_is_pushed_and_stays(self) -> None:
        async def main() -> None:
            desk = await Desk().start()
            item = await put(desk, ALICE, BOB, "Bob", "Work", "Friends")
            assert desk.heard() == [("changed", "alice", "bob")]
            roster = await desk.contacts.roster(ALICE)
            assert roster.items == (item,)
            assert roster.version == item.version > 0
            assert (item.name, item.groups) == ("Bob", ("Work", "Friends"))
            again = await Desk(desk.store).start()
            assert await again.contacts.roster(ALICE) == roster

        run(main())

    def test_the_same_again_is_no_change(self) -> None:
        async def main() -> None:
            desk = await Desk().start()
            first = await put(desk, ALICE, BOB, "Bob")
            desk.heard()
            assert await put(desk, ALICE, BOB, "Bob") == first
            assert desk.heard() == []

        run(main())

    def test_editing_leaves_what_was_decided(self) -> None:
        """RFC 6121 section 2.1.2.5: the server ignores what a client says of the subscription."""

        async def main() -> None:
            desk = await Desk().start()
            await desk.ask(ALICE, BOB)
            await desk.answer(BOB, ALICE, Decision.ALLOWED)
            await put(desk, ALICE, BOB, "Bob")
            await put(desk, BOB, ALICE, "Alice")
            assert await desk.states(ALICE, BOB) == (State.TO, State.FROM)

        run(main())

    @pytest.mark.parametrize(
        ("contact", "name", "groups"),
        [
            (ALICE, "me", []),
            (BOB, "Bob", [""]),
            (BOB, "Bob", ["Work", "Work"]),
            (BOB, "x" * (MOST_NAME + 1), []),
            (BOB, "Bob", ["x" * (MOST_NAME + 1)]),
            (BOB, "Bob", [str(n) for n in range(MOST_GROUPS + 1)]),
            (BOB, "Bob", [f"{n:01000}" for n in range(MOST_TEXT // 1000 + 1)]),
        ],
    )
    def test_an_entry_that_cannot_be_is_refused(self, contact: Address, name: str, groups: Sequence[str]) -> None:
        """RFC 6121 section 2.3.3."""

        async def main() -> None:
            desk = await Desk().start()
            assert refused(await desk.contacts.put(ALICE, contact, name, groups, by(ALICE))) is Reason.SYNTAX
            assert (await desk.contacts.roster(ALICE)).items == ()

        run(main())

    def test_a_list_has_a_largest_size_whoever_fills_it(self) -> None:
        """CONSTR-1: by hand, by asking, and by approving; one that leaves makes room."""

        async def main() -> None:
            desk = await Desk(limits=KeepingLimits(lists=ListLimits(contacts=1))).start()
            await put(desk, ALICE, BOB)
            for answer in (
                await desk.contacts.put(ALICE, CAROL, "", (), by(ALICE)),
                await desk.ask(ALICE, CAROL),
                await desk.decisions.answer(ALICE, CAROL, Decision.ALLOWED, by(ALICE)),
            ):
                assert refused(answer) is Reason.QUOTA
            await put(desk, ALICE, BOB, "still editable")
            await desk.contacts.remove(ALICE, BOB, by(ALICE))
            await put(desk, ALICE, CAROL)

        run(main())

    def test_a_list_is_its_accounts_own(self) -> None:
        async def main() -> None:
            desk = await Desk().start()
            await put(desk, ALICE, BOB)
            for origin in (by(BOB), by(ALICE, domains=frozenset({"a.test"}))):
                assert refused(await desk.contacts.put(ALICE, CAROL, "", (), origin)) is Reason.DENIED
                assert refused(await desk.contacts.remove(ALICE, BOB, origin)) is Reason.DENIED
                assert refused(await desk.contacts.block(ALICE, [BOB], origin)) is Reason.DENIED
                assert refused(await desk.contacts.unblock(ALICE, None, origin)) is Reason.DENIED
            assert [item.contact for item in (await desk.contacts.roster(ALICE)).items] == [BOB]

        run(main())


class TestRemoving:
    """RFC 6121 section 2.5."""

    def test_both_directions_end(self) -> None:
        """Section 2.5.2 case 3."""

        async def main() -> None:
            desk = await Desk().start()
            for one, other in ((ALICE, BOB), (BOB, ALICE)):
                await desk.ask(one, other)
                await desk.answer(other, one, Decision.ALLOWED)
            assert await desk.states(ALICE, BOB) == (State.BOTH, State.BOTH)
            desk.heard()
            assert await desk.contacts.remove(ALICE, BOB, by(ALICE)) is True
            assert await desk.states(ALICE, BOB) == (State.NONE, State.NONE)
            said = desk.heard()
            assert said[0] == ("removed", "alice", "bob")
            assert {("withdrew", "bob", "alice"), ("refused", "bob", "alice")} <= {*said}
            assert [item.contact for item in (await desk.contacts.roster(BOB)).items] == [ALICE]

        run(main())

    def test_a_request_of_its_own_is_withdrawn(self) -> None:
        async def main() -> None:
            desk = await Desk().start()
            await desk.ask(ALICE, BOB)
            await desk.contacts.remove(ALICE, BOB, by(ALICE))
            assert list(await desk.contacts.requests(BOB)) == []

        run(main())

    @pytest.mark.parametrize("decision", [Decision.REFUSED, Decision.POLITE])
    def test_what_was_decided_against_somebody_stays(self, decision: Decision) -> None:
        async def main() -> None:
            desk = await Desk().start()
            await desk.answer(ALICE, BOB, decision)
            await put(desk, ALICE, BOB)
            await desk.contacts.remove(ALICE, BOB, by(ALICE))
            assert (await desk.contacts.item(ALICE, BOB)).decision is decision

        run(main())

    def test_an_approval_in_advance_goes_with_it(self) -> None:
        """Section 3.4.2: "(or removes the contact from the roster entirely)"."""

        async def main() -> None:
            desk = await Desk().start()
            await desk.answer(ALICE, BOB, Decision.ALLOWED)
            await desk.contacts.remove(ALICE, BOB, by(ALICE))
            await desk.ask(BOB, ALICE)
            assert await desk.ask_of(ALICE, BOB) is not None

        run(main())

    def test_what_is_not_there_cannot_be_removed(self) -> None:
        async def main() -> None:
            desk = await Desk().start()
            assert await desk.contacts.remove(ALICE, BOB, by(ALICE)) is False

        run(main())


class TestVersions:
    """RFC 6121 section 2.6."""

    def test_a_device_that_comes_back_learns_what_changed(self) -> None:
        async def main() -> None:
            desk = await Desk().start()
            await put(desk, ALICE, BOB)
            await put(desk, ALICE, CAROL)
            version = (await desk.contacts.roster(ALICE)).version
            await desk.contacts.remove(ALICE, BOB, by(ALICE))
            await put(desk, ALICE, DAVE)
            await desk.ask(CAROL, ALICE)  # her entry shows nothing of that
            for reader in (desk, await Desk(desk.store).start()):
                since = await reader.contacts.roster_since(ALICE, version)
                assert since is not None
                assert [(item.contact, item.is_listed) for item in since.items] == [(BOB, False), (DAVE, True)]
                assert since.version == (await reader.contacts.roster(ALICE)).version

        run(main())

    def test_a_version_that_never_was_is_not_known(self) -> None:
        async def main() -> None:
            desk = await Desk().start()
            version = (await put(desk, ALICE, BOB)).version
            assert await desk.contacts.roster_since(ALICE, version + 1) is None
            same = await desk.contacts.roster_since(ALICE, version)
            assert same is not None
            assert same.items == ()

        run(main())

    def test_old_removals_are_forgotten_openly(self) -> None:
        """Bounded: who was away longer gets the whole list, also after a restart."""

        async def main() -> None:
            desk = await Desk().start()
            desk.keeping.relations._most_tombstones = 4
            before = (await put(desk, ALICE, BOB)).version
            for number in range(9):
                contact = Address.parse(f"im:friend{number}@b.test")
                await put(desk, ALICE, contact)
                await desk.contacts.remove(ALICE, contact, by(ALICE))
            again = await Desk(desk.store).start()
            for reader in (desk, again):
                assert await reader.contacts.roster_since(ALICE, before) is None
                roster = await reader.contacts.roster(ALICE)
                assert await reader.contacts.roster_since(ALICE, roster.version) is not None
                assert len((await reader.keeping.relations.load(ALICE)).was_listed) <= 4

        run(main())

    def test_a_later_owner_of_the_address_uses_no_version_again(self) -> None:
        async def main() -> None:
            desk = await Desk().start()
            before = (await put(desk, ALICE, BOB)).version
            await desk.keeping.remove(ALICE)
            assert (await desk.contacts.roster(ALICE)).items == ()
            assert await desk.store.scan("relation", "im:alice@a.test/") == []
            assert await desk.contacts.roster_since(ALICE, before) is None

        run(main())


class TestMemory:
    def test_what_was_used_longest_ago_leaves_and_is_read_again(self) -> None:
        async def main() -> None:
            desk = await Desk().start()
            for account in (ALICE, BOB, CAROL):
                await put(desk, account, DAVE)
            small = Relations(desk.store, most_items=6)
            for account in (ALICE, BOB, CAROL):
                assert len((await small.load(account)).items) == 1
            assert small.loaded(ALICE) is None
            assert small.loaded(CAROL) is not None
            assert len((await small.load(ALICE)).items) == 1

        run(main())

    def test_one_look_serves_all_who_ask_at_once(self) -> None:
        async def main() -> None:
            desk = await Desk().start()
            books = await asyncio.gather(*(desk.keeping.relations.load(ALICE) for _ in range(5)))
            assert len({id(book) for book in books}) == 1

        run(main())

    def test_a_row_that_cannot_be_read_is_no_empty_one(self) -> None:
        """F-POISON: a decision that is lost must not count as none."""

        async def main() -> None:
            desk = await Desk().start()
            await desk.store.commit([Put("relation", "im:alice@a.test/im:bob@a.test", b"\xff")])
            with pytest.raises(StoreError, match=r"im:alice@a\.test/im:bob@a\.test"):
                await desk.contacts.roster(ALICE)
            assert (await desk.contacts.roster(BOB)).items == ()

        run(main())


class TestBlocking:
    """XEP-0191."""

    def test_people_and_whole_domains_over_a_restart(self) -> None:
        async def main() -> None:
            desk = await Desk().start()
            domain = Address("im", "", "b.test")
            assert await desk.contacts.block(ALICE, [BOB, domain], by(ALICE)) is None
            assert desk.heard() == [("blocked", "alice", "+im:bob@a.test im:@b.test -")]
            for reader in (desk, await Desk(desk.store).start()):
                assert reader.contacts.is_blocked(ALICE, BOB)
                assert reader.contacts.is_blocked(ALICE, DAVE)
                assert not reader.contacts.is_blocked(ALICE, CAROL)
                assert not reader.contacts.is_blocked(BOB, ALICE)
                assert list(await reader.contacts.blocked(ALICE)) == [domain, BOB]
            await desk.contacts.unblock(ALICE, [domain], by(ALICE))
            assert not desk.contacts.is_blocked(ALICE, DAVE)
            await desk.contacts.unblock(ALICE, None, by(ALICE))
            assert desk.keeping.blocks.is_idle
            assert desk.heard()[-1] == ("blocked", "alice", "+ -all")
            assert await desk.store.scan("relation", "blocked/") == []

        run(main())

    def test_both_sides_are_judged_anew_and_see_somebody_offline(self) -> None:
        async def main() -> None:
            desk = await Desk().start()
            await desk.ask(ALICE, BOB)
            await desk.answer(BOB, ALICE, Decision.ALLOWED)
            desk.judged.clear()
            await desk.contacts.block(BOB, [ALICE], by(BOB))
            assert {("bob", "alice"), ("alice", "bob")} <= {*desk.judged}
            for account, watcher in ((BOB, ALICE), (ALICE, BOB)):
                await desk.access.load(account)
                granted = desk.access.grant(account, watcher, desk.clock.when())
                assert granted.sub_handling is SubHandling.POLITE_BLOCK

        run(main())

    def test_blocking_a_domain_judges_everybody(self) -> None:
        async def main() -> None:
            desk = await Desk(limits=KeepingLimits(Default.EVERYONE)).start()
            await desk.ask(ALICE, DAVE)
            desk.judged.clear()
            await desk.contacts.block(ALICE, [Address("im", "", "b.test")], by(ALICE))
            assert {("alice", ""), ("dave", "alice")} <= {*desk.judged}

        run(main())

    def test_a_blocked_persons_request_is_met_by_silence(self) -> None:
        """As from somebody who does not answer; nothing is kept."""

        async def main() -> None:
            desk = await Desk().start()
            await desk.contacts.block(BOB, [ALICE], by(BOB))
            desk.heard()
            assert await desk.ask(ALICE, BOB) is None
            assert desk.heard() == [("changed", "alice", "bob")]
            assert await desk.state(BOB, ALICE) is State.NONE

        run(main())

    def test_whom_one_blocks_one_does_not_ask(self) -> None:
        async def main() -> None:
            desk = await Desk().start()
            await desk.contacts.block(ALICE, [BOB], by(ALICE))
            assert refused(await desk.ask(ALICE, BOB)) is Reason.DENIED

        run(main())

    def test_a_blocking_list_has_limits_and_no_self(self) -> None:
        async def main() -> None:
            desk = await Desk(limits=KeepingLimits(lists=ListLimits(blocked=1))).start()
            assert refused(await desk.contacts.block(ALICE, [ALICE], by(ALICE))) is Reason.SYNTAX
            assert refused(await desk.contacts.block(ALICE, [BOB, CAROL], by(ALICE))) is Reason.QUOTA
            assert await desk.contacts.block(ALICE, [BOB], by(ALICE)) is None
            assert await desk.contacts.block(ALICE, [BOB], by(ALICE)) is None

        run(main())
