"""Since when nobody uses a device: from one XMPP program to another, and withheld where its owner says so (PRES-20)."""

from __future__ import annotations

import pytest

from comity.service.interfaces import Origin
from comity.service.presence.interfaces import StoredDocument
from tests.bindings.xmpp.test_personal import JULIET, ROMEO, lets_see, start
from tests.bindings.xmpp.world import read, run

IDLE = "<idle xmlns='urn:xmpp:idle:1' since='2025-12-31T23:30:00Z'/>"
RULES = """<?xml version="1.0" encoding="UTF-8"?>
<ruleset xmlns="urn:ietf:params:xml:ns:common-policy" xmlns:pr="urn:ietf:params:xml:ns:pres-rules">
 <rule id="romeo"><conditions><identity><one id="sip:romeo@example.com"/></identity></conditions>
  <actions><pr:sub-handling>allow</pr:sub-handling></actions>
  <transformations><pr:provide-services><pr:all-services/></pr:provide-services>
   <pr:provide-user-input>{much}</pr:provide-user-input></transformations></rule></ruleset>"""


@pytest.mark.parametrize(
    ("much", "is_told"), [("full", True), ("thresholds", False), ("bare", False), ("false", False)]
)
def test_an_owner_withholds_it_by_a_rule(much: str, is_told: bool) -> None:
    """PRES-20, RFC 5025 section 3.3.2.12: idle without a time cannot be said in XMPP (XEP-0319), so nothing is."""

    async def story() -> None:
        world = await start()
        await lets_see(world, JULIET, ROMEO)
        origin = Origin(JULIET, "xmpp", "192.0.2.1", True)
        rules = RULES.format(much=much).encode()
        kept = await world.presence.documents.put(
            JULIET, "pres-rules/index", "application/auth-policy+xml", rules, origin
        )
        assert isinstance(kept, StoredDocument), kept
        romeo = await world.online("romeo@example.com/x")
        desk = await world.connect("juliet@example.com/desk")
        await desk.tell(f"<presence><status>gone</status>{IDLE}</presence>")
        (heard,) = [s for s in romeo.take() if s.get("from") == "juliet@example.com/desk"]
        assert (heard.find("{urn:xmpp:idle:1}idle") == read(IDLE)) is is_told
        assert (heard.find("{urn:xmpp:idle:1}idle") is not None) is is_told

    run(story())


def test_to_everybody_else_it_is_told() -> None:
    async def story() -> None:
        world = await start()
        await lets_see(world, JULIET, ROMEO)
        romeo = await world.online("romeo@example.com/x")
        desk = await world.connect("juliet@example.com/desk")
        await desk.tell(f"<presence>{IDLE}</presence>")
        (heard,) = [s for s in romeo.take() if s.get("from") == "juliet@example.com/desk"]
        assert list(heard.elements()) == [read(IDLE)]

    run(story())
