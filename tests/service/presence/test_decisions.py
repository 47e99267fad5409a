"""Requests and answers: service/presence/decisions.py and pairs.py (XMPP-11, XMPP-12, ACL-12, ACL-23, ACL-27, N-02, N-05 to N-07)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace

import pytest

from comity.cpim.address import Address
from comity.cpim.operations import Reason, Response
from comity.cpim.presence_rules import SubHandling
from comity.service.interfaces import Op, Result
from comity.service.presence.decisions import MOST_ASK
from comity.service.presence.interfaces import ContactItem, Decision, Default, Terms
from comity.service.presence.keeping import KeepingLimits
from comity.service.presence.pairs import ListLimits
from comity.service.presence.states import State
from comity.store.memory import MemoryStore
from tests.service.presence.desk import ALICE, BOB, CAROL, DAVE, NOBODY, Desk, asking, by

ALLOWED, REFUSED, POLITE, NONE = Decision.ALLOWED, Decision.REFUSED, Decision.POLITE, Decision.NONE


def run(work: Coroutine[None, None, None]) -> None:
    asyncio.run(work)


async def desk_of(default: Default = Default.ASK, **limits: int) -> Desk:
    return await Desk(limits=KeepingLimits(default, ListLimits(**limits))).start()


async def handling(desk: Desk, account: Address, watcher: Address, *, is_new: bool = False) -> SubHandling:
    await desk.access.load(account)
    return desk.access.grant(account, watcher, desk.clock.when(), is_new=is_new).sub_handling


class CountingStore(MemoryStore):
    """Counts what takes a sync of the disk."""

    commits = 0

    def commit(self, ops: Sequence[Op]) -> asyncio.Future[list[Result]]:
        self.commits += 1
        return super().commit(ops)


class TestAsking:
    """RFC 6121 section 3.1."""

    def test_a_request_waits_whole_and_is_put_to_the_account(self) -> None:
        """XMPP-11: kept with text and stanza; the account's list does not show who asks (section 3.1.3)."""

        async def main() -> None:
            desk = await desk_of()
            assert await desk.ask(ALICE, BOB, "may I?") is None
            assert await desk.states(ALICE, BOB) == (State.NONE_OUT, State.NONE_IN)
            ask = await desk.ask_of(BOB, ALICE)
            assert ask is not None
            assert (ask.text, ask.native_protocol, ask.native) == ("may I?", "xmpp", b"<presence/>")
            assert desk.heard() == [("changed", "alice", "bob"), ("asked", "bob", "alice")]
            assert not (await desk.contacts.item(BOB, ALICE)).is_listed
            assert [item.contact for item in await desk.contacts.requests(BOB)] == [ALICE]

        run(main())

    def test_three_requests_are_one(self) -> None:
        """XMPP-11: one per sender, the first; it stays until it is answered, also over a restart."""

        async def main() -> None:
            desk = await desk_of()
            for text in ("one", "two", "three"):
                await desk.ask(ALICE, BOB, text)
            assert [said for said in desk.heard() if said[0] == "asked"] == [("asked", "bob", "alice")]
            again = await Desk(desk.store).start()
            (item,) = await again.contacts.requests(BOB)
            assert item.ask is not None
            assert item.ask.text == "one"

        run(main())

    def test_who_is_granted_already_is_answered_at_once(self) -> None:
        """XMPP-11, table 6 note 2: lost answers are made good by asking again."""

        async def main() -> None:
            desk = await desk_of()
            await desk.ask(ALICE, BOB)
            await desk.answer(BOB, ALICE, ALLOWED)
            await desk.withdraw(ALICE, BOB)
            await desk.answer(BOB, ALICE, ALLOWED)
            desk.heard()
            await desk.ask(ALICE, BOB)
            assert await desk.states(ALICE, BOB) == (State.TO, State.FROM)
            assert ("granted", "alice", "bob") in desk.heard()

        run(main())

    @pytest.mark.parametrize(
        ("default", "watcher", "told", "handled"),
        [
            (Default.ASK, ALICE, [], SubHandling.CONFIRM),
            (Default.DENY, ALICE, [("refused", "alice", "bob")], SubHandling.BLOCK),
            (Default.CONTACTS, ALICE, [], SubHandling.CONFIRM),
            (Default.CONTACTS, CAROL, [("granted", "carol", "bob")], SubHandling.ALLOW),
            (Default.DOMAIN, ALICE, [("granted", "alice", "bob")], SubHandling.ALLOW),
            (Default.DOMAIN, DAVE, [], SubHandling.CONFIRM),
            (Default.EVERYONE, DAVE, [("granted", "dave", "bob")], SubHandling.ALLOW),
        ],
    )
    @pytest.mark.parametrize("is_own", [True, False])
    def test_the_default_answers_for_who_set_it(
        self, default: Default, watcher: Address, told: list[tuple[str, str, str]], handled: SubHandling, is_own: bool
    ) -> None:
        """The account's own default and the operator's alike; what they give is no decision of its own."""

        async def main() -> None:
            desk = await desk_of(Default.ASK if is_own else default)
            if is_own:
                assert await desk.decisions.set_default(BOB, default, by(BOB)) is None
            await desk.contacts.put(BOB, CAROL, "Carol", (), by(BOB))
            desk.heard()
            await desk.ask(watcher, BOB)
            assert [said for said in desk.heard() if said[0] in ("granted", "refused")] == told
            item = await desk.contacts.item(BOB, watcher)
            assert item.decision is NONE
            assert (item.ask is not None) is (handled is SubHandling.CONFIRM)
            assert await handling(desk, BOB, watcher) is handled
            assert (await desk.state(watcher, BOB)).sees is (handled is SubHandling.ALLOW)

        run(main())

    @pytest.mark.parametrize("default", Default)
    def test_somebody_unknown_looks_like_one_who_never_decided(self, default: Default) -> None:
        """N-02: the same answer by the same number of commits, and nothing is kept on the far side."""

        async def main() -> None:
            seen = []
            for target in (CAROL, NOBODY):
                store = CountingStore()
                desk = await Desk(store, KeepingLimits(default)).start()
                answer = await desk.ask(ALICE, target)
                commits = [store.commits]
                for act in (desk.ask, desk.ask, desk.withdraw):
                    assert await act(ALICE, target) is None
                    commits.append(store.commits)
                told = [what for what, who, _ in desk.heard() if who == "alice"]
                item = replace(await desk.contacts.item(ALICE, target), contact=CAROL)
                seen.append((answer, told, replace(item, version=0), commits))
                if target is NOBODY:
                    assert not [key for key, _ in await desk.store.scan("relation", "im:nobody@a.test")]
            assert seen[0] == seen[1]

        run(main())

    def test_a_forged_request_changes_nothing(self) -> None:
        """N-05: Carol, and a peer of another domain, do not ask in Alice's name."""

        async def main() -> None:
            desk = await desk_of()
            for origin in (by(CAROL), by(ALICE, domains=frozenset({"b.test"}))):
                asked = await desk.decisions.ask(asking(ALICE, BOB), origin, Terms("xmpp"))
                withdrawn = await desk.decisions.withdraw(asking(ALICE, BOB), origin)
                for refusal in (asked, withdrawn):
                    assert refusal is not None
                    assert refusal.reason is Reason.DENIED
            assert await desk.store.scan("relation") == []
            assert desk.heard() == []

        run(main())

    @pytest.mark.parametrize(
        ("watcher", "target", "reason"),
        [
            (ALICE, Address.parse("im:bob@elsewhere.test"), Reason.NO_ROUTE),
            (ALICE, ALICE, Reason.SYNTAX),
        ],
    )
    def test_what_cannot_be_asked_is_refused(self, watcher: Address, target: Address, reason: Reason) -> None:
        async def main() -> None:
            desk = await desk_of()
            refusal = await desk.ask(watcher, target)
            assert refusal is not None
            assert (refusal.reason, refusal.trans_id) == (reason, "t1")
            assert await desk.store.scan("relation") == []

        run(main())

    def test_the_next_one_over_the_limit_is_refused(self) -> None:
        """ACL-27: requests of one subscriber that wait; an answered one makes room."""

        async def main() -> None:
            desk = await desk_of(requests=2)
            for target in (BOB, CAROL):
                assert await desk.ask(ALICE, target) is None
            refusal = await desk.ask(ALICE, DAVE)
            assert refusal is not None
            assert refusal.reason is Reason.QUOTA
            assert await desk.ask(ALICE, BOB) is None  # the same again is no further one
            await desk.answer(BOB, ALICE, REFUSED)
            assert await desk.ask(ALICE, DAVE) is None

        run(main())

    def test_requests_do_not_fill_an_account(self) -> None:
        """RFC 6121 section 3.1.3, security warning: the last one is not kept, and its watcher learns nothing of that."""

        async def main() -> None:
            desk = await desk_of(contacts=2)
            for watcher in (ALICE, BOB, DAVE):
                assert await desk.ask(watcher, CAROL) is None
            assert len(await desk.contacts.requests(CAROL)) == 2

        run(main())

    def test_a_request_has_a_largest_size(self) -> None:
        async def main() -> None:
            desk = await desk_of()
            refusal = await desk.ask(ALICE, BOB, "x" * MOST_ASK)
            assert refusal is not None
            assert refusal.reason is Reason.SIZE

        run(main())


class TestAnswering:
    """RFC 6121 sections 3.1.5, 3.2 and 3.4."""

    def test_granting_tells_the_watcher_and_lists_him(self) -> None:
        """Section 3.1.5 and 3.1.6: the answer comes before the push."""

        async def main() -> None:
            desk = await desk_of()
            await desk.ask(ALICE, BOB)
            desk.heard()
            item = await desk.answer(BOB, ALICE, ALLOWED)
            assert (item.decision, item.is_listed, item.ask) == (ALLOWED, True, None)
            assert await desk.states(ALICE, BOB) == (State.TO, State.FROM)
            said = desk.heard()
            assert said[-2:] == [("granted", "alice", "bob"), ("changed", "alice", "bob")]
            assert ("bob", "alice") in desk.judged

        run(main())

    def test_refusing_a_request_and_taking_back_a_grant_tell_the_watcher(self) -> None:
        """ACL-12; section 3.2.2 case 3."""

        async def main() -> None:
            desk = await desk_of()
            for first in (None, ALLOWED):
                await desk.ask(ALICE, BOB)
                if first:
                    await desk.answer(BOB, ALICE, first)
                desk.heard()
                await desk.answer(BOB, ALICE, REFUSED)
                assert await desk.states(ALICE, BOB) == (State.NONE, State.NONE)
                assert ("refused", "alice", "bob") in desk.heard()
                assert await handling(desk, BOB, ALICE) is SubHandling.BLOCK

        run(main())

    @pytest.mark.parametrize(
        ("default", "is_asked"),
        [
            (Default.ASK, True),
            (Default.CONTACTS, True),
            (Default.DENY, False),
            (Default.EVERYONE, False),
            (Default.DOMAIN, False),
        ],
    )
    def test_who_was_refused_may_ask_anew_where_the_default_is_to_ask(self, default: Default, is_asked: bool) -> None:
        async def main() -> None:
            desk = await desk_of(default)
            await desk.answer(BOB, ALICE, REFUSED)
            await desk.ask(ALICE, BOB)
            assert (await desk.ask_of(BOB, ALICE) is not None) is is_asked
            expected = SubHandling.CONFIRM if is_asked else SubHandling.BLOCK
            assert await handling(desk, BOB, ALICE) is expected
            if is_asked:
                await desk.answer(BOB, ALICE, ALLOWED)
                assert await handling(desk, BOB, ALICE) is SubHandling.ALLOW

        run(main())

    def test_who_saw_by_default_alone_is_told_of_a_refusal_too(self) -> None:
        """There was no decision before; the watcher's half still said that he sees."""

        async def main() -> None:
            desk = await desk_of(Default.EVERYONE)
            await desk.ask(ALICE, BOB)
            assert (await desk.state(ALICE, BOB)).sees
            await desk.answer(BOB, ALICE, REFUSED)
            assert await desk.state(ALICE, BOB) is State.NONE

        run(main())

    def test_a_polite_block_looks_like_a_grant(self) -> None:
        """ACL-11: the watcher is told "subscribed"; nothing shows in the account's list."""

        async def main() -> None:
            desk = await desk_of()
            await desk.ask(ALICE, BOB)
            desk.heard()
            item = await desk.answer(BOB, ALICE, POLITE)
            assert not item.is_listed
            assert await desk.state(ALICE, BOB) is State.TO
            assert desk.heard() == [("granted", "alice", "bob"), ("changed", "alice", "bob")]
            assert await handling(desk, BOB, ALICE) is SubHandling.POLITE_BLOCK

        run(main())

    def test_going_and_coming_again_does_not_shake_off_a_polite_block(self) -> None:
        async def main() -> None:
            desk = await desk_of()
            await desk.ask(ALICE, BOB)
            await desk.answer(BOB, ALICE, POLITE)
            await desk.withdraw(ALICE, BOB)
            desk.heard()
            await desk.ask(ALICE, BOB)
            assert ("granted", "alice", "bob") in desk.heard()
            assert await desk.ask_of(BOB, ALICE) is None
            assert await handling(desk, BOB, ALICE) is SubHandling.POLITE_BLOCK

        run(main())

    def test_a_grant_becomes_a_polite_block_without_a_word_and_back(self) -> None:
        async def main() -> None:
            desk = await desk_of()
            await desk.ask(ALICE, BOB)
            await desk.answer(BOB, ALICE, ALLOWED)
            desk.heard()
            await desk.answer(BOB, ALICE, POLITE)
            assert [said for said in desk.heard() if said[1] == "alice"] == []
            await desk.answer(BOB, ALICE, ALLOWED)
            assert [said for said in desk.heard() if said[1] == "alice"] == []
            assert await handling(desk, BOB, ALICE) is SubHandling.ALLOW

        run(main())

    def test_an_approval_in_advance_answers_the_request(self) -> None:
        """Section 3.4.2 and N-07: nothing is told before it is asked; then it is answered and not put to the account."""

        async def main() -> None:
            desk = await desk_of()
            item = await desk.answer(BOB, ALICE, ALLOWED)
            assert (item.is_preapproved, item.is_listed, item.decision) == (True, True, NONE)
            assert desk.heard() == [("changed", "bob", "alice")]
            assert await desk.state(ALICE, BOB) is State.NONE
            await desk.ask(ALICE, BOB)
            said = desk.heard()
            assert ("granted", "alice", "bob") in said
            assert "asked" not in [what for what, _, _ in said]
            assert await desk.states(ALICE, BOB) == (State.TO, State.FROM)

        run(main())

    def test_forgetting_lets_the_watcher_ask_anew(self) -> None:
        """``ask-again``: after each decision; one that was blocked politely is put to the account at once."""

        async def main() -> None:
            for decision in (ALLOWED, REFUSED, POLITE):
                desk = await desk_of()
                await desk.ask(ALICE, BOB)
                await desk.answer(BOB, ALICE, decision)
                item = await desk.answer(BOB, ALICE, NONE)
                assert item.decision is NONE
                assert (item.ask is not None) is (decision is POLITE)
                await desk.ask(ALICE, BOB)
                assert await desk.ask_of(BOB, ALICE) is not None
                assert await handling(desk, BOB, ALICE) is SubHandling.CONFIRM

        run(main())

    def test_only_the_account_answers(self) -> None:
        """N-06: a forged "subscribed" is refused, and grants nothing."""

        async def main() -> None:
            desk = await desk_of()
            await desk.ask(ALICE, BOB)
            for origin in (by(ALICE), by(BOB, domains=frozenset({"a.test"}))):
                refusal = await desk.decisions.answer(BOB, ALICE, ALLOWED, origin)
                assert isinstance(refusal, Response)
                assert refusal.reason is Reason.DENIED
                refused = await desk.decisions.set_default(BOB, Default.EVERYONE, origin)
                assert refused is not None
                assert refused.reason is Reason.DENIED
            assert await handling(desk, BOB, ALICE) is SubHandling.CONFIRM

        run(main())

    def test_decisions_hold_over_a_restart(self) -> None:
        """ACL-23: nobody of the account needs to be there; G9 rests on this."""

        async def main() -> None:
            desk = await desk_of()
            for watcher, decision in ((ALICE, ALLOWED), (CAROL, REFUSED), (DAVE, POLITE)):
                await desk.answer(BOB, watcher, decision)
            await desk.decisions.set_default(BOB, Default.CONTACTS, by(BOB))
            again = await Desk(desk.store).start()
            assert await again.decisions.decisions(BOB) == await desk.decisions.decisions(BOB)
            assert [item.contact for item in await again.decisions.decisions(BOB)] == [ALICE, CAROL, DAVE]
            assert await again.decisions.default(BOB) is Default.CONTACTS
            await again.decisions.set_default(BOB, None, by(BOB))
            assert await again.decisions.default(BOB) is Default.ASK

        run(main())


class TestWithdrawing:
    """RFC 6121 section 3.3."""

    def test_a_watcher_who_goes_is_no_longer_granted(self) -> None:
        async def main() -> None:
            desk = await desk_of()
            await desk.ask(ALICE, BOB)
            await desk.answer(BOB, ALICE, ALLOWED)
            desk.heard()
            assert await desk.withdraw(ALICE, BOB) is None
            assert await desk.states(ALICE, BOB) == (State.NONE, State.NONE)
            assert desk.heard() == [
                ("changed", "alice", "bob"),
                ("withdrew", "bob", "alice"),
                ("changed", "bob", "alice"),
            ]

        run(main())

    def test_a_request_that_is_taken_back_leaves_no_trace_with_the_account(self) -> None:
        """Section 3.3.3: MUST remove any record of the request."""

        async def main() -> None:
            desk = await desk_of()
            await desk.ask(ALICE, BOB)
            await desk.withdraw(ALICE, BOB)
            assert await desk.store.scan("relation", "im:bob@a.test/") == []

        run(main())

    def test_one_who_never_asked_is_ignored(self) -> None:
        """XMPP-12: only if subscribed."""

        async def main() -> None:
            desk = await desk_of()
            await desk.withdraw(ALICE, BOB)
            assert desk.heard() == []

        run(main())


class TestEdgesWithoutAList:
    """``Decisions.request``: a SIP dialog asks, and the watcher's own list does not know of it."""

    def test_only_the_accounts_half_changes(self) -> None:
        async def main() -> None:
            desk = await desk_of()
            handled = await desk.decisions.request(BOB, ALICE, Terms("sip", text="hello"))
            assert handled is SubHandling.CONFIRM
            assert await desk.states(ALICE, BOB) == (State.NONE, State.NONE_IN)
            assert desk.heard() == [("asked", "bob", "alice")]
            await desk.answer(BOB, ALICE, ALLOWED)
            assert ("granted", "alice", "bob") not in desk.heard()
            assert await desk.decisions.request(BOB, ALICE, Terms("sip")) is SubHandling.ALLOW

        run(main())

    def test_nothing_is_kept_for_somebody_unknown(self) -> None:
        """N-02: pending for ever, as with one who does not answer."""

        async def main() -> None:
            desk = await desk_of()
            assert await desk.decisions.request(NOBODY, ALICE, Terms("sip")) is SubHandling.CONFIRM
            assert await desk.store.scan("relation", "im:nobody@a.test") == []

        run(main())

    def test_a_refused_watcher_is_asked_about_again(self) -> None:
        async def main() -> None:
            desk = await desk_of()
            await desk.answer(BOB, ALICE, REFUSED)
            assert await handling(desk, BOB, ALICE) is SubHandling.BLOCK
            assert await handling(desk, BOB, ALICE, is_new=True) is SubHandling.CONFIRM
            assert await desk.decisions.request(BOB, ALICE, Terms("sip")) is SubHandling.CONFIRM
            assert await desk.ask_of(BOB, ALICE) is not None

        run(main())


def test_both_ask_at_the_same_time_and_both_answers_hold() -> None:
    """Opposite acts of two accounts never wait for each other in a circle."""

    async def main() -> None:
        desk = await desk_of()
        await asyncio.wait_for(asyncio.gather(*(desk.ask(*pair) for pair in ((ALICE, BOB), (BOB, ALICE)) * 20)), 5)
        assert await desk.states(ALICE, BOB) == (State.NONE_OUT_IN, State.NONE_OUT_IN)
        answers = await asyncio.gather(desk.answer(ALICE, BOB, ALLOWED), desk.answer(BOB, ALICE, ALLOWED))
        assert all(isinstance(answer, ContactItem) for answer in answers)
        assert await desk.states(ALICE, BOB) == (State.BOTH, State.BOTH)

    run(main())
