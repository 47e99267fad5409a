"""The attached bindings, told alike: ``comity.service.presence.edges``."""

from __future__ import annotations

import logging

import pytest

from comity.cpim.address import Address
from comity.service.presence.interfaces import ContactItem
from comity.testing.presence import PresenceBench, RecordingEdge
from tests.loop import in_loop

ALICE, BOB = "im:alice@a.test", "im:bob@a.test"


class Broken(RecordingEdge):
    """An edge that fails at what it has not foreseen."""

    def asked(self, item: ContactItem) -> None:
        raise RuntimeError("not foreseen")

    contact_changed = asked


@in_loop
async def test_what_one_edge_fails_at_the_others_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """F-POISON: and who asked hears that it was done, since it is."""
    bench = await PresenceBench().start()
    bench.presence.attach("sip", Broken(bench.clock))
    contacts, alice, bob = bench.presence.contacts, Address.parse(ALICE), Address.parse(BOB)
    with caplog.at_level(logging.CRITICAL, "comity"):
        item = await contacts.put(alice, bob, "Bob", (), bench.origin(ALICE))
    assert isinstance(item, ContactItem)
    assert [word for word, _ in bench.xmpp.others] == ["contact_changed"]
