"""SUBSCRIBE and NOTIFY as notifier (RFC 6665 section 4.2, RFC 3856): each test names the row it shows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from comity.bindings.base import Link
from comity.bindings.sip.message import SipRequest
from comity.cpim.address import Address
from comity.cpim.presence_rules import EVERYTHING, Permissions, SubHandling
from comity.service.presence.interfaces import Default
from comity.service.presence.keeping import KeepingLimits
from tests.bindings.sip.kit import story
from tests.bindings.sip.presence_kit import ALICE, BOB, PIDF, PresenceWorld, Watcher, basic_of, pidf, state_of


class TestFirst:
    @pytest.mark.parametrize("transport", ["udp", "tcp"])
    @story
    async def test_a_subscription_is_answered_then_notified_at_once(self, transport: str) -> None:
        """SIP-15, SIP-16, SIP-17, SIP-23: 200 with Expires, tag and Contact; the NOTIFY is in the dialog."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        bob, alice = Watcher(world, "bob"), Watcher(world, "alice", "tcp" if transport == "tcp" else "udp")
        assert (await bob.publish(pidf("open"))).status_code == 200
        answer = await alice.subscribe()
        assert (answer.status_code, answer.value("expires")) == (200, "600")
        assert ";gr" in (answer.value("contact") or "")
        (notify,) = alice.notified()
        assert notify.uri_text == f"{alice.uri};transport={transport}"
        assert notify.from_.tag == answer.to.tag
        assert notify.to.tag == answer.from_.tag
        assert notify.call_id == answer.call_id
        assert notify.value("event") == "presence"
        assert notify.value("subscription-state") == "active;expires=600"
        assert (notify.value("content-type") or "").partition(";")[0] == PIDF
        assert notify.value("contact") == answer.value("contact")
        assert b"<basic>open</basic>" in notify.body
        assert b"entity=" in notify.body

    @story
    async def test_without_expires_it_is_an_hour(self) -> None:
        """SIP-19."""
        world = await PresenceWorld().start()
        alice = Watcher(world, "alice")
        assert (await alice.subscribe(expires=None)).value("expires") == "3600"
        assert (await alice.subscribe("carol", 86400)).value("expires") == "3600"

    @story
    async def test_who_is_not_approved_waits_without_a_document(self) -> None:
        """SIP-15, SIP-16, N-02, OPS-31: never 202; approval, then the document."""
        world = await PresenceWorld().start()
        bob, alice = Watcher(world, "bob"), Watcher(world, "alice")
        await bob.publish(pidf("open"))
        assert (await alice.subscribe()).status_code == 200
        assert alice.heard() == [("pending", "")]
        await world.grant(BOB, ALICE)
        assert alice.heard() == [("active", "open")]

    @story
    async def test_an_unknown_user_looks_like_one_who_does_not_answer(self) -> None:
        """N-02, N-12: the same headers but for the names."""
        world = await PresenceWorld().start()
        alice = Watcher(world, "alice")
        answers = [await alice.subscribe("carol"), await alice.subscribe("nosuch")]
        assert [[name for name, _ in answer.headers] for answer in answers[:1]] == [
            [name for name, _ in answer.headers] for answer in answers[1:]
        ]
        known, unknown = alice.notified()
        assert [name for name, _ in known.headers] == [name for name, _ in unknown.headers]
        assert (state_of(known), known.body) == (state_of(unknown), unknown.body) == ("pending", b"")

    @story
    async def test_it_may_be_sent_again(self) -> None:
        """A retransmission is answered alike and notified once; the same request after a restart keeps one subscription."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        alice = Watcher(world, "alice")
        first = await alice.subscribe()
        alice.cseq -= 1
        second = await alice.subscribe()
        assert (first.status_code, second.status_code) == (200, 200)
        assert len(world.presence.watchers(Address.parse(BOB))) == 1


class TestRefused:
    @pytest.mark.parametrize("event", ["", "Presence", "presence.winfo.winfo", "dialog"])
    @story
    async def test_an_unknown_package(self, event: str) -> None:
        """SIP-14, N-11: 489 with those we know."""
        world = await PresenceWorld().start()
        alice = Watcher(world, "alice")
        answer = await alice.subscribe("bob", 600, ("Event", event))
        assert answer.status_code == 489
        assert answer.value("allow-events") == "presence, presence.winfo"

    @pytest.mark.parametrize(
        ("header", "code"),
        [
            (("Accept", "x/y"), 406),
            (("Accept", "application/pidf+xml;q=2"), 400),
            (("Expires", "30"), 423),
            (("Expires", "x"), 400),
            (("Contact", ""), 400),
            (("Contact", "<tel:+1>"), 400),
            (("Event", "presence;id="), 400),
            (("Record-Route", "<mailto:a@b>"), 400),
            (("Record-Route", ", ".join(["<sip:p.test;lr>"] * 20)), 513),
        ],
    )
    @story
    async def test_a_header_that_cannot_be_taken(self, header: tuple[str, str], code: int) -> None:
        """SIP-14, SIP-18, SIP-25: and nothing is kept."""
        world = await PresenceWorld().start()
        alice = Watcher(world, "alice")
        answer = await alice.subscribe("bob", 600, header)
        assert answer.status_code == code
        if code == 423:
            assert answer.value("min-expires") == "60"
        assert world.presence.find("sip", "w-alice-bob;falice") is None
        assert not alice.notified()

    @story
    async def test_a_blocked_watcher_is_told(self) -> None:
        """ACL-12, SIP-23: 403, not polite."""
        world = await PresenceWorld(keeping=KeepingLimits(Default.DENY)).start()
        alice = Watcher(world, "alice")
        assert (await alice.subscribe()).status_code == 403
        assert not alice.notified()

    @story
    async def test_nobody_is_notified_who_proved_nothing(self) -> None:
        """N-10, SIP-26: 401 to the source; no state, and no NOTIFY to the address in Contact."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        alice = Watcher(world, "alice")
        eve = Watcher(world, "carol", password="guess")
        eve.user = "alice"
        for _ in range(3):
            sent = await eve.send(
                eve.request("SUBSCRIBE", "sip:bob@a.test", [("Event", "presence"), ("Contact", alice.contact)])
            )
            assert eve.responses[sent].status_code == 401
        assert not alice.notified()
        assert not eve.notified()
        assert world.presence.watchers(Address.parse(BOB)) == ()

    @story
    async def test_too_many(self) -> None:
        """RFC 3261 section 21.5.4."""
        world = await PresenceWorld(user_subscription_burst=2, user_subscriptions=0.1).start()
        alice = Watcher(world, "alice")
        assert [(await alice.subscribe(call_id=f"c{n}")).status_code for n in range(3)] == [200, 200, 503]


@story
async def test_a_tag_that_cannot_be_written_back_is_refused() -> None:
    """What a watcher writes goes into every NOTIFY to it: a control character in a quoted tag would, too."""
    world = await PresenceWorld().start()
    alice = Watcher(world, "alice", "tcp")
    assert (await alice.subscribe()).status_code == 200  # its challenge is at hand
    request = alice.request("SUBSCRIBE", "sip:bob@a.test", [("Event", "presence"), ("Contact", alice.contact)])
    header = alice.digest.authorize("SUBSCRIBE", "sip:bob@a.test", b"")
    assert header is not None
    headers = [*request.headers, header, ("Via", "SIP/2.0/TCP 192.0.2.10:5060;branch=z9hG4bKodd")]
    octets = SipRequest("SUBSCRIBE", "sip:bob@a.test", headers).to_bytes()
    assert alice.link is not None
    alice.link.session.receive_data(octets.replace(b";tag=falice", b';tag="a\x07b"'), world.clock.now())
    alice.link.flush()
    await world.settle()
    assert world.presence.find("sip", f'{request.call_id};"a\x07b"') is None
    assert len(world.presence.watchers(Address.parse(BOB))) == 1


class TestInDialog:
    @story
    async def test_refresh(self) -> None:
        """SIP-16: 200 and the state at once, also before the interval is over; CSeq goes on."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        alice = Watcher(world, "alice")
        first = await alice.subscribe()
        answer = await alice.again(first, 300)
        assert (answer.status_code, answer.value("expires"), answer.to.tag) == (200, "300", first.to.tag)
        one, two = alice.notified()
        assert two.value("subscription-state") == "active;expires=300"
        assert two.cseq.number == one.cseq.number + 1

    @story
    async def test_unsubscribe(self) -> None:
        """SIP-17, N-09: the last NOTIFY says timeout, and nothing comes after it."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        bob, alice = Watcher(world, "bob"), Watcher(world, "alice")
        first = await alice.subscribe()
        alice.notified()
        answer = await alice.again(first, 0)
        assert (answer.status_code, answer.value("expires")) == (200, "0")
        (last,) = alice.notified()
        assert last.value("subscription-state") == "terminated;reason=timeout"
        await bob.publish(pidf("open"))
        await world.advance(20)
        assert not alice.notified()
        assert (await alice.again(first, 600)).status_code == 481

    @story
    async def test_fetch(self) -> None:
        """RFC 6665 section 4.4.3: once, and nothing is left."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        bob, alice = Watcher(world, "bob"), Watcher(world, "alice")
        await bob.publish(pidf("open"))
        answer = await alice.subscribe(expires=0)
        assert (answer.status_code, answer.value("expires")) == (200, "0")
        assert alice.heard() == [("timeout", "open")]
        await bob.publish(pidf("closed"))
        await world.advance(20)
        assert not alice.notified()
        assert not world.binding._notifier._watches

    @story
    async def test_it_ends_by_itself(self) -> None:
        """SIP-17, OPS-23."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        alice = Watcher(world, "alice")
        await alice.subscribe(expires=60)
        alice.notified()
        await world.advance(61)
        assert alice.heard() == [("timeout", "")]
        assert not world.binding._notifier._watches

    @pytest.mark.parametrize("expires", [0, 600])
    @story
    async def test_the_dialog_of_another_user(self, expires: int) -> None:
        """N-08, SEC-32: 481, and the subscription stands."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        alice, carol = Watcher(world, "alice"), Watcher(world, "carol")
        first = await alice.subscribe()
        alice.notified()
        stolen = await carol.again(first, expires, ("From", f"<sip:carol@a.test>;tag={first.from_.tag}"))
        assert stolen.status_code == 481
        forged = await carol.again(first, expires)
        assert forged.status_code == 403
        await Watcher(world, "bob").publish(pidf("open"))
        await world.advance(6)
        assert alice.heard() == [("active", "open")]

    @story
    async def test_another_tag_is_another_dialog(self) -> None:
        world = await PresenceWorld().start()
        alice = Watcher(world, "alice")
        first = await alice.subscribe()
        assert (await alice.again(first, 600, ("To", "<sip:bob@a.test>;tag=other"))).status_code == 481

    @story
    async def test_no_second_subscription_in_a_dialog(self) -> None:
        """SIP-23, RFC 6665 section 4.5.2."""
        world = await PresenceWorld().start()
        alice = Watcher(world, "alice")
        first = await alice.subscribe()
        assert (await alice.again(first, 600, ("Event", "presence;id=2"))).status_code == 403
        assert (await alice.again(first, 600, ("Event", "presence.winfo"))).status_code == 403
        assert (await alice.again(first, 600)).status_code == 200

    @story
    async def test_out_of_order(self) -> None:
        """RFC 3261 section 12.2.2."""
        world = await PresenceWorld().start()
        alice = Watcher(world, "alice")
        first = await alice.subscribe("bob", 600, ("CSeq", "50 SUBSCRIBE"))
        assert (await alice.again(first, 600, ("CSeq", "49 SUBSCRIBE"))).status_code == 500
        assert (await alice.again(first, 600, ("CSeq", "51 SUBSCRIBE"))).status_code == 200

    @story
    async def test_the_target_moves_with_a_refresh(self) -> None:
        """RFC 3261 section 12.2.2; the Event id is given back."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        alice = Watcher(world, "alice")
        first = await alice.subscribe("bob", 600, ("Event", "presence;id=7"))
        await alice.again(first, 600, ("Contact", "<sip:alice@192.0.2.10:5060;x=2>"), ("Event", "presence;id=7"))
        _, second = alice.notified()
        assert second.uri_text == "sip:alice@192.0.2.10:5060;x=2"
        assert second.value("event") == "presence;id=7"


class TestAnswers:
    @pytest.mark.parametrize("code", [404, 405, 410, 416, 480, 481, 482, 483, 484, 485, 489, 501, 604])
    @story
    async def test_it_is_not_wanted_any_more(self, code: int) -> None:
        """SIP-22: the subscription is gone, without another word."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        bob, alice = Watcher(world, "bob"), Watcher(world, "alice")
        alice.answers = [code]
        first = await alice.subscribe()
        assert len(alice.notified()) == 1
        assert world.presence.watchers(Address.parse(BOB)) == ()
        await bob.publish(pidf("open"))
        await world.advance(20)
        assert not alice.notified()
        assert (await alice.again(first)).status_code == 481

    @pytest.mark.parametrize("code", [202, 302, 400, 401, 403, 407, 408, 415, 420, 500, 503, 603])
    @story
    async def test_any_other_answer_keeps_it(self, code: int) -> None:
        """SIP-15, SIP-22: also a challenge, to which a server has no password."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        bob, alice = Watcher(world, "bob"), Watcher(world, "alice")
        alice.answers = [code]
        await alice.subscribe()
        alice.notified()
        await bob.publish(pidf("open"))
        await world.advance(6)
        assert ("active", "open") in alice.heard()

    @story
    async def test_what_a_temporary_failure_refused_is_sent_again(self) -> None:
        """SIP-27: the last state is never lost."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        bob, alice = Watcher(world, "bob"), Watcher(world, "alice")
        await bob.publish(pidf("open"))
        alice.answers = [500]
        await alice.subscribe()
        alice.notified()
        await world.advance(6)
        assert alice.heard() == [("active", "open")]
        await world.advance(60)
        assert alice.heard() == []

    @story
    async def test_a_watcher_that_does_not_answer(self) -> None:
        """SIP-22: Timer F."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        alice = Watcher(world, "alice")
        alice.answers = [0]
        await alice.subscribe()
        await world.advance(31)
        assert len(world.presence.watchers(Address.parse(BOB))) == 1
        await world.advance(2)
        assert world.presence.watchers(Address.parse(BOB)) == ()
        assert not world.binding._notifier._watches
        assert not world.binding._notifier._pending

    @story
    async def test_a_silent_watcher_is_not_kept_by_new_states(self) -> None:
        """SIP-22: each change supersedes the NOTIFY before it, and Timer F counts from the first."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        bob, alice = Watcher(world, "bob"), Watcher(world, "alice")
        alice.answers = [0] * 200
        await alice.subscribe()
        for number in range(9):
            await bob.publish(pidf("open" if number % 2 else "closed"), etag="")
            await world.advance(5)
        assert world.presence.watchers(Address.parse(BOB)) == ()
        assert not world.binding._notifier._pending


class TestOneAtATime:
    @story
    async def test_what_comes_meanwhile_waits_and_only_the_last_of_it(self) -> None:
        """SIP-27, OPS-25: over a connection, where nothing is sent again."""
        world = await PresenceWorld(presence_interval=0.0).start()
        await world.grant(BOB, ALICE)
        bob, alice = Watcher(world, "bob"), Watcher(world, "alice", "tcp")
        etag = (await bob.publish(pidf("closed"))).value("sip-etag") or ""
        held: list[int] = []
        alice.hold = held
        await alice.subscribe()
        for word in ("open", "closed", "open"):
            etag = (await bob.publish(pidf(word), etag=etag)).value("sip-etag") or ""
            await world.advance(1)
        assert alice.heard() == [("active", "closed")]
        alice.hold = None
        alice.session.respond(held[0], 200, world.clock.now())
        await world.settle()
        assert alice.heard() == [("active", "open")]

    @story
    async def test_what_is_no_longer_true_is_not_sent_again(self) -> None:
        """G9: over UDP the retransmission says what is true now."""
        world = await PresenceWorld(presence_interval=0.0).start()
        await world.grant(BOB, ALICE)
        bob, alice = Watcher(world, "bob"), Watcher(world, "alice")
        etag = (await bob.publish(pidf("open"))).value("sip-etag") or ""
        alice.answers = [0]
        await alice.subscribe()
        assert alice.heard() == [("active", "open")]
        await bob.publish(pidf("closed"), etag=etag)
        assert alice.heard() == []
        await world.advance(1)
        assert alice.heard() == [("active", "closed")]
        await world.advance(40)
        assert alice.heard() == []

    @pytest.mark.parametrize(("granted", "said"), [(SubHandling.BLOCK, "rejected"), (SubHandling.CONFIRM, "pending")])
    @story
    async def test_a_block_waits_for_nothing(self, granted: SubHandling, said: str) -> None:
        """G9, ACL-10: nor is what was on its way sent again."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        bob, alice = Watcher(world, "bob"), Watcher(world, "alice")
        await bob.publish(pidf("open"))
        alice.answers = [0]
        await alice.subscribe()
        assert alice.heard() == [("active", "open")]
        await world.grant(BOB, ALICE, Permissions(granted))
        assert alice.heard() == [(said, "")]
        await bob.publish(pidf("open", "again"))
        await world.advance(60)
        assert alice.heard() == []


class TestDecisions:
    @story
    async def test_every_transition_on_the_wire(self) -> None:
        """ACL-10, ACL-11: allow, polite block, allow, confirm, allow, block."""
        world = await PresenceWorld().start()
        bob, alice = Watcher(world, "bob"), Watcher(world, "alice")
        await bob.publish(pidf("open"))
        await alice.subscribe()
        heard = [alice.heard()]
        for handling in ("ALLOW", "POLITE_BLOCK", "ALLOW", "CONFIRM", "POLITE_BLOCK", "BLOCK"):
            granted = EVERYTHING if handling == "ALLOW" else Permissions(SubHandling[handling])
            await world.grant(BOB, ALICE, granted)
            heard.append(alice.heard())
        assert heard == [
            [("pending", "")],
            [("active", "open")],
            [("active", "closed")],
            [("active", "open")],
            [("pending", "")],
            [("active", "closed")],
            [("rejected", "")],
        ]

    @story
    async def test_ten_changes_in_a_second(self) -> None:
        """SIP-27: the first at once, the last after five seconds."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        bob, alice = Watcher(world, "bob"), Watcher(world, "alice")
        await alice.subscribe()
        await world.advance(6)
        alice.notified()
        etag = ""
        for number in range(10):
            answer = await bob.publish(pidf("open", f"note {number}"), etag=etag)
            etag = answer.value("sip-etag") or ""
            await world.advance(0.1)
        notes = [one.body for one in alice.notified()]
        assert [b"note 0" in body for body in notes] == [True]
        await world.advance(6)
        (last,) = alice.notified()
        assert b"note 9" in last.body

    @story
    async def test_ten_watchers_share_the_document(self) -> None:
        """One body for all who may see the same."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        bob = Watcher(world, "bob")
        phones = [Watcher(world, "alice", port=6000 + n) for n in range(10)]
        for n, phone in enumerate(phones):
            await phone.subscribe(call_id=f"c{n}")
            phone.notified()
        await world.advance(6)
        await bob.publish(pidf("open"))
        bodies = {one.body for phone in phones for one in phone.notified()}
        assert len(bodies) == 1


class TestRestart:
    @story
    async def test_watchers_hear_within_a_minute(self) -> None:
        """N-17, OPS-30: closed until somebody speaks again; CSeq is higher than before."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        bob, alice = Watcher(world, "bob"), Watcher(world, "alice")
        await bob.publish(pidf("open"))
        first = await alice.subscribe()
        await alice.again(first, 600)
        before = alice.notified()[-1]
        await world.crash()
        await world.advance(60)
        notifies = alice.notified()
        assert [basic_of(one.body) for one in notifies] == ["closed"]
        assert notifies[0].cseq.number > before.cseq.number
        assert (notifies[0].call_id, notifies[0].from_.tag) == (before.call_id, before.from_.tag)
        assert (await alice.again(first, 600)).status_code == 200

    @story
    async def test_a_connection_that_is_gone_waits_for_the_refresh(self) -> None:
        """Nobody else's connection is used; the refresh brings the state."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        bob, alice = Watcher(world, "bob"), Watcher(world, "alice", "tcp")
        first = await alice.subscribe()
        alice.notified()
        assert alice.link is not None
        alice.link.abort()
        thief = Watcher(world, "carol", "tcp")
        await world.advance(6)
        await bob.publish(pidf("open"))
        await world.advance(6)
        assert not alice.notified()
        assert not thief.notified()
        back = Watcher(world, "alice", "tcp", port=5070)
        assert (await back.again(first, 600)).status_code == 200
        assert back.heard() == [("active", "open")]


class TestWatcherInformation:
    @story
    async def test_only_the_presentity(self) -> None:
        """SIP-29, N-11."""
        world = await PresenceWorld().start()
        alice, bob = Watcher(world, "alice"), Watcher(world, "bob")
        winfo = ("Event", "presence.winfo")
        assert (await alice.subscribe("bob", 600, winfo)).status_code == 403
        assert not alice.notified()
        answer = await bob.subscribe("bob", None, winfo)
        assert (answer.status_code, answer.value("expires")) == (200, "3600")


LARGE = "x" * 1500


class TestLarge:
    @story
    async def test_over_1300_octets_it_goes_by_a_connection(self) -> None:
        """RFC 3261 section 18.1.1, as for MESSAGE: to the watcher's own address, and one connection for all dialogs."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        bob, alice = Watcher(world, "bob", "tcp"), Watcher(world, "alice")
        world.listening[alice.address] = alice
        await alice.subscribe()
        await alice.subscribe(call_id="second")
        alice.notified()
        await world.advance(6)
        etag = (await bob.publish(pidf("open", LARGE))).value("sip-etag") or ""
        await world.settle()
        assert [LARGE.encode() in one.body for one in alice.notified()] == [True, True]
        await world.advance(6)
        await bob.publish(pidf("closed", LARGE), etag=etag)
        assert alice.heard() == [("active", "closed")] * 2
        assert len(world.network.dialled) == 1

    @story
    async def test_where_nobody_listens_it_goes_in_a_datagram_all_the_same(self) -> None:
        """RFC 3261 section 18.1.1: "the element SHOULD retry the request, using UDP"; asked once in a dialog."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        bob, alice = Watcher(world, "bob", "tcp"), Watcher(world, "alice")
        etag = (await bob.publish(pidf("open", LARGE))).value("sip-etag") or ""
        await alice.subscribe()
        assert alice.heard() == [("active", "open")]
        await world.advance(6)
        await bob.publish(pidf("closed", LARGE), etag=etag)
        assert alice.heard() == [("active", "closed")]
        assert len(world.network.dialled) == 1

    @story
    async def test_behind_a_nat_nothing_is_dialled(self) -> None:
        """SSRF: Contact names another host; the observed address is used, and only that."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        bob, alice = Watcher(world, "bob", "tcp"), Watcher(world, "alice")
        await bob.publish(pidf("open", LARGE))
        await alice.subscribe("bob", 600, ("Contact", "<sip:alice@10.0.0.7:5060>"))
        (notify,) = alice.notified()
        assert notify.uri_text == "sip:alice@10.0.0.7:5060"
        assert not world.network.dialled

    @story
    async def test_a_block_overtakes_what_waits_for_a_connection(self) -> None:
        """G9."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        bob, alice = Watcher(world, "bob", "tcp"), Watcher(world, "alice")
        world.listening[alice.address] = alice
        release = asyncio.Event()
        connect = world.network.connect

        async def slowly(*args: Any, **named: Any) -> Link:
            await release.wait()
            return await connect(*args, **named)

        world.network.connect = slowly  # type: ignore[method-assign]  # the network of this world is slow
        await bob.publish(pidf("open", LARGE))
        await alice.subscribe()
        await world.grant(BOB, ALICE, Permissions(SubHandling.BLOCK))
        assert not alice.notified()
        release.set()
        await world.settle()
        assert alice.heard() == [("rejected", "")]

    @story
    async def test_what_was_refused_for_a_time_does_not_overtake_what_waits_for_a_connection(self) -> None:
        """G9: the repetition falls due while a connection is opened for the block."""
        world = await PresenceWorld().start()
        await world.grant(BOB, ALICE)
        bob, alice = Watcher(world, "bob", "tcp"), Watcher(world, "alice", "tcp")
        world.listening[alice.address] = alice
        release = asyncio.Event()
        connect = world.network.connect

        async def slowly(*args: Any, **named: Any) -> Link:
            await release.wait()
            return await connect(*args, **named)

        world.network.connect = slowly  # type: ignore[method-assign]  # the network of this world is slow
        await bob.publish(pidf("open"))
        alice.answers = [500]
        await alice.subscribe()
        assert alice.heard() == [("active", "open")]
        assert alice.link is not None
        alice.link.abort()
        await world.settle()
        await world.grant(BOB, ALICE, Permissions(SubHandling.BLOCK))
        await world.advance(6)
        release.set()
        await world.settle()
        assert alice.heard() == [("rejected", "")]


@story
async def test_routes_lead_the_notify() -> None:
    """RFC 3261 section 12.2.1.1: the route set of the SUBSCRIBE, over the flow it came by."""
    world = await PresenceWorld().start()
    alice = Watcher(world, "alice")
    await alice.subscribe("bob", 600, ("Record-Route", "<sip:p1.test;lr>, <sip:p2.test;lr>"))
    (notify,) = alice.notified()
    assert notify.values("route") == ["<sip:p1.test;lr>", "<sip:p2.test;lr>"]


@story
async def test_options_list_methods_and_packages() -> None:
    """SIP-34."""
    world = await PresenceWorld().start()
    alice = Watcher(world, "alice", "tcp")
    answer = await alice.ask(alice.request("OPTIONS", "sip:a.test"))
    assert answer is not None
    assert set(answer.listed("allow")) == {"MESSAGE", "NOTIFY", "OPTIONS", "PUBLISH", "REGISTER", "SUBSCRIBE"}
    assert answer.listed("allow-events") == ["presence", "presence.winfo"]


@story
async def test_a_notify_to_us_is_for_nobody() -> None:
    """N-13, SEC-36: no dialog of ours is a subscriber's."""
    world = await PresenceWorld().start()
    alice = Watcher(world, "alice")
    first = await alice.subscribe()
    request = alice.request("NOTIFY", "sip:bob@a.test", [("To", first.value("to") or ""), ("Call-ID", first.call_id)])
    answer = await alice.ask(request)
    assert answer is not None
    assert answer.status_code == 481
