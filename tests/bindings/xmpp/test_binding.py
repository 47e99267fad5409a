"""The binding on the real service: delivery, "yes" and its time, devices, resumption, limits."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import Any

import pytest

from comity.bindings.xmpp import events, queries
from comity.bindings.xmpp.capabilities import PATIENCE
from comity.bindings.xmpp.e2e import E2E, E2E_ELEMENT, OCTETS, unwrap_entity
from comity.bindings.xmpp.events import ResourceBound, SignInFailed, StreamEnded
from comity.bindings.xmpp.wire import ERROR, error_of
from comity.cpim.address import Address
from comity.cpim.native import wrap
from comity.cpim.operations import MessageOperation, MimeObject, Reason, Requirement, Status
from comity.secure import sign
from comity.service.interfaces import Accepted
from comity.xml import Element
from tests.bindings.xmpp.world import World, run
from tests.secure.kit import identity

BODY = "{jabber:client}body"


def condition(stanza: Element) -> str:
    error = stanza.find(ERROR)
    assert error is not None
    return error_of(error)[0]


def test_two_users_talk() -> None:
    async def story() -> None:
        world = await World().start()
        alice, bob = await world.online("alice@a.test/phone"), await world.online("bob@a.test/pad")
        for n in range(20):
            alice.session.send_stanza(
                Element("{jabber:client}message", {"to": "bob@a.test", "id": str(n)}, [Element(BODY, {}, [str(n)])]), n
            )
        await world.settle()
        assert bob.texts() == [str(n) for n in range(20)]
        assert {m.get("from") for m in bob.messages()} == {"alice@a.test/phone"}
        keys = [k for e in alice.events if isinstance(e, events.StanzasAcknowledged) for k in e.keys if k is not None]
        assert keys == list(range(20))
        assert world.pipeline.counts["accepted"] == 20

    run(story())


def test_starttls_on_the_plain_port() -> None:
    async def story() -> None:
        world = await World().start()
        alice = await world.connect("alice@a.test/phone", tls=False)
        assert alice.of(ResourceBound)
        assert alice.link.is_authenticated

    run(story())


def test_wrong_passwords_are_counted_and_the_address_banned() -> None:
    """Reliability.md section 6.2, failures."""

    async def story() -> None:
        world = await World().start()
        for _ in range(3):
            client = await world.connect("alice@a.test", password="wrong")
            assert client.of(SignInFailed)
        assert world.accounts.counting.failures == [("192.0.2.1", Address.parse("im:alice@a.test"))] * 3
        late = await world.connect("alice@a.test")
        assert not late.of(ResourceBound)
        assert [e.condition for e in late.events if isinstance(e, StreamEnded)] == ["policy-violation"]
        assert late.link.is_closed

    run(story())


def test_plain_password_is_checked_off_the_loop() -> None:
    async def story() -> None:
        world = await World().start()
        link = world.link()
        header = b"<stream:stream to='a.test' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
        auth = b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>%b</auth>"
        for password, expected in ((b"wrong", b"not-authorized"), ("pencil ☃".encode(), b"<success")):
            link.receive(header if b"stream:features" not in link.written else b"")
            link.receive(auth % base64.b64encode(b"\0alice\0" + password))
            await asyncio.wait_for(asyncio.gather(*world.binding._ground.tasks), 5)
            await world.settle()
            await asyncio.wait_for(asyncio.gather(*world.binding._ground.tasks), 5)
            await world.settle()
            assert expected in link.written

    run(story())


def test_yes_is_said_only_when_durable() -> None:
    """Reliability.md section 5.2: ``<a h>`` counts a stanza after the commit."""

    async def story() -> None:
        world = await World().start()
        alice = await world.connect("alice@a.test/phone")
        gate = asyncio.Event()
        real = world.pipeline.submit

        def slow(operation: MessageOperation, origin: object) -> asyncio.Future[object]:
            async def later() -> object:
                await gate.wait()
                return await real(operation, origin)  # type: ignore[arg-type]  # passed through

            return asyncio.ensure_future(later())

        world.pipeline.submit = slow  # type: ignore[method-assign,assignment]  # the store is slow today
        await alice.say("bob@a.test", "one")
        assert not alice.of(events.StanzasAcknowledged)
        gate.set()
        await world.settle()
        assert alice.of(events.StanzasAcknowledged) == [events.StanzasAcknowledged(("one",))]

    run(story())


def test_failures_come_back_as_errors_with_the_same_id() -> None:
    """X-57, X-58, XMPP-6, XMPP-7."""

    async def story() -> None:
        world = await World().start()
        alice = await world.connect("alice@a.test/phone")
        await alice.say("nobody@a.test", "1")
        await alice.say("someone@elsewhere.test", "2")
        await alice.say("bob@a.test", "3", type="groupchat")
        assert [(e.get("id"), condition(e)) for e in alice.errors()] == [
            ("1", "service-unavailable"),
            ("2", "remote-server-not-found"),
            ("3", "feature-not-implemented"),
        ]

    run(story())


def test_offline_messages_come_with_their_time() -> None:
    """XEP-0203."""

    async def story() -> None:
        world = await World().start()
        alice = await world.connect("alice@a.test/phone")
        await alice.say("bob@a.test", "early")
        world.clock.advance(100.0)
        bob = await world.online("bob@a.test/pad")
        assert bob.texts() == ["early"]
        delay = bob.messages()[0].find("{urn:xmpp:delay}delay")
        assert delay is not None
        assert delay.get("stamp").startswith("2026-01-01T00:00:00")

    run(story())


def test_repeat_after_a_lost_acknowledgement_is_one_message() -> None:
    """Reliability.md section 5.3: to and origin-id or id."""

    async def story() -> None:
        world = await World().start()
        bob = await world.online("bob@a.test/pad")
        for _ in range(2):
            alice = await world.connect("alice@a.test/phone")
            await alice.say("bob@a.test", "same")
        assert bob.texts() == ["same"]
        assert world.pipeline.counts["repeated"] == 1
        other = Element("{jabber:client}body", {}, ["other octets"])
        await alice.send(Element("{jabber:client}message", {"to": "bob@a.test", "id": "same"}, [other]))
        assert bob.texts() == ["same", "other octets"], "same id with other octets is another message"

    run(story())


def test_device_gets_by_resource_and_priority() -> None:
    """XMPP-9."""

    async def story() -> None:
        world = await World().start()
        alice = await world.connect("alice@a.test/phone")
        pad = await world.online("bob@a.test/pad", priority=5)
        hidden = await world.online("bob@a.test/hidden", priority=-1)
        await alice.say("bob@a.test", "to all")
        await alice.say("bob@a.test/hidden", "to one")
        assert pad.texts() == ["to all"]
        assert hidden.texts() == ["to one"]
        assert hidden.messages()[0].get("to") == "bob@a.test/hidden"
        assert pad.messages()[0].get("to") == "bob@a.test"

    run(story())


def test_delivery_without_stream_management_waits_for_a_sign_of_life() -> None:
    """Reliability.md section 5.2: the kernel's word is not the device's."""

    async def story() -> None:
        world = await World().start()
        alice = await world.connect("alice@a.test/phone")
        bob = await world.online("bob@a.test/pad", sm=False)
        bob.acknowledges = False  # reads everything, answers nothing
        await alice.say("bob@a.test", "x")
        assert bob.texts() == ["x"]
        assert len(world.binding._ground.devices.by_link[bob.link].flights) == 1
        await bob.lose()
        again = await world.online("bob@a.test/pad", sm=False)
        assert again.texts() == ["x"], "nobody can say that the first one was read"
        assert not world.binding._ground.devices.by_link[again.link].flights
        later = await world.online("bob@a.test/later", sm=False)
        assert later.texts() == []

    run(story())


def test_delivery_with_stream_management_waits_for_the_client() -> None:
    async def story() -> None:
        world = await World().start()
        alice = await world.connect("alice@a.test/phone")
        bob = await world.online("bob@a.test/pad")
        bob.acknowledges = False
        await alice.say("bob@a.test", "x")
        assert bob.texts() == ["x"]
        connection = world.binding._ground.devices.by_link[bob.link]
        assert len(connection.flights) == 1
        last = [e for e in bob.events if isinstance(e, events.StanzaReceived)]
        for event in last:
            bob.session.stanza_handled(event.index)
        await world.settle()
        assert not connection.flights

    run(story())


def test_broken_stream_is_resumed_and_nothing_is_lost_or_doubled() -> None:
    async def story() -> None:
        world = await World().start()
        alice = await world.connect("alice@a.test/phone")
        bob = await world.online("bob@a.test/pad")
        bob.link.is_cut = True
        await alice.say("bob@a.test", "cut off")
        await bob.lose()
        await alice.say("bob@a.test", "while away")
        assert bob.texts() == []
        again = await world.connect("bob@a.test/pad", resume=bob.session.sm_state)
        assert again.of(events.Resumed)
        assert again.texts() == ["cut off", "while away"]

    run(story())


def test_stream_not_resumed_in_time_gives_its_messages_to_the_next() -> None:
    async def story() -> None:
        world = await World().start()
        alice = await world.connect("alice@a.test/phone")
        bob = await world.online("bob@a.test/pad")
        bob.link.is_cut = True
        await alice.say("bob@a.test", "cut off")
        await bob.lose()
        state = bob.session.sm_state
        world.clock.advance(301.0)
        await world.settle()
        again = await world.connect("bob@a.test/other", resume=state)
        assert not again.of(events.Resumed)
        await again.present()
        assert again.texts() == ["cut off"]

    run(story())


def test_stream_of_another_user_cannot_be_taken() -> None:
    """X-70."""

    async def story() -> None:
        world = await World().start()
        bob = await world.online("bob@a.test/pad")
        mallory = await world.connect("carol@a.test/x", resume=bob.session.sm_state)
        assert not mallory.of(events.Resumed)
        assert mallory.of(ResourceBound)
        alice = await world.connect("alice@a.test/phone")
        await alice.say("bob@a.test", "still here")
        assert bob.texts() == ["still here"]

    run(story())


def test_live_stream_can_be_resumed_by_its_owner() -> None:
    async def story() -> None:
        world = await World().start()
        bob = await world.online("bob@a.test/pad")
        bob.link.is_cut = True  # dead, but TCP has not noticed
        again = await world.connect("bob@a.test/pad", resume=bob.session.sm_state)
        assert again.of(events.Resumed)
        assert bob.link.is_closed
        alice = await world.connect("alice@a.test/phone")
        await alice.say("bob@a.test", "x")
        assert again.texts() == ["x"]

    run(story())


def test_second_bind_of_a_resource_replaces_the_first() -> None:
    async def story() -> None:
        world = await World().start()
        first = await world.online("bob@a.test/pad")
        second = await world.online("bob@a.test/pad")
        assert [e.condition for e in first.events if isinstance(e, StreamEnded)] == ["conflict"]
        assert first.link.is_closed
        alice = await world.connect("alice@a.test/phone")
        await alice.say("bob@a.test", "x")
        assert second.texts() == ["x"]

    run(story())


def test_too_many_resources_are_refused() -> None:
    async def story() -> None:
        world = await World(contacts=2).start()
        for resource in ("1", "2"):
            assert (await world.connect(f"bob@a.test/{resource}")).of(ResourceBound)
        third = await world.connect("bob@a.test/3")
        assert [e.condition for e in third.events if isinstance(e, StreamEnded)] == ["resource-constraint"]

    run(story())


def test_own_devices_see_each_other_come_and_go() -> None:
    async def story() -> None:
        world = await World().start()
        one = await world.online("bob@a.test/one")
        two = await world.online("bob@a.test/two")
        assert {p.get("from") for p in two.presences()} == {"bob@a.test/one", "bob@a.test/two"}
        assert [p.get("from") for p in one.presences()] == ["bob@a.test/one", "bob@a.test/two"]
        await two.send(Element("{jabber:client}presence", {"type": "unavailable"}))
        assert one.presences()[-1].get("type") == "unavailable"
        await two.say("alice@a.test", "still connected")
        await one.lose()
        alice = await world.connect("alice@a.test/x")
        await alice.say("bob@a.test", "nobody there")
        assert two.texts() == []

    run(story())


@pytest.mark.parametrize("priority", ["200", "x", ""])
def test_bad_priority_is_refused(priority: str) -> None:
    """XMPP-15."""

    async def story() -> None:
        world = await World().start()
        bob = await world.connect("bob@a.test/pad")
        number = Element("{jabber:client}priority", {}, [priority])
        await bob.send(Element("{jabber:client}presence", {}, [number]))
        assert [condition(e) for e in bob.errors()] == ["bad-request"]

    run(story())


def announce(features: list[str], ver: str | None = None) -> tuple[Element, Element]:
    """A caps element and the disco#info query that belongs to it."""
    query = Element(
        f"{{{queries.DISCO_INFO}}}query",
        {},
        [
            Element(f"{{{queries.DISCO_INFO}}}identity", {"category": "client", "type": "pc"}),
            *[Element(f"{{{queries.DISCO_INFO}}}feature", {"var": f}) for f in features],
        ],
    )
    text = queries.verification_string(query)
    assert text is not None
    right = base64.b64encode(hashlib.sha1(text.encode()).digest()).decode()
    caps = {"hash": "sha-1", "node": "https://c.test", "ver": ver or right}
    return Element(f"{{{queries.CAPS}}}c", caps), query


@pytest.mark.parametrize("ver", [None, "poisoned"])
def test_device_that_takes_objects_gets_them(ver: str | None) -> None:
    """XEP-0115, X-66: a wrong hash counts for this device only."""

    async def story() -> None:
        world = await World().start()
        caps, query = announce([E2E, OCTETS], ver)
        bob = await world.connect("bob@a.test/pad")
        await bob.present(0, caps)
        asked = next(s for s in bob.stanzas if s.local == "iq" and s.get("type") == "get")
        answer = {"type": "result", "id": asked.get("id"), "to": asked.get("from")}
        await bob.send(Element("{jabber:client}iq", answer, [query]))
        source, destination = Address.parse("im:alice@a.test"), Address.parse("im:bob@a.test")
        thing = wrap(source, destination, b"hi", "text/plain; charset=utf-8", when=world.clock.when(), message_id="m")
        assert isinstance(await world.submit(MessageOperation(source, destination, "t", thing)), Accepted)
        (message,) = bob.messages()
        carrier = message.find(E2E_ELEMENT)
        assert carrier is not None
        assert unwrap_entity(carrier) == thing.entity
        second = await world.connect("bob@a.test/two")
        await second.present(0, caps)
        was_asked = any(s.local == "iq" and s.get("type") == "get" for s in second.stanzas)
        assert was_asked is (ver is not None)

    run(story())


def test_silent_device_is_given_messages_after_a_moment() -> None:
    async def story() -> None:
        world = await World().start()
        alice = await world.connect("alice@a.test/phone")
        await alice.say("bob@a.test", "x")
        bob = await world.connect("bob@a.test/pad")
        await bob.present(0, announce([E2E])[0])
        assert bob.texts() == []
        world.clock.advance(PATIENCE)
        await world.settle()
        assert bob.texts() == ["x"]

    run(story())


def test_device_that_answers_with_an_error_is_given_messages() -> None:
    """RFC 6120 section 8.3: it cannot or will not say; that is no reason to keep its messages for ever."""

    async def story() -> None:
        world = await World().start()
        alice = await world.connect("alice@a.test/phone")
        await alice.say("bob@a.test", "x")
        bob = await world.connect("bob@a.test/pad")
        await bob.present(0, announce([E2E])[0])
        asked = next(s for s in bob.stanzas if s.local == "iq" and s.get("type") == "get")
        answer = {"type": "error", "id": asked.get("id"), "to": asked.get("from")}
        await bob.send(Element("{jabber:client}iq", answer))
        assert bob.texts() == ["x"]

    run(story())


def test_silent_device_that_goes_and_comes_again_is_given_messages() -> None:
    async def story() -> None:
        world = await World().start()
        bob = await world.connect("bob@a.test/pad")
        caps = announce([E2E])[0]
        for _ in range(2):
            await bob.present(0, caps)
            world.clock.advance(PATIENCE)
            await world.settle()
            await bob.send(Element("{jabber:client}presence", {"type": "unavailable"}))
        await bob.present(0, caps)
        alice = await world.connect("alice@a.test/phone")
        await alice.say("bob@a.test", "x")
        assert bob.texts() == []
        world.clock.advance(PATIENCE)
        await world.settle()
        assert bob.texts() == ["x"]

    run(story())


@pytest.mark.parametrize("is_silent", [False, True])
def test_a_stream_resumed_before_the_answer_still_waits_for_it(is_silent: bool) -> None:
    """T11: what has to be handed over whole would fail for good at a device that is about to say that it takes it."""

    async def story() -> None:
        world = await World().start()
        bob = await world.connect("bob@a.test/pad")
        caps, query = announce([E2E, OCTETS])
        await bob.present(0, caps)
        asked = next(s for s in bob.stanzas if s.local == "iq" and s.get("type") == "get")
        await bob.lose()
        again = await world.connect("bob@a.test/pad", resume=bob.session.sm_state)
        assert again.of(events.Resumed)
        source, destination = Address.parse("im:alice@a.test"), Address.parse("im:bob@a.test")
        thing = wrap(source, destination, b"hi", "text/plain; charset=utf-8", when=world.clock.when(), message_id="m")
        signed = sign(thing, identity(), when=world.clock.when())
        requirements = frozenset({Requirement.SIGNED})
        answer = await world.submit(MessageOperation(source, destination, "t", signed, requirements=requirements))
        assert isinstance(answer, Accepted)
        assert again.messages() == []
        if is_silent:
            world.clock.advance(PATIENCE)
            await world.settle()
            assert again.messages() == []
            assert [lane.lane for lane in await world.store.lanes()] == ["inbox/im:alice@a.test"], "a report"
            return
        told = {"type": "result", "id": asked.get("id"), "to": asked.get("from")}
        await again.send(Element("{jabber:client}iq", told, [query]))
        (message,) = again.messages()
        carrier = message.find(E2E_ELEMENT) or message.find("{urn:comity:octets:0}octets")
        assert carrier is not None

    run(story())


def test_device_that_refuses_afterwards_makes_a_report() -> None:
    """T3, GW-12."""

    async def story() -> None:
        world = await World().start()
        alice, bob = await world.online("alice@a.test/phone"), await world.online("bob@a.test/pad")
        await alice.say("bob@a.test", "x")
        got = bob.messages()[0]
        error = Element(ERROR, {"type": "cancel"}, [Element("{urn:ietf:params:xml:ns:xmpp-stanzas}not-acceptable")])
        refusal = {"type": "error", "id": got.get("id"), "to": got.get("from")}
        await bob.send(Element("{jabber:client}message", refusal, [error]))
        assert [(e.get("id"), e.get("from"), condition(e)) for e in alice.errors()] == [
            ("x", "bob@a.test", "not-acceptable")
        ]
        await bob.send(Element("{jabber:client}message", {**refusal, "id": "never seen"}, [error]))
        assert len(alice.errors()) == 1

    run(story())


STANZAS = "urn:ietf:params:xml:ns:xmpp-stanzas"


def refusal_of(got: Element, name: str, detail: str = "", namespace: str = E2E) -> Element:
    """The error stanza by which a device refuses a message."""
    children: list[Element | str] = [Element(f"{{{STANZAS}}}{name}")]
    children += [Element(f"{{{namespace}}}{detail}")] if detail else []
    error = Element(ERROR, {"type": "modify"}, children)
    return Element("{jabber:client}message", {"type": "error", "id": got.get("id"), "to": got.get("from")}, [error])


@pytest.mark.parametrize(
    ("name", "detail", "reason"),
    [
        ("not-acceptable", "bad-timestamp", Reason.TIMESTAMP),
        ("not-acceptable", "unverified-signature", Reason.SIGNATURE),
        ("bad-request", "decryption-failed", Reason.DECRYPTION),
        ("service-unavailable", "", Reason.CONTENT),
    ],
)
def test_what_a_device_refuses_before_it_confirms_is_its_answer(name: str, detail: str, reason: Reason) -> None:
    """T8, RFC 3923 section 7: no "delivered" first, no second delivery, and the confirmation changes nothing."""

    async def story() -> None:
        world = await World().start()
        bob = await world.online("bob@a.test/pad")
        bob.acknowledges = False
        alice = Address.parse("im:alice@a.test")
        secret = MimeObject.of("application/pkcs7-mime; smime-type=enveloped-data", b"MIIB\r\n")
        accepted = await world.submit(MessageOperation(alice, Address.parse("im:bob@a.test"), "t", secret))
        assert isinstance(accepted, Accepted)
        assert not accepted.outcome.done()
        (got,) = bob.messages()
        await bob.send(refusal_of(got, name, detail))
        assert accepted.outcome.done()
        assert (accepted.outcome.result().status, accepted.outcome.result().reason) == (Status.FAILURE, reason)
        for event in bob.of(events.StanzaReceived):
            assert isinstance(event, events.StanzaReceived)
            bob.session.stanza_handled(event.index)
        await world.settle()
        await bob.send(refusal_of(got, name, detail))  # once more: there is nothing left to refuse
        again = await world.online("bob@a.test/other")
        assert again.messages() == []
        assert world.pipeline.counts["reported"] == 0

    run(story())


@pytest.mark.parametrize("is_first", [True, False])
def test_what_one_device_cannot_decrypt_another_may(is_first: bool) -> None:
    """T8: the message fails only if no device takes it; who refuses before another confirms changes nothing."""

    async def story() -> None:
        world = await World().start()
        laptop, phone = await world.online("bob@a.test/laptop"), await world.online("bob@a.test/phone")
        laptop.acknowledges = phone.acknowledges = False
        secret = MimeObject.of("application/pkcs7-mime; smime-type=enveloped-data", b"MIIB\r\n")
        people = Address.parse("im:alice@a.test"), Address.parse("im:bob@a.test")
        accepted = await world.submit(MessageOperation(*people, "t", secret))
        assert isinstance(accepted, Accepted)

        async def take() -> None:
            for event in phone.of(events.StanzaReceived):
                assert isinstance(event, events.StanzaReceived)
                phone.session.stanza_handled(event.index)
            await world.settle()

        if not is_first:
            await take()
        await laptop.send(refusal_of(laptop.messages()[0], "bad-request", "decryption-failed"))
        if is_first:
            assert not accepted.outcome.done()
            await take()
        assert accepted.outcome.result().status is Status.SUCCESS
        assert world.pipeline.counts["reported"] == 0

    run(story())


def test_a_refusal_is_of_the_message_of_whom_it_is_addressed_to() -> None:
    """Senders choose ids: nobody makes another's message fail by choosing the same, whichever came last."""

    async def story() -> None:
        world = await World().start()
        alice, carol = await world.online("alice@a.test/phone"), await world.online("carol@a.test/phone")
        bob = await world.online("bob@a.test/pad")
        await alice.say("bob@a.test", "1")
        await carol.say("bob@a.test", "1")
        from_alice, _ = bob.messages()
        await bob.send(refusal_of(from_alice, "not-acceptable", "unverified-signature"))
        assert [len(alice.errors()), len(carol.errors())] == [1, 0]
        await bob.send(refusal_of(from_alice, "not-acceptable", "unverified-signature"))
        assert [len(alice.errors()), len(carol.errors())] == [1, 0]

    run(story())


def test_a_refusal_that_may_pass_ends_no_flight() -> None:
    """A device that says "wait" is not handed the same again at once; the sender is told."""

    async def story() -> None:
        world = await World().start()
        bob = await world.online("bob@a.test/pad")
        bob.acknowledges = False
        alice = await world.online("alice@a.test/phone")
        await alice.say("bob@a.test", "x")
        (got,) = bob.messages()
        await bob.send(refusal_of(got, "resource-constraint"))
        assert [condition(error) for error in alice.errors()] == ["resource-constraint"]
        await world.settle()
        assert len(bob.messages()) == 1

    run(story())


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("not-acceptable", "bad-timestamp"),
        ("not-acceptable", "unverified-signature"),
        ("bad-request", "decryption-failed"),
        ("not-acceptable", ""),
    ],
)
def test_the_senders_program_sees_the_condition_of_rfc_3923(name: str, detail: str) -> None:
    """T8, X27: type modify, the detail in the registered namespace, the sender's own identifier."""

    async def story() -> None:
        world = await World().start()
        alice, bob = await world.online("alice@a.test/phone"), await world.online("bob@a.test/pad")
        bob.acknowledges = False
        await alice.say("bob@a.test", "x")
        (got,) = bob.messages()
        await bob.send(refusal_of(got, name, detail, "urn:ietf:params:xml:xmpp-e2e"))
        (error,) = alice.errors()
        assert (error.get("id"), error.get("from")) == ("x", "bob@a.test")
        found = error.find(ERROR)
        assert found is not None
        assert found.get("type") == "modify"
        assert error_of(found)[0] == name
        assert [child.name for child in found.elements() if child.namespace == E2E] == (
            [f"{{{E2E}}}{detail}"] if detail else []
        )

    run(story())


@pytest.mark.parametrize(
    ("config", "stanza"),
    [
        ({"user_stanzas": 2.0}, Element("{jabber:client}iq", {"type": "result", "id": "x", "to": "a.test"})),
        ({"user_octets": 1000.0, "stanza": 10_000}, Element("{jabber:client}presence", {}, ["x" * 600])),
    ],
    ids=["stanzas", "octets"],
)
def test_a_flood_of_anything_is_slowed_not_refused(config: dict[str, Any], stanza: Element) -> None:
    """Reliability.md section 6.2: stanzas and octets of a user."""

    async def story() -> None:
        world = await World(**config).start()
        alice = await world.connect("alice@a.test/phone")
        for _ in range(30):
            await alice.send(stanza)
        assert alice.link.is_paused
        connection = world.binding._ground.devices.by_link[alice.link]
        wait = connection.rates.debt_seconds
        assert 0 < wait < 10
        world.clock.advance(wait)
        assert not alice.link.is_paused
        assert not alice.of(StreamEnded)
        assert not alice.errors()

    run(story())


REFUSED, STORED, SILENT = "refused", "stored", "silent"
#: RFC 6121 table 1, what is chosen where it leaves a choice: (who is there, to, type) to what becomes of it. The devices
#: are named by their priorities.
RULES = [
    ((), "nobody@a.test", "normal", REFUSED),
    ((), "nobody@a.test", "chat", REFUSED),
    ((), "nobody@a.test", "headline", SILENT),
    ((), "nobody@a.test/5", "chat", REFUSED),
    ((), "bob@a.test", "normal", STORED),
    ((), "bob@a.test", "chat", STORED),
    ((), "bob@a.test", "headline", SILENT),
    ((), "bob@a.test/5", "normal", REFUSED),
    ((), "bob@a.test/5", "chat", STORED),
    ((), "bob@a.test/5", "headline", SILENT),
    ((-1,), "bob@a.test", "normal", STORED),
    ((-1,), "bob@a.test", "chat", STORED),
    ((-1,), "bob@a.test", "headline", SILENT),
    ((-1,), "bob@a.test/-1", "normal", (-1,)),
    ((-1,), "bob@a.test/-1", "chat", (-1,)),
    ((-1,), "bob@a.test/-1", "headline", (-1,)),
    ((-1,), "bob@a.test/5", "normal", REFUSED),
    ((-1,), "bob@a.test/5", "chat", STORED),
    ((-1,), "bob@a.test/5", "headline", SILENT),
    ((0, 5, -1), "bob@a.test", "normal", (0, 5)),
    ((0, 5, -1), "bob@a.test", "chat", (0, 5)),
    ((0, 5, -1), "bob@a.test", "headline", (0, 5)),
    ((0, 5, -1), "bob@a.test/5", "normal", (5,)),
    ((0, 5, -1), "bob@a.test/5", "chat", (5,)),
    ((0, 5, -1), "bob@a.test/5", "headline", (5,)),
    ((0, 5, -1), "bob@a.test/7", "normal", REFUSED),
    ((0, 5, -1), "bob@a.test/7", "chat", (0, 5)),
    ((0, 5, -1), "bob@a.test/7", "headline", SILENT),
    *[
        (there, to, "groupchat", REFUSED)
        for there in ((), (0, 5))
        for to in ("nobody@a.test", "bob@a.test", "bob@a.test/5")
    ],
    *[(there, to, "error", SILENT) for there in ((), (0, 5)) for to in ("nobody@a.test", "bob@a.test", "bob@a.test/7")],
]


@pytest.mark.parametrize(("there", "to", "kind", "expected"), RULES)
def test_delivery_rules(there: tuple[int, ...], to: str, kind: str, expected: str | tuple[int, ...]) -> None:
    """XMPP-9, GW-18: RFC 6121 section 8.5.4, every cell; ``to`` is never rewritten."""

    async def story() -> None:
        world = await World().start()
        alice = await world.online("alice@a.test/phone")
        devices = {number: await world.online(f"bob@a.test/{number}", priority=number) for number in there}
        await alice.say(to, "x", type=kind)
        got = tuple(number for number, device in devices.items() if device.texts() == ["x"])
        assert all(m.get("to") == to for device in devices.values() for m in device.messages())
        pending = sum(lane.pending for lane in await world.store.lanes())
        answer = tuple(condition(e) for e in alice.errors())
        if expected == REFUSED:
            assert (got, pending) == ((), 0)
            assert answer == ("feature-not-implemented" if kind == "groupchat" else "service-unavailable",)
        else:
            assert (got, pending, answer) == (
                expected if isinstance(expected, tuple) else (),
                int(expected == STORED),
                (),
            )

    run(story())


def test_fast_sender_is_slowed_not_refused() -> None:
    """Reliability.md section 6.2, rate."""

    async def story() -> None:
        world = await World(user_message_burst=5, user_messages=10.0).start()
        alice, bob = await world.connect("alice@a.test/phone"), await world.online("bob@a.test/pad")
        for n in range(8):
            await alice.say("bob@a.test", str(n))
            if n < 5:
                assert not alice.link.is_paused
        assert alice.link.is_paused
        for _ in range(20):
            world.clock.advance(0.1)
            await world.settle()
        assert not alice.link.is_paused
        assert bob.texts() == [str(n) for n in range(8)]
        assert not alice.errors()

    run(story())


QUERIES = [
    (queries.DISCO_INFO, "query", "get", "result"),
    (queries.DISCO_ITEMS, "query", "get", "result"),
    (queries.PING, "ping", "get", "result"),
    (queries.VERSION, "query", "get", "result"),
    (queries.TIME, "time", "get", "result"),
    (queries.ROSTER, "query", "get", "result"),
    (queries.ROSTER, "query", "set", "not-allowed"),
    (queries.VCARD, "vCard", "get", "item-not-found"),
    ("jabber:iq:register", "query", "set", "forbidden"),
    ("jabber:iq:auth", "query", "set", "forbidden"),
    ("http://jabber.org/protocol/commands", "command", "set", "forbidden"),
    ("urn:unknown", "x", "get", "service-unavailable"),
    ("urn:unknown", "x", "set", "service-unavailable"),
]


@pytest.mark.parametrize(("namespace", "name", "kind", "expected"), QUERIES)
@pytest.mark.parametrize("to", ["", "a.test"])
def test_queries_to_the_server(namespace: str, name: str, kind: str, expected: str, to: str) -> None:
    """X-53, X-65, XEP-0030, XEP-0199."""

    async def story() -> None:
        world = await World().start()
        alice = await world.connect("alice@a.test/phone")
        answer = await alice.ask(Element(f"{{{namespace}}}{name}"), to, kind)
        assert (answer.get("type") if answer.get("type") == "result" else condition(answer)) == expected

    run(story())


def test_queries_between_devices_are_carried() -> None:
    async def story() -> None:
        world = await World().start()
        alice, bob = await world.online("alice@a.test/phone"), await world.online("bob@a.test/pad")
        await alice.send(
            Element("{jabber:client}iq", {"type": "get", "id": "9", "to": "bob@a.test/pad"}, [Element("{u}x")])
        )
        asked = bob.stanzas[-1]
        assert (asked.get("id"), asked.get("from")) == ("9", "alice@a.test/phone")
        await bob.send(Element("{jabber:client}iq", {"type": "result", "id": "9", "to": asked.get("from")}))
        assert alice.stanzas[-1].get("id") == "9"
        for to, expected in [
            ("bob@a.test/none", "service-unavailable"),
            ("carol@a.test", "service-unavailable"),
            ("x@else.test", "remote-server-not-found"),
        ]:
            assert condition(await alice.ask(Element("{u}x"), to, id=to)) == expected

    run(story())


def test_roster_push_by_another_user_is_not_carried() -> None:
    """X-62."""

    async def story() -> None:
        world = await World().start()
        alice, bob = await world.online("alice@a.test/phone"), await world.online("bob@a.test/pad")
        before = len(bob.stanzas)
        answer = await alice.ask(Element(f"{{{queries.ROSTER}}}query"), "bob@a.test/pad", "set")
        assert condition(answer) == "service-unavailable"
        assert len(bob.stanzas) == before

    run(story())


def test_drain_says_goodbye() -> None:
    async def story() -> None:
        world = await World().start()
        alice = await world.online("alice@a.test/phone")
        drained = asyncio.ensure_future(world.binding.drain())
        await world.settle()
        await asyncio.wait_for(drained, 1)
        assert [e.condition for e in alice.events if isinstance(e, StreamEnded)] == ["system-shutdown"]
        assert not world.binding._ground.devices.by_link
        late = world.link()
        late.pump()
        assert b"system-shutdown" in late.written

    run(story())


def test_plaintext_only_from_exempt_networks() -> None:
    """Reliability.md section 6.1, item 1."""

    async def story() -> None:
        world = await World(plaintext_from=("10.0.0.0/8", "::1/128")).start()
        for host, allowed in [("10.1.2.3", True), ("192.0.2.1", False), ("::1", True), ("::1%lo", True), ("x", False)]:
            link = world.link(tls=False, host=host)
            link.receive(
                b"<stream:stream to='a.test' xmlns='jabber:client' "
                b"xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
            )
            assert (b"mechanism>" in link.written) is allowed
            assert (b"<required/>" in link.written) is not allowed

    run(story())


def test_verification_string_of_xep_0115() -> None:
    """XEP-0115 section 5.2, simple example."""
    info = queries.DISCO_INFO
    query = Element(
        f"{{{info}}}query",
        {},
        [
            Element(f"{{{info}}}identity", {"category": "client", "type": "pc", "name": "Exodus 0.9.1"}),
            *[
                Element(f"{{{info}}}feature", {"var": f})
                for f in (
                    "http://jabber.org/protocol/caps",
                    info,
                    queries.DISCO_ITEMS,
                    "http://jabber.org/protocol/muc",
                )
            ],
        ],
    )
    assert queries.is_hash_right(query, "sha-1", "QgayPKawpkPSDYmwT/WM94uAlu0=")
    assert not queries.is_hash_right(query, "sha-256", "QgayPKawpkPSDYmwT/WM94uAlu0=")
    assert not queries.is_hash_right(query, "md2", "QgayPKawpkPSDYmwT/WM94uAlu0=")
