"""Access entries beside rules, decisions and blocks: service/presence/{entries,rights,access,inbox}.py (APEX-12, APEX-24, APEX-25)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from comity.cpim.access_entries import AccessEntry
from comity.cpim.address import Address
from comity.cpim.message_rules import MESSAGE_RULES
from comity.cpim.operations import Context, Reason, Response
from comity.cpim.presence_rules import EVERYTHING, Permissions, SubHandling
from comity.errors import AddressError, StoreError
from comity.service.interfaces import Accepted, Put
from comity.service.presence import entries as entries_module
from comity.service.presence.entries import ENTRIES, TYPE
from comity.service.presence.interfaces import Decision, Default, Published, Statement
from comity.service.presence.keeping import Keeping, KeepingLimits
from comity.testing.presence import PresenceBench
from comity.testing.service import Bench, settle
from tests.service.presence.desk import ALICE, BOB, CAROL, DAVE, Desk, by

BLOCK, CONFIRM, POLITE, ALLOW = SubHandling


def run(work: Coroutine[None, None, None]) -> None:
    asyncio.run(work)


async def permit(keeping: Keeping, owner: Address, actor: str, actions: str | None, **named: str) -> AccessEntry:
    """Set an entry, replacing what is there; it has to be taken."""
    resource = named.get("resource", "")
    before = await keeping.rights.entry(owner, resource, actor)
    last = "" if before is None else before.last_update
    done = await keeping.rights.set_entry(
        owner, resource, actor, None if actions is None else tuple(actions.split()), last
    )
    assert isinstance(done, AccessEntry), done
    return done


async def seen(desk: Desk, account: Address, watcher: Address) -> Permissions:
    await desk.access.load(account)
    return desk.access.grant(account, watcher, desk.clock.when())


async def handled(desk: Desk, account: Address, watcher: Address) -> SubHandling:
    return (await seen(desk, account, watcher)).sub_handling


def message_rule(handling: str, who: Address) -> bytes:
    return (
        '<ruleset xmlns="urn:ietf:params:xml:ns:common-policy"><rule id="m">'
        f'<conditions><identity><one id="{who.uri}"/></identity></conditions>'
        f'<actions><msg-handling xmlns="{MESSAGE_RULES}">{handling}</msg-handling></actions></rule></ruleset>'
    ).encode()


def presence_rule(handling: str, who: Address) -> bytes:
    return (
        '<ruleset xmlns="urn:ietf:params:xml:ns:common-policy"><rule id="p">'
        f'<conditions><identity><one id="{who.with_scheme("pres").uri}"/></identity></conditions>'
        f'<actions><sub-handling xmlns="urn:ietf:params:xml:ns:pres-rules">{handling}</sub-handling></actions>'
        "</rule></ruleset>"
    ).encode()


class TestWhoMaySeeWhom:
    @pytest.mark.parametrize("default", list(Default))
    def test_an_entry_that_names_somebody_is_a_decision(self, default: Default) -> None:
        async def main() -> None:
            desk = await Desk(limits=KeepingLimits(default)).start()
            await permit(desk.keeping, BOB, "alice@a.test", "presence:subscribe")
            await permit(desk.keeping, BOB, "carol@a.test", "core:data")
            assert await seen(desk, BOB, ALICE) == EVERYTHING
            assert await handled(desk, BOB, CAROL) is BLOCK

        run(main())

    def test_a_wildcard_is_a_default_behind_every_decision(self) -> None:
        """APEX-25: ``*@*`` without ``presence:subscribe`` does not take from the contact list what was granted by name."""

        async def main() -> None:
            desk = await Desk(limits=KeepingLimits(Default.EVERYONE)).start()
            await desk.answer(BOB, ALICE, Decision.ALLOWED)
            await permit(desk.keeping, BOB, "*@*", "core:data")
            assert await handled(desk, BOB, ALICE) is ALLOW
            assert await handled(desk, BOB, CAROL) is BLOCK
            await permit(desk.keeping, BOB, "*@a.test", "presence:subscribe")
            assert await seen(desk, BOB, CAROL) == EVERYTHING
            assert await handled(desk, BOB, DAVE) is BLOCK

        run(main())

    @pytest.mark.parametrize(
        ("decision", "expected"),
        [(Decision.REFUSED, BLOCK), (Decision.POLITE, POLITE), (Decision.NONE, ALLOW), (Decision.ALLOWED, ALLOW)],
    )
    def test_what_refuses_counts_whoever_wrote_it(self, decision: Decision, expected: SubHandling) -> None:
        async def main() -> None:
            desk = await Desk().start()
            await desk.answer(BOB, ALICE, decision)
            await permit(desk.keeping, BOB, "alice@a.test", "all:all")
            assert await handled(desk, BOB, ALICE) is expected
            assert await desk.keeping.rights.may(BOB, ALICE, "presence:subscribe") is (expected is ALLOW)
            await permit(desk.keeping, BOB, "alice@a.test", "all:none")
            assert await handled(desk, BOB, ALICE) is (POLITE if decision is Decision.POLITE else BLOCK)

        run(main())

    def test_rules_say_how_much_is_seen_and_an_entry_against_outweighs_them(self) -> None:
        async def main() -> None:
            desk = await Desk().start()
            await desk.documents.put(BOB, "pres-rules/index", "x/y", presence_rule("polite-block", ALICE), by(BOB))
            await permit(desk.keeping, BOB, "*@*", "all:all")
            assert await handled(desk, BOB, ALICE) is POLITE
            assert await desk.keeping.rights.may(BOB, ALICE, "presence:subscribe") is False
            await permit(desk.keeping, BOB, "alice@a.test", "all:none")
            assert await handled(desk, BOB, ALICE) is BLOCK

        run(main())

    def test_a_block_outweighs_every_entry(self) -> None:
        async def main() -> None:
            desk = await Desk().start()
            await permit(desk.keeping, BOB, "alice@a.test", "all:all")
            assert await desk.keeping.rights.may(BOB, ALICE, "all:all")
            await desk.contacts.block(BOB, [ALICE], by(BOB))
            assert await handled(desk, BOB, ALICE) is POLITE
            for token in ("core:data", "presence:subscribe", "presence:watch", "presence:publish", "access:query"):
                assert await desk.keeping.rights.may(BOB, ALICE, token) is False

        run(main())

    def test_who_waits_is_answered_by_an_entry(self) -> None:
        """As by a rule: an XMPP request that nobody answered, and the account that was refused by name asks in vain."""

        async def main() -> None:
            desk = await Desk().start()
            assert await desk.ask(ALICE, BOB) is None
            assert await desk.ask(CAROL, BOB) is None
            desk.heard()
            await permit(desk.keeping, BOB, "alice@a.test", "presence:subscribe")
            assert ("granted", "alice", "bob") in desk.heard()
            assert ("bob", "") in desk.judged
            await permit(desk.keeping, BOB, "carol@a.test", "all:none")
            assert ("refused", "carol", "bob") in desk.heard()
            assert await desk.store.scan("relation", "settle/") == []

        run(main())


class TestWhoMaySend:
    def test_no_token_no_message_whatever_the_protocol(self) -> None:
        """APEX-12, APEX-25: the sender hears what one hears who writes to nobody."""

        async def main() -> None:
            bench = await PresenceBench().start()
            bench.pipeline.inbox = bench.presence.keeping.inbox
            assert bench.pipeline.inbox.is_idle
            await permit(bench.presence.keeping, BOB, "alice@a.test", "presence:subscribe")
            assert not bench.pipeline.inbox.is_idle
            refusal = await bench.submit(bench.operation("hello"))
            assert isinstance(refusal, Response)
            assert refusal.reason is Reason.NO_SUCH_USER
            assert await bench.store.lanes() == []
            assert isinstance(await bench.submit(bench.operation("hello", source=CAROL.uri)), Accepted)
            await permit(bench.presence.keeping, BOB, "alice@a.test", None)
            assert bench.pipeline.inbox.is_idle
            assert isinstance(await bench.submit(bench.operation("hello")), Accepted)

        run(main())

    @pytest.mark.parametrize(
        ("entry", "rule", "is_taken"),
        [
            ("alice@a.test all:none", "allow", False),
            ("alice@a.test core:data", "block", False),
            ("*@* presence:subscribe", "allow", True),
            ("*@* presence:subscribe", "", False),
            ("*@* core:data", "block", False),
            ("*@b.test all:none", "", True),
        ],
    )
    def test_which_of_a_rule_and_an_entry_counts(self, entry: str, rule: str, *, is_taken: bool) -> None:
        async def main() -> None:
            desk = await Desk().start()
            if rule:
                await desk.documents.put(BOB, "pres-rules/index", "x/y", message_rule(rule, ALICE), by(BOB))
            await permit(desk.keeping, BOB, *entry.split())
            assert await desk.keeping.rights.may(BOB, ALICE, "core:data") is is_taken
            operation = Bench().operation("hello")
            assert desk.keeping.inbox.look(operation, desk.clock.when())[0] is is_taken

        run(main())

    def test_subaddresses_of_both(self) -> None:
        """APEX-24: entries of the owner's subaddress come first; a denial by name holds for the sender's subaddresses."""

        async def main() -> None:
            desk = await Desk().start()
            await permit(desk.keeping, BOB, "alice@a.test", "all:none")
            await permit(desk.keeping, BOB, "alice/appl=wb@a.test", "core:data", resource="appl=wb")

            def is_taken(resource: str, source: str) -> bool:
                context = Context(resource=resource, source_resource=source)
                operation = replace(Bench().operation("hello"), context=context)
                return desk.keeping.inbox.look(operation, desk.clock.when())[0]

            assert is_taken("appl=wb", "appl=wb")
            assert not is_taken("appl=wb", "phone")
            assert not is_taken("", "appl=wb")
            assert not is_taken("phone", "")

        run(main())


class TestOtherRights:
    def test_watching_and_publishing_and_access_are_the_owners_until_granted(self) -> None:
        async def main() -> None:
            desk = await Desk(limits=KeepingLimits(Default.EVERYONE)).start()
            rights = desk.keeping.rights
            tokens = ("presence:watch", "presence:publish", "access:query", "access:get", "access:set")
            for token in (*tokens, "all:all", "core:data", "presence:subscribe", "pubsub:read"):
                assert await rights.may(BOB, BOB, token)
            for token in tokens:
                assert not await rights.may(BOB, ALICE, token)
            await permit(desk.keeping, BOB, "alice@a.test", "presence:all access:get")
            assert await rights.may(BOB, ALICE, "presence:watch", "presence:publish", "presence:all", "access:get")
            assert not await rights.may(BOB, ALICE, "access:all")
            assert not await rights.may(BOB, ALICE, "access:get", "access:set")
            await desk.answer(BOB, ALICE, Decision.REFUSED)
            assert not await rights.may(BOB, ALICE, "presence:all")  # what it comes to, not what is written

        run(main())

    def test_presence_is_asked_about_accounts(self) -> None:
        """What a query says of a subaddress is what a watcher finds: nobody watches as a subaddress."""

        async def main() -> None:
            desk = await Desk(limits=KeepingLimits(Default.DENY)).start()
            rights = desk.keeping.rights
            await permit(desk.keeping, BOB, "alice/phone@a.test", "all:all")
            for token in ("presence:subscribe", "presence:watch", "presence:publish", "all:all"):
                assert not await rights.may(BOB, ALICE, token, actor_resource="phone")
            assert await rights.may(BOB, ALICE, "core:data", "access:set", actor_resource="phone")
            assert not await rights.may(BOB, ALICE, "access:set")

        run(main())

    def test_services_have_their_defaults(self) -> None:
        """RFC 3341 section 3."""

        async def main() -> None:
            desk = await Desk().start()
            rights = desk.keeping.rights
            ours, theirs = Address.im("apex=presence", "a.test"), Address.im("apex=presence", "c.test")
            assert await rights.may(BOB, ours, "all:all")
            assert await rights.may(BOB, theirs, "core:data")
            assert not await rights.may(BOB, theirs, "access:query")
            await permit(desk.keeping, BOB, "apex=*@*", "all:none")
            assert await rights.may(BOB, ours, "core:data")
            assert not await rights.may(BOB, theirs, "core:data")

        run(main())

    def test_whom_it_permits_to_publishes_for_the_account(self) -> None:
        """ACL-22, APEX-25."""

        async def main() -> None:
            bench = await PresenceBench().start()
            statement = Statement(bench.document(BOB.uri), keeps_ids=True)

            def publish() -> Published | Response:
                return bench.presence.publish(BOB, statement, bench.origin(ALICE.uri), lease=600)

            refused = publish()
            assert isinstance(refused, Response)
            assert refused.reason is Reason.DENIED
            await permit(bench.presence.keeping, BOB, "alice@a.test", "presence:publish")
            done = publish()
            assert isinstance(done, Published)
            assert bench.presence.unpublish(BOB, bench.origin(ALICE.uri), etag=done.etag) is None
            await permit(bench.presence.keeping, BOB, "alice@a.test", "all:none")
            assert isinstance(publish(), Response)

        run(main())

    def test_whom_it_permits_to_watch_learns_who_else_does(self) -> None:
        """APEX-25: ``presence:watch`` is watcher information, for a SIP program too; taken back, it is over."""

        async def main() -> None:
            bench = await PresenceBench(keeping=KeepingLimits(Default.DENY)).start()
            keeping = bench.presence.keeping
            refused = await bench.ask(ALICE.uri, BOB.uri, package="presence.winfo")
            assert isinstance(refused, Response)
            await permit(keeping, BOB, "carol@a.test", "presence:subscribe")
            await permit(keeping, BOB, "alice@a.test", "presence:watch")
            await bench.watch(CAROL.uri, BOB.uri)
            bench.sip.take()
            await bench.watch(ALICE.uri, BOB.uri, package="presence.winfo")
            (told,) = bench.sip.take()
            assert told.content is not None
            assert b"sip:carol@a.test" in told.content.object.octets
            await permit(keeping, BOB, "alice@a.test", "core:data")
            await settle()
            assert [(one.word, one.watcher) for one in bench.sip.take()] == [("ended", "alice")]

        run(main())


class TestEntries:
    def test_a_change_needs_the_moment_of_what_it_changes(self) -> None:
        """APEX-23: compared as a moment, in whatever zone it is written; each change has a later one."""

        async def main() -> None:
            desk = await Desk().start()
            rights = desk.keeping.rights

            async def change(actions: tuple[str, ...] | None, last: str) -> AccessEntry | Response:
                return await rights.set_entry(BOB, "", "alice@a.test", actions, last)

            def is_stale(done: AccessEntry | Response) -> bool:
                return isinstance(done, Response) and done.reason is Reason.NO_PUBLICATION

            assert is_stale(await change(("core:data",), "2000-05-14T13:02:00-08:00"))
            assert is_stale(await change(None, ""))
            first = await change(("core:data",), "")
            assert isinstance(first, AccessEntry)
            assert datetime.fromisoformat(first.last_update) == desk.clock.when().replace(microsecond=0)
            assert is_stale(await change(("all:all",), ""))
            assert is_stale(await change(("all:all",), "2000-05-14T13:02:00-08:00"))
            assert is_stale(await change(("all:all",), "yesterday"))
            in_another_zone = _elsewhere(first.last_update)
            second = await change(("all:all",), in_another_zone)
            assert isinstance(second, AccessEntry)
            assert second.last_update > first.last_update
            assert is_stale(await change(None, first.last_update))
            gone = await change(None, second.last_update)
            assert isinstance(gone, AccessEntry)
            assert gone.actions == ()
            assert await rights.entry(BOB, "", "alice@a.test") is None
            assert await desk.documents.get(BOB, ENTRIES) is None

        run(main())

    def test_an_account_takes_nothing_from_itself(self) -> None:
        async def main() -> None:
            desk = await Desk().start()
            for actor in ("bob@a.test", "BOB@a.test", "bob/*@a.test", "bob/phone@a.test"):
                refused = await desk.keeping.rights.set_entry(BOB, "", actor, ("core:data",), "")
                assert isinstance(refused, Response)
                assert refused.reason is Reason.DENIED
            await permit(desk.keeping, BOB, "*@*", "all:none")
            assert await desk.keeping.rights.may(BOB, BOB, "all:all", actor_resource="phone")
            await permit(desk.keeping, BOB, "bob@a.test", "all:all")

        run(main())

    def test_default_entries_can_be_got_and_nobody_set_them(self) -> None:
        """RFC 3341 section 3; ``*@*`` is what the inbox and the default of presence come to."""

        async def main() -> None:
            desk = await Desk().start()
            rights = desk.keeping.rights
            for actor in ("bob@a.test", "apex=*@a.test"):
                assert await rights.entry(BOB, "", actor) == AccessEntry("", actor, ("all:all",))
            assert await rights.entry(BOB, "", "apex=*@*") == AccessEntry("", "apex=*@*", ("core:data",))
            assert await rights.entry(BOB, "", "*@*") == AccessEntry("", "*@*", ("core:data",))
            await desk.decisions.set_default(BOB, Default.EVERYONE, by(BOB))
            assert await rights.entry(BOB, "", "*@*") == AccessEntry("", "*@*", ("core:data", "presence:subscribe"))
            assert await rights.entry(BOB, "", "alice@a.test") is None
            with pytest.raises(AddressError):
                await rights.entry(BOB, "", "alice")

        run(main())

    def test_entries_outlive_a_restart_and_go_with_the_account(self) -> None:
        """APEX-21."""

        async def main() -> None:
            desk = await Desk().start()
            kept = await permit(desk.keeping, BOB, "*@a.test", "core:data", resource="appl=wb")
            await permit(desk.keeping, BOB, "Alice@a.test", "all:none")
            again = await Desk(desk.store).start()
            assert await again.keeping.rights.entry(BOB, "appl=wb", "*@a.test") == kept
            assert not await again.keeping.rights.may(BOB, ALICE, "core:data")
            assert not again.keeping.inbox.is_idle
            await again.keeping.remove(BOB)
            assert again.keeping.inbox.is_idle
            assert await again.store.scan("relation", "entries/") == []
            third = await Desk(desk.store).start()
            assert await third.keeping.rights.may(BOB, ALICE, "core:data")

        run(main())

    def test_what_was_said_about_a_removed_account_goes_with_it(self) -> None:
        """A later owner of its name is somebody else; what is said about others stays."""

        async def main() -> None:
            desk = await Desk().start()
            for actor in ("alice@a.test", "ALICE/phone@a.test", "alice@b.test", "*@a.test", "carol@a.test"):
                await permit(desk.keeping, BOB, actor, "all:all")
            await permit(desk.keeping, CAROL, "alice@a.test", "all:all", resource="x")
            await desk.keeping.remove(ALICE)
            for keeping in (desk.keeping, (await Desk(desk.store).start()).keeping):
                left = [await keeping.rights.entry(BOB, "", a) for a in ("alice@a.test", "alice/phone@a.test")]
                assert left == [None, None]
                for actor in ("alice@b.test", "*@a.test", "carol@a.test"):
                    assert await keeping.rights.entry(BOB, "", actor) is not None
                assert await keeping.rights.entry(CAROL, "x", "alice@a.test") is None

        run(main())

    def test_who_waits_is_answered_after_a_stop_in_between_too(self) -> None:
        """The entry was committed, and the process ended before those who wait were looked at."""

        async def main() -> None:
            desk = await Desk().start()
            assert await desk.ask(ALICE, BOB) is None
            await permit(desk.keeping, CAROL, "alice@a.test", "all:all")
            (document,) = [entry.value for _, entry in await desk.store.scan("document")]
            before, _ = entries_module._mark(BOB, document)
            await desk.store.commit([*before, Put("document", f"{BOB.key}/{ENTRIES}", document)])
            again = await Desk(desk.store).start()
            assert (await again.contacts.item(ALICE, BOB)).sees
            assert await again.ask_of(BOB, ALICE) is None
            assert await again.store.scan("relation", "settle/") == []

        run(main())

    def test_there_are_so_many_and_no_more(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def main() -> None:
            monkeypatch.setattr(entries_module, "MOST", 3)
            desk = await Desk().start()
            for name in "abc":
                await permit(desk.keeping, BOB, f"{name}@a.test", "core:data")
            refused = await desk.keeping.rights.set_entry(BOB, "", "d@a.test", ("core:data",), "")
            assert isinstance(refused, Response)
            assert refused.reason is Reason.QUOTA
            await permit(desk.keeping, BOB, "c@a.test", "all:all")
            await permit(desk.keeping, BOB, "c@a.test", None)
            await permit(desk.keeping, BOB, "d@a.test", "core:data")

        run(main())

    @pytest.mark.parametrize(
        ("resource", "actor", "actions"),
        [
            ("", "alice", ("core:data",)),
            ("", "a*@a.test", ("core:data",)),
            ("", "alice@a.test", ("core",)),
            ("", "alice@a.test", ()),
            ("", "alice@a.test", ("core:data",) * 33),
            ("x" * 2000, "alice@a.test", ("core:data",)),
        ],
    )
    def test_what_is_no_entry_is_refused(self, resource: str, actor: str, actions: tuple[str, ...]) -> None:
        async def main() -> None:
            desk = await Desk().start()
            refused = await desk.keeping.rights.set_entry(BOB, resource, actor, actions, "")
            assert isinstance(refused, Response)
            assert refused.reason is Reason.SYNTAX
            assert await desk.store.scan("document") == []

        run(main())

    def test_two_who_change_one_entry_at_once(self) -> None:
        """The second is told that there is another entry than it meant."""

        async def main() -> None:
            desk = await Desk().start()
            both = await asyncio.gather(
                *(desk.keeping.rights.set_entry(BOB, "", "alice@a.test", (one,), "") for one in ("a:a", "b:b"))
            )
            assert isinstance(both[0], AccessEntry)
            assert isinstance(both[1], Response)
            assert await desk.keeping.rights.entry(BOB, "", "alice@a.test") == both[0]

        run(main())

    def test_a_document_that_cannot_be_read_is_refused_and_a_damaged_store_is_said_to_be(self) -> None:
        async def main() -> None:
            desk = await Desk().start()
            for octets in (
                b"",
                b"{}",
                b'[{"actor": "alice", "actions": [], "last_update": ""}]',
                b"[]" + b" " * 50_000,
            ):
                refused = await desk.documents.put(BOB, ENTRIES, TYPE, octets, by(BOB))
                assert isinstance(refused, Response)
            await permit(desk.keeping, BOB, "alice@a.test", "core:data")
            ((key, _),) = await desk.store.scan("document")
            await desk.store.commit([Put("document", key, b"\x92\xa4x/yz\xc4\x01{")])
            with pytest.raises(StoreError):
                await Desk(desk.store).start()

        run(main())


def _elsewhere(moment: str) -> str:
    """The same moment eight hours further west."""
    return datetime.fromisoformat(moment).astimezone(timezone(timedelta(hours=-8))).isoformat()
