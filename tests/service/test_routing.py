"""Lanes and the contacts of an operation: service/routing.py."""

from __future__ import annotations

from dataclasses import replace

from comity.cpim.operations import Fate, Reason, Report
from comity.service.interfaces import Contact
from comity.service.routes import Route
from comity.service.routing import contacts_for, domain_of_hop, hop_lane, inbox_lane, is_lane_of, receipt_lane
from comity.testing.service import Bench


def test_a_lane_tells_whose_messages_it_holds() -> None:
    """What is saved of a damaged store goes by it."""
    bench = Bench(routes=[Route("b.test", "sip", "tls://b.test")])
    hop = bench.pipeline.routes.hop("b.test")
    assert hop is not None
    assert domain_of_hop(hop_lane(hop)) == "b.test"
    here, there = bench.operation("x"), bench.operation("x", destination="im:bob@b.test")
    asked = replace(here, context=replace(here.context, wants_receipt="apex"))
    key = here.destination.key
    assert is_lane_of(inbox_lane(key), here)
    assert is_lane_of(hop_lane(hop), there)
    assert is_lane_of(receipt_lane("apex", key), asked)
    assert not is_lane_of(inbox_lane("im:carol@a.test"), here)
    assert not is_lane_of(hop_lane(hop), here)
    assert not is_lane_of(receipt_lane("apex", "im:carol@a.test"), asked)


def test_only_devices_of_the_protocol_that_asked_get_what_is_no_failure() -> None:
    bench = Bench()
    operation = bench.operation("x", wants_receipt="apex", resource="phone")
    devices = [Contact(name, operation.destination, name, name, -1) for name in ("sip", "xmpp", "apex")]
    for fate, expected in ((Fate.DELIVERED, ["apex"]), (Fate.DELAYED, ["apex"]), (Fate.FAILED, [])):
        report = Report(Reason.INTERNAL, "", operation.destination, fate=fate)
        told = replace(operation, context=replace(operation.context, report=report))
        assert [contact.binding for contact in contacts_for(told, devices)] == expected
