"""``bindings/apex/presence_service.py`` and its parts: the operations of RFC 3343 section 4, one after the other (APEX-17 to 22)."""

from __future__ import annotations

import pytest

from comity.bindings.apex.elements import (
    Notify,
    Option,
    Part,
    Publish,
    Reply,
    ServiceElement,
    Subscribe,
    Terminate,
    Tuple,
    Watch,
)
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.grammar import WireError
from comity.bindings.apex.presence_entries import DOCUMENT
from comity.bindings.apex.presence_operations import SECURED
from comity.cpim.address import Address
from comity.cpim.operations import MimeObject, Response
from comity.cpim.presence import PIDF_TYPE
from comity.service.interfaces import Origin
from comity.service.presence.interfaces import Decision, Default, Statement
from comity.service.presence.watching import PresenceLimits
from comity.store.clock import StoreClock
from comity.testing.clock import FakeClock
from comity.testing.presence import PresenceBench
from comity.testing.service import settle
from tests.bindings.apex.presence_world import Application, World, in_world
from tests.loop import in_loop
from tests.service.presence.test_watching import BadStore

ALICE, BOB = Endpoint.parse("alice@a.test"), Endpoint.parse("bob@a.test")
NEVER = "2000-05-14T13:02:00-08:00"


async def allow(world: World, account: str, watcher: str) -> None:
    await world.bench.answer(f"im:{account}", f"im:{watcher}")


def codes(heard: list[ServiceElement]) -> list[tuple[int, int]]:
    assert all(isinstance(one, Reply) for one in heard), heard
    return [(one.code, one.trans_id) for one in heard if isinstance(one, Reply)]


def publishes(heard: list[ServiceElement]) -> list[Publish]:
    return [one for one in heard if isinstance(one, Publish)]


def is_open(world: World, publish: Publish) -> bool:
    return any(one.available_until > world.bench.clock.when() for one in publish.presence.tuples)


async def subscribed(
    world: World, app: Application, publisher: Endpoint, trans_id: int = 7, duration: int = 600
) -> Publish:
    (heard,) = await app.send(Subscribe(publisher, duration, trans_id))
    assert isinstance(heard, Publish), heard
    assert (heard.publisher, heard.trans_id, heard.presence.publisher) == (publisher, trans_id, publisher)
    return heard


async def last_update(app: Application, trans_id: int = 900) -> str:
    (heard,) = await app.send(Subscribe(app.endpoint.bare, 0, trans_id))
    assert isinstance(heard, Publish)
    return heard.presence.last_update


# --- subscribe ---------------------------------------------------------------------------------------------------------


@in_world
async def test_a_subscribe_is_answered_by_a_publish_and_told_what_changes_and_its_end(world: World) -> None:
    """APEX-17, RFC 3343 section 4.2; T6."""
    await allow(world, "alice@a.test", "bob@a.test")
    bob = await world.attach("bob@a.test")
    assert not is_open(world, await subscribed(world, bob, ALICE))
    world.bench.publish("im:alice@a.test", "away", "Lunch")
    (told,) = publishes(bob.take())
    assert is_open(world, told)
    (one,) = told.presence.tuples
    assert one.destination == "im:alice@a.test"
    assert one.available_until == world.after(600), "as long as the service promised to tell of changes (T9)"
    assert one.tuple_info == "urn:comity:tuple:0:ID-phone?=show=away&note=Lunch"
    await settle()
    world.bench.unpublish("im:alice@a.test")
    (told,) = publishes(bob.take())
    assert not is_open(world, told)
    await world.bench.advance(601)
    assert bob.take() == [Terminate(7)]
    world.bench.publish("im:alice@a.test")
    assert bob.take() == []


@in_world
async def test_the_checks_of_a_subscribe_come_in_order(world: World) -> None:
    """APEX-17: 553, 550, 537, replaced, 555."""
    await world.bench.answer("im:carol@a.test", "im:bob@a.test", Decision.REFUSED)
    await world.bench.presence.set_default(
        Address.parse("im:carol@a.test"), Default.DENY, world.bench.origin("im:carol@a.test")
    )
    await allow(world, "alice@a.test", "bob@a.test")
    bob = await world.attach("bob@a.test")
    await subscribed(world, bob, ALICE, 7)
    for duration in (0, 600):
        assert codes(await bob.send(Subscribe(Endpoint.parse("alice@b.test"), duration, 7))) == [(553, 7)]
        assert codes(await bob.send(Subscribe(Endpoint.parse("apex=report@a.test"), duration, 7))) == [(550, 7)]
        assert codes(await bob.send(Subscribe(Endpoint.parse("alice/im@a.test"), duration, 7))) == [(550, 7)]
        assert codes(await bob.send(Subscribe(Endpoint.parse("carol@a.test"), duration, 7))) == [(537, 7)]
        assert codes(await bob.send(Subscribe(BOB, duration, 7))) == [(555, 7)], "it is alice's"
    world.bench.publish("im:alice@a.test")
    assert len(publishes(bob.take())) == 1, "what was refused changed nothing"


@in_world
async def test_a_new_subscribe_of_the_originator_replaces_its_earlier_one_silently(world: World) -> None:
    """APEX-17 step 4, X8: by the same transaction or another; another endpoint of the account has its own."""
    await allow(world, "alice@a.test", "bob@a.test")
    bob, desk = await world.attach("bob@a.test"), await world.attach("bob/desk@a.test")
    await subscribed(world, bob, ALICE, 7)
    await subscribed(world, bob, ALICE, 7)
    await subscribed(world, bob, ALICE, 8)
    await subscribed(world, desk, ALICE, 8)
    world.bench.publish("im:alice@a.test")
    assert [one.trans_id for one in publishes(bob.take())] == [8]
    assert [one.trans_id for one in publishes(desk.take())] == [8]
    assert codes(await bob.send(Terminate(7))) == [(550, 7)], "silently terminated"
    await subscribed(world, bob, ALICE, 9, duration=0)
    world.bench.unpublish("im:alice@a.test")
    assert bob.take() == [], "a poll replaces it too"
    assert len(publishes(desk.take())) == 1


@in_world
async def test_a_busy_transaction_ends_the_earlier_subscribe_before_it_is_refused(world: World) -> None:
    """RFC 3343 section 4.2: step 4 comes before step 5."""
    for account in ("alice@a.test", "carol@a.test"):
        await allow(world, account, "bob@a.test")
    bob = await world.attach("bob@a.test")
    await subscribed(world, bob, ALICE, 7)
    await subscribed(world, bob, Endpoint.parse("carol@a.test"), 8)
    assert codes(await bob.send(Subscribe(ALICE, 600, 8))) == [(555, 8)]
    world.bench.publish("im:alice@a.test")
    assert bob.take() == []
    world.bench.publish("im:carol@a.test")
    assert [one.trans_id for one in publishes(bob.take())] == [8]


@in_world
async def test_a_duration_of_zero_is_one_publish(world: World) -> None:
    """APEX-17: a poll; what devices say holds for an hour at most (N-22)."""
    await allow(world, "alice@a.test", "bob@a.test")
    world.bench.publish("im:alice@a.test")
    bob = await world.attach("bob@a.test")
    told = await subscribed(world, bob, ALICE, duration=0)
    assert [one.available_until for one in told.presence.tuples] == [world.after(3600)]
    world.bench.unpublish("im:alice@a.test")
    assert bob.take() == []
    assert codes(await bob.send(Terminate(7))) == [(550, 7)]


@pytest.mark.parametrize("duration", [0, 600])
@in_world
async def test_who_waits_who_is_blocked_politely_and_who_asks_about_nobody_see_the_same(
    world: World, duration: int
) -> None:
    """N-02, N-12, ACL-11, T1, T9: one tuple, past; and 550 is said of nobody who might be an account."""
    await world.bench.answer("im:carol@a.test", "im:bob@a.test", Decision.POLITE)
    for who in ("alice", "carol"):
        world.bench.publish(f"im:{who}@a.test")
    bob = await world.attach("bob@a.test")
    seen = []
    for number, who in enumerate(("alice", "carol", "nobody"), 1):
        told = await subscribed(world, bob, Endpoint.parse(f"{who}@a.test"), number, duration)
        assert not is_open(world, told)
        seen.append(repr(told).replace(who, "X").replace(f"trans_id={number}", "trans_id=N"))
    assert len({one.partition("last_update")[0] for one in seen}) == 1
    shapes = [[(one.tuple_info, one.capabilities) for one in publishes_of.presence.tuples] for publishes_of in [told]]
    assert shapes == [[("urn:comity:tuple:0:offline", ())]]


@in_world
async def test_a_watcher_that_waits_is_told_when_the_account_answers(world: World) -> None:
    """ACL-10: pending until then, G9: nothing but terminate after it is taken back."""
    world.bench.publish("im:alice@a.test")
    bob = await world.attach("bob@a.test")
    assert not is_open(world, await subscribed(world, bob, ALICE))
    await allow(world, "alice@a.test", "bob@a.test")
    (told,) = publishes(bob.take())
    assert is_open(world, told)
    await world.bench.presence.set_default(
        Address.parse("im:alice@a.test"), Default.DENY, world.bench.origin("im:alice@a.test")
    )
    await world.bench.answer("im:alice@a.test", "im:bob@a.test", Decision.REFUSED)
    assert bob.take() == [Terminate(7, 537)]
    world.bench.publish("im:alice@a.test", "dnd")
    assert bob.take() == []


@in_world
async def test_subscriptions_are_limited(world: World) -> None:
    """[limits] subscriptions: refused, and a poll never is."""
    world.bench.presence.stop()
    world = await World(PresenceBench(limits=PresenceLimits(subscriptions=2))).start()
    bob = await world.attach("bob@a.test")
    for number in (1, 2):
        await subscribed(world, bob, Endpoint.parse(f"x{number}@a.test"), number)
    assert codes(await bob.send(Subscribe(ALICE, 600, 3))) == [(450, 3)]
    await subscribed(world, bob, Endpoint.parse("x2@a.test"), 3)
    await subscribed(world, bob, ALICE, 4, duration=0)
    world.bench.presence.stop()


@in_world
async def test_a_long_duration_ends_after_a_day(world: World) -> None:
    """What is granted is bound; the end is told."""
    bob = await world.attach("bob@a.test")
    await subscribed(world, bob, BOB, duration=2**31 - 1)
    await world.bench.advance(24 * 3600 - 1)
    assert bob.take() == []
    await world.bench.advance(2)
    assert bob.take() == [Terminate(7)]


@in_world
async def test_a_restart_keeps_subscriptions_and_tells_them_when_the_application_attaches(world: World) -> None:
    """APEX-21, N-17: with transaction and subaddress; terminate finds it by both."""
    await allow(world, "alice@a.test", "bob@a.test")
    bob = await world.attach("bob/desk@a.test")
    await subscribed(world, bob, ALICE)
    await world.restart()
    world.bench.publish("im:alice@a.test", "away")
    await world.bench.advance(40)
    assert bob.take() == []
    other = await world.attach("bob@a.test")
    assert other.take() == []
    again = await world.attach("bob/desk@a.test")
    (told,) = publishes(again.take())
    assert told.trans_id == 7
    assert is_open(world, told)
    assert told.presence.tuples[0].available_until == world.after(560)
    assert codes(await other.send(Terminate(7))) == [(550, 7)]
    assert codes(await again.send(Terminate(7))) == [(250, 7)]
    await world.restart()
    await world.bench.advance(40)
    await again.attach()
    world.bench.publish("im:alice@a.test", "dnd")
    assert again.take() == [], "its end was durable before the reply"


@in_world
async def test_who_is_not_attached_misses_publishes_and_gets_the_last_state(world: World) -> None:
    """The last state is never lost (SIP-27's kin)."""
    await allow(world, "alice@a.test", "bob@a.test")
    bob = await world.attach("bob@a.test")
    await subscribed(world, bob, ALICE)
    bob.detach()
    for word in ("away", "dnd", "chat"):
        world.bench.publish("im:alice@a.test", word)
    await bob.attach()
    (told,) = publishes(bob.take())
    assert told.presence.tuples[0].tuple_info.endswith("show=chat")


@in_world
async def test_a_slow_application_has_one_publish_on_its_way_and_then_the_last_state(world: World) -> None:
    """Bounded: however much changes."""
    await allow(world, "alice@a.test", "bob@a.test")
    bob = await world.attach("bob@a.test")
    bob.is_slow = True
    await subscribed(world, bob, ALICE)
    for word in ("away", "dnd", "chat"):
        world.bench.publish("im:alice@a.test", word)
    assert bob.take() == []
    (told,) = publishes(await bob.answer())
    assert told.presence.tuples[0].tuple_info.endswith("show=chat")
    assert await bob.answer() == []


@in_world
async def test_what_waits_for_a_slow_application_is_not_said_after_a_revocation(world: World) -> None:
    """G9: nor after a terminate that was answered."""
    await allow(world, "alice@a.test", "bob@a.test")
    bob = await world.attach("bob@a.test")
    bob.is_slow = True
    await subscribed(world, bob, ALICE)
    world.bench.publish("im:alice@a.test", "away")
    await world.bench.answer("im:alice@a.test", "im:bob@a.test", Decision.POLITE)
    heard = publishes(bob.take() + await bob.answer() + await bob.answer())
    assert [is_open(world, one) for one in heard] == [False]
    world.bench.publish("im:alice@a.test", "dnd")
    assert await bob.answer() == []
    assert codes(await bob.send(Terminate(7))) == [(250, 7)]
    await allow(world, "alice@a.test", "bob@a.test")
    assert await bob.answer() == []


@in_world
async def test_a_watcher_of_another_domain_is_told_and_kept(world: World) -> None:
    """The originator is its domain's relay's to prove; its subscription lives over a restart."""
    world.bench.publish("im:alice@a.test")
    fred = await world.attach("fred@b.test", is_foreign=True)
    assert not is_open(world, await subscribed(world, fred, ALICE))
    await allow(world, "alice@a.test", "fred@b.test")
    assert [is_open(world, one) for one in publishes(fred.take())] == [True]
    await world.restart()
    world.relay.applications[fred.endpoint] = fred
    world.bench.publish("im:alice@a.test", "dnd")
    await world.bench.advance(40)
    assert [is_open(world, one) for one in publishes(fred.take())] == [True]
    assert codes(await fred.send(Terminate(7))) == [(250, 7)]


# --- watch -------------------------------------------------------------------------------------------------------------


@in_world
async def test_a_watch_is_answered_and_told_of_each_watcher_whatever_the_protocol(world: World) -> None:
    """APEX-18, RFC 3343 sections 4.3 and 4.6."""
    for who in ("bob@a.test", "carol@a.test"):
        await allow(world, "alice@a.test", who)
    dialog = await world.bench.watch("im:carol@a.test", "im:alice@a.test", 300)
    alice, bob = await world.attach("alice@a.test"), await world.attach("bob/desk@a.test")
    carol, desk = Endpoint.parse("carol@a.test"), Endpoint.parse("bob/desk@a.test")
    assert await alice.send(Watch(ALICE, 600, 2)) == [Reply(250, 2), Notify(carol, 2, "subscribe", 300)]
    await subscribed(world, bob, ALICE, 7, 500)
    assert alice.take() == [Notify(desk, 2, "subscribe", 500)]
    await subscribed(world, bob, ALICE, 8, 400)
    assert alice.take() == [Notify(desk, 2, "subscribe", 400)], "a subscribe succeeded, though it replaced one"
    world.bench.presence.lost(dialog)
    assert alice.take() == [Notify(carol, 2, "terminate")]
    await bob.send(Terminate(8))
    assert alice.take() == [Notify(desk, 2, "terminate")]
    await world.bench.watch("im:carol@a.test", "im:alice@a.test", edge="xmpp")
    assert alice.take() == [Notify(carol, 2, "subscribe", 2**31 - 1)]
    await world.bench.advance(601)
    assert alice.take() == [Terminate(2)]
    await subscribed(world, bob, ALICE, 9)
    assert alice.take() == []


@in_world
async def test_the_checks_of_a_watch_come_in_order(world: World) -> None:
    """APEX-18: 553, 550, 537, replaced, 555; of everybody but oneself 537, whether there is such an account or not."""
    alice = await world.attach("alice@a.test")
    assert codes(await alice.send(Watch(ALICE, 600, 2))) == [(250, 2)]
    for subject, code in (("x@b.test", 553), ("apex=access@a.test", 550), ("bob@a.test", 537), ("nobody@a.test", 537)):
        assert codes(await alice.send(Watch(Endpoint.parse(subject), 600, 2))) == [(code, 2)]
    assert codes(await alice.send(Subscribe(ALICE, 600, 2))) == [(555, 2)]
    assert codes(await alice.send(Watch(ALICE, 600, 3))) == [(250, 3)]
    assert codes(await alice.send(Terminate(2))) == [(550, 2)]
    assert codes(await alice.send(Terminate(3))) == [(250, 3)]


@in_world
async def test_a_watch_of_no_duration_tells_once(world: World) -> None:
    """RFC 3343 section 4.3: a poll."""
    await world.bench.watch("im:bob@a.test", "im:alice@a.test", 300)
    alice = await world.attach("alice@a.test")
    assert await alice.send(Watch(ALICE, 0, 2)) == [Reply(250, 2), Notify(BOB, 2, "subscribe", 300)]
    await world.bench.watch("im:carol@a.test", "im:alice@a.test", 300)
    assert alice.take() == []


@in_world
async def test_an_owner_hears_by_a_watch_that_somebody_asks_to_see_it(world: World) -> None:
    """A request that waits is told like a subscription: APEX has no other words for it."""
    alice = await world.attach("alice@a.test")
    await alice.send(Watch(ALICE, 600, 2))
    await subscribed(world, await world.attach("bob@a.test"), ALICE)
    assert alice.take() == [Notify(BOB, 2, "subscribe", 600)]


@in_world
async def test_a_watch_that_was_away_is_told_everything_anew(world: World) -> None:
    """Also of those who went meanwhile."""
    alice = await world.attach("alice@a.test")
    await alice.send(Watch(ALICE, 600, 2))
    dialog = await world.bench.watch("im:bob@a.test", "im:alice@a.test", 300)
    alice.take()
    alice.detach()
    world.bench.presence.lost(dialog)
    await world.bench.answer("im:alice@a.test", "im:bob@a.test")
    await world.bench.watch("im:carol@a.test", "im:alice@a.test", 300)
    await alice.attach()
    carol = Endpoint.parse("carol@a.test")
    assert alice.take() == [Notify(carol, 2, "subscribe", 300), Notify(BOB, 2, "terminate")]
    await world.restart()
    again = await world.attach("alice@a.test")
    await world.bench.advance(40)
    assert again.take() == [Notify(carol, 2, "subscribe", 260)]


@in_world
async def test_who_has_the_token_may_watch_until_it_is_taken_away(world: World) -> None:
    """APEX-18, APEX-25: presence:watch."""
    rights = world.bench.presence.rights
    alice = Address.parse("im:alice@a.test")
    assert not hasattr(await rights.set_entry(alice, "", "bob@a.test", ("presence:watch",), ""), "reason")
    bob = await world.attach("bob@a.test")
    assert codes(await bob.send(Watch(ALICE, 600, 2))) == [(250, 2)]
    await world.bench.watch("im:alice@a.test", "im:alice@a.test", 300)
    assert bob.take() == [Notify(ALICE, 2, "subscribe", 300)]
    entry = await rights.entry(alice, "", "bob@a.test")
    assert entry is not None
    assert not hasattr(await rights.set_entry(alice, "", "bob@a.test", None, entry.last_update), "reason")
    assert bob.take() == [Terminate(2, 537)]
    assert codes(await bob.send(Watch(ALICE, 600, 3))) == [(537, 3)]


@in_world
async def test_the_token_is_asked_for_though_the_watcher_may_see_the_account(world: World) -> None:
    """G9: a watch operation ends with its token, whatever else is permitted."""
    rights = world.bench.presence.rights
    alice, tokens = Address.parse("im:alice@a.test"), ("presence:watch", "presence:subscribe")
    set_ = await rights.set_entry(alice, "", "bob@a.test", tokens, "")
    assert not isinstance(set_, Response)
    bob = await world.attach("bob@a.test")
    await world.bench.watch("im:carol@a.test", "im:alice@a.test", 300)
    heard = await bob.send(Watch(ALICE, 600, 2))
    assert heard == [Reply(250, 2), Notify(Endpoint.parse("carol@a.test"), 2, "subscribe", 300)]
    await rights.set_entry(alice, "", "bob@a.test", tokens[1:], set_.last_update)
    await settle()
    assert bob.take() == [Terminate(2, 537)]
    await world.bench.watch("im:alice@a.test", "im:alice@a.test", 200)
    assert bob.take() == []


# --- publish -----------------------------------------------------------------------------------------------------------


def im(world: World, seconds: float, destination: str = "apex:alice/appl=im@a.test", info: str = "") -> Tuple:
    return Tuple(destination, world.after(seconds), info)


@in_world
async def test_a_publish_is_stored_told_and_answered(world: World) -> None:
    """APEX-19: by every protocol; what PIDF has no words for comes back to APEX watchers."""
    await allow(world, "alice@a.test", "bob@a.test")
    await world.bench.watch("im:bob@a.test", "im:alice@a.test")
    bob, alice = await world.attach("bob@a.test"), await world.attach("alice@a.test")
    await subscribed(world, bob, ALICE)
    entry = world.entry(
        "alice@a.test", await last_update(alice), im(world, 60), info="http://a.test/alice/", trans_id=5
    )
    assert codes(await alice.send(entry)) == [(250, 5)]
    (told,) = publishes(bob.take())
    assert told.presence.tuples == (im(world, 60),)
    assert told.presence.publisher_info == "http://a.test/alice/"
    world.bench.sip.take()
    await world.bench.advance(5)
    assert [one.state for one in world.bench.sip.take()] == ["available"]


@in_world
async def test_the_checks_of_a_publish_come_in_order(world: World) -> None:
    """APEX-19: 503, 553, 550, 537, 555; 537 of everybody but oneself, whether there is such an account or not."""
    alice = await world.attach("alice@a.test")
    good = world.entry("alice@a.test", NEVER, im(world, 60))
    assert codes(await alice.send(Publish(BOB, 1, NEVER, good.presence))) == [(503, 1)]
    for subject, code in (("x@b.test", 553), ("apex=access@a.test", 550), ("bob@a.test", 537), ("nobody@a.test", 537)):
        assert codes(await alice.send(world.entry(subject, NEVER, im(world, 60)))) == [(code, 1)]
    assert codes(await alice.send(good)) == [(250, 1)]
    assert codes(await alice.send(good)) == [(555, 1)]


@in_world
async def test_of_two_writers_the_second_has_to_read_again(world: World) -> None:
    """APEX-19: lastUpdate makes updates atomic."""
    alice, desk = await world.attach("alice@a.test"), await world.attach("alice/desk@a.test")
    (read,) = publishes(await desk.send(Subscribe(ALICE, 0, 1)))
    assert read.presence.last_update == await last_update(alice)
    assert codes(await alice.send(world.entry("alice@a.test", read.presence.last_update, im(world, 60)))) == [(250, 1)]
    stale = world.entry("alice@a.test", read.presence.last_update, im(world, 90), trans_id=2)
    assert codes(await desk.send(stale)) == [(555, 2)]
    (read,) = publishes(await desk.send(Subscribe(ALICE, 0, 1)))
    again = world.entry("alice@a.test", read.presence.last_update, im(world, 90), trans_id=3)
    assert codes(await desk.send(again)) == [(250, 3)]
    for wrong, code in (("2525-12-31T23:59:59Z", 555), (NEVER, 555), ("", 501)):
        assert codes(await desk.send(world.entry("alice@a.test", wrong, im(world, 90)))) == [(code, 1)]


@in_world
async def test_what_devices_say_is_neither_repeated_nor_ended_by_an_application(world: World) -> None:
    """An application reads the entry, changes its own part and sends all of it back; a phone speaks in between."""
    alice = await world.attach("alice@a.test")
    world.bench.publish("im:alice@a.test", "away")
    (read,) = publishes(await alice.send(Subscribe(ALICE, 0, 1)))
    (phone,) = read.presence.tuples
    world.bench.publish("im:alice@a.test", "dnd")
    entry = world.entry("alice@a.test", read.presence.last_update, phone, im(world, 60))
    assert codes(await alice.send(entry)) == [(250, 1)], "nothing of the phone's is lost"
    (read,) = publishes(await alice.send(Subscribe(ALICE, 0, 1)))
    infos = sorted(one.tuple_info for one in read.presence.tuples)
    assert infos == ["", "urn:comity:tuple:0:ID-phone?=show=dnd"]
    world.bench.unpublish("im:alice@a.test")
    (read,) = publishes(await alice.send(Subscribe(ALICE, 0, 1)))
    assert read.presence.tuples == (im(world, 60),)
    world.bench.publish("im:alice@a.test")
    (read,) = publishes(await alice.send(Subscribe(ALICE, 0, 1)))
    only = [one for one in read.presence.tuples if one.tuple_info]
    assert codes(await alice.send(world.entry("alice@a.test", read.presence.last_update, *only))) == [(250, 1)]
    (left,) = publishes(await alice.send(Subscribe(ALICE, 0, 1)))
    assert [one.tuple_info for one in left.presence.tuples] == [one.tuple_info for one in only]


@in_world
async def test_past_available_until_it_is_closed_by_itself(world: World) -> None:
    """T9: with no new publish; each tuple in its time, and the entry stays as it was written."""
    await allow(world, "alice@a.test", "bob@a.test")
    await world.bench.watch("im:bob@a.test", "im:alice@a.test", 7200)
    alice = await world.attach("alice@a.test")
    first, second = im(world, 60), im(world, 120, "mailto:alice@a.test")
    await alice.send(world.entry("alice@a.test", NEVER, first, second))
    await world.bench.advance(10)
    world.bench.sip.take()
    for seconds, states in ((45, []), (10, ["available"]), (60, ["offline"]), (3000, [])):
        await world.bench.advance(seconds)
        assert [one.state for one in world.bench.sip.take()] == states
    (read,) = publishes(await alice.send(Subscribe(ALICE, 0, 1)))
    assert set(read.presence.tuples) == {first, second}


@in_world
async def test_an_entry_lives_over_a_restart_no_longer_than_it_says(world: World) -> None:
    """APEX-21, RFC 3343 section 4; G9: no "open" past its time."""
    alice = await world.attach("alice@a.test")
    entry = world.entry(
        "alice@a.test", NEVER, im(world, 60), im(world, 600, "mailto:alice@a.test"), info="http://a.test/"
    )
    assert codes(await alice.send(entry)) == [(250, 1)]
    before = await last_update(alice)
    await world.restart()
    alice = await world.attach("alice@a.test")
    assert await last_update(alice) == before
    world.bench.clock.advance(100)
    await world.restart()
    alice = await world.attach("alice@a.test")
    await allow(world, "alice@a.test", "bob@a.test")
    await world.bench.watch("im:bob@a.test", "im:alice@a.test")
    document = world.bench.sip.take()[-1].subscription.told
    assert document is not None
    assert document.document is not None
    statuses = {one.contact: one.basic_status for one in document.document.tuples}
    assert {key: value.value for key, value in statuses.items() if value} == {
        "apex:alice/appl=im@a.test": "closed",
        "mailto:alice@a.test": "open",
    }
    assert codes(await alice.send(world.entry("alice@a.test", await last_update(alice), im(world, 60)))) == [(250, 1)]


@in_world
async def test_an_application_can_say_more_than_available(world: World) -> None:
    """T9: by the same tupleInfo that it reads."""
    await allow(world, "alice@a.test", "bob@a.test")
    await world.bench.watch("im:bob@a.test", "im:alice@a.test", edge="xmpp")
    alice = await world.attach("alice@a.test")
    tuple_ = im(world, 60, info="urn:comity:tuple:0?=show=dnd&note=Writing%20code&note@de=Am%20Tippen")
    await alice.send(world.entry("alice@a.test", NEVER, tuple_))
    told = world.bench.xmpp.take()[-1]
    assert told.state == "dnd"
    assert told.content is not None
    assert told.content.document is not None
    assert [note.text for note in told.content.document.tuples[0].notes] == ["Writing code", "Am Tippen"]
    (read,) = publishes(await alice.send(Subscribe(ALICE, 0, 1)))
    assert read.presence.tuples == (tuple_,)


@in_world
async def test_who_has_the_token_may_publish(world: World) -> None:
    """APEX-19, APEX-25: presence:publish."""
    alice = Address.parse("im:alice@a.test")
    await world.bench.presence.rights.set_entry(alice, "", "bob@a.test", ("presence:publish",), "")
    bob = await world.attach("bob@a.test")
    assert codes(await bob.send(world.entry("alice@a.test", NEVER, im(world, 60)))) == [(250, 1)]


@in_world
async def test_an_entry_of_very_many_tuples_is_refused_and_the_one_before_it_stands(world: World) -> None:
    """Catalogue: 10,000 tuples; times from the first to the last year are taken."""
    alice = await world.attach("alice@a.test")
    far = '<publish publisher="alice@a.test" transID="1" timeStamp="2000-05-14T13:02:00Z"><presence publisher="alice@a.test" lastUpdate="2000-05-14T13:02:00Z">%s</presence></publish>'
    times = ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z", "2525-12-31T23:59:59-08:00")
    tuples = "".join(f'<tuple destination="mailto:x{n}@a.test" availableUntil="{at}"/>' for n, at in enumerate(times))
    assert codes(await alice.send(far % tuples)) == [(250, 1)]
    stamp = await last_update(alice)
    many = [im(world, 60, f"mailto:x{n}@a.test") for n in range(10_000)]
    assert codes(await alice.send(world.entry("alice@a.test", stamp, *many[:201]))) == [(554, 1)]
    with pytest.raises(WireError):
        await alice.send(world.entry("alice@a.test", stamp, *many))
    large = world.entry("alice@a.test", stamp, *(im(world, 60, f"mailto:{n}{'x' * 999}@a.test") for n in range(100)))
    assert codes(await alice.send(large)) == [(554, 1)]
    (read,) = publishes(await alice.send(Subscribe(ALICE, 0, 1)))
    assert [one.destination for one in read.presence.tuples] == [f"mailto:x{n}@a.test" for n in range(3)]


@pytest.mark.parametrize(
    "xml",
    [
        '<subscribe publisher="alice@a.test" duration="-1" transID="1"/>',
        '<subscribe publisher="alice@a.test" duration="2147483648" transID="1"/>',
        '<subscribe publisher="alice@a.test" duration="1e3" transID="1"/>',
        '<subscribe publisher="alice@a.test" duration="" transID="1"/>',
        '<subscribe publisher="alice@a.test" duration="1" transID="0"/>',
        '<subscribe publisher="alice@a.test" duration="1" transID="2147483648"/>',
        '<subscribe publisher="@" duration="1" transID="1"/>',
        '<watch publisher="alice@a.test" duration="1" transID="1"><x/></watch>',
        '<publish publisher="alice@a.test" transID="1" timeStamp="2000-05-14T13:02:00Z"/>',
        '<publish publisher="alice@a.test" transID="1" timeStamp="2000-05-14T13:02:00Z">'
        '<presence publisher="alice@a.test" lastUpdate="2000-05-14T13:02:00Z"/></publish>',
        '<publish publisher="alice@a.test" transID="1" timeStamp="2000-05-14T13:02:00Z">'
        '<presence publisher="alice@a.test" lastUpdate="yesterday">'
        '<tuple destination="mailto:x@a.test" availableUntil="2000-05-14T13:02:00Z"/></presence></publish>',
        '<publish publisher="alice@a.test" transID="1" timeStamp="2000-05-14T13:02:00Z">'
        '<presence publisher="alice@a.test" lastUpdate="2000-05-14T13:02:00Z">'
        '<tuple destination="mailto:x@a.test" availableUntil="9999-12-31T23:59:59-08:00"/></presence></publish>',
    ],
)
@in_world
async def test_what_the_dtd_does_not_allow_is_501(world: World, xml: str) -> None:
    """APEX-22 and the catalogue's kin for presence: refused when it is read."""
    alice = await world.attach("alice@a.test")
    with pytest.raises(WireError) as caught:
        await alice.send(xml)
    assert caught.value.code == 501


# --- signed presence ------------------------------------------------------------------------------------------------------

OPTION = Option(external=SECURED, trans_id=7)


def signed(world: World, word: str = "away") -> tuple[bytes, bytes]:
    """A multipart/signed entity (nobody verifies it here): header block and octets."""
    document = world.bench.document("im:alice@a.test", word).raw
    inner = b"Content-Type: application/pidf+xml\r\n\r\n" + document
    signature = b"Content-Type: application/pkcs7-signature\r\nContent-Transfer-Encoding: base64\r\n\r\nMIIB\r\n"
    octets = b"--b\r\n" + inner + b"\r\n--b\r\n" + signature + b"\r\n--b--\r\n"
    head = b'Content-Type: multipart/signed; protocol="application/pkcs7-signature"; micalg=sha-256; boundary=b\r\n'
    return head, octets


@in_world
async def test_signed_presence_goes_whole_to_who_asked_for_it_and_mapped_to_all(world: World) -> None:
    """X39, SEED-46: as data from apex=presence, octet for octet, named by its transaction."""
    await allow(world, "alice@a.test", "bob@a.test")
    bob, desk = await world.attach("bob@a.test"), await world.attach("bob/desk@a.test")
    await bob.send(Subscribe(ALICE, 600, 7), options=[OPTION])
    await subscribed(world, desk, ALICE)
    alice = await world.attach("alice@a.test")
    head, octets = signed(world)
    heard = await alice.send(Part(head, octets, "1@a.test"), options=[Option(external=SECURED, trans_id=3)])
    assert codes(heard) == [(250, 3)]
    for watcher in (bob, desk):
        (told,) = publishes(watcher.take())
        assert is_open(world, told)
    ((part, options),) = bob.parts
    assert (part.header_block, part.octets) == (head, octets)
    assert [(one.external, one.trans_id) for one in options] == [(SECURED, 7)]
    assert desk.parts == []
    assert world.service.understands(OPTION)


@in_world
async def test_a_phones_signed_presence_reaches_an_apex_watcher(world: World) -> None:
    """X39 with SIP as the other end."""
    bob = await world.attach("alice/desk@a.test")
    await bob.send(Subscribe(ALICE, 600, 7), options=[OPTION])
    head, octets = signed(world)
    whole = MimeObject(head, octets)
    statement = Statement(world.bench.document("im:alice@a.test", "away"), whole)
    world.bench.presence.publish(Address.parse("im:alice@a.test"), statement, world.bench.origin("im:alice@a.test"))
    ((part, _),) = bob.parts
    assert part.octets == octets


@in_world
async def test_what_was_published_before_does_not_come_back_after_signed_presence(world: World) -> None:
    """The signed one takes the place of the entry, and dies with the process (reliability.md section 5.7)."""
    alice = await world.attach("alice@a.test")
    assert codes(await alice.send(world.entry("alice@a.test", NEVER, im(world, 600)))) == [(250, 1)]
    head, octets = signed(world)
    assert codes(await alice.send(Part(head, octets, "1@a.test"), options=[OPTION])) == [(250, 7)]
    await world.restart()
    alice = await world.attach("alice@a.test")
    (read,) = publishes(await alice.send(Subscribe(ALICE, 0, 1)))
    assert not is_open(world, read)


@in_world
async def test_a_part_that_is_no_signed_presence_is_refused(world: World) -> None:
    """501; another's 537."""
    alice, bob = await world.attach("alice@a.test"), await world.attach("bob@a.test")
    plain = world.bench.document("im:alice@a.test").raw
    for media_type in (PIDF_TYPE, "image/gif"):
        part = Part(b"Content-Type: " + media_type.encode() + b"\r\n", plain, "1@a.test")
        assert codes(await alice.send(part, options=[OPTION])) == [(501, 7)]
    head, octets = signed(world)
    assert codes(await bob.send(Part(head, octets, "1@a.test"), options=[OPTION])) == [(537, 7)]


@in_world
async def test_services_are_not_answered(world: World) -> None:
    """ADDR-28: else two services could answer each other for ever."""
    origin = Origin(Address.parse("im:alice@a.test"), "apex", "127.0.0.1", True)
    report = await world.attach("alice@a.test")
    report.endpoint = Endpoint.parse("apex=report@a.test")
    await world.service.handle(report.endpoint, "a.test", Subscribe(ALICE, 0, 1), origin)
    assert report.take() == []


@in_world
async def test_without_presence_everything_is_answered_421(world: World) -> None:
    """SEED-45."""
    world.bench.pipeline.presence = None
    world._begin({})
    bob = await world.attach("bob@a.test")
    assert codes(await bob.send(Subscribe(ALICE, 600, 7))) == [(421, 7)]
    assert codes(await bob.send(Terminate(7))) == [(421, 7)]


@in_loop
async def test_what_cannot_be_kept_is_not_said_yes_to() -> None:
    """Section 5.7 of reliability.md: 421 and 451, and things are as they were."""
    clock = FakeClock()
    store = BadStore(StoreClock(lambda: clock.when().timestamp(), clock.now))
    world = await World(PresenceBench(store, clock=clock)).start()
    alice, bob = await world.attach("alice@a.test"), await world.attach("bob@a.test")
    await allow(world, "alice@a.test", "bob@a.test")
    assert codes(await alice.send(world.entry("alice@a.test", NEVER, im(world, 600)))) == [(250, 1)]
    await subscribed(world, bob, ALICE)
    stamp = await last_update(alice)
    store.is_broken = True
    assert codes(await bob.send(Subscribe(ALICE, 600, 8))) == [(421, 8)]
    assert codes(await bob.send(Terminate(7))) == [(421, 7)]
    assert codes(await alice.send(world.entry("alice@a.test", stamp, im(world, 900)))) == [(451, 1)]
    store.is_broken = False
    assert await last_update(alice) == stamp
    await world.restart()
    await world.bench.advance(40)
    await bob.attach()
    (told,) = publishes(bob.take())
    assert told.trans_id == 7
    assert told.presence.tuples == (im(world, 560),)
    world.bench.presence.stop()


@in_world
async def test_names_that_no_account_can_have_are_answered(world: World) -> None:
    """550, of whoever asks and about whom; nothing fails."""
    odd = Endpoint("a b\u00a0", "", "a.test")
    bob = await world.attach("bob@a.test")
    assert codes(await bob.send(Watch(odd, 600, 1)))[0][0] in (537, 550)
    heard = await bob.send(Subscribe(odd, 0, 2))
    assert [one.trans_id for one in heard if isinstance(one, Publish | Reply)] == [2]
    world.relay.applications[odd] = bob
    bob.endpoint = odd
    assert [one.trans_id for one in await bob.send(Subscribe(ALICE, 0, 3)) if isinstance(one, Publish | Reply)] == [3]


@in_world
async def test_signed_presence_can_be_replaced_by_an_entry(world: World) -> None:
    """APEX-19 after X39: what is read of the signed document is the lastUpdate to send back, though it is an old one."""
    alice = await world.attach("alice@a.test")
    head, octets = signed(world)
    await world.bench.advance(30)
    assert codes(await alice.send(world.entry("alice@a.test", NEVER, im(world, 600)))) == [(250, 1)]
    assert codes(await alice.send(Part(head, octets, "1@a.test"), options=[OPTION])) == [(250, 7)]
    stamp = await last_update(alice)
    assert codes(await alice.send(world.entry("alice@a.test", stamp, im(world, 600)))) == [(250, 1)]
    assert codes(await alice.send(world.entry("alice@a.test", stamp, im(world, 700)))) == [(555, 1)]
    (read,) = publishes(await alice.send(Subscribe(ALICE, 0, 1)))
    assert read.presence.tuples == (im(world, 600),)


@in_world
async def test_who_is_there_and_does_not_take_a_publish_gets_the_last_state_a_little_later(world: World) -> None:
    """The last state is never lost: a full window, or a relay that is away; and an end of it for who never takes anything."""
    await allow(world, "alice@a.test", "bob@a.test")
    bob, alice = await world.attach("bob@a.test"), await world.attach("alice@a.test")
    await subscribed(world, bob, ALICE, duration=80_000)
    await alice.send(Watch(ALICE, 90_000, 2))
    for one in (bob, alice):
        one.is_deaf = True
    for word in ("away", "dnd"):
        world.bench.publish("im:alice@a.test", word)
        await settle()
    await world.bench.watch("im:carol@a.test", "im:alice@a.test", 300)
    await world.bench.advance(1)
    for one in (bob, alice):
        one.is_deaf = False
    assert bob.take() == alice.take() == []
    await world.bench.advance(8)
    assert [one.presence.tuples[0].tuple_info[-3:] for one in publishes(bob.take())] == ["dnd"]
    assert alice.take() == [Notify(Endpoint.parse("carol@a.test"), 2, "subscribe", 298)]
    await world.bench.advance(100)
    assert bob.take() == []
    bob.is_deaf = True
    world.bench.publish("im:alice@a.test", "chat")
    for _ in range(20):
        await world.bench.advance(65)
    bob.is_deaf = False
    await world.bench.advance(3600)
    assert publishes(bob.take()) == []
    await bob.attach()
    (told,) = publishes(bob.take())
    assert told.presence.tuples[0].tuple_info.endswith("chat")


@in_world
async def test_what_waits_to_be_tried_again_is_not_said_after_a_revocation(world: World) -> None:
    """G9."""
    await allow(world, "alice@a.test", "bob@a.test")
    bob = await world.attach("bob@a.test")
    await subscribed(world, bob, ALICE)
    bob.is_deaf = True
    world.bench.publish("im:alice@a.test", "away")
    await settle()
    await world.bench.answer("im:alice@a.test", "im:bob@a.test", Decision.REFUSED)
    bob.is_deaf = False
    await world.bench.advance(300)
    assert publishes(bob.take()) == []


@in_world
async def test_an_entry_that_there_is_no_room_for_is_not_kept(world: World) -> None:
    """[limits] publications: refused now, and not there after a restart."""
    alice = await world.attach("alice@a.test")
    for number in range(20):
        world.bench.publish("im:alice@a.test", key=f"d{number}")
    assert codes(await alice.send(world.entry("alice@a.test", await last_update(alice), im(world, 600)))) == [(450, 1)]
    await world.restart()
    alice = await world.attach("alice@a.test")
    (read,) = publishes(await alice.send(Subscribe(ALICE, 0, 1)))
    assert not is_open(world, read)


@in_world
async def test_the_entry_of_a_removed_account_is_nobodys(world: World) -> None:
    """OPS-34: neither at the end of a tuple nor after a restart, whoever has the name then."""
    alice = await world.attach("alice@a.test")
    entry = world.entry("alice@a.test", NEVER, im(world, 60), im(world, 9000, "mailto:alice@a.test"))
    assert codes(await alice.send(entry)) == [(250, 1)]
    await world.bench.presence.remove(Address.parse("im:alice@a.test"))
    for seconds in (1, 100):
        await world.bench.advance(seconds)
        (read,) = publishes(await alice.send(Subscribe(ALICE, 0, 1)))
        assert not is_open(world, read)
    await world.restart()
    await alice.attach()
    (read,) = publishes(await alice.send(Subscribe(ALICE, 0, 1)))
    assert not is_open(world, read)


@in_world
async def test_a_damaged_entry_harms_nobody_else(world: World) -> None:
    """F-POISON: the others are published after a restart, and its own account can publish anew."""
    alice, bob = await world.attach("alice@a.test"), await world.attach("bob@a.test")
    for who, app in (("alice", alice), ("bob", bob)):
        assert codes(await app.send(world.entry(f"{who}@a.test", NEVER, im(world, 600)))) == [(250, 1)]
    owner = Address.parse("im:alice@a.test")
    await world.bench.presence.documents.put(owner, DOCUMENT, PIDF_TYPE, b"<x", world.bench.origin("im:alice@a.test"))
    await world.restart()
    for app in (alice, bob):
        await app.attach()
    (read,) = publishes(await bob.send(Subscribe(BOB, 0, 1)))
    assert is_open(world, read)
    stamp = await last_update(alice)
    assert codes(await alice.send(world.entry("alice@a.test", stamp, im(world, 600)))) == [(250, 1)]
    (read,) = publishes(await alice.send(Subscribe(ALICE, 0, 1)))
    assert is_open(world, read)
