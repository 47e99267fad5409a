"""Presence that its owner signed or sealed, through the whole XMPP side (RFC 3923 section 4, SEED-46, PRES-22)."""

from __future__ import annotations

import pytest

from comity.bindings.xmpp.e2e import E2E, OCTETS, unwrap_entity, unwrap_octets, wrap_entity
from comity.cpim.address import Address
from comity.cpim.entity import split_entity
from comity.cpim.operations import MimeObject
from comity.cpim.presence import PresenceDocument
from comity.service.interfaces import Origin
from comity.service.presence.interfaces import Statement
from comity.xml import Element
from tests.bindings.xmpp.test_personal import knowing, lets_see, start
from tests.bindings.xmpp.test_presence import SIGNED
from tests.bindings.xmpp.world import World, run

JULIET, ROMEO, PARIS = (Address.parse(f"im:{name}@example.com") for name in ("juliet", "romeo", "paris"))
TODAY = b"2026-01-01T00:00:00Z"


def signed(world: World, note: str = "") -> MimeObject:
    """A document of now, as if Juliet had signed it."""
    when = world.clock.when().strftime("%Y-%m-%dT%H:%M:%SZ").encode()
    octets = SIGNED.replace(b"2003-12-09T23:53:11.31Z", when).replace(b"retired to the chamber", note.encode())
    return split_entity(octets)


def said(obj: MimeObject) -> Statement:
    start = obj.octets.index(b"<?xml")
    end = obj.octets.index(b"</presence>") + len(b"</presence>\r\n")
    return Statement(PresenceDocument.parse(obj.octets[start : end - 2]), obj)


def of_juliet(stanzas: list[Element]) -> list[Element]:
    return [s for s in stanzas if s.local == "presence" and s.get("from").startswith("juliet@")]


async def watched() -> World:
    world = await start()
    await lets_see(world, JULIET, ROMEO)
    await lets_see(world, JULIET, PARIS)
    return world


@pytest.mark.parametrize(("feature", "unwrap"), [(E2E, unwrap_entity), (OCTETS, unwrap_octets)])
def test_a_signed_document_reaches_who_takes_it_whole_and_all_others_unsigned(feature: str, unwrap: object) -> None:
    """SEED-46."""
    assert callable(unwrap)

    async def story() -> None:
        world = await watched()
        romeo, paris = await knowing(world, "romeo@example.com/x", feature), await world.online("paris@example.com/x")
        obj = signed(world, "here")
        answer = world.presence.publish(JULIET, said(obj), Origin(JULIET, "sip", "192.0.2.1", True), lease=600)
        assert not hasattr(answer, "reason"), answer
        await world.settle()
        (whole,) = of_juliet(romeo.take())
        (plain,) = of_juliet(paris.take())
        carried = [c for c in whole.elements() if c.namespace in (E2E, OCTETS)]
        assert [unwrap(c) for c in carried] == [obj.entity]
        assert b"pkcs7-signature" not in str(plain).encode()
        for stanza in (whole, plain):
            status = stanza.find("{jabber:client}status")
            assert status is not None
            assert status.text == "here"

    run(story())


def test_a_signature_that_does_not_cover_all_goes_to_nobody() -> None:
    """PRES-22: with a second device the server's own words go out, unsigned."""

    async def story() -> None:
        world = await watched()
        romeo = await knowing(world, "romeo@example.com/x", E2E)
        world.presence.publish(JULIET, said(signed(world)), Origin(JULIET, "sip", "192.0.2.1", True), lease=600)
        await world.settle()
        romeo.take()
        desk = await world.online("juliet@example.com/desk")
        heard = of_juliet(romeo.take())
        assert [s.get("from") for s in heard] == ["juliet@example.com/desk"]
        assert all(child.namespace != E2E for stanza in heard for child in stanza.elements())
        assert desk.session.jid is not None

    run(story())


def test_a_device_that_broadcasts_a_signed_document_is_heard_signed() -> None:
    async def story() -> None:
        world = await watched()
        romeo = await knowing(world, "romeo@example.com/x", E2E)
        desk = await world.connect("juliet@example.com/desk")
        obj = signed(world, "signed by a client")
        element = wrap_entity(obj.entity)
        assert element is not None
        await desk.present(0, element)
        (heard,) = of_juliet(romeo.take())
        assert [unwrap_entity(c) for c in heard.elements() if c.namespace == E2E] == [obj.entity]

    run(story())


def test_a_sealed_object_for_one_person_arrives_as_it_is() -> None:
    """XMPP-18: directed presence."""

    async def story() -> None:
        world = await watched()
        romeo = await world.online("romeo@example.com/x")
        desk = await world.online("juliet@example.com/desk")
        romeo.take()
        entity = b"Content-Type: application/pkcs7-mime; smime-type=enveloped-data\r\n\r\nsealed for romeo\r\n"
        element = wrap_entity(entity)
        assert element is not None
        await desk.send(Element("{jabber:client}presence", {"to": "romeo@example.com"}, [element]))
        (heard,) = of_juliet(romeo.take())
        assert [unwrap_entity(child) for child in heard.elements()] == [entity]

    run(story())
