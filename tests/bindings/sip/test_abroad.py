"""Presentities of SIP domains watched from here: SUBSCRIBE out over a trunk, NOTIFY in (RFC 6665 section 4.1, RFC 8048 section 5.2)."""

from __future__ import annotations

import secrets
from collections import Counter
from ipaddress import ip_network

import pytest

from comity.bindings.sip.abroad import SPREAD
from comity.bindings.sip.abroad_pairs import wish_of
from comity.bindings.sip.config import TrunkConfig
from comity.bindings.sip.message import SipResponse
from comity.bindings.sip.subscriber import Send, Subscriber
from comity.cpim.address import Address
from comity.cpim.operations import Status
from comity.service.maps import Rule
from comity.service.peers import Peer
from comity.service.presence.interfaces import ContactItem
from comity.service.routes import Route
from tests.bindings.sip.far_kit import FAR, FarServer, romeo
from tests.bindings.sip.kit import Phone, story
from tests.bindings.sip.presence_kit import ALICE, PIDF, PresenceWorld, Watcher, pidf

ROMEO = "im:romeo@b.test"
OTHER = ("198.51.100.9", 5060)


class Joined(PresenceWorld):
    """a.test, whose people watch those of b.test and c.test."""

    routes = (
        Route("b.test", "sip", f"tcp://{FAR[0]}:{FAR[1]}"),
        Route("c.test", "sip", f"tcp://{OTHER[0]}:{OTHER[1]}"),
        Route("udp.test", "sip", f"udp://{FAR[0]}:{FAR[1]}"),
    )
    peers = (Peer("b.test", (ip_network("198.51.100.7/32"),)),)


class Alice(Watcher):
    """A phone that keeps its subscription."""

    answer: SipResponse | None = None
    refreshed = 0.0


async def joined() -> tuple[PresenceWorld, FarServer, Alice]:
    """The server of b.test, and Alice's phone."""
    world = await Joined().start()
    return world, FarServer(world), Alice(world, "alice")


async def watch(alice: Watcher, whom: str = "sip:romeo@b.test", expires: int = 3600) -> SipResponse:
    answer = await alice.subscribe("romeo", expires, uri=whom)
    if isinstance(alice, Alice):
        alice.answer, alice.refreshed = answer, alice.world.clock.now()
    return answer


async def item(world: PresenceWorld, whom: str = ROMEO) -> ContactItem:
    return await world.presence.contacts.item(Address.parse(ALICE), Address.parse(whom))


class TestBegin:
    @story
    async def test_the_first_active_notify_is_the_yes(self) -> None:
        """GW-14: pending is answered and told to nobody; active is the grant, and its document is shown."""
        world, far, alice = await joined()
        assert (await watch(alice)).status_code == 200
        [asked] = far.taken()
        assert asked.request.uri_text == "sip:romeo@b.test"
        assert (asked.watcher, asked.request.value("event"), asked.expires) == ("sip:alice@a.test", "presence", 3600)
        assert asked.request.values("accept")[0] == PIDF
        assert str(asked.request.contacts[0].uri).startswith("sip:alice@192.0.2.1:5061;transport=tcp")
        assert alice.heard() == [("pending", "")]
        assert (await far.notify(asked, "pending;expires=3600")).status_code == 200
        assert alice.heard() == []
        assert not (await item(world)).sees
        assert (await far.notify(asked, body=romeo("open"))).status_code == 200
        await world.advance(6.0)
        assert alice.heard()[-1] == ("active", "open")
        assert (await item(world)).sees
        assert far.taken() == [], "what it just said is not asked for again"

    @story
    async def test_an_empty_active_notify_is_nothing_known(self) -> None:
        """GW-14: granted, and closed."""
        world, far, alice = await joined()
        await watch(alice)
        [asked] = far.taken()
        alice.heard()
        await far.notify(asked)
        await world.advance(6.0)
        assert [word for _, word in alice.heard()][-1] in ("", "closed")
        assert (await item(world)).sees
        await far.notify(asked, body=romeo("open"))
        await world.advance(6.0)
        assert alice.heard()[-1] == ("active", "open")

    @story
    async def test_a_notify_before_the_answer_makes_the_dialog(self) -> None:
        """RFC 6665 section 4.4.1."""
        world, far, alice = await joined()
        far.says = [(0, ())]
        await watch(alice)
        [asked] = far.taken()
        assert (await far.notify(asked, body=romeo("open"))).status_code == 200
        await world.advance(6.0)
        assert alice.heard()[-1] == ("active", "open")

    @pytest.mark.parametrize("code", [403, 489, 603])
    @story
    async def test_what_cancels_for_good(self, code: int) -> None:
        """GW-13."""
        world, far, alice = await joined()
        far.says = [(code, ())]
        await watch(alice)
        assert alice.heard() == [("pending", ""), ("rejected", "")]
        assert not (await item(world)).asks
        await world.advance(600.0)
        assert len(far.taken()) == 1

    @story
    async def test_rejected_is_told(self) -> None:
        """RFC 8048 section 5.3.1 the other way round: terminated;reason=rejected."""
        world, far, alice = await joined()
        await watch(alice)
        [asked] = far.taken()
        await far.notify(asked, "terminated;reason=rejected")
        assert alice.heard() == [("pending", ""), ("rejected", "")]
        await world.advance(600.0)
        assert far.taken() == []

    @story
    async def test_too_brief_is_asked_again_for_longer(self) -> None:
        """GW-13: 423 is no end."""
        world, far, alice = await joined()
        far.says = [(423, (("Min-Expires", "7200"),))]
        await watch(alice)
        assert [one.expires for one in far.taken()] == [3600, 7200]
        assert not world.guard.failures

    @story
    async def test_a_server_that_is_not_there_is_asked_when_it_is(self) -> None:
        world = await Joined().start()
        alice = Watcher(world, "alice")
        await watch(alice)
        await world.advance(30.0)
        assert alice.heard() == [("pending", "")]
        far = FarServer(world)
        far.reply = "active;expires=3600", romeo("open")
        await world.advance(90.0)
        assert alice.heard()[-1] == ("active", "open")

    @pytest.mark.parametrize("knows_pres", [True, False])
    @story
    async def test_by_pres_uris_where_they_are_known(self, knows_pres: bool) -> None:
        """ADDR-30: the operator says where; 416 is answered with the same by sip:."""
        world = await Joined(trunks=(TrunkConfig("b.test", "b.test", pres_uris=True),)).start()
        alice, far = Alice(world, "alice"), FarServer(world)
        far.says = [] if knows_pres else [(416, ())]
        await watch(alice)
        asked = far.taken()
        schemes = ["pres"] if knows_pres else ["pres", "sip"]
        for one, scheme in zip(asked, schemes, strict=True):
            assert one.request.uri_text == f"{scheme}:romeo@b.test"
            assert str(one.request.to.uri) == f"{scheme}:romeo@b.test"
            assert one.watcher == f"{scheme}:alice@a.test"
        assert alice.heard() == [("pending", "")]
        assert (await far.notify(asked[-1], body=romeo("open"))).status_code == 200
        await world.advance(6.0)
        assert alice.heard()[-1] == ("active", "open")

    @story
    async def test_a_server_that_is_back_is_asked_as_soon_as_somebody_finds_out(self) -> None:
        """Its keeper's OPTIONS (``keeping.py``) tells before the pauses end."""
        world = await Joined().start()
        alice = Alice(world, "alice")
        await watch(alice)
        await pass_time(world, 60.0)
        far = FarServer(world)
        far.reply = "active;expires=3600", romeo("open")
        world.binding.abroad.back("b.test")
        await world.settle()
        assert len(far.taken()) == 1

    @story
    async def test_by_udp(self) -> None:
        world = await Joined().start()
        alice, far = Watcher(world, "alice"), FarServer(world, transport="udp", domain="udp.test")
        await watch(alice, "sip:romeo@udp.test")
        [asked] = far.taken()
        assert (await far.notify(asked, body=romeo("open", entity="pres:romeo@udp.test"))).status_code == 200
        await world.advance(6.0)
        assert alice.heard()[-1] == ("active", "open")


async def seen() -> tuple[PresenceWorld, FarServer, Alice]:
    """Alice sees Romeo, who is open."""
    world, far, alice = await joined()
    far.reply = "active;expires=3600", romeo("open")
    await watch(alice)
    await world.advance(6.0)
    assert alice.heard()[-1] == ("active", "open")
    return world, far, alice


class TestGoOn:
    @story
    async def test_it_is_refreshed_in_its_dialog_before_its_end(self) -> None:
        """RFC 8048 section 5.2.2."""
        world, far, alice = await seen()
        [first] = far.taken()
        began = world.clock.now()
        while not (again := far.taken()):
            await keep_watching(world, alice, 10.0)
        assert 0.7 * 3600 < world.clock.now() - began < 3600 - 60
        [asked] = again
        assert (asked.request.call_id, asked.tag) == (first.request.call_id, first.tag)
        assert asked.request.cseq.number == first.request.cseq.number + 1
        assert asked.request.uri_text == f"sip:romeo@{FAR[0]}:5077;gr", "the notifier's Contact"

    def test_those_that_began_together_part(self) -> None:
        """Ten thousand refreshes do not come at once (issue 7): they lie in the last quarter, and no tenth of it has most of them."""
        begin, times = 0.0, []
        for _ in range(1000):
            wish = wish_of(Address.parse(ALICE), Address.parse(ROMEO), "<sip:a@192.0.2.1>")
            machine = Subscriber(wish, random=secrets.token_bytes, spread=SPREAD)
            machine.subscribe(begin)
            sent = machine.next_event()
            assert isinstance(sent, Send)
            machine.take_answer(sent.id, SipResponse(200, "OK", (("Expires", "3600"),)), begin)
            times.append(machine._refresh_at or 0.0)
        assert all(0.7 * 3600 < when <= 3600 - 64 for when in times)
        tenths = Counter(int(when // 90) for when in times)
        assert max(tenths.values()) < 200

    @story
    async def test_who_looks_no_more_ends_it(self) -> None:
        """G-22: nobody is asked about for a watcher who is gone."""
        world, far, alice = await seen()
        first = far.taken()
        answer = await alice.subscribe("romeo", 3600, uri="sip:romeo@b.test", call_id="c2")
        await alice.again(answer, 0)
        assert far.taken() == [], "her first subscription stands"
        await pass_time(world, 4000.0)  # it is not refreshed
        last = far.taken()[-1]
        assert (last.request.call_id, last.expires) == (first[0].request.call_id, 0)
        assert (await item(world)).sees, "X21"
        assert world.binding.abroad.count == 0
        await pass_time(world, 8000.0)
        assert far.taken() == []

    @story
    async def test_an_account_that_only_asks_is_let_go_after_three(self) -> None:
        """G-22, RFC 8048 section 8.1: who asked and never looks causes no refreshes for ever."""
        world, far, alice = await joined()
        await watch(alice, expires=600)
        [asked] = far.taken()
        await far.notify(asked, "pending;expires=600")
        far.reply = "pending;expires=600", b""
        await pass_time(world, 6000.0)
        assert len([one for one in far.taken() if one.expires]) <= 3
        assert world.binding.abroad.count == 0

    @pytest.mark.parametrize("code", [403, 603])
    @story
    async def test_a_refresh_may_cancel(self, code: int) -> None:
        """GW-13: a dialog would outlive it, an authorization does not."""
        world, far, alice = await seen()
        far.taken()
        far.says = [(code, ())]
        await keep_watching(world, alice, 3590.0)
        assert len(far.taken()) == 1
        assert ("rejected", "") in alice.heard()
        assert not (await item(world)).sees
        assert world.binding.abroad.count == 0

    @pytest.mark.parametrize("code", [481, 500])
    @story
    async def test_what_is_over_for_other_reasons_is_made_anew(self, code: int) -> None:
        """GW-13: 481 is an end of a dialog and of nothing else; others leave it standing (RFC 6665 section 4.1.2.2)."""
        world, far, alice = await seen()
        [first] = far.taken()
        far.says = [(code, ())]
        await keep_watching(world, alice, 3700.0)
        calls = {one.request.call_id for one in far.taken()} - {first.request.call_id}
        assert len(calls) == (1 if code == 481 else 0)
        assert (await item(world)).sees
        assert all(word != "rejected" for word, _ in alice.heard())

    @pytest.mark.parametrize(
        ("reason", "least", "most"),
        [
            ("deactivated", 0, 2),
            ("timeout", 0, 2),
            ("probation;retry-after=60", 60, 80),
            ("giveup;retry-after=60", 60, 80),
        ],
    )
    @story
    async def test_the_reason_says_when_again(self, reason: str, least: float, most: float) -> None:
        """RFC 6665 section 4.1.3."""
        world, far, alice = await seen()
        [asked] = far.taken()
        await far.notify(asked, f"terminated;reason={reason}")
        waited = 0.0
        while not (again := far.taken()):
            await pass_time(world, 1.0)
            waited += 1.0
        assert least <= waited <= most
        assert again[0].request.call_id != asked.request.call_id
        await pass_time(world, 6.0)
        told = alice.heard()
        assert told == ([] if most <= 2 else [("active", "closed"), ("active", "open")]), "at once: as if nothing was"

    @pytest.mark.parametrize("reason", ["noresource", "invariant"])
    @story
    async def test_some_ends_are_final_but_take_no_permission(self, reason: str) -> None:
        world, far, alice = await seen()
        [asked] = far.taken()
        await far.notify(asked, f"terminated;reason={reason}")
        await world.advance(6.0)
        assert alice.heard()[-1][1] != "open"
        assert (await item(world)).sees

    @story
    async def test_nothing_is_shown_of_who_waits_for_an_answer_again(self) -> None:
        world, far, alice = await seen()
        [asked] = far.taken()
        await far.notify(asked, "pending;expires=3600")
        await world.advance(6.0)
        assert alice.heard()[-1][1] != "open"

    @story
    async def test_after_a_restart_it_is_subscribed_to_anew(self) -> None:
        """A dialog from before is nobody's; what the account wants is."""
        world, far, alice = await seen()
        [asked] = far.taken()
        await world.crash()
        await world.advance(60.0)
        [again] = far.taken()
        assert again.request.call_id != asked.request.call_id
        assert alice.heard()[-1] == ("active", "open")
        asked.session = again.session
        assert (await far.notify(asked, body=romeo("closed"))).status_code == 481


class TestFalse:
    """Bad NOTIFY requests from a trunk (catalogue: SEC-36, T1, T18, G8)."""

    @story
    async def test_nobody_else_tells(self) -> None:
        world, far, alice = await seen()
        [asked] = far.taken()
        eve = Phone(world, "romeo", ("198.51.100.66", 5060), "tcp")
        for change in ((), (("From", "<sip:romeo@b.test>;tag=guess"),)):
            sent = await eve.send(far.written(asked, "active", romeo("closed"), *change))
            assert eve.responses[sent].status_code == 481
        await world.advance(6.0)
        assert ("active", "closed") not in alice.heard()

    @pytest.mark.parametrize(
        ("changes", "body", "code"),
        [
            ((("From", "<sip:tybalt@c.test>;tag={tag}"),), romeo("closed"), 403),
            ((("From", "<sip:alice@a.test>;tag={tag}"),), romeo("closed"), 403),
            ((("From", "<sip:romeo@b.test>;tag=another"),), romeo("closed"), 481),
            ((("Call-ID", "another"),), romeo("closed"), 481),
            ((("To", "<sip:alice@a.test>;tag=another"),), romeo("closed"), 481),
            ((("Event", "presence.winfo"),), romeo("closed"), 489),
            ((("Event", "presence;id=7"),), romeo("closed"), 481),
            ((("Subscription-State", ""),), romeo("closed"), 400),
            ((("Content-Type", "text/plain"),), b"closed", 415),
            ((("Content-Type", "application/pidf-diff+xml"),), b"<x/>", 415),
            ((), romeo("closed", entity="pres:tybalt@b.test"), 403),
            ((), romeo("closed", entity="pres:alice@a.test"), 403),
            ((), b"<presence", 400),
            ((), b'<!DOCTYPE x [<!ENTITY a "a">]><presence/>', 400),
            ((("CSeq", "0 NOTIFY"),), romeo("closed"), 500),
        ],
    )
    @story
    async def test_what_cannot_be_believed_is_refused_and_nothing_changes(
        self, changes: tuple[tuple[str, str], ...], body: bytes, code: int
    ) -> None:
        world, far, alice = await seen()
        [asked] = far.taken()
        alice.heard()
        changes = tuple((name, value.replace("{tag}", asked.tag)) for name, value in changes)
        assert (await far.notify(asked, "active;expires=3600", body, *changes)).status_code == code
        await world.advance(6.0)
        assert alice.heard() == []
        await far.notify(asked, body=romeo("closed"))
        await world.advance(6.0)
        assert alice.heard() == [("active", "closed")], "and the dialog goes on"

    @story
    async def test_a_last_word_with_a_bad_document_is_a_last_word(self) -> None:
        _, far, alice = await seen()
        [asked] = far.taken()
        bad = romeo("open", entity="pres:tybalt@b.test")
        assert (await far.notify(asked, "terminated;reason=rejected", bad)).status_code == 200
        assert alice.heard()[-1] == ("rejected", "")

    @story
    async def test_a_storm_of_one_dialog_is_slowed(self) -> None:
        world, far, alice = await seen()
        [asked] = far.taken()
        codes = [(await far.notify(asked, body=romeo("open", f"n{n}"))).status_code for n in range(60)]
        assert codes.count(503) >= 8
        assert codes[0] == 200
        await world.advance(30.0)
        assert len(alice.heard()) <= 3, "and the watcher hears no more than his interval allows"

    @story
    async def test_each_watcher_has_a_dialog_and_a_permission_of_its_own(self) -> None:
        """T18, RFC 8048 section 8.2: what Alice was told is not told to Carol."""
        world, far, alice = await seen()
        [hers] = far.taken()
        carol = Watcher(world, "carol")
        far.reply = "pending;expires=3600", b""
        await carol.subscribe("romeo", 3600, uri="sip:romeo@b.test")
        [his] = far.taken()
        assert his.request.call_id != hers.request.call_id
        alice.heard()
        await far.notify(hers, body=romeo("closed"))
        await world.advance(6.0)
        assert alice.heard() == [("active", "closed")]
        assert carol.heard() == [("pending", "")]


class TestTrouble:
    @story
    async def test_a_dead_server_keeps_no_other_waiting(self) -> None:
        """Reliability 2.13: c.test takes connections and answers nothing; b.test is as fast as ever."""
        world = await Joined().start()
        alice, dead, far = Watcher(world, "alice"), FarServer(world, OTHER, domain="c.test"), FarServer(world)
        dead.says = [(0, ())] * 10_000
        far.reply = "active;expires=3600", romeo("open")
        for n in range(40):
            await alice.subscribe(f"u{n}", 3600, uri=f"sip:u{n}@c.test")
        alice.heard()
        await watch(alice)
        await world.advance(6.0)
        assert ("active", "open") in alice.heard()
        assert len(dead.taken()) <= 32, "it is asked a few at a time"

    @story
    async def test_when_a_server_is_back_everybody_is_asked_about_soon(self) -> None:
        world = await Joined().start()
        alice = Watcher(world, "alice")
        for n in range(20):
            await alice.subscribe(f"u{n}", 3600, uri=f"sip:u{n}@b.test")
        await world.advance(120.0)
        far = FarServer(world)
        await world.advance(310.0)
        assert len({one.request.uri_text for one in far.taken()}) == 20

    @story
    async def test_one_person_who_is_away_holds_up_nobody_else_of_the_domain(self) -> None:
        """480 is about that one: an errand about another is carried at once, and the first is tried again in its time."""
        world, far, alice = await joined()
        hop = world.pipeline.routes.hop("b.test")
        assert hop is not None
        far.says = [(480, ())] * 3
        abroad = world.binding.abroad
        watcher, away = Address.parse(ALICE), Address.parse("im:tybalt@b.test")
        assert alice.user == watcher.local
        for _ in range(2):
            errand = abroad.watch(watcher, away, hop)
            await world.settle()
            assert errand.done()
            assert errand.result().status is Status.SUCCESS
        other = abroad.watch(watcher, Address.parse(ROMEO), hop)
        await world.settle()
        assert other.done()
        assert len(far.taken()) == 2
        await pass_time(world, 120.0)
        assert {one.request.uri_text for one in far.taken()} == {"sip:tybalt@b.test", "sip:romeo@b.test"}

    @story
    async def test_a_server_that_was_gone_may_have_forgotten_who_watches(self) -> None:
        """Its keeper sees it back: all are asked about at once, and what it answers 481 is made anew."""
        world, far, alice = await seen()
        far.taken()
        await keep_watching(world, alice, 60.0)
        far.says = [(481, ())]
        far.reply = "active;expires=3600", romeo("closed")
        world.binding.abroad.back("b.test")
        await pass_time(world, 6.0)
        assert len({one.request.call_id for one in far.taken()}) == 2
        assert alice.heard()[-1] == ("active", "closed")

    @story
    async def test_a_day_of_a_trunk_that_drops_every_few_minutes(self) -> None:
        """Issue 7: 24 h compressed; the dialogs outlive every connection, and nothing is left behind."""
        world, far, alice = await seen()
        asked = far.taken()[-1]
        word = "open"
        for round in range(24 * 12):
            await keep_watching(world, alice, 300.0)
            for target in list(world.dialled_links):
                world.dialled_links.pop(target).abort()
            asked = (far.taken() or [asked])[-1]
            if round % 12 == 5:  # over a connection of its own, since ours is gone
                word = "closed" if word == "open" else "open"
                far.reply = "active;expires=3600", romeo(word)
                own = Phone(world, "romeo", (FAR[0], 30000 + round), "tcp")
                sent = await own.send(far.written(asked, "active;expires=3600", romeo(word)))
                assert own.responses[sent].status_code == 200
                world.phones.pop(own.address)
                assert own.link is not None
                own.link.abort()
        assert 24 <= far.total <= 40, "one an hour, a little more for being early"
        abroad = world.binding.abroad
        assert abroad.count == len(abroad._dialogs) == 1
        assert not world.binding.exchanges.is_busy
        assert not abroad._lanes
        assert not abroad._timers
        assert len(world.binding._states) <= 4
        assert world.clock.pending < 60
        await world.advance(6.0)
        assert alice.heard()[-1] == ("active", word)


class Mapped(Joined):
    """b.test is called pbx.test by its server, and Alice 1001@b.test is no name of hers but 1001@x.test."""

    maps = (
        Rule("sip", "b.test", "b.test", "pbx.test"),
        Rule("sip", "b.test", Address.parse(ALICE), Address.parse("im:1001@x.test")),
    )
    peers = (Peer("pbx.test", (ip_network("198.51.100.7/32"),)),)


class TestNames:
    """What people are called on a link is turned at its edge, in both directions (GW-4, G-13)."""

    @pytest.mark.parametrize("entity", ["pres:romeo@pbx.test", "pres:romeo@b.test"])
    @story
    async def test_we_watch_by_the_names_of_the_link(self, entity: str) -> None:
        world = await Mapped().start()
        alice, far = Alice(world, "alice"), FarServer(world)
        await watch(alice)
        [asked] = far.taken()
        assert (asked.request.uri_text, asked.watcher) == ("sip:romeo@pbx.test", "sip:1001@x.test")
        assert (await far.notify(asked, body=romeo("open", entity=entity))).status_code == 200
        await world.advance(6.0)
        [*_, told] = alice.notified()
        assert b">open<" in told.body
        assert b"romeo@b.test" in told.body
        false = romeo("closed", entity="pres:tybalt@pbx.test")
        assert (await far.notify(asked, "active;expires=3600", false)).status_code == 403

    @story
    async def test_they_watch_by_the_names_of_the_link(self) -> None:
        world = await Mapped().start()
        await world.grant(ALICE, ROMEO)
        alice, far = Watcher(world, "alice"), FarServer(world)
        await alice.publish(pidf("open", entity="pres:alice@a.test"))
        headers = [
            ("From", "<sip:romeo@pbx.test>;tag=t1"),
            ("Event", "presence"),
            ("Contact", f"<sip:romeo@{FAR[0]}:5060>"),
        ]
        sent = await far.send(far.request("SUBSCRIBE", "sip:1001@x.test", headers))
        assert far.responses[sent].status_code == 200
        [told] = [one for one in far.received if one.method == "NOTIFY"]
        assert (str(told.to.uri), str(told.from_.uri)) == ("sip:romeo@pbx.test", "sip:1001@x.test")
        assert b">open<" in told.body
        [live] = world.presence.watchers(Address.parse(ALICE))
        assert live.watcher.uri == ROMEO


async def pass_time(world: PresenceWorld, seconds: float) -> None:
    """In steps of a second or, over long, of ten."""
    step = 1.0 if seconds <= 120.0 else 10.0
    for _ in range(round(seconds / step)):
        world.clock.advance(step)
        now = world.clock.now()
        for session in [link.session for link in world.links()] + [phone.session for phone in world.phones.values()]:
            timer = session.next_timer()
            if timer is not None and timer <= now:
                session.handle_timer(now)
        await world.settle()


async def keep_watching(world: PresenceWorld, alice: Alice, seconds: float) -> None:
    """Time passes, and her phone refreshes every half hour."""
    end = world.clock.now() + seconds
    while (now := world.clock.now()) < end:
        if now - alice.refreshed >= 1800.0 and alice.answer is not None:
            await alice.again(alice.answer, 3600)
            alice.refreshed = now
        await pass_time(world, min(300.0, end - now))
