"""Administrative acts about who may see an account: admin/presence.py over a live presence service and over a store alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from comity.admin.access import ask
from comity.admin.commands import Commands, PlainRecords
from comity.admin.requests import (
    AddAccount,
    AnyRequest,
    CommandRefused,
    Contact,
    Decide,
    Decided,
    ListContacts,
    PresenceDefault,
    RemoveAccount,
    SetPresence,
    ShowWatchers,
    WatcherReport,
)
from comity.config import read
from comity.cpim.address import Address
from comity.cpim.operations import EndReason
from comity.service.interfaces import Put
from comity.service.presence.interfaces import Decision, Granted
from comity.store import SqliteStore
from comity.testing.presence import PresenceBench
from comity.testing.service import settle
from tests.loop import in_loop
from tests.service.presence.desk import by

ALICE, BOB, CAROL = "im:alice@a.test", "im:bob@a.test", "im:carol@a.test"


async def office() -> tuple[PresenceBench, Commands]:
    """A live presence service and the acts on it."""
    bench = await PresenceBench().start()
    await bench.store.commit([Put("account", uri, b"{}") for uri in (ALICE, BOB, CAROL)])
    return bench, Commands(bench.store, ["a.test"], PlainRecords("a.test"), presence=bench.presence)


def decide(watcher: str, decision: str) -> Decide:
    return Decide("bob@a.test", watcher, decision)


class TestLive:
    @in_loop
    async def test_a_pending_watcher_is_shown_and_the_answer_acts_at_once(self) -> None:
        """The owner of a stock SIP phone has no other way to answer."""
        bench, commands = await office()
        await bench.ask(ALICE, BOB, text="it is me")
        bench.publish(BOB)
        report = await commands.run(ShowWatchers("bob@a.test"))
        assert isinstance(report, WatcherReport)
        assert (report.address, report.default) == ("bob@a.test", "ask")
        assert [(one.watcher, one.via, one.state) for one in report.watching] == [("alice@a.test", "sip", "pending")]
        assert [(one.watcher, one.decision, one.text) for one in report.decided] == [
            ("alice@a.test", "none", "it is me")
        ]
        assert report.decided[0].asked is not None
        bench.sip.take()
        done = await commands.run(decide("alice@a.test", "allowed"))
        assert [one.state for one in bench.sip.take()] == ["available"]
        assert done == Decided("alice@a.test", "allowed", False, None, "")

    @pytest.mark.parametrize(("decision", "word"), [("refused", "ended"), ("polite", "notify"), ("none", "pending")])
    @in_loop
    async def test_every_decision_moves_the_watcher(self, decision: str, word: str) -> None:
        bench, commands = await office()
        await bench.answer(BOB, ALICE)
        bench.publish(BOB)
        await bench.watch(ALICE, BOB)
        bench.sip.take()
        await commands.run(decide("sip:alice@a.test", decision))
        await bench.advance(5)
        (told,) = bench.sip.take()
        assert told.word == word
        assert told.reason is (EndReason.REJECTED if word == "ended" else None)

    @in_loop
    async def test_the_default_is_set_shown_and_taken_back(self) -> None:
        bench, commands = await office()
        for given, shown in (("", "ask"), ("everyone", "everyone"), ("", "everyone"), ("server", "ask")):
            assert await commands.run(SetPresence("bob@a.test", given)) == PresenceDefault("bob@a.test", shown)
        await commands.run(SetPresence("bob@a.test", "everyone"))
        assert isinstance(await bench.ask(ALICE, BOB), Granted)
        assert [one.word for one in bench.sip.take()] == ["notify"]

    @in_loop
    async def test_the_contact_list_is_the_one_of_all_programs(self) -> None:
        bench, commands = await office()
        alice, bob, carol = map(Address.parse, (ALICE, BOB, CAROL))
        await bench.presence.contacts.put(bob, carol, "Carol", ["Work"], by(bob))
        await bench.answer(BOB, ALICE, Decision.ALLOWED)
        assert await commands.run(ListContacts("bob@a.test")) == [
            Contact("alice@a.test", "", [], "none", False),
            Contact("carol@a.test", "Carol", ["Work"], "none", False),
        ]
        assert (await bench.presence.contacts.item(bob, alice)).is_preapproved

    @pytest.mark.parametrize(
        ("request_", "sentence"),
        [
            (ShowWatchers("nobody@a.test"), "There is no account nobody@a.test"),
            (ShowWatchers("bob@elsewhere.test"), "is not served here"),
            (Decide("bob@a.test", "alice@a.test", "perhaps"), "is no decision"),
            (Decide("bob@a.test", "not an address", "allowed"), "Write it as"),
            (Decide("bob@a.test", "bob@a.test", "allowed"), "An account always sees itself"),
            (SetPresence("bob@a.test", "perhaps"), "is not known"),
        ],
    )
    @in_loop
    async def test_what_cannot_be_is_refused_with_a_sentence(self, request_: AnyRequest, sentence: str) -> None:
        _, commands = await office()
        with pytest.raises(CommandRefused, match=sentence):
            await commands.run(request_)

    @in_loop
    async def test_nothing_of_a_removed_account_is_left_for_the_next_owner_of_its_name(self) -> None:
        """Its own words, what others decided about it, its subscriptions and those to it."""
        bench, commands = await office()
        alice, bob, carol = map(Address.parse, (ALICE, BOB, CAROL))
        for one, other in ((ALICE, BOB), (CAROL, ALICE)):
            await bench.answer(one, other)
            await bench.answer(other, one)
            await bench.watch(one, other)
            await bench.watch(other, one)
        await bench.presence.contacts.block(alice, [carol], by(alice))
        await bench.presence.documents.put(alice, "vcard4", "text/xml", b"x", by(alice))
        bench.sip.take()
        await commands.run(RemoveAccount("alice@a.test"))
        await settle()
        assert [one.word for one in bench.sip.take()] == ["ended"] * 4
        for space in ("relation", "document", "subscription"):
            assert not [key for key, _ in await bench.store.scan(space) if "alice@a.test" in key.partition("/")[0]]
        assert [key for key, _ in await bench.store.scan("subscription") if key != "nobody"] == []
        for account in (bob, carol):
            item = await bench.presence.contacts.item(account, alice)
            assert (item.decision, item.is_preapproved, item.sees, item.asks) == (Decision.NONE, False, False, False)
        assert not bench.presence.contacts.is_blocked(alice, carol)


class TestStored:
    @in_loop
    async def test_what_is_decided_while_nothing_runs_holds_when_it_does(self, tmp_path: Path) -> None:
        config_path = tmp_path / "comity.toml"
        config_path.write_text(f'[server]\ndomains = ["a.test"]\ndata = "{tmp_path / "data"}"\n')
        config = read(config_path)
        for request in (
            AddAccount("alice@a.test", "secret"),
            AddAccount("bob@a.test", "secret"),
            Decide("bob@a.test", "alice@a.test", "polite"),
            SetPresence("bob@a.test", "domain"),
        ):
            answer = await ask(config, request)
            assert not answer.error, answer.error
        bench = await PresenceBench(await SqliteStore.open(tmp_path / "data")).start()
        assert [item.decision for item in await bench.presence.decisions(Address.parse(BOB))] == [Decision.POLITE]
        assert (await bench.presence.default(Address.parse(BOB))).value == "domain"
        bench.publish(BOB)
        await bench.watch(ALICE, BOB)
        assert [one.state for one in bench.sip.take()] == ["offline"]
        bench.presence.stop()
        await settle()
        await bench.store.close()
        assert not (await ask(config, RemoveAccount("alice@a.test"))).error
        store = await SqliteStore.open(tmp_path / "data")
        assert await store.scan("subscription") == []
        assert not [key for key, _ in await store.scan("relation") if "alice@a.test" in key]
        await store.close()
