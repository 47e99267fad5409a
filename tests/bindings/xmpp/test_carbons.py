"""Message Carbons (XEP-0280) and what nobody sees need not be told at once (XEP-0352)."""

from __future__ import annotations

import pytest

from comity.bindings.xmpp import events
from comity.bindings.xmpp.e2e import E2E, E2E_ELEMENT, unwrap_entity
from comity.bindings.xmpp.queries import CARBONS
from comity.cpim.address import Address
from comity.cpim.native import wrap
from comity.cpim.operations import Context, MessageOperation
from comity.xml import Element
from tests.bindings.xmpp.test_binding import announce
from tests.bindings.xmpp.world import Client, World, run

MESSAGE = "{jabber:client}message"
FORWARDED = "{urn:xmpp:forward:0}forwarded"
CSI = "urn:xmpp:csi:0"


async def copied(world: World, jid: str, *, priority: int = 0) -> Client:
    """A device with carbons."""
    client = await world.online(jid, priority=priority)
    answer = await client.ask(Element(f"{{{CARBONS}}}enable"), kind="set", id="carbons")
    assert answer.get("type") == "result"
    return client


def copies(client: Client, name: str) -> list[Element]:
    """The messages inside the copies a device got; each wrapped as the XEP says."""
    found = []
    for message in client.messages():
        wrapper = message.find(f"{{{CARBONS}}}{name}")
        if wrapper is not None:
            jid = client.session.jid
            assert jid is not None
            assert (message.get("from"), message.get("to")) == (str(jid.bare), str(jid))
            (forwarded,) = wrapper.elements()
            assert forwarded.name == FORWARDED
            (inner,) = forwarded.elements()
            assert inner.get("type") == message.get("type")
            found.append(inner)
    return found


def texts(messages: list[Element]) -> list[str]:
    return [body.text for message in messages if (body := message.find("{jabber:client}body")) is not None]


def test_other_devices_of_the_sender_get_what_it_sent() -> None:
    async def story() -> None:
        world = await World().start()
        phone, pad = await world.online("alice@a.test/phone"), await copied(world, "alice@a.test/pad")
        plain, bob = await world.online("alice@a.test/plain"), await world.online("bob@a.test/x")
        await phone.say("bob@a.test", "hello", type="chat")
        (copy,) = copies(pad, "sent")
        assert (copy.get("from"), copy.get("to"), copy.get("id")) == ("alice@a.test/phone", "bob@a.test", "hello")
        assert texts([copy]) == ["hello"]
        assert copy.find("{urn:xmpp:sid:0}stanza-id") is None
        assert (phone.messages(), plain.messages(), bob.texts()) == ([], [], ["hello"])
        await pad.say("bob@a.test", "from the pad", type="chat")
        assert texts(copies(pad, "sent")) == ["hello"], "never to the device that sent it"

    run(story())


def test_other_devices_of_the_recipient_get_what_they_were_not_given() -> None:
    async def story() -> None:
        world = await World().start()
        alice, phone = await world.online("alice@a.test/x"), await world.online("bob@a.test/phone")
        pad, hidden = await copied(world, "bob@a.test/pad"), await copied(world, "bob@a.test/hidden", priority=-1)
        await alice.say("bob@a.test/phone", "for the phone", type="chat")
        assert phone.texts() == ["for the phone"]
        for device in (pad, hidden):
            assert texts(copies(device, "received")) == ["for the phone"]
        await alice.say("bob@a.test", "for all", type="chat")
        assert pad.texts() == ["for all"], "the message itself, no copy beside it"
        assert texts(copies(hidden, "received")) == ["for the phone", "for all"]

    run(story())


@pytest.mark.parametrize("child", [f"{{{CARBONS}}}private", "{urn:xmpp:hints}no-copy"])
def test_a_private_message_is_not_copied(child: str) -> None:
    async def story() -> None:
        world = await World().start()
        phone, pad = await world.online("alice@a.test/phone"), await copied(world, "alice@a.test/pad")
        bob, other = await world.online("bob@a.test/x"), await copied(world, "bob@a.test/y")
        body = Element("{jabber:client}body", {}, ["psst"])
        await phone.send(Element(MESSAGE, {"to": "bob@a.test/x", "type": "chat"}, [body, Element(child)]))
        assert bob.texts() == ["psst"]
        assert bob.messages()[0].find(f"{{{CARBONS}}}private") is None
        assert (pad.messages(), other.messages()) == ([], [])

    run(story())


def test_headlines_and_refused_messages_are_not_copied() -> None:
    async def story() -> None:
        world = await World().start()
        phone, pad = await world.online("alice@a.test/phone"), await copied(world, "alice@a.test/pad")
        await world.online("bob@a.test/x")
        await phone.say("bob@a.test", "news", type="headline")
        await phone.say("nobody@a.test", "lost", type="chat")
        for _ in range(2):
            await phone.say("bob@a.test", "same", type="chat")
        assert texts(copies(pad, "sent")) == ["same"], "a repeat is not copied again"

    run(story())


def test_copies_are_switched_off_and_unknown_requests_refused() -> None:
    async def story() -> None:
        world = await World().start()
        phone, pad = await world.online("alice@a.test/phone"), await copied(world, "alice@a.test/pad")
        for name, expected in [("enable", "result"), ("disable", "result"), ("disable", "result"), ("copy", "error")]:
            answer = await pad.ask(Element(f"{{{CARBONS}}}{name}"), kind="set", id=f"{name}{len(pad.stanzas)}")
            assert answer.get("type") == expected
        await phone.say("bob@a.test", "x", type="chat")
        assert not pad.messages()

    run(story())


def test_a_device_that_is_still_asked_what_it_knows_gets_the_message_and_no_copy() -> None:
    """Found with mcabber: the message waits for its answer (XEP-0115), and came as a copy before."""

    async def story() -> None:
        world = await World().start()
        alice, bob = await world.connect("alice@a.test/x"), await world.connect("bob@a.test/desk")
        await bob.ask(Element(f"{{{CARBONS}}}enable"), kind="set", id="carbons")
        caps, query = announce([E2E])
        await bob.present(0, caps)
        asked = next(s for s in reversed(bob.stanzas) if s.local == "iq" and s.get("type") == "get")
        await alice.say("bob@a.test", "only once", type="chat")
        assert bob.messages() == []
        await bob.send(Element("{jabber:client}iq", {"type": "result", "id": asked.get("id"), "to": "a.test"}, [query]))
        assert copies(bob, "received") == []
        assert bob.texts() == ["only once"]

    run(story())


def test_a_message_to_oneself_is_not_doubled() -> None:
    async def story() -> None:
        world = await World().start()
        phone, pad = await copied(world, "alice@a.test/phone"), await copied(world, "alice@a.test/pad")
        await phone.say("alice@a.test", "note", type="chat")
        assert (phone.texts(), pad.texts()) == (["note"], ["note"])
        assert not copies(phone, "sent") + copies(pad, "sent") + copies(phone, "received") + copies(pad, "received")

    run(story())


def test_what_a_user_sends_by_another_protocol_is_copied_octet_for_octet() -> None:
    """One account, any protocol: a SIP phone's message is seen on the XMPP devices."""

    async def story() -> None:
        world = await World().start()
        caps, query = announce(["urn:ietf:params:xml:ns:xmpp-e2e"])
        pad = await world.connect("alice@a.test/pad")
        await pad.present(0, caps)
        asked = next(s for s in pad.stanzas if s.local == "iq" and s.get("type") == "get")
        answer = {"type": "result", "id": asked.get("id"), "to": asked.get("from")}
        await pad.send(Element("{jabber:client}iq", answer, [query]))
        await pad.ask(Element(f"{{{CARBONS}}}enable"), kind="set", id="on")
        alice, bob = Address.parse("im:alice@a.test"), Address.parse("im:bob@a.test")
        thing = wrap(alice, bob, b"hi", "text/plain; charset=utf-8", when=world.clock.when(), message_id="m")
        await world.submit(MessageOperation(alice, bob, "t", thing, context=Context(source_resource="pad")))
        (copy,) = copies(pad, "sent")
        carrier = copy.find(E2E_ELEMENT)
        assert carrier is not None
        assert unwrap_entity(carrier) == thing.entity

    run(story())


def test_a_resumed_stream_still_gets_copies_and_those_it_missed() -> None:
    async def story() -> None:
        world = await World().start()
        phone, pad = await world.online("alice@a.test/phone"), await copied(world, "alice@a.test/pad")
        await pad.lose()
        await phone.say("bob@a.test", "missed", type="chat")
        again = await world.connect("alice@a.test/pad", resume=pad.session.sm_state)
        assert again.of(events.Resumed)
        await phone.say("bob@a.test", "seen", type="chat")
        assert texts(copies(again, "sent")) == ["missed", "seen"]

    run(story())


def test_a_device_that_takes_nothing_gets_no_more_copies() -> None:
    """Copies are no promise: room on the stream is for messages."""

    async def story() -> None:
        world = await World(user_message_burst=1000, user_stanzas=1000.0, contacts=20).start()
        phone, pad = await world.online("alice@a.test/phone"), await copied(world, "alice@a.test/pad")
        pad.acknowledges = False
        for n in range(230):
            await phone.say("bob@a.test", str(n), type="chat")
        connection = world.binding._ground.devices.by_link[pad.link]
        assert connection.sm is not None
        assert len(connection.sm.outgoing) == 200
        assert not pad.of(events.StreamEnded)

    run(story())


def test_typing_states_wait_while_nobody_looks_and_messages_do_not() -> None:
    """XEP-0352 with XEP-0085."""

    async def story() -> None:
        world = await World().start()
        alice, bob = await world.online("alice@a.test/phone"), await world.online("bob@a.test/pad")
        before = len(bob.stanzas)

        async def types(state: str) -> None:
            child = Element(f"{{http://jabber.org/protocol/chatstates}}{state}")
            await alice.send(Element(MESSAGE, {"to": "bob@a.test", "type": "chat"}, [child]))

        bob.session._write(Element(f"{{{CSI}}}inactive"))
        await world.settle()
        for state in ("composing", "paused", "composing"):
            await types(state)
        assert len(bob.stanzas) == before
        await alice.say("bob@a.test", "hello", type="chat")
        firsts = [next(m.elements()).local for m in bob.messages()]
        assert firsts == ["composing", "body"], "the last state, then the message"
        assert bob.texts() == ["hello"]
        await types("active")
        bob.session._write(Element(f"{{{CSI}}}active"))
        await world.settle()
        assert len(bob.messages()) == 3

    run(story())
